"""`lock` as an operator runs it twice: what stays, what moves, what is refused, and what each ends with."""

import json
import shutil
from pathlib import Path

import pytest

from sie_airgap.store.blobs import read_lock
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock
from sie_core.catalog.catalog import Catalog
from sie_core.ids import Revision
from sie_testing import parts
from sie_testing.carried import FILES, Run
from sie_testing.hub import Hub as Fake
from sie_testing.hub import serving_hub
from sie_testing.images import write_images
from sie_testing.wheels import write_ours

SMALL = ["--model", "org/small"]
BOTH = [*SMALL, "--model", "org/large"]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Unlike elsewhere its repositories have no fixed commit: a changed file is another one."""
    for model, files in FILES.items():
        for path, data in files.items():
            file = tmp_path / "hub" / model / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return Fake(tmp_path / "hub", lfs_above_bytes=1000)


def move(tmp_path: Path, *models: str) -> None:
    for model in models or FILES:
        (tmp_path / "hub" / model / "config.json").write_bytes(b'{"moved": true}')


def lock_at(tmp_path: Path) -> Lock:
    return read_lock(tmp_path / "airgap.lock")


def commits(tmp_path: Path) -> dict[str, Revision]:
    return {model.id: model.revision for model in lock_at(tmp_path).models}


def wheels(tmp_path: Path, *, content: str = "") -> Path:
    return write_ours(tmp_path / "wheels", content=content)


@pytest.mark.usefixtures("hub")
def test_a_second_lock_changes_nothing_though_the_hub_moved_on(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *BOTH)
    before = (tmp_path / "airgap.lock").read_bytes()
    move(tmp_path)

    code, out, _ = airgap("lock", *BOTH)
    assert (code, (tmp_path / "airgap.lock").read_bytes()) == (0, before)
    assert out.startswith("airgap.lock unchanged: number 1, sha256:")


@pytest.mark.usefixtures("hub")
def test_update_moves_the_one_that_is_named_and_says_from_where_to_where(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *BOTH)
    before = commits(tmp_path)
    move(tmp_path)

    code, _, err = airgap("lock", "--update", "org/small")
    after = commits(tmp_path)
    assert code == 0
    assert after["org/large"] == before["org/large"]
    assert after["org/small"] != before["org/small"]
    assert f"~ model org/small  {before['org/small'][:12]} → {after['org/small'][:12]}" in err
    assert lock_at(tmp_path).serial == 2


@pytest.mark.usefixtures("hub")
def test_update_all_moves_everything_and_nothing_else_is_needed(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *BOTH, "--wheels", wheels(tmp_path))
    before = commits(tmp_path)
    move(tmp_path)

    assert airgap("lock", "--update-all")[0] == 0
    assert not set(before.values()) & set(commits(tmp_path).values())
    assert len(lock_at(tmp_path).wheels) == 3


@pytest.mark.usefixtures("hub")
def test_check_names_every_change_upstream_and_writes_nothing(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *BOTH)
    assert airgap("lock", "--check")[0] == 0
    before = (tmp_path / "airgap.lock").read_bytes()
    move(tmp_path)

    code, out, err = airgap("lock", "--check")
    assert (code, out) == (8, "")
    assert "~ model org/large  " in err
    assert "~ model org/small  " in err
    assert err.count("    ~ config.json  ") == 2
    assert (tmp_path / "airgap.lock").read_bytes() == before


@pytest.mark.usefixtures("hub")
def test_check_gives_programs_the_changes_with_whole_values(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL)
    move(tmp_path)

    code, out, err = airgap("lock", "--check", "--output", "json")
    told = json.loads(out)
    assert (code, told["state"], json.loads(err.splitlines()[-1])["exit_code"]) == (8, "differs", 8)
    (file,) = [change for change in told["changes"] if change["kind"] == "file"]
    assert (file["sign"], file["name"]) == ("~", "org/small config.json")
    assert (file["before"], file["after"]) == (digest_of(b'{"a":1}'), digest_of(b'{"moved": true}'))


@pytest.mark.usefixtures("hub")
def test_locked_minds_what_the_command_asks_for_and_not_what_the_hub_has(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL)
    before = (tmp_path / "airgap.lock").read_bytes()
    move(tmp_path)

    assert airgap("lock", *SMALL, "--locked")[0] == 0
    code, _, err = airgap("lock", *BOTH, "--locked")
    assert code == 8
    assert "+ model org/large  at " in err
    assert (tmp_path / "airgap.lock").read_bytes() == before
    code, _, err = airgap("lock", "--model", "org/large", "--locked")
    assert code == 8
    assert "- model org/small" in err


@pytest.mark.usefixtures("hub")
def test_without_a_lock_locked_is_drift_and_frozen_is_missing(airgap: Run, tmp_path: Path) -> None:
    assert airgap("lock", *SMALL, "--locked")[0] == 8
    code, _, err = airgap("lock", *SMALL, "--frozen")
    assert code == 4
    assert "there is no lock at airgap.lock" in err
    assert not (tmp_path / "airgap.lock").exists()


@pytest.mark.parametrize("flag", ["--locked", "--frozen", "--offline"])
def test_what_is_locked_needs_no_hub(airgap: Run, hub: Fake, flag: str) -> None:
    airgap("lock", *BOTH)
    hub.seen.clear()

    code, out, _ = airgap("lock", *BOTH, flag)
    assert code == 0
    assert "unchanged" in out
    assert not hub.seen


@pytest.mark.usefixtures("hub")
def test_offline_something_new_is_missing(airgap: Run) -> None:
    airgap("lock", *SMALL)

    code, _, err = airgap("lock", *BOTH, "--offline")
    assert code == 4
    assert "`org/large`, asked for by --model, is not in the lock" in err
    assert "hint: run the same without `--offline`" in err


@pytest.mark.usefixtures("hub")
def test_frozen_brings_wheels_to_another_store_and_refuses_others(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL, "--wheels", wheels(tmp_path))
    (wheel, *_) = lock_at(tmp_path).wheels

    assert airgap("lock", "--frozen", "--wheels", "wheels", "--store", "other")[0] == 0
    assert (tmp_path / "other/blobs/sha256" / wheel.digest[7:]).is_file()
    wheels(tmp_path, content="another")
    code, _, err = airgap("lock", "--frozen", "--wheels", "wheels", "--store", "third")
    assert code == 8
    assert wheel.digest in err
    assert err.count("  want  ") == 3


@pytest.mark.usefixtures("hub")
def test_what_a_command_does_not_mention_stays_and_is_told(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL, "--wheels", wheels(tmp_path))

    code, _, err = airgap("lock", *BOTH)
    assert code == 0
    assert "note: no --wheels, so those of the lock stay" in err
    assert len(lock_at(tmp_path).wheels) == 3


@pytest.mark.parametrize(
    "flags",
    [
        ["--check", "--locked"],
        ["--check", "--offline"],
        ["--locked", "--frozen"],
        ["--locked", "--update", "org/small"],
        ["--frozen", "--update-all"],
        ["--offline", "--update", "org/small"],
    ],
)
def test_flags_that_contradict_each_other_are_a_mistake(airgap: Run, hub: Fake, flags: list[str]) -> None:
    code, _, err = airgap("lock", *SMALL, *flags)

    assert code == 2
    assert "do not go together" in err
    assert not hub.seen


@pytest.mark.usefixtures("hub")
def test_a_lock_of_a_later_version_is_refused_and_left_alone(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL)
    path = tmp_path / "airgap.lock"
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2'))
    before = path.read_bytes()

    code, _, err = airgap("lock", *SMALL)
    assert code == 3
    assert "of a version that is not known here" in err
    assert path.read_bytes() == before


@pytest.mark.usefixtures("hub")
def test_what_strangers_wrote_moves_no_cursor(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL)
    path = tmp_path / "airgap.lock"
    path.write_bytes(path.read_bytes().replace(b'"org/small"', b'"\\u001b[2Jorg"'))

    code, _, err = airgap("why", "x", "--lock", path)
    assert code == 3
    assert "\x1b" not in err


@pytest.mark.usefixtures("hub")
def test_an_image_whose_tag_moved_stays_until_it_is_named(airgap: Run, tmp_path: Path) -> None:
    """The chart is needed once: afterwards its images are looked up by the names in the lock."""
    layout = tmp_path / "layout"
    source = ["--image-source", f"ghcr.io/superlinked=oci:{layout}"]
    chart = Path(__file__).parents[4] / "charts" / "sie-cluster"
    write_images(layout)
    assert airgap("lock", *SMALL, "--chart", chart, "--helm", parts.helm(), *source)[0] == 0
    first = {image.reference: image.digest for image in lock_at(tmp_path).images}
    shutil.rmtree(layout)
    write_images(layout, padding_bytes=10)

    assert airgap("lock", *SMALL, "--chart", chart, "--helm", parts.helm(), "--locked", "--offline")[0] == 0
    code, _, err = airgap("lock", "--check", *source)
    assert code == 8
    assert err.count("  ~ image ghcr.io/superlinked/") == len(first)
    (moved, *others) = first
    assert airgap("lock", "--update", moved, *source)[0] == 0
    now = {image.reference: image.digest for image in lock_at(tmp_path).images}
    assert now[moved] != first[moved]
    assert [now[name] for name in others] == [first[name] for name in others]
    assert len(lock_at(tmp_path).charts) == 1


@pytest.mark.usefixtures("hub")
def test_offline_an_image_that_is_new_is_missing(airgap: Run, tmp_path: Path) -> None:
    airgap("lock", *SMALL)
    chart = Path(__file__).parents[4] / "charts" / "sie-cluster"

    code, _, err = airgap("lock", *SMALL, "--chart", chart, "--helm", parts.helm(), "--offline")
    assert code == 4
    assert "`ghcr.io/superlinked/sie-server:v0.3.1`" in err
    assert "`--offline` asks nobody" in err


@pytest.mark.usefixtures("hub")
def test_what_a_spec_pins_does_not_move_and_that_is_said(airgap: Run, fake: Fake, tmp_path: Path) -> None:
    spec = next(spec for spec in Catalog.shipped().specs.values() if spec.revision is not None and spec.base is None)
    assert spec.revision is not None
    folder = tmp_path / "hub" / spec.repo
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    pinned = Fake(tmp_path / "hub", pins={spec.repo: spec.revision})
    with serving_hub(pinned) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", endpoint)
        words = ["lock", "--model", spec.id]
        assert airgap(*words)[0] == 0
        code, _, err = airgap(*words, "--update", spec.id)

    assert code == 0
    assert f"note: {spec.id} stays at {spec.revision}: its spec names that commit" in err


@pytest.mark.parametrize(
    "named", ["https://huggingface.co/org/small", "huggingface.co/org/small/", "hf.co/org/small/tree/main"]
)
def test_a_models_page_is_answered_with_its_id(airgap: Run, hub: Fake, named: str) -> None:
    code, _, err = airgap("lock", "--model", named)

    assert code == 2
    assert "did you mean `org/small`?" in err
    assert not hub.seen
