"""Looking at a model in a bucket that was filled by hand: the listing, and the little that must be read for it.

`handfilled` decides what it means. Nothing is written, and no weights are read but their headers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sie_core.artifacts import handfilled, hf_layout
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.handfilled import METADATA, Noted, Piece, Pieces
from sie_core.artifacts.store import Stat, Store
from sie_core.artifacts.transfer import read
from sie_core.ids import ModelId, Revision, cache_folder, parse_revision

FOLLOW_LINKS = (
    "copy it again with links followed: `aws s3 sync`, `mc mirror` and `gsutil rsync` do so, "
    "`rclone` with `--copy-links`, `gcloud storage rsync` with `--no-ignore-symlinks`"
)
DOWNLOAD_AGAIN = "run the download again, it fetches what is missing; then copy it again"

T = TypeVar("T")


def pieces_of(store: Store, repo: ModelId, *, expected: Revision | None = None) -> Pieces | None:
    """The files of a model, whether or not they are all; None where there is nothing of it.

    Args:
        expected: the commit to take where several are there and no ref says which.

    Raises:
        NotThere: what is there is of no commit, or of several and nothing says which.
        TrustError: `refs/main` holds no commit, or a file has a name that must never become a path on disk.
        TransferError: of the store.
    """
    listing = list(store.list(f"{cache_folder(repo)}/"))
    with _names_checked(store, repo):
        if not listing:
            return _folder(store, repo)
        revision = main_of(store, repo) or _only_commit(store, repo, listing, expected)
        return _cached(store, repo, revision, listing)


def pieces_at(store: Store, repo: ModelId, revision: Revision) -> Pieces:
    """The files of that commit, whatever ref there is. Raises as `pieces_of`, and `NotThere` for none of them."""
    listing = list(store.list(f"{cache_folder(repo)}/"))
    with _names_checked(store, repo):
        folder = None if listing else _folder(store, repo)
        if folder is not None and folder.revision == revision:
            return folder
        return _cached(store, repo, revision, listing)


def models_in(store: Store) -> tuple[ModelId, ...]:
    """Every model of which anything is there, in either layout, sorted. Reads the whole listing."""
    found = set()
    for stat in store.list(""):
        folder, metadata, _ = stat.name.partition(f"/{METADATA}")
        model = hf_layout.model_of(stat.name) or (folder if metadata and folder.count("/") == 1 else None)
        if model is not None:
            found.add(ModelId(model))
    return tuple(sorted(found))


@contextmanager
def _names_checked(store: Store, repo: ModelId) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise TrustError(
            f"a file of `{repo}` has a name that is refused",
            where=store.url,
            want="a relative path",
            have=str(error),
        ) from error


def _cached(store: Store, repo: ModelId, revision: Revision, listing: Sequence[Stat]) -> Pieces:
    tree = handfilled.read_tree(read(store, hf_layout.tree_file(repo, revision)))
    pieces = handfilled.pieces_of_cache(repo, revision, listing, tree)
    if not pieces.files:
        skipped = pieces.blobs and not handfilled.commits_in(repo, listing)
        raise _links_skipped(store, repo, revision) if skipped else _no_files(store, repo, revision, listing)
    return pieces


def main_of(store: Store, repo: ModelId) -> Revision | None:
    """The commit in `refs/main`, white space around it left out; None where there is no such file.

    Raises `TrustError` for one that holds no commit.
    """
    name = hf_layout.ref_file(repo)
    data = read(store, name)
    if data is None:
        return None
    try:
        return parse_revision(data.decode("ascii", "replace").strip())
    except ValueError as error:
        where = f"{store.url.rstrip('/')}/{name}"
        raise TrustError("a ref is not a commit", where=where, want="40 hex digits", have=repr(data[:80])) from error


def lacking(store: Store, pieces: Pieces) -> tuple[str, ...]:
    """What is missing or cut short, a line each. Reads indexes and headers. Raises `TransferError`."""
    unreadable: dict[str, str] = {}

    def looked_at(files: Sequence[Piece], look: Callable[[Piece], T]) -> dict[str, T]:
        found = {}
        for piece in files:
            try:
                found[piece.path] = look(piece)
            except ValueError as error:
                unreadable[piece.path] = str(error)
        return found

    parts = looked_at(handfilled.indexes(pieces), lambda piece: handfilled.parts_of(_content(store, piece)))
    lengths = looked_at(handfilled.checkpoints(pieces), lambda piece: _whole_bytes(store, piece))
    return handfilled.lacking(pieces, parts, lengths, unreadable)


def _only_commit(store: Store, repo: ModelId, listing: Sequence[Stat], expected: Revision | None) -> Revision:
    commits = handfilled.commits_in(repo, listing)
    if expected in commits and expected is not None:
        return expected
    if len(commits) == 1:
        return commits[0]
    name = f"`{repo}` in {store.url}"
    if commits:
        raise NotThere(
            f"{name} has files of {len(commits)} commits and no `refs/main`: {', '.join(commits)}",
            hint=f"copy `{hf_layout.ref_file(repo)}` as well, which says which of them is meant",
        )
    raise NotThere(f"{name} has neither `snapshots/` nor `refs/main`", hint=FOLLOW_LINKS)


def _folder(store: Store, repo: ModelId) -> Pieces | None:
    """A plain folder, as `hf download --local-dir ORG/NAME` leaves it."""
    listing = list(store.list(f"{repo}/"))
    if not listing:
        return None
    prefix = f"{repo}/{METADATA}"
    notes: dict[str, Noted] = {}
    for stat in listing:
        if stat.name.startswith(prefix) and stat.name.endswith(".metadata"):
            note = handfilled.read_noted(read(store, stat.name) or b"")
            if note is not None:
                notes[stat.name.removeprefix(prefix).removesuffix(".metadata")] = note
    trees = [stat.name for stat in listing if stat.name.startswith(f"{repo}/.cache/huggingface/trees/")]
    tree = handfilled.read_tree(read(store, trees[0]) if len(trees) == 1 else None)
    pieces = handfilled.pieces_of_folder(repo, listing, notes, tree)
    if pieces is None:
        raise NotThere(
            f"`{repo}` in {store.url} is a plain folder, and nothing there says of which commit",
            hint=f"copy its `{METADATA}` as well, or download it with `--cache-dir`",
        )
    return pieces


def _links_skipped(store: Store, repo: ModelId, revision: Revision) -> NotThere:
    return NotThere(
        f"`{repo}` in {store.url} has `blobs/` and nothing under `snapshots/{revision}/`: links were skipped",
        hint=FOLLOW_LINKS,
    )


def _no_files(store: Store, repo: ModelId, revision: Revision, listing: Sequence[Stat]) -> NotThere:
    others = ", ".join(handfilled.commits_in(repo, listing)) or "none"
    return NotThere(
        f"`{repo}` in {store.url} has no files of commit {revision}; commits there: {others}",
        hint=DOWNLOAD_AGAIN,
    )


def _content(store: Store, piece: Piece) -> bytes:
    if piece.size_bytes > handfilled.SMALL_BYTES:
        raise ValueError(f"it has {piece.size_bytes:,} bytes, too many for an index")
    with store.open(piece.name) as stream:
        return stream.read()


def _whole_bytes(store: Store, piece: Piece) -> int:
    length = handfilled.header_bytes(_range(store, piece, 0, 8))
    header = _range(store, piece, 8, length)
    if len(header) < length:
        raise ValueError(f"it ends inside its header: {piece.size_bytes:,} bytes, and the header alone has {length:,}")
    return handfilled.whole_bytes(header)


def _range(store: Store, piece: Piece, start: int, length: int) -> bytes:
    with store.open(piece.name, start=start, length=length) as stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))
