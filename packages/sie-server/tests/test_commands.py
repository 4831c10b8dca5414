"""The commands as a person or a pod runs them: what they print, how they end."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from sie_core.catalog.catalog import Catalog
from sie_core.settings import SettingsError
from sie_core.wire.codec import Format
from sie_server import fetching
from sie_server.app import check, streams_of
from sie_server.cli import main
from sie_server.settings import ServeSettings
from sie_testing.cluster import MINILM, fill_bucket, program, worker
from sie_testing.doors import RawDoor
from sie_testing.hub import Fault, FaultKind, Hub, serving_hub
from sie_testing.init_container import started


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fill_bucket(tmp_path_factory.mktemp("bucket"))


def clean_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIE_", "HF_"))}
    return {**kept, **more}


def ran(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "sie-server"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(**env), timeout=60)


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["serve", "--port", "abc"], {}, "error: `--port` is `abc`, want a whole number"),
        (["serve"], {"SIE_PRELOAD_MODEL": "a/b"}, "hint: did you mean `SIE_PRELOAD_MODELS`?"),
        (["serve"], {"SIE_NATS_URL": "nats://x"}, "error: `SIE_NATS_URL` means nothing here"),
        (["serve", "--models", "all-MiniLM-L6"], {}, f"hint: nearest: {MINILM}"),
        (["weights", "--models", "all-MiniLM-L6"], {}, f"hint: nearest: {MINILM}"),
        (["serve", "--cluster-cache", "s4://b/x"], {}, "did you mean `s3://b/x`?"),
        (["weights", "--cluster-cache", "bucket"], {}, "error: `bucket` is not a bucket's URL"),
        (["serve", "--cluster-cache-lock", "sha256:1"], {}, "error: `sha256:1` is not a digest"),
        (["serve", "--machine-profile", "L4"], {}, "`L4` is not a machine profile"),
        (["serve", "--bundle", "none"], {}, "hint: there are: default"),
        (["serve"], {"SIE_AUTH_MODE": "token"}, "no token is set"),
        (["serve", "--queue-tokens", "0"], {}, "error: `SIE_QUEUE_TOKENS` is 0, want at least 1"),
    ],
)
def test_what_cannot_be_meant_ends_with_2_and_says_why(arguments: list[str], env: dict[str, str], said: str) -> None:
    root = logging.getLogger()
    handlers = root.handlers[:]
    try:
        done = CliRunner().invoke(main, arguments, env=env)
    finally:
        root.handlers[:] = handlers

    assert done.exit_code == 2, done.stderr
    assert said in done.stderr


def test_alone_on_a_machine_a_model_that_is_nowhere_ends_with_4(tmp_path: Path) -> None:
    done = ran("serve", "--models", MINILM, "--local-cache", str(tmp_path), "--port", "0", HF_HUB_OFFLINE="1")

    assert done.returncode == 4
    assert f"error: model `{MINILM}` cannot be loaded" in done.stderr
    assert "the hub is off" in done.stderr


def test_alone_on_a_machine_a_hub_that_does_not_answer_ends_with_5(tmp_path: Path, unused_port: int) -> None:
    hub = f"http://127.0.0.1:{unused_port}"
    done = ran("weights", "--models", MINILM, "--local-cache", str(tmp_path), "--hf-endpoint", hub)

    assert done.returncode == 5
    assert f"the hub at {hub} does not answer" in done.stderr


def test_a_port_that_is_taken_ends_with_2_and_names_the_address(tmp_path: Path, taken_port: int) -> None:
    done = ran("serve", "--local-cache", str(tmp_path), "--port", str(taken_port))

    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{taken_port}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (
            ["--host", "203.0.113.9"],
            "cannot listen on 203.0.113.9:0: Cannot assign requested address",
            "`--host` is an",
        ),
        (["--host", "nonsense.invalid"], "cannot listen on nonsense.invalid:0: ", "`--host` is an address"),
        (["--port", "99999"], "cannot listen on 127.0.0.1:99999: ", "8080 is the default"),
    ],
)
def test_an_address_that_cannot_be_listened_on_says_which_part_to_change(
    tmp_path: Path, arguments: list[str], said: str, hint: str
) -> None:
    done = ran("serve", "--local-cache", str(tmp_path), "--port", "0", *arguments)

    assert done.returncode == 2
    first, _, last = done.stderr.strip().splitlines()[-3:]
    assert first.startswith(f"error: {said}")
    assert "while attempting" not in first
    assert last.startswith(f"hint: {hint}")


def test_an_interrupt_before_it_serves_ends_with_130(tmp_path: Path) -> None:
    """The signal comes while the catalog is read."""
    code = (
        "import signal, sys, sie_server.app as app; from sie_server.cli import main;"
        "app.Catalog.shipped = lambda: signal.raise_signal(signal.SIGINT); main(['serve'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())

    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


def test_settings_shows_each_value_with_its_source_and_no_secret() -> None:
    done = ran(
        "settings", "--port", "9", SIE_POOL="gold", HF_TOKEN="hf_secret", SIE_LOCAL_CACHE="/data/models",
        SIE_PRELOAD_MODELS="a/b, c/d", SIE_LOG_JSON="1",
    )  # fmt: skip

    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()}
    assert rows["port"] == ["9", "flag --port"]
    assert rows["pool"] == ["gold", "environment SIE_POOL"]
    assert rows["local_cache"] == ["/data/models", "environment SIE_LOCAL_CACHE"]
    assert rows["models"] == ["a/b,c/d", "environment SIE_PRELOAD_MODELS"]
    assert rows["log_json"] == ["true", "environment SIE_LOG_JSON"]
    assert rows["cluster_cache"] == ["-", "default"]
    assert rows["hf_token"] == ["***", "environment HF_TOKEN"]
    assert "hf_secret" not in done.stdout


def test_every_setting_but_the_secrets_is_a_flag_with_its_text() -> None:
    text = ran("serve", "--help").stdout

    assert "--queue-tokens" in text
    assert "QUEUE_FULL" in text
    assert "--hf-token" not in text
    assert "--auth-token" not in text


def test_weights_fetches_verifies_and_ends_and_the_second_time_does_nothing(bucket: str, tmp_path: Path) -> None:
    arguments = ["weights", "--models", MINILM, "--cluster-cache", bucket, "--local-cache", str(tmp_path)]
    first, second = ran(*arguments), ran(*arguments)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert f"`{MINILM}` fetched in" in first.stderr
    assert f"`{MINILM}` was there" in second.stderr
    listed = ran("models", "--local-cache", str(tmp_path)).stdout.splitlines()
    assert next(line.split() for line in listed if MINILM in line) == [MINILM, "dense", "1110a243fdf4", "complete"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_weights_ends_at_once_though_the_far_end_is_silent(tmp_path: Path, number: int, code: int) -> None:
    """A connection is given up after 30 s of silence; this waits for less."""
    spec = Catalog.shipped().find(MINILM)
    assert spec is not None
    assert spec.revision is not None
    file = tmp_path / "hub" / MINILM / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(100_000))
    silent = Fault(FaultKind.STALL, match="*/model.safetensors*", after_bytes=10_000)
    behind = Hub(tmp_path / "hub", pins={MINILM: spec.revision}, lfs_above_bytes=1_000_000, faults=[silent])
    sent = threading.Event()
    behind.on_sent = lambda total: sent.set()
    with serving_hub(behind) as endpoint:
        arguments = ["--models", MINILM, "--local-cache", str(tmp_path / "cache")]
        with started(*arguments, HF_ENDPOINT=endpoint) as process:
            assert sent.wait(60)
            process.send_signal(number)
            assert process.wait(timeout=20) == code


def test_weights_without_models_reads_the_bucket_and_says_what_is_there(bucket: str) -> None:
    done = ran("weights", "--cluster-cache", bucket)

    assert done.returncode == 0
    assert f"can be read; models in it: {MINILM}" in done.stderr


class Enough(Exception):
    pass


def test_inside_a_cluster_weights_does_not_end_but_looks_again_each_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise Enough

    empty = tmp_path / "bucket"
    empty.mkdir()
    settings = ServeSettings(models=(MINILM,), cluster_cache=empty.as_uri(), local_cache=tmp_path / "cache")
    with pytest.raises(Enough):
        fetching.fetch(settings, sleep=sleep)

    assert pauses == [60.0] * 3
    said = capsys.readouterr().err
    assert said.count("there are no models at all") == 3
    assert "looking again in 60 s" in said


def test_a_worker_serves_from_verified_files_logs_events_and_ends_with_0(bucket: str, tmp_path: Path) -> None:
    """`worker` waits until it is ready, and on leaving checks the exit status."""
    with worker(tmp_path, bucket=bucket, env={"SIE_LOG_JSON": "true"}) as running:
        door = RawDoor(running.url, Format.JSON)
        (encoded,) = door.encode(MINILM, [{"text": "hello world"}])  # type: ignore[misc]
        door.close()

    assert encoded.outputs.keys() == {"dense"}
    lines = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
    events = {line["event"]: line for line in lines}
    assert {"listening", "fetching", "model loaded", "ready", "stopped"} <= events.keys()
    assert events["ready"]["url"] == running.url
    assert "dense 384, commit 1110a243fdf4, verified" in events["ready"]["models"][0]
    assert events["stopped"]["every_call_finished"] is True


def test_a_worker_that_is_stopped_while_it_loads_ends_with_0(bucket: str, tmp_path: Path) -> None:
    """`program` checks the exit status; a plugin that is taken down in the middle of a compilation aborts."""
    with worker(tmp_path, bucket=bucket):
        pass
    words = [
        "serve",
        "--models",
        MINILM,
        "--local-cache",
        str(tmp_path / "cache"),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    log = tmp_path / "stopped.log"
    for _ in range(3):
        with program("sie-server", words, log=log, env={"SIE_CLUSTER_CACHE": bucket}, ready=lambda url: True):
            pass


@pytest.mark.parametrize(("cores", "expected"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 1)), (16, (2, 8))])
def test_two_streams_share_the_cores(cores: int, expected: tuple[int, int]) -> None:
    assert streams_of(cores) == expected


def test_with_a_config_service_models_that_are_not_shipped_may_be_named() -> None:
    settings = ServeSettings(models=("acme/new",), config_service_url="http://sie-config:8080")

    check(settings, Catalog.shipped())
    with pytest.raises(SettingsError, match="no model `acme/new`"):
        check(ServeSettings(models=("acme/new",)), Catalog.shipped())


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        (ServeSettings(), True),
        (ServeSettings(cluster_cache="s3://b"), False),
        (ServeSettings(cluster_cache="s3://b", hf_fallback=True), True),
        (ServeSettings(hf_fallback=False), False),
        (ServeSettings(hf_fallback=True, hf_hub_offline=True), False),
    ],
)
def test_a_bucket_turns_the_hub_off(settings: ServeSettings, asks: bool) -> None:
    assert settings.asks_hub is asks


def test_where_the_hub_is_off_no_library_can_be_made_to_ask_it() -> None:
    code = (
        "import os, sys; from sie_server.cli import main; main(['settings'], standalone_mode=False);"
        "from sie_server.settings import OFFLINE; print({n: os.environ.get(n) for n in OFFLINE} == OFFLINE,"
        "'huggingface_hub' in sys.modules)"
    )
    env = clean_environment(SIE_CLUSTER_CACHE="s3://bucket/weights")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)

    assert done.stdout.splitlines()[-1] == "True False"
