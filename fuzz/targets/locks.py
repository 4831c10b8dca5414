"""The lock, and the golden answers that travel beside it."""

import json
from collections.abc import Iterator

import msgspec
import numpy as np

from fuzz.target import Target, checked, compact, indented, same
from sie_airgap.proof import golden_file as golden
from sie_airgap.proof.golden_file import Answer, Found, Golden, GoldenModel, Series, decode_golden, encode_golden
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.lock import (
    Lock,
    LockedBlob,
    LockedFile,
    LockedImage,
    LockedReferrer,
    LockInvalid,
    UnlockedImage,
    decode_lock,
    encode_lock,
    lock_digest,
)
from sie_testing.carried import FILES, REVISION, make_lock

_BLOB = digest_of(b"blob")


def full_lock() -> Lock:
    """With something in every field."""
    lock = make_lock(FILES, serial=7)
    small = lock.models[1]
    derived = LockedFile("sub/tokenizer.json", _BLOB, 4, hex_of(_BLOB), derived_from="sub/vocab.txt")
    files = tuple(sorted((*small.files, derived)))
    model = msgspec.structs.replace(small, files=files, remote_code=("config.json: auto_map.AutoModel = x.Y",))
    blobs = tuple(sorted(LockedBlob(digest_of(name), 9, "application/x") for name in (b"index", b"one", b"sig")))
    image = LockedImage(
        reference="ghcr.io/superlinked/sie-server:v0.3.1",
        digest=digest_of(b"index"),
        media_type="application/vnd.oci.image.index.v1+json",
        platforms={"linux/amd64": digest_of(b"one")},
        blobs=blobs,
        referrers=(
            LockedReferrer(digest_of(b"one"), digest_of(b"sig"), "x/y", f"sha256-{hex_of(digest_of(b'one'))}.sig"),
        ),
        why=("Deployment/x",),
    )
    chart = msgspec.structs.replace(
        lock.charts[0], not_locked=(UnlockedImage("busybox:1", ("tests",)),), not_tried=("a.b",)
    )
    previous = digest_of(b"the one before")
    models = (lock.models[0], model)
    return msgspec.structs.replace(lock, previous=previous, models=models, images=(image,), charts=(chart,))


def _locks() -> Iterator[bytes]:
    yield encode_lock(full_lock())
    yield encode_lock(make_lock({}))


def _read_lock(data: bytes) -> None:
    lock = decode_lock(data)
    same(data, encode_lock(lock))
    _ = [(model.manifest, model.is_part) for model in lock.models], lock.chart


def _golden() -> Iterator[bytes]:
    series = (
        Series("dense", (Answer("a", "text", golden.dense(np.ones(3))), Answer("b", "", error="INVALID_INPUT"))),
        Series("sparse", (Answer("a", "text", golden.sparse(np.array([1, 5]), np.ones(2))),)),
        Series("multivector", (Answer("a", "text", golden.multivector(np.ones((2, 3)))),)),
        Series("score", (Answer("a", "text", golden.score(0.5)),), query="q"),
        Series(
            "extract",
            (Answer("a", "t", golden.extraction({Found("x", "t", 0, 1): 0.5})),),
            labels=("x",),
            threshold=0.5,
        ),
    )
    models = (GoldenModel("org/small", REVISION, series, "f32", "cpu"),)  # type: ignore[arg-type]
    yield encode_golden(Golden(2, lock_digest(make_lock({})), {"sie": "1"}, models))


def _read_golden(data: bytes) -> None:
    found = decode_golden(data)
    same(encode_golden(decode_golden(encode_golden(found))), encode_golden(found))


TARGETS = (
    Target("lock", _locks, checked(_read_lock, LockInvalid), json.loads, indented),
    Target("golden", _golden, checked(_read_golden, ValueError), json.loads, compact),
)
