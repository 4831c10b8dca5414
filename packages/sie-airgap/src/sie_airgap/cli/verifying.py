"""The verb that holds every stop of the way against the lock: verify."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sie_airgap.archive.media import Media, read_media
from sie_airgap.cli.console import (
    STORE,
    Console,
    bucket,
    bucket_options,
    dry_run_option,
    is_store,
    opened,
    output_option,
)
from sie_airgap.cli.crossing import tell_notes
from sie_airgap.cli.guarding import Guard, trust_options
from sie_airgap.cli.noting import checked, given, note
from sie_airgap.cli.registries import full_names_option, opened_registry
from sie_airgap.failures import Drift, Expected, Misused, raise_all
from sie_airgap.mirror.adoption import adopt
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.progress import counted, sized
from sie_airgap.proof.serving import served_models
from sie_airgap.settings import state_folder
from sie_airgap.store.blobs import SIGNATURES_NAME, BlobFolder, lock_of, read_lock
from sie_airgap.store.contents import contents
from sie_airgap.trust.files import merged, read_envelope, sealed_in_bucket
from sie_airgap.trust.judging import Sealed
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.checks import Kind
from sie_airgap.verifying.manifests import verify_manifests
from sie_airgap.verifying.media import absent, verify_media
from sie_airgap.verifying.records import stamps_of, unchanged
from sie_airgap.verifying.registry import verify_registry
from sie_airgap.verifying.remembered import Remembered, record_of
from sie_airgap.verifying.serving import callable_models, differences
from sie_airgap.verifying.stamps import Stamp
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.lock import CURRENT_FILE, Lock, lock_digest
from sie_core.artifacts.store import Destination, Store
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.transfer import read

_REGISTRIES, _SERVERS = ("oci://", "oci+http://"), ("http://", "https://")

_WHOLE = "every byte is what was locked"


@click.command()
@click.argument("what", nargs=-1, required=True, type=click.Path())
@click.option(
    "--lock", "lock_path", type=click.Path(path_type=Path, dir_okay=False), help="Insist on this lock; see above."
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="PATH|URL",
    help="For a registry or a worker: the store, the media or the bucket that the lock is taken from.",
)
@click.option("--deep", is_flag=True, help="Read all: the layers in a registry, and what was read before.")
@full_names_option
@click.option("--write-manifest", is_flag=True, help="Adopt a bucket that was filled by hand; see above.")
@dry_run_option
@trust_options
@bucket_options
@output_option
def verify(
    what: tuple[str, ...],
    lock_path: Path | None,
    sources: tuple[str, ...],
    deep: bool,
    full_names: bool,
    write_manifest: bool,
    dry_run: bool,
    trust_path: Path,
    insecure: bool,
    endpoint: str | None,
    region: str | None,
    output: str,
) -> None:
    """Hold WHAT against the lock, and tell every finding with both values, and whether the lock is signed.

    \b
    media, a store, file://      every byte not read before or written to since
    s3://, gs://                 a bucket: every byte
    oci://HOST/PATH              a registry: tags, manifests, layers by length;
                                 without TLS oci+http://
    http://HOST                  a worker or a gateway: which commits are
                                 loaded, and whether they were verified

    Media, stores and buckets name their lock. For a registry or a worker it is taken from --lock, from what --from
    names, or from the store airgap-store here.

    --deep reads what else is not read. A worker answers for itself; `golden compare` asks what it makes of texts.

    What is found is kept on this machine for `status`.

    Nothing is changed, unless --write-manifest says so: then a bucket that `aws s3 sync` or its like filled gets its
    manifests, for all models that are whole. With --lock they are held against that lock, and served as verified.
    Without, they are served as adopted: nothing in them can change unseen any more, and nothing says that they were
    what the hub has. Run it again after what it found was put right.

    Exit 3: something was altered. 8: another lock. 6: no permission. 4: something is missing. 5: unreachable. Of
    several the first in this order counts.

    \b
    Example:  sie-airgap verify /media/dvd1 /media/dvd2
              sie-airgap verify s3://models/weights/
    """
    console = Console(output)
    lock = read_lock(lock_path) if lock_path is not None else None
    guard = Guard(trust_path, insecure=insecure, console=console)
    first = what[0]
    _check_meaning(what, sources, write_manifest=write_manifest, dry_run=dry_run, full_names=full_names)
    if write_manifest:
        sealed = [] if lock_path is None else _sealed_beside(lock_path)
        if lock is not None:
            guard.check_lock(lock, sealed, where=str(lock_path))
        _adopt(bucket(first, endpoint=endpoint, region=region), lock, sealed, dry_run=dry_run, console=console)
        return
    said = _WHOLE
    more: dict[str, object] = {}
    if first.startswith(_REGISTRIES + _SERVERS):
        against = _against(first, lock_path, sources, endpoint=endpoint, region=region)
        there = against.lock
        console.note(f"held against lock number {there.serial} of {against.where}")
        if first.startswith(_REGISTRIES):
            findings, said = _registry(first, against, full_names=full_names, deep=deep, console=console)
        else:
            findings, said = _serving(first, against, console)
        findings += guard.findings(lambda: against.check(guard))
    elif "://" in first:
        store = bucket(first, endpoint=endpoint, region=region)
        if lock is None and read(store, CURRENT_FILE) is None:
            _verify_manifests(store, _known(store, deep=deep), console)
            return
        there = lock or lock_in_bucket(store)
        known = _known(store, deep=deep)
        findings = verify_bucket(store, lock, progress=console.progress, remembered=known)
        options = given({"--lock": lock_path, "--endpoint": endpoint, "--region": region})
        words = ["verify", store.url, *options]
        _note(Kind.BUCKET, there, console, place=store.url, findings=findings, said=said, again=words)
        said += _not_read(known)
        more |= _remembered(known)
        findings += guard.findings(lambda: guard.check_lock(there, sealed_in_bucket(store, there), where=store.url))
    elif len(what) == 1 and is_store(Path(first)):
        folder = BlobFolder(Path(first))
        there = lock or lock_of(folder)
        known = _recorded([folder.root], deep=deep)
        findings = _store(there, folder, known, console)
        said += _not_read(known)
        more |= _remembered(known)
        findings += guard.findings(lambda: guard.check(folder, there))
    else:
        media = read_media([Path(one) for one in what])
        there = media.lock
        known = _recorded([Path(one) for one in what], deep=deep)
        findings = _media(media, lock, known, guard, console)
        said += _not_read(known)
        more |= _remembered(known)
    raise_all(findings)
    facts = {"verified": list(what), "findings": 0, "lock": lock_digest(there)}
    console.data(f"{', '.join(what)}: {said}", facts | more)


def _note(
    kind: Kind,
    lock: Lock,
    console: Console,
    *,
    place: str,
    findings: Sequence[Expected],
    said: str,
    again: Sequence[str],
    files: Mapping[str, Stamp] | None = None,
) -> None:
    """For `status`."""
    check = checked(kind, lock_digest(lock), place=place, findings=findings, said=said, again=again, files=files)
    note(check, console)


def _check_meaning(
    what: Sequence[str], sources: Sequence[str], *, write_manifest: bool, dry_run: bool, full_names: bool
) -> None:
    """Raises `Misused` for options that mean nothing together."""
    first = what[0]
    if any("://" in one for one in what) and len(what) > 1:
        raise Misused(f"one URL at a time, {len(what)} things are named")
    if dry_run and not write_manifest:
        raise Misused("--dry-run is for --write-manifest: nothing else here changes anything")
    if write_manifest and ("://" not in first or first.startswith(_REGISTRIES + _SERVERS)):
        raise Misused("--write-manifest is for one bucket: s3://, gs:// or file://")
    if sources and not first.startswith(_REGISTRIES + _SERVERS):
        raise Misused("--from is for a registry or a worker: media, stores and buckets name their own lock")
    if full_names and not first.startswith(_REGISTRIES):
        raise Misused("--full-names is for a registry: oci://HOST/PATH")


def _recorded(places: Sequence[Path], *, deep: bool) -> Remembered:
    return Remembered(record_of(state_folder(), *places), deep=deep, now_ns=time.time_ns())


def _known(store: Store, *, deep: bool) -> Remembered:
    """Of a bucket on this disk what was read before; of another nothing, whatever its server says of it."""
    return _recorded([store.root], deep=deep) if isinstance(store, LocalStore) else Remembered()


def _remembered(known: Remembered) -> dict[str, object]:
    return {"remembered": known.count}


def _not_read(known: Remembered) -> str:
    if not known.count:
        return ""
    files = f"{counted(known.count, 'file')} of it, {sized(known.size_bytes)}"
    return f"; {files}, read before and not written to since: `--deep` reads them again"


@dataclass(frozen=True)
class _Against:
    """The lock that a registry, a worker or a gateway is held against: they keep none.

    Attributes:
        words: how a command names it.
        check: whether it is believed.
    """

    lock: Lock
    where: str
    words: list[str]
    check: Callable[[Guard], None]


def _against(
    what: str, lock_path: Path | None, sources: Sequence[str], *, endpoint: str | None, region: str | None
) -> _Against:
    """From the file, the store, the media or the bucket that was named; else from the store that lies here."""
    if lock_path is not None and sources:
        raise Misused("--lock and --from name two locks", hint="leave one of them out")
    if lock_path is not None:
        lock, where = read_lock(lock_path), str(lock_path)
        sealed = _sealed_beside(lock_path)
        return _Against(lock, where, ["--lock", where], lambda guard: guard.check_lock(lock, sealed, where=where))
    if not sources and not is_store(STORE):
        raise Misused(
            f"{what} keeps no lock: name one with `--lock`",
            hint=f"there is no store `{STORE}` here; `--from` names another, or media, or the bucket that was mirrored",
        )
    named = [source if "://" in source else str(Path(source).resolve()) for source in sources or (str(STORE),)]
    words = [word for source in named for word in ("--from", source)]
    if len(sources) == 1 and "://" in sources[0]:
        store = bucket(sources[0], endpoint=endpoint, region=region)
        lock = lock_in_bucket(store)
        words += given({"--endpoint": endpoint, "--region": region})
        sealed = sealed_in_bucket(store, lock)
        return _Against(lock, store.url, words, lambda guard: guard.check_lock(lock, sealed, where=store.url))
    blobs, lock = opened([Path(source) for source in sources], None)
    return _Against(lock, blobs.where, words, lambda guard: guard.check(blobs, lock))


def _registry(
    url: str, against: _Against, *, full_names: bool, deep: bool, console: Console
) -> tuple[list[Expected], str]:
    """The findings, and what holds where there are none."""
    lock = against.lock
    with opened_registry(url) as registry:
        findings = verify_registry(lock, registry, full_names=full_names, deep=deep, progress=console.progress)
    images = counted(len(lock.images), "image")
    text = f"{images} as locked, every layer there with its length"
    said = f"every byte of {images} is what was locked" if deep else text
    again = ["verify", url, *against.words, *(["--full-names"] if full_names else [])]
    _note(Kind.REGISTRY, lock, console, place=url, findings=findings, said=said, again=again)
    return findings, said if deep else f"{text}; `--deep` reads their bytes, too"


def _serving(url: str, against: _Against, console: Console) -> tuple[list[Expected], str]:
    lock, entries = against.lock, served_models(url)
    wanted = {model.id for model in callable_models(lock)}
    idle = [entry.name for entry in entries if entry.name in wanted and not entry.loaded]
    if idle:
        console.note(f"note: not loaded, so nothing is known of what would be served: {', '.join(idle)}")
    text = f"{len(wanted) - len(idle)} of {counted(len(wanted), 'model')} loaded, each at its commit and verified"
    findings = list(differences(lock, entries, where=url))
    again = ["verify", url, *against.words]
    _note(Kind.WORKER, lock, console, place=url, findings=findings, said=text, again=again)
    return findings, text


def _store(lock: Lock, folder: BlobFolder, known: Remembered, console: Console) -> list[Expected]:
    paths = [folder.path(content.digest) for content in contents(lock)]
    before = stamps_of(paths)
    findings = verify_store(lock, folder, progress=console.progress, remembered=known)
    files = unchanged(before, stamps_of(paths), now_ns=time.time_ns())
    place = str(folder.root.resolve())
    _note(Kind.STORE, lock, console, place=place, findings=findings, said=_WHOLE, again=["verify", place], files=files)
    return findings


def _media(media: Media, lock: Lock | None, known: Remembered, guard: Guard, console: Console) -> list[Expected]:
    console.note(f"{media.archive}, lock number {media.lock.serial}, {media.lock_digest}")
    tell_notes(media, console)
    paths = [*media.volumes, *media.parity]
    before = stamps_of(paths)
    findings = verify_media(media, progress=console.progress, remembered=known)
    files = unchanged(before, stamps_of(paths), now_ns=time.time_ns())
    again = ["verify", *(str(path.resolve()) for path in paths)]
    place, volumes = f"archive {media.archive}", counted(len(media.volumes), "volume")
    for kind, found, said in (
        (Kind.INDEX, [*media.refused, *absent(media)], f"{volumes}, none is missing"),
        (Kind.MEDIA, findings, _WHOLE),
    ):
        _note(kind, media.lock, console, place=place, findings=found, said=said, again=again, files=files)
    if lock is not None and lock_digest(lock) != media.lock_digest:
        findings.append(_other_lock(media, lock_digest(lock)))
    return findings + guard.findings(lambda: guard.check(media, media.lock))


def _verify_manifests(store: Store, known: Remembered, console: Console) -> None:
    """A bucket without a lock."""
    raise_all(verify_manifests(store, progress=console.progress, remembered=known))
    text = f"{store.url}: every byte is what its manifests say; there is no lock that says what they should be"
    facts = {"verified": [store.url], "findings": 0, "lock": None, **_remembered(known)}
    console.data(text + _not_read(known), facts)


def _sealed_beside(lock_path: Path) -> list[Sealed]:
    path = lock_path.with_name(SIGNATURES_NAME)
    return [read_envelope(path)] if path.is_file() else []


def _adopt(store: Destination, lock: Lock | None, sealed: list[Sealed], *, dry_run: bool, console: Console) -> None:
    found = adopt(store, lock, signatures=merged(sealed), dry_run=dry_run, progress=console.progress)
    verb = "would be" if dry_run else "is" if len(found.adopted) == 1 else "are"
    standing = "adopted" if lock is None else "verified"
    for one in found.adopted:
        files = f"{counted(len(one.manifest.files), 'file')}, {sized(one.manifest.size_bytes)}"
        noted = f"{one.proved} of them under the id that the hub's client noted"
        console.note(f"{standing}  {one.manifest.repo} at {one.manifest.revision}, {files}; {noted}")
    models = {
        one.manifest.repo: {
            "revision": one.manifest.revision,
            "files": len(one.manifest.files),
            "bytes": one.manifest.size_bytes,
            "proved": one.proved,
        }
        for one in found.adopted
    }
    facts = {standing: models, "there": list(found.there), "findings": len(found.findings), "dry_run": dry_run}
    had = f"; {counted(len(found.there), 'model')} had a manifest" if found.there else ""
    console.data(f"{counted(len(found.adopted), 'model')} {verb} {standing} in {store.url}{had}", facts)
    raise_all(found.findings)


def _other_lock(media: Media, want: str) -> Expected:
    return Drift(f"{media.where} is for another lock\n  want  {want}\n  have  {media.lock_digest}")
