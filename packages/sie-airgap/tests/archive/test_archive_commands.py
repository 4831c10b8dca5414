"""pack, inspect, verify and repair as an operator meets them: what is said where, and how it ends."""

import json
import shutil
from pathlib import Path

import pytest

from sie_airgap.store.blobs import BlobFolder
from sie_testing.archives import content, flip, volume_at, volumes
from sie_testing.carried import Run

PACK = ("pack", "media", "--volume-size", "1MiB")


@pytest.fixture
def media(airgap: Run, store: BlobFolder, tmp_path: Path) -> Path:
    """Three volumes and a parity volume."""
    code, out, err = airgap(*PACK, "--parity", "--store", store.root)
    assert (code, out.split(" ")[:3]) == (0, ["4", "of", "4"]), err
    return tmp_path / "media"


def test_a_dry_run_of_pack_names_what_it_would_write_and_writes_nothing(
    airgap: Run, store: BlobFolder, tmp_path: Path
) -> None:
    code, out, err = airgap(*PACK, "--parity", "2", "--store", store.root, "--dry-run")

    assert (code, out.split(";")[0].split(",")[0]) == (0, "5 of 5 volumes to write")
    assert [line.split()[1] for line in err.splitlines()] == [
        *(f"media/v000{number}.tar" for number in (1, 2, 3)),
        "media/p0001.tar",
        "media/p0002.tar",
    ]
    assert not (tmp_path / "media").exists()


def test_parity_is_added_to_an_archive_that_is_there(airgap: Run, store: BlobFolder, tmp_path: Path) -> None:
    assert airgap(*PACK, "--store", store.root)[0] == 0
    before = content(tmp_path / "media")

    code, out, err = airgap(*PACK, "--store", store.root, "--parity", "--output", "json")
    assert code == 0, err
    assert json.loads(out)["written"] == 1
    after = content(tmp_path / "media")
    assert {name: data for name, data in after.items() if name.startswith("v")} == {
        name: data for name, data in before.items() if name.startswith("v")
    }
    assert b"repair MEDIA -o repaired" in after["README.txt"]
    assert b"p0001.tar" in after["SHA256SUMS"]

    assert airgap(*PACK, "--store", store.root)[0] == 0  # without --parity it stays, and stays named
    assert content(tmp_path / "media") == after


def test_one_volume_is_cut_again_by_its_name(airgap: Run, store: BlobFolder, media: Path) -> None:
    code, out, err = airgap("pack", "again", "--volume-size", "1MiB", "--only", "v0002.tar", "--store", store.root)

    assert (code, out.split(" ")[0]) == (0, "1"), err
    assert (media.parent / "again" / "v0002.tar").read_bytes() == (media / "v0002.tar").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--only", "v0009.tar"], 2, "it has v0001.tar to v0003.tar"),
        (["--only", "p0001.tar"], 2, "parity volumes come with --parity"),
        (["--parity", "0"], 2, "0"),
        (["--parity", "many"], 2, "many"),
        (["--volume-size", "floppy"], 2, "bd100"),
        (["--volume-size", "1GB", "--only", "v0001.tar"], 8, "cut it with the --volume-size"),
        (["--volume-size", "2MiB"], 8, "nothing was overwritten"),
    ],
)
def test_what_pack_cannot_do_is_told_with_its_code(
    airgap: Run, store: BlobFolder, media: Path, words: list[str], code: int, says: str
) -> None:
    before = content(media)
    if code == 8 and "--only" in words:
        for path in media.glob("*.tar"):
            path.unlink()
        before = content(media)

    ended, out, err = airgap(*PACK, *words, "--store", store.root)
    assert (ended, out) == (code, ""), err
    assert says in err
    assert content(media) == before


def test_a_lost_volume_is_made_good_and_told(airgap: Run, media: Path) -> None:
    before = content(media)
    (media / "v0002.tar").unlink()

    code, out, err = airgap("repair", "media", "-o", "good", "--dry-run")
    assert (code, out) == (0, "good/v0002.tar would be made good\n")
    assert "v0002.tar: lost; p0001.tar stands for it" in err
    assert not (media.parent / "good").exists()

    code, out, err = airgap("repair", "media", "-o", "good")
    assert (code, out) == (0, "good/v0002.tar made good\n"), err
    assert content(media.parent / "good") == {"v0002.tar": before["v0002.tar"]}
    assert airgap("verify", "media", "good")[0] == 0

    code, out, _ = airgap("repair", "media", "good", "-o", "good", "--output", "json")
    assert (code, json.loads(out)) == (0, {"repaired": [], "lost": 0})


def test_damage_is_told_by_the_mebibyte_and_made_good(airgap: Run, media: Path) -> None:
    path = media / "v0002.tar"
    flip(path, volume_at(path).members[-1].offset + 7)

    code, _, err = airgap("verify", "media")
    assert code == 3
    assert "a part of `model.safetensors` of `org/large` is not what was locked" in err
    code, _, err = airgap("repair", "media", "-o", "good")
    assert code == 0
    assert "v0002.tar: 1 MiB of it damaged; p0001.tar stands for it" in err
    path.unlink()
    assert airgap("verify", "media", "good")[0] == 0


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (["v0001.tar", "v0002.tar"], "`v0001.tar`, `v0002.tar` are lost or damaged where their index is"),
        (["v0001.tar", "p0001.tar"], "no sound parity volume"),
    ],
)
def test_too_much_that_is_lost_is_named_and_ends_with_4(airgap: Run, media: Path, lost: list[str], says: str) -> None:
    for name in lost:
        (media / name).unlink()

    for words in ([], ["--dry-run"]):
        code, out, err = airgap("repair", "media", "-o", "good", *words)
        assert (code, out) == (4, "")
        assert says in err
        assert "hint:" in err


def test_inspect_names_parity_and_what_is_odd(airgap: Run, media: Path) -> None:
    shutil.copy(media / "v0001.tar", media / "copy of v0001.tar")
    (media / "v0003.tar").rename(media / "x.tar")

    code, out, err = airgap("inspect", "media")
    assert code == 0
    assert "p0001.tar" in out
    assert "for v0001.tar, v0002.tar, v0003.tar" in out
    assert "is a second copy of `v0001.tar`" in err
    assert "x.tar is `v0003.tar`, renamed" in err
    code, out, _ = airgap("inspect", "media", "--output", "json")
    assert json.loads(out)["parity"] == {"p0001.tar": ["v0001.tar", "v0002.tar", "v0003.tar"]}


def test_verify_says_which_lock_it_holds_media_against(airgap: Run, media: Path) -> None:
    code, out, err = airgap("verify", "media", "--output", "json")

    facts = json.loads(out)
    assert (code, facts["findings"]) == (0, 0)
    assert facts["lock"] in err
    assert len(volumes(media)) == 3
