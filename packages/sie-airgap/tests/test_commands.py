"""The program as an operator meets it: what it prints where, how it ends, and the whole way from hub to bucket."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sie_airgap.cli import VERBS
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, lock_digest
from sie_testing import parts
from sie_testing.carried import FILES, Run
from sie_testing.hub import Fault, FaultKind
from sie_testing.hub import Hub as Fake
from sie_testing.images import write_images
from sie_testing.registry import Registry, serving_registry


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(airgap: Run, verb: str) -> None:
    code, out, _ = airgap(verb, "--help")

    assert code == 0
    assert f"Usage: sie-airgap {verb}" in out


def test_the_journey_from_a_hub_to_a_bucket_and_a_registry(airgap: Run, hub: Fake, tmp_path: Path) -> None:
    """Every verb as the runbook has it; then mirror again, and nothing is left to do; and what holds in the end."""
    layout = write_images(tmp_path / "layout")
    source = ["--image-source", f"ghcr.io/superlinked=oci:{layout.folder}"]
    chart = Path(__file__).parents[3] / "charts" / "sie-cluster"
    (tmp_path / "values.yaml").write_text("workers: {common: {preloadModels: [org/large]}}\n")
    locking = ["lock", "-f", "values.yaml", "--model", "org/small", "--chart", chart, "--helm", parts.helm(), *source]
    with serving_registry(Registry(tmp_path / "registry")) as registry:
        place = f"{registry.removeprefix('http://')}/sie"
        for words in (
            locking,
            ["snapshot", *source],
            ["pack", "media", "--volume-size", "2MB"],
            ["verify", "media"],
            ["unpack", "media", "--store", "far"],
            ["mirror", "all", "--bucket", f"file://{tmp_path}/bucket", "--registry", place, "--from", "far"],
            ["verify", f"file://{tmp_path}/bucket"],
        ):
            code, out, err = airgap(*words)
            assert code == 0, (words, err)
            assert out

        code, out, _ = airgap("mirror", "images", place, "--from", "media", "--dry-run")
        assert (code, out.split(" ")[0]) == (0, "0")
        code, out, _ = airgap("mirror", "weights", f"file://{tmp_path}/bucket", "--from", "media", "--output", "json")
        nothing: dict[str, object] = {"files": 0, "bytes": 0, "sent_bytes": 0, "strays": [], "unfinished": []}
        assert json.loads(out) == {"weights": f"file://{tmp_path}/bucket", **nothing}
        code, out, _ = airgap("values", "--bucket", "s3://models/w/", "--registry", place, "--from", "media")
        assert code == 0
        assert "org/large" in out
        assert f"{place}/sie-server" in out
        (tmp_path / "values-offline.yaml").write_text(out)
        rendered = ["--values", "values-offline.yaml", "--helm", parts.helm()]
        assert airgap("verify", f"oci://{place}", "--lock", "far/airgap.lock")[0] == 0
        code, out, err = airgap("status", "--from", "far", *rendered, "--up-to", "L5")
        assert (code, err) == (0, ""), out
        assert "L5 rendered manifests is the highest level that is true now" in out
        assert airgap("status", "--from", "far", "--up-to", "L5")[0] == 0
        (tmp_path / "values-offline.yaml").write_text("workers: {common: {image: {tag: v0.3.2}}}\n")
        assert airgap("status", "--from", "far")[0] == 12
        code, out, err = airgap("status", "--from", "far", *rendered)
        assert code == 8
        assert "sie-server:v0.3.2` is rendered by Deployment/" in out


def test_asking_for_no_model_is_a_mistake_and_says_how_to_ask(airgap: Run, hub: Fake) -> None:
    code, out, err = airgap("lock")

    assert (code, out) == (2, "")
    assert "hint:" in err
    assert "preloadModels" in err


@pytest.mark.parametrize("flag", ["--dry-run", "--check"])
def test_looking_at_what_a_lock_would_be_writes_nothing_at_all(
    airgap: Run, hub: Fake, tmp_path: Path, flag: str
) -> None:
    chart = Path(__file__).parents[3] / "charts" / "sie-cluster"
    before = sorted(tmp_path.rglob("*"))

    airgap("lock", "--model", "org/small", "--chart", chart, "--helm", tmp_path / "no helm", flag)
    airgap("lock", "--model", "org/small", flag)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("notes.txt", b"no chart", "`notes.txt` is not a chart"),
        ("folder/Chart.yaml", b"name: [", "Chart.yaml is not YAML"),
        ("folder/Chart.yaml", b"name: sie\nversion: 1.0.0/../../x\n", "no file can be called so"),
        ("folder/Chart.yaml", b"name: sie\nversion: 1.0.0\ndependencies: 5\n", "`dependencies` that are no list"),
        ("folder/Chart.yaml", b"name: sie\nversion: 1.0.0\ndependencies: [x]\n", "the dependency `x`"),
    ],
)
def test_what_is_no_chart_is_said_before_the_hub_is_asked(
    airgap: Run, hub: Fake, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)

    code, _, err = airgap("lock", "--model", "org/small", "--chart", Path(name).parts[0])
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert not hub.seen


def test_a_misspelt_verb_is_answered_with_the_nearest(airgap: Run) -> None:
    code, _, err = airgap("unpakc", "x")

    assert code == 2
    assert "did you mean `unpack`?" in err


def test_a_model_that_is_not_there_is_missing(airgap: Run, hub: Fake) -> None:
    code, _, err = airgap("lock", "--model", "sentence-transformers/all-MiniLM-L6-v3")

    assert code == 4
    assert "sentence-transformers/all-MiniLM-L6-v2" in err


def test_a_gated_model_is_no_permission(airgap: Run, hub: Fake) -> None:
    hub.set_faults(Fault(FaultKind.GATED))

    code, _, err = airgap("lock", "--model", "org/small")
    assert code == 6
    assert "accept" in err


def test_a_locks_check_is_drift_when_the_hub_has_moved_on(airgap: Run, hub: Fake, tmp_path: Path) -> None:
    assert airgap("lock", "--model", "org/small")[0] == 0
    (tmp_path / "hub/org/small/config.json").write_bytes(b"[]")

    code, _, err = airgap("lock", "--model", "org/small", "--check")
    assert code == 8
    assert "    ~ config.json  015abd7f5cc5 (7 B) → 4f53cda18c2b (2 B)" in err


def test_a_dry_run_writes_nothing(airgap: Run, hub: Fake, archive: Path, tmp_path: Path) -> None:
    airgap("lock", "--model", "org/small", "--dry-run")
    airgap("pack", "media", "--store", tmp_path / "store", "--dry-run")
    airgap("unpack", archive, "--store", "far", "--dry-run")
    airgap("mirror", "weights", f"file://{tmp_path}/bucket", "--from", archive, "--dry-run")

    assert not any((tmp_path / name).exists() for name in ("airgap.lock", "media", "far", "bucket"))


def test_a_lock_edited_by_hand_is_refused_with_both_values(airgap: Run, store: BlobFolder, lock: Lock) -> None:
    path = store.root / "airgap.lock"
    path.write_bytes(path.read_bytes().replace(b'"license": "mit"', b'"license": "own"'))

    code, _, err = airgap("pack", "media", "--store", store.root)
    assert code == 3
    assert lock_digest(lock) in err
    assert err.count("sha256:") == 2


def test_a_damaged_volume_is_an_integrity_failure_and_names_the_file(airgap: Run, archive: Path) -> None:
    volume = archive / "v0002.tar"
    with volume.open("r+b") as file:
        file.seek(500_000)
        byte = file.read(1)
        file.seek(500_000)
        file.write(bytes([byte[0] ^ 4]))

    code, out, err = airgap("verify", archive)
    assert (code, out) == (3, "")
    assert "v0002.tar" in err
    assert "`model.safetensors` of `org/large`" in err
    assert "want" in err
    assert "have" in err


def test_a_missing_volume_is_missing_to_verify_and_partial_to_unpack(airgap: Run, archive: Path) -> None:
    (archive / "v0002.tar").unlink()

    assert airgap("verify", archive)[0] == 4
    code, _, err = airgap("unpack", archive, "--store", "far")
    assert code == 10
    assert "`v0002.tar`" in err


def test_errors_are_events_where_events_are_asked_for(airgap: Run, archive: Path) -> None:
    (archive / "v0002.tar").unlink()

    code, out, err = airgap("verify", archive, "--output", "json")
    last = json.loads(err.splitlines()[-1])
    assert out == ""
    assert (last["event"], last["exit_code"], code) == ("error", 4, 4)
    assert "v0002.tar" in last["message"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["mirror", "weights", "s4://bucket/x", "--from", "store"], 2, "s3://"),
        (["mirror", "images", "ftp://registry", "--from", "store"], 2, "ftp"),
        (["pack", "media", "--store", "store", "--volume-size", "big"], 2, "dvd"),
        (["pack", "media", "--store", "nowhere"], 4, "snapshot"),
        (["unpack", "nowhere"], 4, "nowhere"),
        (["verify", "file:///nowhere/at/all"], 4, "no models are in file:///nowhere/at/all"),
        (["why", "org/smal", "--from", "store"], 4, "org/small"),
        (["golden", "record", "--url", "http://127.0.0.1:1", "--store", "store"], 5, "127.0.0.1:1"),
        (["golden", "record", "--url", "localhost", "--store", "store"], 2, "--url is `localhost`: want `http://"),
        (["pack", "media", "--store", "store", "--name", "../../x"], 2, "want letters, digits"),
        (["why", "org/small"], 4, "name a store, or the media"),
    ],
)
def test_mistakes_end_with_the_documented_code_and_say_what_to_do(
    airgap: Run, store: BlobFolder, words: list[str], code: int, says: str
) -> None:
    ended, _, err = airgap(*words)

    assert ended == code, err
    assert says in err
    assert "Traceback" not in err


def test_golden_answers_that_are_none_are_not_packed(airgap: Run, store: BlobFolder) -> None:
    store.write_named("golden.json", b"half of i")

    code, _, err = airgap("pack", "media", "--store", store.root)
    assert code == 2
    assert "`golden.json` of the store holds no golden answers" in err


def test_a_bucket_whose_client_is_not_installed_says_what_to_install(tmp_path: Path, store: BlobFolder) -> None:
    """`values` needs none: it only writes the URL down."""
    program = "import sys; sys.modules['boto3'] = None; from sie_airgap.cli import main; main()"

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *words, "--from", str(store.root)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    mirrored, written = ran("mirror", "weights", "s3://models/w/"), ran("values", "--bucket", "s3://models/w/")
    assert mirrored.returncode == 2
    assert "`boto3` is not installed here\n\nhint: install `sie-airgap[s3]`" in mirrored.stderr
    assert written.returncode == 0, written.stderr
    assert 'url: "s3://models/w/"' in written.stdout


def test_a_chart_goes_into_a_folder_that_is_there(airgap: Run, store: BlobFolder, tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()

    code, out, _ = airgap("mirror", "chart", "charts", "--from", store.root)
    assert (code, out) == (0, "chart sie-cluster-0.3.1.tgz copied: charts/sie-cluster-0.3.1.tgz\n")


def test_why_and_diff_explain_a_lock(airgap: Run, store: BlobFolder, lock: Lock, archive: Path) -> None:
    code, out, _ = airgap("why", "sub/vocab.txt", "--from", archive)
    assert code == 0
    assert "org/small" in out
    assert "--model" in out

    code, out, _ = airgap("diff", store.root, archive)
    assert (code, out) == (0, f"the same lock: number 1, {lock_digest(lock)}\n")


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    program = textwrap.dedent("""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        from sie_airgap.cli import main
        main()
    """)
    words = ["pack", str(tmp_path / "media"), "--store", str(store.root), "--volume-size", "2MB"]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)

    assert ended.returncode == 7, ended.stderr
    assert "hint:" in ended.stderr
    assert not list((tmp_path / "media").glob("v*.tar"))


def test_an_interrupt_from_the_keyboard_is_130_and_the_work_goes_on_later(hub: Fake, tmp_path: Path) -> None:
    """The hub holds back one file, so that the child is in the middle when the signal comes."""
    hub.set_faults(Fault(FaultKind.SLOW, match="*/resolve/*/vocab.txt", bytes_per_s=1))
    words = [sys.executable, "-m", "sie_airgap", "lock", "--model", "org/small", "--output", "json"]
    with subprocess.Popen(words, cwd=tmp_path, env=dict(os.environ), stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert '"begin"' in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        told = child.stderr.read()

    assert child.returncode == 130, told
    assert "Traceback" not in told
    assert not (tmp_path / "airgap.lock").exists()


def test_a_setting_that_nobody_knows_is_refused(airgap: Run, hub: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIE_CLUSTER_CACH", "x")

    code, _, err = airgap("lock", "--model", "org/small")
    assert code == 2
    assert "SIE_CLUSTER_CACHE" in err


def test_secrets_are_never_told(airgap: Run, hub: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.set_faults(Fault(FaultKind.GATED))

    _, out, err = airgap("lock", "--model", "org/small")
    assert "hf_secret" not in out + err


def test_a_wrong_blob_in_the_store_is_found(airgap: Run, store: BlobFolder) -> None:
    path = store.path(digest_of(FILES["org/small"]["sub/vocab.txt"]))
    path.write_bytes(path.read_bytes()[::-1])

    code, _, err = airgap("verify", store.root)
    assert code == 3
    assert "`sub/vocab.txt` of `org/small`" in err
