"""Hold a bucket against the lock, byte by byte.

Every finding is given, not the first, with the file it belongs to and where that file lies: what is missing, altered,
too short or too long, what may not be read or does not come. The rest is read all the same; only where nothing
answers any more is that said and the check ended. Nothing is changed.
"""

from collections.abc import Iterator, Mapping, Sequence

from sie_airgap.deltas.receipt import strays
from sie_airgap.failures import Drift, Expected
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.patience import Wait
from sie_airgap.progress import Progress, Silent
from sie_airgap.verifying.objects import is_about_all
from sie_airgap.verifying.remembered import Remembered
from sie_airgap.verifying.wanted import Wanted, exactly, lengths, look_at
from sie_core.artifacts import hf_layout
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, TrustError
from sie_core.artifacts.lock import (
    CURRENT_FILE,
    LOCKS_FOLDER,
    Lock,
    LockedModel,
    decode_lock,
    encode_lock,
    lock_digest,
    lock_file,
)
from sie_core.artifacts.manifest import encode_manifest
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read

_MOST_NAMES = 20
"""More strays than that are counted."""


def verify_bucket(
    store: Store,
    lock: Lock | None,
    *,
    progress: Progress,
    remembered: Remembered | None = None,
    wait: Wait | None = None,
) -> list[Expected]:
    """Every byte of every file in a bucket, and the manifests and refs that readers start from.

    Args:
        lock: None: the one that the bucket says it was filled from.
        remembered: what of a bucket on this disk need not be read; None: every byte is read.
        wait: as of `patiently`.

    Raises:
        Incomplete, TrustError: `lock` is None and the bucket has none, or another than it says.
        TransferError: nobody answers, or there is no such bucket.
    """
    there = lock_in_bucket(store) if lock is None else lock
    files = [one for model in there.models for one in wanted_of(model)]
    _check_answers(store, [CURRENT_FILE, *(one.name for one in files[-3:])])
    findings, wanted = _begun(store, there)
    wanted += files
    findings += look_at(store, wanted, _copy_again(store), progress=progress, remembered=remembered, wait=wait)
    return findings + list(_others(store, there, progress))


def glance(store: Store, lock: Lock) -> list[Expected]:
    """What shows at once, without reading weights: which lock is the current one, what readers start from, and the
    length of every file. Nobody is waited for. Raises `TransferError` as `verify_bucket`.
    """
    files = [one for model in lock.models for one in wanted_of(model)]
    _check_answers(store, [CURRENT_FILE])
    findings, wanted = _begun(store, lock)
    small = [*wanted, *(one for one in files if one.data)]
    findings += look_at(store, small, _copy_again(store), progress=Silent(), wait=lambda _: None)
    large = [one for one in files if one.data is None]
    return findings + list(lengths(store, large, _sizes(store, large), _copy_again(store)))


def _sizes(store: Store, wanted: Sequence[Wanted]) -> Mapping[str, int]:
    """The length of every file, as the store says it; one by one where it may not be listed."""
    try:
        return {stat.name: stat.size_bytes for stat in store.list("")}
    except NoPermission:
        found = [store.stat(one.name) for one in wanted]
        return {stat.name: stat.size_bytes for stat in found if stat is not None}


def _check_answers(store: Store, names: Sequence[str]) -> None:
    """Raises what is said over the first, where it is the same with all of them: at once, and not after every file."""
    refused: list[TransferError] = []
    for name in names:
        try:
            there = store.stat(name)
        except TransferError as error:
            if not is_about_all(error):
                raise
            refused.append(error)
            if error.transient and len(refused) > 1:  # each may take ten seconds to fail
                break
        else:
            if there is None and name == CURRENT_FILE and _is_empty(store):
                raise NotThere(f"nothing is in {store.url}", hint="look at the URL's prefix")
            return
    raise refused[0]


def _is_empty(store: Store) -> bool:
    try:
        return next(iter(store.list("")), None) is None
    except TransferError:
        return False


def _begun(store: Store, lock: Lock) -> tuple[list[Expected], list[Wanted]]:
    """What a reader starts from: which lock is the current one, and that lock itself."""
    want = lock_digest(lock)
    try:
        current = read(store, CURRENT_FILE)
    except TransferError:
        current = b""  # told with the others
    if current is not None and current not in (b"", want.encode()) and _is_digest(current):
        drift = Drift(
            f"{store.url} was filled from another lock\n  want  {want}\n  have  {current.decode('ascii', 'replace')}",
            hint="`sie-airgap mirror weights` brings it to this lock",
        )
        return [drift], []
    return [], [
        exactly(CURRENT_FILE, f"`{CURRENT_FILE}`, which names the lock,", want.encode()),
        exactly(lock_file(want), f"lock number {lock.serial}", encode_lock(lock)),
    ]


def _is_digest(data: bytes) -> bool:
    return len(data) == 71 and data.startswith(b"sha256:")


def wanted_of(model: LockedModel) -> list[Wanted]:
    """All that `mirror weights` writes of a model."""
    repo, revision = model.repo, model.revision
    beside = {
        hf_layout.manifest_file(repo, revision): encode_manifest(model.manifest),
        hf_layout.tree_file(repo, revision): hf_layout.tree_json(model.manifest),
        hf_layout.ref_file(repo): hf_layout.ref_bytes(revision),
        **{hf_layout.no_exist_file(repo, revision, path): b"" for path in model.absent},
    }
    files = [
        Wanted(
            hf_layout.snapshot_file(repo, revision, entry.path),
            f"`{entry.path}` of `{model.id}`",
            entry.digest,
            entry.size_bytes,
        )
        for entry in model.manifest.files
    ]
    return [*(exactly(name, f"`{name}` of `{model.id}`", data) for name, data in beside.items()), *files]


def _others(store: Store, lock: Lock, progress: Progress) -> Iterator[Expected]:
    """What else is there: said, and a finding only where it stands for something that must not be there."""
    try:
        listed = {stat.name: stat.size_bytes for stat in store.list("")}
    except TransferError as error:
        progress.say(f"note: what else is in {store.url} is not known: {error.message}")
        return
    absent = {
        hf_layout.snapshot_file(model.repo, model.revision, path): (model, path)
        for model in lock.models
        for path in model.absent
    }
    for name in sorted(absent.keys() & listed.keys()):
        model, path = absent[name]
        yield TrustError(
            f"`{path}` of `{model.id}` is there, though the commit has no such file: loaders would read it",
            where=f"{store.url.rstrip('/')}/{name}",
            want="nothing",
            have=f"{listed[name]:,} bytes",
            hint="find out who put it there, and remove it",
        )
    others = [name for name in strays(_locks(store, lock, listed), listed) if name not in absent]
    for name in others[:_MOST_NAMES]:
        progress.say(f"stray  {name}: no lock there names it; nothing reads it")
    if len(others) > _MOST_NAMES:
        progress.say(f"stray  {len(others) - _MOST_NAMES:,} more")


def _locks(store: Store, lock: Lock, listed: Mapping[str, int]) -> list[Lock]:
    """This lock and the earlier ones there, as far as they can be read: they explain what else is there."""
    found = {lock_digest(lock): lock}
    for name in listed:
        if not name.startswith(LOCKS_FOLDER) or not name.endswith(".json"):
            continue
        try:
            one = decode_lock(read(store, name) or b"", where=name)
        except (TrustError, TransferError):
            continue
        found.setdefault(lock_digest(one), one)
    return list(found.values())


def _copy_again(store: Store) -> str:
    return f"`sie-airgap mirror weights {store.url} --replace` copies it again"
