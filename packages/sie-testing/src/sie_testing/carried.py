"""A small lock and a store that holds what it names: two models of seeded bytes, a wheel and a chart.

For tests of what carries things: nothing in here can be loaded, installed or rendered.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.lock import Lock, LockedChart, LockedFile, LockedModel, LockedWheel
from sie_core.ids import ModelId, Revision

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line: exit code, stdout, stderr."""


def seeded(size_bytes: int, *, seed: int) -> bytes:
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311 - nobody has to be unable to guess it


FILES: Mapping[str, Mapping[str, bytes]] = {
    "org/large": {"config.json": b"{}", "model.safetensors": seeded(3_000_000, seed=1)},
    "org/small": {"config.json": b'{"a":1}', "sub/vocab.txt": seeded(70_000, seed=2), "empty.txt": b""},
}
WHEEL, CHART = seeded(5_000, seed=3), seeded(9_000, seed=4)


REVISION = Revision("ab" * 20)


def locked_model(model: str, files: Mapping[str, bytes], revision: Revision = REVISION) -> LockedModel:
    return LockedModel(
        id=ModelId(model),
        repo=ModelId(model),
        ref="main",
        revision=revision,
        license="mit",
        gated=False,
        why=("--model",),
        files=tuple(
            LockedFile(path=path, digest=digest_of(data), size_bytes=len(data), hub_id=hex_of(digest_of(data)))
            for path, data in sorted(files.items())
        ),
        absent=("adapter_config.json",),
    )


def make_lock(files: Mapping[str, Mapping[str, bytes]], *, serial: int = 1, revision: Revision = REVISION) -> Lock:
    return Lock(
        version=1,
        serial=serial,
        previous=None,
        models=tuple(locked_model(model, held, revision) for model, held in sorted(files.items())),
        images=(),
        charts=(LockedChart("sie-cluster", "0.3.1", "sie-cluster-0.3.1.tgz", digest_of(CHART), len(CHART)),),
        wheels=(LockedWheel("sie_airgap-0.3.1-py3-none-any.whl", digest_of(WHEEL), len(WHEEL)),),
    )


def filled_store(root: Path, lock: Lock, files: Mapping[str, Mapping[str, bytes]]) -> BlobFolder:
    store = BlobFolder(root)
    for data in [WHEEL, CHART, *(data for held in files.values() for data in held.values())]:
        store.add(data)
    write_lock(root / LOCK_NAME, lock)
    return store
