"""Every stop, every kind of violation: as many findings as there are violations, each naming its own, in one run."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_airgap.archive.media import read_media
from sie_airgap.failures import Expected
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.media import verify_media
from sie_airgap.verifying.registry import verify_registry
from sie_airgap.verifying.serving import differences
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.lock import Lock
from sie_core.artifacts.stores.local import LocalStore
from sie_core.ids import ModelId, Revision
from sie_core.wire.messages import ModelDims, ModelEntry
from sie_testing.archives import flip, packed, volume_at, volumes
from sie_testing.carried import REVISION, filled_store, make_lock, seeded
from sie_testing.mirrored import Mirrored, mirrored_images
from sie_testing.registry import Registry as StandIn
from sie_testing.registry import serving_registry

Spoil = Callable[[Path], None]
"""What is done to one file of a stop."""

MODELS: Mapping[str, Mapping[str, bytes]] = {
    f"org/m{at}": {"config.json": b"{%d}" % at, "model.safetensors": seeded(300_000, seed=20 + at)} for at in range(5)
}
OTHERS = {model: {path: data[::-1] + b"2" for path, data in files.items()} for model, files in MODELS.items()}
"""Of an older lock."""


def _altered(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def _short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _long(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FILE_KINDS: Mapping[str, Spoil] = {
    "altered": _altered,
    "cut short": _short,
    "too long": _long,
    "empty": _empty,
    "missing": Path.unlink,
    "something else in its place": _folder,
}


def _in_a_file(path: Path) -> None:
    flip(path, next(one for one in volume_at(path).members if one.name.startswith(("blobs", "parts"))).offset + 3)


def _in_a_header(path: Path) -> None:
    flip(path, volume_at(path).members[1].offset - 512 + 100)


def _in_the_index(path: Path) -> None:
    flip(path, 700)


def _in_the_checksums(path: Path) -> None:
    flip(path, volume_at(path).tail_offset + 600)


VOLUME_KINDS: Mapping[str, Spoil] = {
    "altered": _in_a_file,
    "its tar": _in_a_header,
    "its index": _in_the_index,
    "its checksums": _in_the_checksums,
    "cut short": _short,
    "too long": _long,
    "empty": _empty,
}

slow = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def locked() -> Lock:
    return make_lock(MODELS, serial=2)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, locked: Lock) -> BlobFolder:
    return filled_store(tmp_path_factory.mktemp("store") / "store", locked, MODELS)


@pytest.fixture(scope="module")
def volumes_of(tmp_path_factory: pytest.TempPathFactory, locked: Lock, filled: BlobFolder) -> Path:
    """Seven volumes and two parity volumes."""
    return packed(locked, filled, tmp_path_factory.mktemp("archive") / "a", volume_bytes=1 << 18, parity=4)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, locked: Lock, filled: BlobFolder) -> Path:
    root = tmp_path_factory.mktemp("bucket") / "b"
    mirror_weights(locked, filled, LocalStore(root), progress=Silent())
    return root


def _copy(root: Path, folder: str) -> Path:
    return Path(shutil.copytree(root, Path(folder) / "copy"))


def _spoilt(root: Path, names: list[str], kinds: list[str], table: Mapping[str, Spoil]) -> dict[str, str]:
    chosen = dict(zip(names, kinds, strict=False))
    for name, kind in chosen.items():
        table[kind](root / name)
    return chosen


def _check(chosen: Mapping[str, str], findings: list[Expected]) -> None:
    """One finding for each that was spoilt, and none that names nothing."""
    told = [str(one) for one in findings]
    assert len(told) == len(chosen), (chosen, told)
    for name, kind in chosen.items():
        assert sum(name in one for one in told) == 1, (name, kind, told)


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_a_store_with_every_blob_spoilt(locked: Lock, filled: BlobFolder, tmp_path: Path, kind: str) -> None:
    root = _copy(filled.root, str(tmp_path))
    names = sorted(path.name for path in (root / "blobs" / "sha256").iterdir())
    chosen = _spoilt(root / "blobs" / "sha256", names, [kind] * len(names), FILE_KINDS)

    assert len(verify_store(locked, BlobFolder(root), progress=Silent())) == len(chosen) == 12


@slow
@given(st.data())
def test_any_files_of_a_bucket(locked: Lock, bucket: Path, data: st.DataObject) -> None:
    """Files, manifests, listings, refs, markers and the lock itself."""
    every = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())
    names = [name for name in every if name != ".sie/receipt.json"]
    some = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=8))
    kinds = [data.draw(st.sampled_from([*FILE_KINDS][:3] if "no_exist" not in name else ["too long"])) for name in some]
    kinds = [data.draw(st.sampled_from([kind, "missing", "something else in its place"])) for kind in kinds]
    with TemporaryDirectory() as folder:
        root = _copy(bucket, folder)
        chosen = _spoilt(root, some, kinds, FILE_KINDS)
        findings = verify_bucket(LocalStore(root), locked, progress=Silent())

    _check(chosen, findings)


@slow
@given(st.data())
def test_any_volumes_of_an_archive(locked: Lock, volumes_of: Path, data: st.DataObject) -> None:
    names = [path.name for path in volumes(volumes_of)]
    some = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names) - 1))
    kinds = [data.draw(st.sampled_from([*VOLUME_KINDS])) for _ in some]
    with TemporaryDirectory() as folder:
        root = _copy(volumes_of, folder)
        chosen = _spoilt(root, some, kinds, VOLUME_KINDS)
        findings = verify_media(read_media([root]), progress=Silent())

    _check(chosen, findings)


def test_everything_that_can_befall_media_at_once(
    locked: Lock, filled: BlobFolder, volumes_of: Path, tmp_path: Path
) -> None:
    """Damaged, absent, of an older archive, exchanged, renamed, twice: six volumes, in one run."""
    older = make_lock(OTHERS)
    foreign = packed(older, filled_store(tmp_path / "older", older, OTHERS), tmp_path / "o", volume_bytes=1 << 18)
    root = _copy(volumes_of, str(tmp_path))
    damaged, lost, replaced, one, other, renamed, twice, *_ = volumes(root)
    _in_a_file(damaged)
    lost.unlink()
    shutil.copy(foreign / replaced.name, replaced)
    one.rename(root / "x")
    other.rename(one)
    (root / "x").rename(other)
    renamed.rename(root / "disc six")
    shutil.copy(twice, root / "copy of seven")

    media = read_media([root])
    findings = [str(found) for found in verify_media(media, progress=Silent())]
    notes = list(media.notes())
    assert len(findings) == 3
    assert [f"{replaced} is `{replaced.name}` of an older archive" in findings[0], str(damaged) in findings[1]] == [
        True,
        True,
    ]
    assert f"`{lost.name}`, `{replaced.name}` not here; lacking without" in findings[2]
    for path in (one, other, root / "disc six", root / "copy of seven"):
        assert sum(str(path) in note for note in notes) >= 1, notes
    assert len(notes) == 4


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[Mirrored, StandIn]]:
    there = StandIn(tmp_path / "registry")
    with serving_registry(there) as origin:
        yield mirrored_images(tmp_path, origin), there


@pytest.mark.parametrize("kind", ["altered", "cut short", "too long"])
@pytest.mark.parametrize("count", [1, 4])
def test_layers_of_a_registry(registry: tuple[Mirrored, StandIn], kind: str, count: int) -> None:
    mirrored, _ = registry
    layers = {blob for image in mirrored.lock.images for blob in image.blobs if "layer" in blob.media_type}
    chosen = sorted(layers)[:count]
    for blob in chosen:
        FILE_KINDS[kind](mirrored.path(blob))
    with Registry(parse_place(mirrored.url)) as opened:
        findings = verify_registry(mirrored.lock, opened, deep=True, progress=Silent())

    images = sum(blob in image.blobs for blob in chosen for image in mirrored.lock.images)
    assert len(findings) == images, [str(one) for one in findings]


WORKER_KINDS: Mapping[str, Callable[[ModelEntry], ModelEntry | None]] = {
    "another commit": lambda entry: msgspec.structs.replace(entry, revision=Revision("5" * 40)),
    "not verified": lambda entry: msgspec.structs.replace(entry, verified=False),
    "adopted": lambda entry: msgspec.structs.replace(entry, verified=False, adopted=True),
    "failed": lambda entry: msgspec.structs.replace(
        entry, loaded=False, state="failed", last_error={"message": "no room"}
    ),
    "not served": lambda entry: None,
}


@given(st.lists(st.sampled_from([*WORKER_KINDS]), max_size=5), st.integers(0, 3))
def test_any_models_of_a_worker(kinds: list[str], more: int) -> None:
    lock = make_lock(MODELS)
    entries = {model.id: _entry(model.id) for model in lock.models}
    chosen = dict(zip(entries, kinds, strict=False))
    served = [WORKER_KINDS[chosen[name]](entry) if name in chosen else entry for name, entry in entries.items()]
    strangers = [_entry(ModelId(f"other/x{at}")) for at in range(more)]
    findings = list(differences(lock, [one for one in served if one is not None] + strangers, where="http://w"))

    _check(chosen | {f"other/x{at}": "loaded" for at in range(more)}, findings)


def _entry(name: ModelId) -> ModelEntry:
    return ModelEntry(
        name=name,
        inputs=["text"],
        outputs=["dense"],
        dims=ModelDims(),
        loaded=True,
        state="loaded",
        revision=Revision(REVISION),
        verified=True,
    )
