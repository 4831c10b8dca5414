"""What an operator may set for a worker: by flag, by environment variable, or left at its default.

The string under each field is the `--help`, the reference page and the comment in the chart.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sie_core.http.auth import tokens_of
from sie_core.settings import Loaded, Secret, load, setting

MIB = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Settings of `sie-server`."""

    models: tuple[str, ...] = setting("SIE_PRELOAD_MODELS", ())
    """Model ids, separated by commas, that are loaded at the start; the worker is ready once all of them are. Any other
    model of the bundle is loaded by the first call that names it. Empty: all are."""

    local_cache: Path | None = setting("SIE_LOCAL_CACHE", None)
    """Folder that holds the models on this machine, in the hub's cache layout. Unset: `hub` in the folder of
    `HF_HOME`, else `~/.cache/huggingface/hub`."""

    local_cache_bytes: int | None = setting("SIE_LOCAL_CACHE_BYTES", None, least=1)
    """Most bytes that models fetched into the local cache may take on its disk together. One that does not fit has
    others removed, those that were never loaded first, then those loaded longest ago. What any process that shares the
    folder has loaded, is loading or fetching, or names in `SIE_PRELOAD_MODELS`, stays. Unset: as much as the disk has,
    less a hundredth of it or 1 GiB, whichever is less. The disk's end counts either way."""

    host: str = setting("SIE_SERVER_HOST", "127.0.0.1")
    """Address to listen on. The default takes calls from this machine only; the chart sets `0.0.0.0`."""

    port: int = setting("SIE_SERVER_PORT", 8080)
    """TCP port to listen on; 0 takes a free one and says which."""

    cluster_cache: str | None = setting("SIE_CLUSTER_CACHE", None)
    """Bucket that holds the models inside a cluster: `s3://bucket/prefix`, `gs://bucket/prefix`, or `file:///folder`
    for a mounted volume. Unset: there is none, and models come from the local cache or the hub. Once it is set the hub
    is not asked, so that a gap in it is seen at once."""

    cluster_cache_lock: str | None = setting("SIE_CLUSTER_CACHE_LOCK", None)
    """Digest (`sha256:…`) of the lock whose commits are served. Unset: the bucket's own refs say which."""

    cluster_cache_require_verified: bool = setting("SIE_CLUSTER_CACHE_REQUIRE_VERIFIED", False)
    """Whether only models that were mirrored from a lock, every file checked against it, are served. Off: what is
    complete in a bucket that was filled by hand is served, too, and said to be unverified. With
    `SIE_CLUSTER_CACHE_LOCK` nothing else than the lock's files is served either way."""

    cluster_cache_path_style: bool = setting("SIE_CLUSTER_CACHE_PATH_STYLE", True)
    """Whether the bucket stands in the path of S3 URLs and not in the host name. Most servers but AWS want it."""

    hf_fallback: bool | None = setting("SIE_HF_FALLBACK", None)
    """Whether a model that is neither in the local cache nor in the bucket is fetched from the hub. Unset: yes without
    a bucket, no with one. `HF_HUB_OFFLINE=1` wins over `true`."""

    hf_home: Path | None = setting("HF_HOME", None)
    """The hub libraries' own folder; only its `hub` is used here, and only where `SIE_LOCAL_CACHE` is unset."""

    hf_hub_offline: bool = setting("HF_HUB_OFFLINE", False)
    """Whether the hub must not be asked, as every library that knows it understands it."""

    hf_endpoint: str | None = setting("HF_ENDPOINT", None)
    """Base URL of the hub. Unset: the public one."""

    hf_token: Secret | None = setting("HF_TOKEN", None)
    """Token for gated models on the hub. Unset: none is sent."""

    hub_ca_bundle: Path | None = setting("REQUESTS_CA_BUNDLE", None)
    """Certificates of those whom the hub's answers are believed from, a file or a folder. Unset: those that the system
    trusts, or the file that `SSL_CERT_FILE` names."""

    device: Literal["cpu", "cuda"] = setting("SIE_DEVICE", "cpu")
    """What the models run on: `cpu`, by OpenVINO, or `cuda`, the first CUDA device that the process sees, by torch,
    which the extra `sie-server[cuda]` brings."""

    precision: Literal["auto", "f32", "bf16", "f16"] = setting("SIE_PRECISION", "auto")
    """What the linear layers compute in. `auto` takes bf16 on `cuda`, and on `cpu` where a short probe at the start
    shows that it is faster there; `f16` is for `cuda` only. Results are float32 whatever it is."""

    bundle: str = setting("SIE_BUNDLE", "default")
    """Name of the bundle, that is of the set of models, that this worker serves."""

    pool: str = setting("SIE_POOL", "default")
    """Name of the pool that this worker belongs to."""

    machine_profile: str | None = setting("SIE_MACHINE_PROFILE", None)
    """Kind of machine that this worker runs on (what callers name as `gpu=`); a call for another kind is refused.
    Unset: calls for any kind are taken."""

    gpu_type: str | None = setting("SIE_GPU_TYPE", None)
    """Name of the accelerator, as `/heartbeat` and the metrics show it. Unset: the name of the device."""

    worker_name: str | None = setting("SIE_WORKER_NAME", None)
    """Name in heartbeats and metrics. Unset: the machine's host name."""

    queue_tokens: int = setting("SIE_QUEUE_TOKENS", 131_072)
    """Most tokens that may wait, over all calls; a call beyond them is answered 503 `QUEUE_FULL`. The default is about
    ten seconds of work of a small model on two cores: waiting longer than that is worse than going elsewhere."""

    batch_tokens: int = setting("SIE_BATCH_TOKENS", 1_024)
    """Most tokens in one forward pass; an item longer than that runs alone. Beyond 1024 throughput falls again, since
    attention is paid on a grid as wide as the longest item."""

    tokenizer_threads: int = setting("SIE_TOKENIZER_THREADS", 2)
    """Threads that tokenise, beside those that own the device. One does about a million tokens a second."""

    model_memory_bytes: int | None = setting("SIE_MODEL_MEMORY_BYTES", None, least=1)
    """Most bytes that loaded models may hold together. A model that does not fit has others go for it, the least
    recently used first; those of `SIE_PRELOAD_MODELS` stay. Unset: four fifths of what this process may use, which is
    the machine's memory or the least limit of a control group (v1 or v2) above it; the rest is for batches and
    bodies."""

    idle_evict_s: float | None = setting("SIE_IDLE_EVICT_S", None, least=10, most=86_400)
    """Seconds after which a model that no call has named is unloaded; those of `SIE_PRELOAD_MODELS` stay. Unset: models
    stay until their memory is needed."""

    max_body_bytes: int = setting("SIE_MAX_BODY_BYTES", 64 * MIB)
    """Longest request body; a longer one is answered 413 before it is read."""

    config_service_url: str | None = setting("SIE_CONFIG_SERVICE_URL", None)
    """Base URL of the config service whose catalog is followed. Unset: the specs that came with this version."""

    auth_mode: Literal["none", "token", "static"] = setting("SIE_AUTH_MODE", "none")
    """Whether callers must send a token; `token` and `static` mean the same."""

    auth_token: Secret | None = setting("SIE_AUTH_TOKEN", None)
    """The token that callers send, and that the config service is asked with. Unset: see `SIE_AUTH_TOKENS`."""

    auth_tokens: Secret | None = setting("SIE_AUTH_TOKENS", None)
    """Several such tokens, separated by commas, while one is being replaced by another. Unset: one or none."""

    log_level: Literal["debug", "info", "warning", "error"] = setting("SIE_LOG_LEVEL", "info")
    """Least important log lines that are written."""

    log_json: bool = setting("SIE_LOG_JSON", False)
    """Whether log lines are JSON objects, for a collector, instead of text for people."""

    @property
    def cache_folder(self) -> Path:
        if self.local_cache is not None:
            return self.local_cache
        home = self.hf_home if self.hf_home is not None else Path.home() / ".cache" / "huggingface"
        return home / "hub"

    @property
    def asks_hub(self) -> bool:
        if self.hf_hub_offline:
            return False
        return self.cluster_cache is None if self.hf_fallback is None else self.hf_fallback

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every token that opens the door."""
        return tokens_of(self.auth_token, self.auth_tokens)


def read(flags: Mapping[str, object] | None = None) -> Loaded[ServeSettings]:
    """Raises `SettingsError`."""
    return load(ServeSettings, env=os.environ, flags=flags)


OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What keeps any library that somebody may import later from asking the hub behind our back."""


CALM = {"OPENBLAS_NUM_THREADS": "1"}
"""Numpy's products here are small, and run beside a network that has the cores. Its library would start a thread for
every core of the machine, the container's or not, and have them spin: 0.1 s of a start on two."""


def settle_libraries(*, offline: bool) -> None:
    """The one place that writes to the environment, before anything is imported that would read it."""
    os.environ.update(CALM | (OFFLINE if offline else {}))
