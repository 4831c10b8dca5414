"""A model from a bucket that somebody filled by hand: fetched, and never said to be more than it is.

There is no manifest to hold files against. What is fetched is what the listing names, once that looks complete;
it is held against whatever ids the hub's own client left in the bucket, and its digests are kept in
`unverified/<commit>.json` with a digest of the listing, so that files which change in the bucket are noticed.
`weights` decides whether such files are wanted at all.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from sie_core.artifacts import handfilled, hf_layout, survey
from sie_core.artifacts.digest import Digest, digest_of, digest_of_stream
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.handfilled import Piece, Pieces
from sie_core.artifacts.manifest import FileEntry, Manifest, canonical_json, decode_manifest, encode_manifest
from sie_core.artifacts.ranges import RangedFetch
from sie_core.artifacts.store import Store
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.transfer import read, require_space, write
from sie_core.ids import ModelId, Revision
from sie_server import snapshots

Progress = Callable[[str, int], None]


class Unverified(Struct, frozen=True, forbid_unknown_fields=True):
    """What a cache keeps of such a snapshot.

    Attributes:
        listing: of the bucket when it was fetched (`Pieces.listing`).
        manifest: what came.
    """

    listing: Digest
    manifest: msgspec.Raw


def kept(cache: Path, repo: ModelId, revision: Revision) -> tuple[Digest, Manifest] | None:
    """The snapshot in the cache and the listing it was made from; None for anything less than all of it."""
    data = read(LocalStore(cache), hf_layout.unverified_file(repo, revision))
    if data is None:
        return None
    try:
        about = msgspec.json.decode(data, type=Unverified)
        manifest = decode_manifest(bytes(about.manifest))
    except (msgspec.MsgspecError, ValueError):
        return None  # as if it were not there: it is fetched and written again
    is_this = (manifest.repo, manifest.revision) == (repo, revision)
    return (about.listing, manifest) if is_this and snapshots.has_all(cache, manifest) else None


def check_complete(store: Store, pieces: Pieces) -> None:
    """Raises `NotThere` with everything that is missing or cut short."""
    missing = survey.lacking(store, pieces)
    if missing:
        lines = "".join(f"\n  {line}" for line in missing)
        raise NotThere(
            f"`{pieces.repo}` is not complete in {store.url}, commit {pieces.revision}:{lines}",
            hint=survey.DOWNLOAD_AGAIN,
        )


def fetch(store: Store, pieces: Pieces, cache: Path, progress: Progress) -> Manifest:
    """Fetch into a folder of its own, rename that folder, and write down what came. Holds no lock: the caller does.

    Raises:
        TransferError: it did not come.
        TrustError: it is not what the hub's client noted in the bucket.
    """
    repo, revision = pieces.repo, pieces.revision
    incoming = snapshots.incoming(cache, repo, revision, pieces.listing)
    incoming.mkdir(parents=True, exist_ok=True)
    here_bytes = sum(path.stat().st_blocks * 512 for path in incoming.rglob("*") if path.is_file())
    require_space(incoming, pieces.size_bytes - here_bytes)
    digests = {piece.path: _fetched(store, piece, incoming / piece.path, progress) for piece in pieces.files}
    _check_ids(store, pieces, digests, incoming)
    entries = (FileEntry(piece.path, digests[piece.path], piece.size_bytes) for piece in pieces.files)
    manifest = Manifest(repo, revision, tuple(entries))
    local = LocalStore(cache)
    local.delete(hf_layout.manifest_file(repo, revision))  # of files that go now, if it is there at all
    snapshots.publish(cache, manifest, incoming)
    about = Unverified(pieces.listing, msgspec.Raw(encode_manifest(manifest)))
    write(local, hf_layout.tree_file(repo, revision), hf_layout.tree_json(manifest))
    write(local, hf_layout.unverified_file(repo, revision), canonical_json(about))
    write(local, hf_layout.ref_file(repo), hf_layout.ref_bytes(revision))
    return manifest


def _fetched(store: Store, piece: Piece, target: Path, progress: Progress) -> Digest:
    """The digest of what came, or had come: the folder is of this listing, so it is the same file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.stat().st_size == piece.size_bytes:
        progress(piece.path, piece.size_bytes)
        with target.open("rb") as stream:
            return digest_of_stream(stream)[0]
    # No digest is known beforehand; this one only tells its journal from that of another file.
    stands_for = digest_of(canonical_json(piece))
    fetching = RangedFetch(
        store, piece.name, target, FileEntry(piece.path, stands_for, piece.size_bytes), progress=progress
    )
    digest = fetching.run()
    fetching.publish()
    return digest


def _check_ids(store: Store, pieces: Pieces, digests: dict[str, Digest], folder: Path) -> None:
    ids = {
        piece.path: handfilled.hub_ids(
            digests[piece.path],
            (folder / piece.path).read_bytes() if piece.size_bytes <= handfilled.SMALL_BYTES else None,
        )
        for piece in pieces.files
    }
    for piece, noted in handfilled.contradictions(pieces, ids):
        (folder / piece.path).unlink()
        raise TrustError(
            f"`{piece.path}` of `{pieces.repo}` is not what was downloaded from the hub",
            where=f"{store.url.rstrip('/')}/{piece.name}",
            want=noted,
            have=" or ".join(sorted(ids[piece.path], key=len)),
            hint="it was altered after the download, or on the way: remove it from the bucket and copy it again; "
            "`aws s3 sync` leaves a file of the same length alone",
        )
