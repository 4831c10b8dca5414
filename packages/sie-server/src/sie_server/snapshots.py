"""Snapshots on this machine's disk: which are whole, what of others can be taken over, how a new one appears.

    models--ORG--NAME/.incoming/<commit>-<manifest>/   files as they come, each under its name when it is right
    models--ORG--NAME/snapshots/<commit>/              the same folder, renamed when all of them are
    models--ORG--NAME/manifests/<commit>.json          written last: what a whole snapshot consists of

`weights` decides what is wanted and where it comes from.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, digest_of_stream
from sie_core.artifacts.manifest import Manifest, decode_manifest, manifest_digest
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.transfer import read
from sie_core.ids import ModelId, Revision, cache_folder


def folder_of(cache: Path, repo: ModelId, revision: Revision) -> Path:
    return cache / hf_layout.snapshot_folder(repo, revision)


def incoming_folder(cache: Path, manifest: Manifest) -> Path:
    """Where the files of a manifest arrive; another manifest of the same commit has another."""
    return incoming(cache, manifest.repo, manifest.revision, manifest_digest(manifest))


def incoming(cache: Path, repo: ModelId, revision: Revision, what: Digest) -> Path:
    """Where files of a commit arrive; `what`: the digest of what says which."""
    return folder_of(cache, repo, revision).parents[1] / ".incoming" / f"{revision}-{what[7:19]}"


def whole(cache: Path, repo: ModelId, revision: Revision) -> Manifest | None:
    """The manifest of a snapshot whose files are all there, each with its length; None for anything less."""
    manifest = _manifest(cache, repo, revision)
    return manifest if manifest is not None and has_all(cache, manifest) else None


def has_all(cache: Path, manifest: Manifest) -> bool:
    """Whether every file of a manifest is there with its length."""
    folder = folder_of(cache, manifest.repo, manifest.revision)
    return all(_size_bytes(folder / entry.path) == entry.size_bytes for entry in manifest.files)


def _manifest(cache: Path, repo: ModelId, revision: Revision) -> Manifest | None:
    data = read(LocalStore(cache), hf_layout.manifest_file(repo, revision))
    if data is None:
        return None
    try:
        manifest = decode_manifest(data)
    except ValueError:
        return None  # as if it were not there: it is fetched and written again
    return manifest if (manifest.repo, manifest.revision) == (repo, revision) else None


def _size_bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def adopt(cache: Path, manifest: Manifest) -> None:
    """Take over the right files of a snapshot that is not known to be complete, each read and hashed."""
    snapshot = folder_of(cache, manifest.repo, manifest.revision)
    arriving = incoming_folder(cache, manifest)
    for entry in manifest.files:
        source, target = snapshot / entry.path, arriving / entry.path
        if target.exists() or _size_bytes(source) != entry.size_bytes:
            continue
        with source.open("rb") as stream:
            if digest_of_stream(stream)[0] != entry.digest:
                continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # on a disk without links it is fetched
            os.link(source.resolve(), target)


def publish(cache: Path, manifest: Manifest, incoming: Path) -> Path:
    """Rename what has arrived in `incoming` to where it is looked for. The folder.

    What does not belong is removed first, a folder of that name that was not complete makes room, and what other
    manifests of the model, or killed processes, had left half arrived goes: nobody else is fetching this model.
    """
    snapshot = folder_of(cache, manifest.repo, manifest.revision)
    wanted = {incoming / entry.path for entry in manifest.files}
    for path in incoming.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    replaced = incoming.with_name(incoming.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if snapshot.exists():
        snapshot.rename(replaced)
    incoming.rename(snapshot)
    for left in incoming.parent.iterdir():
        shutil.rmtree(left, ignore_errors=True)
    return snapshot


def withdraw(model: Path, commit: str) -> Path:
    """Make a snapshot one that is not there, at once and whatever happens then. Its files, which are to be removed.

    What is left where a process is killed before they are gone is among what had half arrived.
    """
    leaving = model / ".incoming" / f"{commit}.evicted"
    shutil.rmtree(leaving, ignore_errors=True)
    leaving.parent.mkdir(exist_ok=True)
    (model / "snapshots" / commit).rename(leaving)
    for kind in ("manifests", "unverified", "trees"):
        (model / kind / f"{commit}.json").unlink(missing_ok=True)
    shutil.rmtree(model / ".no_exist" / commit, ignore_errors=True)
    for ref in (model / "refs").rglob("*"):
        if ref.is_file() and ref.read_bytes().strip() == commit.encode():
            ref.unlink()
    return leaving


def allocated_bytes(folder: Path, *, linked: bool = True) -> int:
    """What the files of a folder take on the disk; `linked`: those too that have another name elsewhere."""
    found = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):  # it has just got its name
                about = (Path(parent) / file).lstat()
                found += about.st_blocks * 512 if linked or about.st_nlink == 1 else 0
    return found


@contextmanager
def one_process(cache: Path, repo: ModelId, when_taken: Callable[[], None]) -> Iterator[None]:
    """Held while a model is fetched; the kernel lets go of it when the process ends in whatever way.

    Args:
        when_taken: called once where another process holds it, before waiting for that.
    """
    with locked(lock_file(cache, cache_folder(repo)), when_taken):
        yield


def lock_file(cache: Path, model: str) -> Path:
    """`model`: the name of its folder."""
    return cache / ".sie" / f"{model}.lock"


@contextmanager
def locked(path: Path, when_taken: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The one who has the file to itself; it is empty at first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        yield
