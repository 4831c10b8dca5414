"""The verbs about whom to believe, as signers and the far side's operator use them."""

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.packing import pack
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import SIGNATURES_NAME, read_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.lock import lock_digest, signatures_file
from sie_testing.carried import FILES, filled_store, make_lock

Ran = tuple[int, str, str]
Run = Callable[..., Ran]
MORE = {**FILES, "org/third": {"config.json": b"{}", "model.safetensors": b"later"}}


@pytest.fixture
def airgap(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("correct horse\n")

    def command(*words: str | Path) -> Ran:
        capsys.readouterr()
        code = run(cli, [str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


@pytest.fixture
def signers(airgap: Run) -> None:
    for name in ("alice", "bob", "mallory"):
        assert airgap("trust", "key", name, "--passphrase-file", "secret")[0] == 0


@pytest.fixture
def pinned(airgap: Run, signers: None) -> None:
    """Both of alice and bob sign locks; bob signs roots."""
    keys = ("--lock-key", "alice.pub", "--lock-key", "bob.pub", "--lock-threshold", "2", "--root-key", "bob.pub")
    assert airgap("trust", "root", "root.json", *keys)[0] == 0
    assert airgap("sign", "root.json", "--key", "bob.pem", "--passphrase-file", "secret")[0] == 0
    assert airgap("trust", "pin", "root.json.dsse")[0] == 0


@pytest.fixture
def archives(tmp_path: Path) -> dict[int, Path]:
    """Two archives, of lock 1 and lock 2."""
    made = {}
    for serial, files in ((1, FILES), (2, MORE)):
        lock = make_lock(files, serial=serial)
        store = filled_store(tmp_path / f"connected-{serial}", lock, files)
        made[serial] = tmp_path / f"media-{serial}"
        pack(plan_archive(lock, store, name=f"sie-{serial}"), store, made[serial], progress=Silent())
    return made


def sign(airgap: Run, what: Path, *names: str) -> None:
    for name in names:
        ran = airgap("sign", what, "--key", f"{name}.pem", "--passphrase-file", "secret")
        assert ran[0] == 0, ran


def test_a_key_is_its_owner_s_alone_and_never_written_over(airgap: Run, signers: None, tmp_path: Path) -> None:
    private = tmp_path / "alice.pem"
    before = private.read_bytes()

    code, _, err = airgap("trust", "key", "alice", "--passphrase-file", "secret")

    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in before
    assert (code, private.read_bytes()) == (2, before)
    assert "is there already" in err


def test_a_passphrase_is_asked_for_and_never_empty(airgap: Run, tmp_path: Path) -> None:
    (tmp_path / "nothing").write_text("\n")

    code, _, err = airgap("trust", "key", "dora", "--passphrase-file", "nothing")
    command = [sys.executable, "-m", "sie_airgap", "trust", "key", "dora"]
    alone = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    assert code == 2
    assert "is empty" in err
    assert alone.returncode == 2
    assert "--passphrase-file" in alone.stderr
    assert not (tmp_path / "dora.pem").exists()


def test_an_archive_is_taken_when_enough_have_signed_it(airgap: Run, pinned: None, archives: dict[int, Path]) -> None:
    media = archives[1]
    unsigned = airgap("unpack", media)
    sign(airgap, media, "alice")
    one_of_two = airgap("unpack", media)
    sign(airgap, media, "bob")
    both = airgap("unpack", media)

    assert unsigned[0] == one_of_two[0] == 3
    assert "the lock is not signed" in unsigned[2]
    assert "1 of them" in one_of_two[2]
    assert "sie-airgap sign" in one_of_two[2]
    assert both[0] == 0, both
    assert "is signed as root 1 wants it" in both[2]


def test_the_signatures_travel_from_store_to_store_and_into_the_bucket(
    airgap: Run, pinned: None, tmp_path: Path
) -> None:
    lock = make_lock(FILES)
    filled_store(tmp_path / "airgap-store", lock, FILES)
    sign(airgap, tmp_path / "airgap-store", "alice", "bob")

    packed = airgap("pack", "media")
    taken = airgap("unpack", "media", "--store", "far")
    mirrored = airgap("mirror", "weights", f"file://{tmp_path}/bucket", "--from", "far")
    verified = [airgap("verify", what) for what in ("media", "far", f"file://{tmp_path}/bucket")]

    assert [packed[0], taken[0], mirrored[0], *(ran[0] for ran in verified)] == [0] * 6
    assert (tmp_path / "bucket" / signatures_file(lock_digest(lock))).is_file()
    (tmp_path / "bucket" / signatures_file(lock_digest(lock))).unlink()
    (tmp_path / "far" / SIGNATURES_NAME).unlink()
    assert [airgap("verify", what)[0] for what in ("far", f"file://{tmp_path}/bucket")] == [3, 3]


def test_a_stranger_s_signature_is_named_and_does_not_count(
    airgap: Run, pinned: None, archives: dict[int, Path]
) -> None:
    sign(airgap, archives[1], "alice", "mallory")

    code, _, err = airgap("verify", archives[1])

    assert code == 3
    assert "is not one of the role `lock` of root 1" in err


def test_every_verb_of_the_far_side_asks(airgap: Run, pinned: None, archives: dict[int, Path], tmp_path: Path) -> None:
    media = str(archives[1])
    verbs = [
        ("verify", media),
        ("unpack", media),
        ("mirror", "weights", f"file://{tmp_path}/bucket", "--from", media),
        ("mirror", "images", "http://127.0.0.1:9/x", "--from", media),
        ("mirror", "chart", "./charts", "--from", media),
        ("mirror", "rules", "127.0.0.1:9/x", "--format", "idms", "--from", media),
        ("mirror", "all", "--bucket", f"file://{tmp_path}/bucket", "--registry", "127.0.0.1:9/x", "--from", media),
        ("values", "--bucket", "s3://bucket/", "--from", media),
    ]

    assert {" ".join(words[:2]): airgap(*words)[0] for words in verbs} == {" ".join(words[:2]): 3 for words in verbs}
    assert not (tmp_path / "bucket").exists()


def test_without_a_pinned_root_the_digest_is_shown_to_be_compared(airgap: Run, archives: dict[int, Path]) -> None:
    code, _, err = airgap("verify", archives[1])
    digits = lock_digest(make_lock(FILES)).removeprefix("sha256:")

    assert code == 0
    assert "no signature is asked for" in err
    assert digits[:4] + " " + digits[4:8] in err


def test_taking_a_lock_unverified_is_loud_and_on_record(airgap: Run, pinned: None, archives: dict[int, Path]) -> None:
    code, _, err = airgap("unpack", archives[1], "--insecure-no-verify")
    shown = airgap("trust", "show")[1]

    assert code == 0
    assert err.count("WARNING") == 2
    assert "NOT VERIFIED" in shown


def test_media_do_not_go_back_and_rollback_does(
    airgap: Run, pinned: None, archives: dict[int, Path], tmp_path: Path
) -> None:
    bucket = f"file://{tmp_path}/bucket"
    for media in archives.values():
        sign(airgap, media, "alice", "bob")
    for serial in (1, 2):
        assert airgap("unpack", archives[serial])[0] == 0
        assert airgap("mirror", "weights", bucket)[0] == 0

    again, elsewhere = airgap("unpack", archives[1]), airgap("unpack", archives[1], "--store", "another")
    back = airgap("rollback", "--to", "1")
    mirrored = airgap("mirror", "weights", bucket)
    verified = airgap("verify", bucket)

    assert again[0] == elsewhere[0] == 3
    assert "older than one that was taken here" in elsewhere[2]
    assert "rollback --to" in elsewhere[2]
    assert back[0] == 0, back
    assert read_lock(tmp_path / "airgap-store" / LOCK_NAME) == make_lock(FILES)
    assert mirrored[0] == 0, mirrored
    assert (tmp_path / "bucket/.sie/current").read_text() == lock_digest(make_lock(FILES))
    assert verified[0] == 0, verified
    assert airgap("unpack", archives[2])[0] == 0, "forward again"
    assert airgap("mirror", "weights", bucket)[0] == 0


def test_a_bucket_does_not_go_back_without_a_rollback(airgap: Run, archives: dict[int, Path], tmp_path: Path) -> None:
    """Nothing is pinned here: it is the bucket's own lock that is minded."""
    bucket = f"file://{tmp_path}/bucket"
    assert airgap("mirror", "weights", bucket, "--from", archives[2])[0] == 0

    code, _, err = airgap("mirror", "weights", bucket, "--from", archives[1])

    assert code == 8
    assert "rollback --to" in err


@pytest.mark.parametrize("serial", ["7", "-1"])
def test_a_rollback_to_what_was_never_here_names_what_was(airgap: Run, archives: dict[int, Path], serial: str) -> None:
    assert airgap("unpack", archives[1])[0] == 0

    code, _, err = airgap("rollback", "--to", serial)

    assert code == 2
    assert "those that were: 1" in err


def test_a_rollback_whose_blobs_are_gone_changes_nothing(
    airgap: Run, archives: dict[int, Path], tmp_path: Path
) -> None:
    for media in archives.values():
        assert airgap("unpack", media)[0] == 0
    gone = make_lock(FILES).models[0].files[1]
    (tmp_path / "airgap-store/blobs/sha256" / gone.digest.removeprefix("sha256:")).unlink()

    code, _, err = airgap("rollback", "--to", "1")

    assert code == 4
    assert gone.path in err
    assert read_lock(tmp_path / "airgap-store" / LOCK_NAME).serial == 2


def test_a_root_is_replaced_by_the_next_one(airgap: Run, pinned: None, tmp_path: Path) -> None:
    keys = ("--lock-key", "alice.pub", "--root-key", "alice.pub", "--after", "root.json")
    assert airgap("trust", "root", "root-2.json", *keys)[0] == 0
    sign(airgap, tmp_path / "root-2.json", "alice")
    too_few = airgap("trust", "pin", "root-2.json.dsse")
    sign(airgap, tmp_path / "root-2.json", "bob")
    enough = airgap("trust", "pin", "root-2.json.dsse")
    twice = airgap("trust", "pin", "root-2.json.dsse")
    back = airgap("trust", "pin", "root.json.dsse")

    assert [too_few[0], enough[0], twice[0], back[0]] == [3, 0, 0, 3]
    assert "the pinned root's keys" in too_few[2]
    assert "is pinned already" in twice[1]
    assert "the pinned root is newer" in back[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sign", "root.json.dsse", "--key", "bob.pem", "--passphrase-file", "secret"), "name what is signed"),
        (("sign", "root.json", "--key", "bob.pub", "--passphrase-file", "secret"), "is a public key"),
        (("sign", "root.json", "--key", "bob.pem", "--passphrase-file", "wrong"), "does not open"),
        (("trust", "root", "root.json", "--lock-key", "bob.pub", "--root-key", "bob.pub"), "is there already"),
        (
            ("trust", "root", "r", "--lock-key", "bob.pub", "--root-key", "bob.pub", "--lock-threshold", "2"),
            "want 1 to 1",
        ),
        (("trust", "root", "r", "--lock-key", "bob.pem", "--root-key", "bob.pub"), "nobody else may have"),
    ],
)
def test_what_cannot_be_meant_is_told(
    airgap: Run, pinned: None, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "wrong").write_text("another")

    code, _, err = airgap(*words)

    assert code == 2
    assert told in err


def test_a_trust_file_that_cannot_be_read_stops_every_verb(
    airgap: Run, pinned: None, archives: dict[int, Path], tmp_path: Path
) -> None:
    sign(airgap, archives[1], "alice", "bob")
    (tmp_path / "trust.json").write_text("{}")

    code, _, err = airgap("verify", archives[1])

    assert code == 3
    assert "cannot be read" in err


def test_every_one_of_them_answers_in_json(airgap: Run, pinned: None, archives: dict[int, Path]) -> None:
    sign(airgap, archives[1], "alice", "bob")
    assert airgap("unpack", archives[1])[0] == 0

    shown = json.loads(airgap("trust", "show", "--output", "json")[1])

    assert shown["highest_serial"] == 1
    assert len(shown["taken"][0]["signed_by"]) == 2


def test_nothing_pinned_is_missing_and_says_how_to_pin(airgap: Run) -> None:
    code, _, err = airgap("trust", "show", "--trust", "elsewhere.json")

    assert code == 4
    assert "nothing is pinned: elsewhere.json is not there" in err
    assert "`sie-airgap trust pin ROOT` pins one" in err
