"""`status`, as an operator meets it: after the verbs that check, and after what happens to a machine since."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sie_airgap.proof.golden import record
from sie_airgap.proof.golden_file import encode_golden
from sie_airgap.settings import state_folder
from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_airgap.verifying.checks import LEVELS, Check, Kind, Level
from sie_airgap.verifying.records import Records, stamps_of
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, lock_digest, lock_file
from sie_core.ids import Revision
from sie_testing.carried import FILES, Run, make_lock
from sie_testing.tiny_worker import PLAIN, REVISION, WHOLE, tiny_worker

_VOCABULARY = f"models--org--small/snapshots/{'ab' * 20}/sub/vocab.txt"
Asked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def asked(airgap: Run) -> Asked:
    """`status` as JSON: exit code, and what it said."""

    def ask(*words: str | Path) -> tuple[int, dict[str, Any]]:
        code, out, err = airgap("status", *words, "--output", "json")
        assert out, err
        return code, json.loads(out)

    return ask


def levels(said: dict[str, Any]) -> str:
    """The state of each level, one word each."""
    return " ".join(one["state"] for one in said["levels"])


def test_of_a_store_that_nobody_checked_only_the_lock_is_known(asked: Asked, store: BlobFolder, lock: Lock) -> None:
    code, said = asked("--from", store.root)

    assert (code, said["lock"], said["highest"]) == (0, lock_digest(lock), "L0")
    assert levels(said) == "holds unknown unknown nothing unknown unknown unknown unknown unknown"
    assert said["next"] == f"sie-airgap verify {store.root}"


def test_each_verification_raises_the_ladder_as_far_as_it_goes(
    airgap: Run, asked: Asked, archive: Path, store: BlobFolder, tmp_path: Path
) -> None:
    assert airgap("verify", archive)[0] == 0
    assert asked("--from", store.root)[1]["highest"] == "L2"
    bucket = f"file://{tmp_path}/bucket"
    assert airgap("mirror", "weights", bucket, "--from", store.root)[0] == 0
    assert asked("--from", store.root)[1]["highest"] == "L2"
    assert airgap("verify", bucket)[0] == 0

    code, said = asked("--from", archive)
    assert (code, said["highest"]) == (0, "L4")
    assert said["next"] == "sie-airgap status --values values-offline.yaml"
    (place,) = said["levels"][Level.BUCKET]["places"]
    assert (place["place"], place["state"], place["seen"]) == (bucket, "held", "lock, manifests and lengths are so now")
    assert place["since_s"] <= place["checked_s"]


def test_it_reads_as_a_table_with_the_next_command_last(airgap: Run, archive: Path, store: BlobFolder) -> None:
    airgap("verify", archive)

    code, out, err = airgap("status", "--from", store.root)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split() == ["now", "checked", "since", "where,", "and", "what", "was", "found"]
    assert lines[4].startswith("L2  every byte carried  held")
    assert "archive sie-test: every byte is what was locked" in lines[4]
    assert lines[-2] == "L2 every byte carried is the highest level that is true now"
    assert lines[-1].startswith("next: sie-airgap verify s3://")


def test_media_that_were_carried_away_were_right_all_the_same(
    airgap: Run, asked: Asked, archive: Path, store: BlobFolder, tmp_path: Path, lock: Lock
) -> None:
    _remember(lock, Kind.MEDIA, "archive sie-test", files=[*archive.glob("*.tar")])
    assert asked("--from", store.root)[1]["levels"][Level.MEDIA]["state"] == "holds"
    archive.rename(tmp_path / "carried away")

    (place,) = asked("--from", store.root)[1]["levels"][Level.MEDIA]["places"]
    assert (place["state"], place["seen"]) == ("held", "the media are not here now")


def test_a_store_that_was_written_to_or_lost_a_blob_since_is_told(asked: Asked, store: BlobFolder, lock: Lock) -> None:
    blobs = sorted((store.root / "blobs" / "sha256").iterdir())
    _remember(lock, Kind.STORE, str(store.root), files=blobs)
    assert asked("--from", store.root)[1]["levels"][Level.MEDIA]["state"] == "holds"

    blobs[0].write_bytes(blobs[0].read_bytes())
    code, said = asked("--from", store.root)
    assert (code, said["highest"], said["levels"][Level.MEDIA]["state"]) == (12, "L0", "changed")
    assert str(blobs[0]) in said["levels"][Level.MEDIA]["places"][0]["seen"]

    blobs[0].unlink()
    code, said = asked("--from", store.root)
    assert (code, said["levels"][Level.MEDIA]["state"]) == (4, "fails")
    assert said["next"] == f"sie-airgap verify {store.root}"


def _remember(lock: Lock, kind: Kind, place: str, *, files: list[Path], **said: Any) -> Check:
    """A check as a verb writes it down whose files were settled when it read them."""
    facts: dict[str, Any] = {"at_s": 1_700_000_000, "since_s": 1_700_000_000, "exit_code": 0, "said": "as locked"}
    facts |= {"by": "0.3.1", "again": ("verify", *map(str, files))} | said
    stamps = {name: stamp for name, stamp in stamps_of(files).items() if stamp is not None}
    check = Check(LEVELS[kind], kind, lock_digest(lock), place, files=stamps, **facts)
    return Records(state_folder()).keep(check, pytest.fail)


def test_a_medium_that_is_damaged_fails_until_it_is_verified_again(
    airgap: Run, asked: Asked, archive: Path, store: BlobFolder
) -> None:
    volume = archive / "v0002.tar"
    whole = volume.read_bytes()
    volume.write_bytes(whole[:500_000] + b"\0" + whole[500_001:])
    assert airgap("verify", archive)[0] == 3
    volume.write_bytes(whole)

    code, said = asked("--from", store.root)
    assert (code, levels(said).split()[:3]) == (3, ["holds", "held", "fails"])
    assert said["highest"] == "L1"
    assert said["next"].startswith("sie-airgap verify /")
    assert "v0002.tar" in said["next"]
    assert airgap(*said["next"].split()[1:])[0] == 0
    assert asked("--from", store.root)[1]["highest"] == "L2"


def test_a_missing_volume_is_missing_from_the_index(
    airgap: Run, asked: Asked, archive: Path, store: BlobFolder
) -> None:
    (archive / "v0002.tar").unlink()
    airgap("verify", archive)

    code, said = asked("--from", store.root)
    assert (code, levels(said).split()[:3]) == (4, ["holds", "fails", "fails"])


@pytest.fixture
def bucket(airgap: Run, store: BlobFolder, tmp_path: Path) -> Path:
    """A bucket that was mirrored and verified."""
    url = f"file://{tmp_path}/bucket"
    assert airgap("verify", store.root)[0] == 0
    assert airgap("mirror", "weights", url, "--from", store.root)[0] == 0
    assert airgap("verify", url)[0] == 0
    return tmp_path / "bucket"


@pytest.mark.parametrize(
    ("name", "data", "code", "says"),
    [
        (".sie/current", b"sha256:" + b"0" * 64, 8, "was filled from another lock"),
        ("models--org--small/refs/main", b"0" * 40, 3, "`models--org--small/refs/main` of `org/small` is not what"),
        (f"models--org--small/snapshots/{'ab' * 20}/sub/vocab.txt", b"x", 3, "`sub/vocab.txt` of `org/small` is not"),
        (
            f"models--org--small/snapshots/{'ab' * 20}/sub/vocab.txt",
            None,
            4,
            "`sub/vocab.txt` of `org/small` is not in",
        ),
    ],
)
def test_what_shows_of_a_bucket_at_once_is_looked_at_now(
    asked: Asked, store: BlobFolder, bucket: Path, name: str, data: bytes | None, code: int, says: str
) -> None:
    assert asked("--from", store.root)[1]["highest"] == "L4"
    if data is None:
        (bucket / name).unlink()
    else:
        (bucket / name).write_bytes(data)

    ended, said = asked("--from", store.root)
    assert (ended, said["highest"], said["levels"][Level.BUCKET]["state"]) == (code, "L2", "fails")
    assert says in said["levels"][Level.BUCKET]["places"][0]["seen"]


def test_a_bucket_that_did_not_hold_does_not_hold_for_looking_well(
    airgap: Run, asked: Asked, store: BlobFolder, bucket: Path
) -> None:
    file = bucket / _VOCABULARY
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert asked("--from", store.root)[1]["highest"] == "L4"
    assert airgap("verify", f"file://{bucket}")[0] == 3

    code, said = asked("--from", store.root)
    assert (code, said["highest"]) == (3, "L2")
    assert said["levels"][Level.BUCKET]["places"][0]["said"] == "`sub/vocab.txt` of `org/small` is not what was locked"


def test_a_bucket_that_does_not_answer_now_is_not_known_to_hold(
    airgap: Run, asked: Asked, store: BlobFolder, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    again = ("verify", "s3://models/w/", "--lock", "airgap.lock", "--endpoint", "http://127.0.0.1:1")
    _remember(lock, Kind.STORE, str(store.root), files=[])
    _remember(lock, Kind.BUCKET, "s3://models/w/", files=[], again=again)

    code, said = asked("--from", store.root)
    assert (code, said["highest"], said["levels"][Level.BUCKET]["state"]) == (5, "L2", "away")
    words = f"sie-airgap verify s3://models/w/ --lock {store.root}/airgap.lock --endpoint http://127.0.0.1:1"
    assert said["next"] == words
    assert asked("--from", store.root, "--up-to", "L2")[0] == 0
    _, out, err = airgap("status", "--from", store.root)
    assert "NOT REACHED" in out
    assert f"hint: `{words}`" in err


def test_after_the_next_lock_nothing_holds_until_it_is_checked_and_the_next_command_is_known(
    airgap: Run, asked: Asked, store: BlobFolder, bucket: Path
) -> None:
    write_lock(store.root / "airgap.lock", make_lock(FILES, serial=2))

    code, out, _ = airgap("status", "--from", store.root)
    assert code == 0
    assert "never checked for this lock; held for sha256:" in out
    assert "L0 signature and lock is the highest" in out
    code, said = asked("--from", store.root, "--up-to", "L4")
    assert (code, said["next"]) == (12, f"sie-airgap verify {store.root}")


@pytest.mark.parametrize(("up_to", "code"), [("L0", 0), ("L4", 0), ("L5", 12), ("L8", 12)])
def test_every_level_up_to_the_one_that_is_asked_for_has_to_be_true(
    airgap: Run, store: BlobFolder, bucket: Path, up_to: str, code: int
) -> None:
    ended, _, err = airgap("status", "--from", store.root, "--up-to", up_to)

    assert ended == code
    assert ("L5 rendered manifests: never checked" in err) == bool(code)


def test_a_record_that_cannot_be_read_is_named_and_ends_with_findings(
    airgap: Run, asked: Asked, store: BlobFolder, bucket: Path
) -> None:
    (record_path,) = (state_folder() / "checks").glob("*/L4-bucket-*.json")
    record_path.write_bytes(b'{"half":')

    code, out, err = airgap("status", "--from", store.root)
    assert code == 12
    assert f"not read: {record_path}: " in out
    assert f"{record_path} cannot be read" in err
    assert asked("--from", store.root)[1]["highest"] == "L2"
    assert airgap("verify", f"file://{bucket}")[0] == 0
    assert asked("--from", store.root)[0] == 0
    of_another_lock = record_path.parent.with_name("0" * 64) / record_path.name
    of_another_lock.parent.mkdir()
    of_another_lock.write_bytes(b"{")
    code, said = asked("--from", store.root)
    assert (code, [one["record"] for one in said["not_read"]]) == (0, [str(of_another_lock)])


def test_a_verb_that_cannot_write_its_record_ends_as_it_would_have(
    airgap: Run, store: BlobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_bytes(b"a file where the folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    code, out, err = airgap("verify", store.root)
    assert (code, out) == (0, f"{store.root}: every byte is what was locked\n")
    assert "note: what was found is not remembered for `status`" in err


def test_a_lock_that_is_not_signed_as_the_pinned_root_wants_is_the_lowest_that_fails(
    airgap: Run, asked: Asked, store: BlobFolder, bucket: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    secret = ("--passphrase-file", "secret")
    for words in (
        ("trust", "key", "alice", *secret),
        ("trust", "root", "root.json", "--lock-key", "alice.pub", "--root-key", "alice.pub"),
        ("sign", "root.json", "--key", "alice.pem", *secret),
        ("trust", "pin", "root.json.dsse"),
    ):
        assert airgap(*words)[0] == 0

    code, said = asked("--from", store.root)
    assert (code, said["highest"], said["levels"][0]["state"]) == (3, None, "fails")
    assert said["next"] == "sie-airgap trust show --trust trust.json"
    assert airgap("sign", store.root, "--key", "alice.pem", *secret)[0] == 0
    code, said = asked("--from", store.root)
    assert (code, said["highest"]) == (0, "L4")
    assert "signed as root 1 wants it" in said["levels"][0]["places"][0]["said"]
    assert asked("--lock", store.root / "airgap.lock")[1]["highest"] == "L4"


def test_a_lock_that_was_edited_is_refused(airgap: Run, store: BlobFolder) -> None:
    path = store.root / "airgap.lock"
    path.write_bytes(path.read_bytes().replace(b'"license": "mit"', b'"license": "own"'))

    code, out, err = airgap("status", "--from", store.root)
    assert (code, out) == (3, "")
    assert "the lock is not as it was written" in err


def test_a_worker_is_asked_again_and_answers_are_as_old_as_they_are(airgap: Run, asked: Asked, tmp_path: Path) -> None:
    lock = make_lock({model: {"model.safetensors": b"x"} for model in (WHOLE, PLAIN)}, revision=Revision(REVISION))
    write_lock(tmp_path / "airgap.lock", lock)
    with tiny_worker() as url:
        (tmp_path / "golden.json").write_bytes(encode_golden(record(lock.models[:1], lock_digest(lock), url)))
        assert airgap("verify", url, "--lock", "airgap.lock")[0] == 0
        assert airgap("golden", "compare", "golden.json", "--url", url)[0] == 0
        code, said = asked("--lock", "airgap.lock")
        assert (code, said["highest"]) == (0, "L0")
        assert [said["levels"][at]["state"] for at in (Level.RUNNING, Level.ANSWERS)] == ["holds", "held"]
        assert said["levels"][Level.RUNNING]["places"][0]["seen"] == "2 of 2 models loaded now"

    code, said = asked("--lock", "airgap.lock")
    assert (code, said["levels"][Level.RUNNING]["state"], said["levels"][Level.ANSWERS]["state"]) == (5, "away", "held")
    assert asked("--lock", "airgap.lock", "--up-to", "L0")[0] == 0


def test_pods_are_read_from_a_file_or_from_kubectl_itself(
    airgap: Run, asked: Asked, store: BlobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = f"r.example/sie/sie-server@{digest_of(b'other')}"
    running = {"name": "server", "image": image, "imageID": image, "state": {"running": {}}}
    pod = {"kind": "Pod", "metadata": {"name": "w", "namespace": "sie"}, "status": {"containerStatuses": [running]}}
    data = json.dumps({"items": [pod]}).encode()
    (tmp_path / "pods.json").write_bytes(data)

    code, said = asked("--from", store.root, "--pods", "pods.json")
    assert (code, said["levels"][Level.RUNNING]["state"]) == (8, "fails")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))
    code, said = asked("--from", store.root, "--pods", "-")
    assert (code, [one["place"] for one in said["levels"][Level.RUNNING]["places"]]) == (8, ["pods in sie"])
    assert said["levels"][Level.RUNNING]["places"][0]["exit_code"] == 8
    assert asked("--from", store.root)[0] == 8  # it was written down


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--from", "store", "--pods", "nowhere.json"], 4, "nowhere.json"),
        (["--from", "store", "--pods", "store/airgap.lock"], 2, "is no list of pods"),
        (["--lock", "store/airgap.lock", "--values", "v.yaml"], 2, "name the store or the media that hold it"),
        (["--from", "store", "--up-to", "L9"], 2, "L9"),
        ([], 4, "there is nothing at airgap-store"),
    ],
)
def test_mistakes_end_with_the_documented_code_and_say_what_to_do(
    airgap: Run, store: BlobFolder, words: list[str], code: int, says: str
) -> None:
    ended, _, err = airgap("status", *words)

    assert ended == code, err
    assert says in err
    assert "Traceback" not in err


def test_what_strangers_wrote_moves_no_cursor(airgap: Run, store: BlobFolder, lock: Lock) -> None:
    _remember(lock, Kind.MEDIA, "archive \x1b[2J", files=[])

    _, out, _ = airgap("status", "--from", store.root)
    assert "\x1b" not in out
    assert "archive \\x1b[2J" in out


def test_the_bucket_says_which_lock_it_is_of(bucket: Path, lock: Lock) -> None:
    """What the cases above change is what is there."""
    assert (bucket / ".sie" / "current").read_text() == lock_digest(lock)
    assert (bucket / lock_file(lock_digest(lock))).is_file()
