"""What is known of one thing in a lock, by whatever it is called, and who asked for it in the end."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.reviewing.explaining import asked_by, find, likely, places
from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage
from sie_testing.carried import FILES, Run, make_lock

MANIFEST, LAYER = digest_of(b"manifest"), digest_of(b"layer")
SERVER = LockedImage(
    "ghcr.io/superlinked/sie-server:v0.3.1",
    MANIFEST,
    "application/vnd.oci.image.manifest.v1+json",
    {"linux/amd64": MANIFEST},
    tuple(
        sorted(
            [
                LockedBlob(MANIFEST, 8, "application/vnd.oci.image.manifest.v1+json"),
                LockedBlob(LAYER, 5, "application/vnd.oci.image.layer.v1.tar"),
            ]
        )
    ),
    (),
    ("StatefulSet/sie, container worker",),
)


@pytest.fixture
def rich() -> Lock:
    """Two models, of which one is the other's base, and an image."""
    lock = make_lock(FILES)
    large, small = lock.models
    small = msgspec.structs.replace(small, why=("base of org/large",), license=None, gated=True)
    large = msgspec.structs.replace(
        large, why=("bundle x", "--model"), remote_code=("config.json: auto_map.AutoModel = m.M",)
    )
    return msgspec.structs.replace(lock, models=(large, small), images=(SERVER,))


def named(lock: Lock, what: str) -> list[tuple[str, str]]:
    return [(subject.kind, subject.name) for subject in find(lock, what)]


@pytest.mark.parametrize(
    ("what", "want"),
    [
        ("org/large", [("model", "org/large")]),
        ("ab" * 20, [("model", "org/large"), ("model", "org/small")]),
        ("ababab", [("model", "org/large"), ("model", "org/small")]),
        ("sub/vocab.txt", [("file", "org/small sub/vocab.txt")]),
        ("vocab.txt", [("file", "org/small sub/vocab.txt")]),
        ("org/small/sub/vocab.txt", [("file", "org/small sub/vocab.txt")]),
        ("config.json", [("file", "org/large config.json"), ("file", "org/small config.json")]),
        (digest_of(b"{}"), [("file", "org/large config.json")]),
        (digest_of(b"{}")[7:17], [("file", "org/large config.json")]),
        ("ghcr.io/superlinked/sie-server:v0.3.1", [("image", SERVER.reference)]),
        ("superlinked/sie-server", [("image", SERVER.reference)]),
        ("sie-server:v0.3.1", [("image", SERVER.reference)]),
        ("sie-server", [("image", SERVER.reference)]),
        ("server", []),
        (LAYER, [("blob", f"{LAYER} of {SERVER.reference}")]),
        ("sie-cluster", [("chart", "sie-cluster-0.3.1.tgz")]),
        ("sie-airgap", [("wheel", "sie_airgap-0.3.1-py3-none-any.whl")]),
        ("sie_airgap-0.3.1-py3-none-any.whl", [("wheel", "sie_airgap-0.3.1-py3-none-any.whl")]),
        ("", []),
        ("sha256:", []),
        ("abab", []),
    ],
)
def test_a_thing_is_found_by_whatever_it_is_called(rich: Lock, what: str, want: list[tuple[str, str]]) -> None:
    assert named(rich, what) == want


@given(st.text(max_size=20) | st.sampled_from(["sha256:", "org/", "/"]))
def test_no_name_breaks_the_looking(what: str) -> None:
    lock = msgspec.structs.replace(make_lock(FILES), images=(SERVER,))

    assert all(subject.why for subject in find(lock, what))
    likely(lock, what)


def test_what_a_model_is_and_needs_is_told(rich: Lock) -> None:
    large, small = (find(rich, name)[0].facts for name in ("org/large", "org/small"))

    assert large["remote code"] == "named, not carried, never run: config.json: auto_map.AutoModel = m.M"
    assert large["needs"] == "org/small (base of org/large)"
    assert large["carried"] == "whole"
    assert (small["licence"], small["gate"]) == ("not named", "the hub wants its licence accepted")
    assert small["carried"] == "without its weights: only as a part of others"


def test_a_reason_is_followed_to_whoever_asked_first(rich: Lock) -> None:
    (small,) = find(rich, "org/small")

    assert small.why == ("base of org/large ← bundle x and --model",)


def test_reasons_that_go_round_in_a_circle_end(rich: Lock) -> None:
    large, small = rich.models
    large = msgspec.structs.replace(large, why=("adapted by org/small",))
    circle = msgspec.structs.replace(rich, models=(large, small))

    assert asked_by(circle, large.why) == ("adapted by org/small ← base of org/large ← adapted by org/small",)


def test_where_the_bytes_are_is_said_with_what_is_missing(rich: Lock) -> None:
    (model,) = find(rich, "org/large")
    first, second = model.digests
    told = places(model, present={first}, volumes={"on": {first: ["v0001.tar", "v0002.tar"]}})

    assert told == {"in the store": "1 of 2 blobs", "on": "v0001.tar, v0002.tar; 1 blob on none that is here"}
    assert places(model, present={first, second}, volumes={}) == {"in the store": "yes"}
    assert places(model, present=None, volumes={"on": {}})["on"].startswith("no volume; 2 blobs")


@pytest.fixture
def written(tmp_path: Path, rich: Lock) -> Path:
    write_lock(tmp_path / "airgap.lock", rich)
    return tmp_path


@pytest.mark.usefixtures("written")
def test_why_looks_into_a_lock_alone(airgap: Run) -> None:
    code, out, _ = airgap("why", "vocab.txt", "--lock", "airgap.lock")

    assert (code, out) == (0, "file org/small sub/vocab.txt: base of org/large ← bundle x and --model\n")


@pytest.mark.usefixtures("written")
def test_explain_looks_into_a_lock_alone_and_says_which_volume_it_would_be(airgap: Run) -> None:
    code, out, _ = airgap("explain", "sie-server", "--lock", "airgap.lock")

    assert code == 0
    lines = [line.split(None, 1) for line in out.splitlines()]
    assert ["digest", MANIFEST] in lines
    assert "on dvd, if packed" in out
    assert "volume 1 of 1" in out
    assert "StatefulSet/sie, container worker\n" in out
    assert "in the store" not in out


def test_explain_names_the_volumes_that_hold_it(airgap: Run, archive: Path) -> None:
    (archive / "v0002.tar").unlink()
    code, out, _ = airgap("explain", "org/large", "--from", archive, "--output", "json")
    (model,) = json.loads(out)["found"]

    assert code == 0
    assert "v0001.tar" in model["facts"]["on"]
    assert model["bytes"] == sum(len(data) for data in FILES["org/large"].values())


def test_explain_says_what_the_store_has(airgap: Run, store: BlobFolder) -> None:
    store.path(digest_of(FILES["org/small"]["sub/vocab.txt"])).unlink()
    code, out, _ = airgap("explain", "org/small", "--from", store.root)

    assert code == 0
    assert "2 of 3 blobs" in out


@pytest.mark.parametrize("verb", ["why", "explain"])
@pytest.mark.usefixtures("written")
def test_a_name_that_is_not_there_is_answered_with_the_nearest(airgap: Run, verb: str) -> None:
    code, _, err = airgap(verb, "org/smal", "--lock", "airgap.lock")

    assert code == 4
    assert "did you mean `org/small`" in err
