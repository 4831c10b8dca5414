"""What a listing says of a model that somebody copied into a bucket by hand: its commit, its files, what is missing.

There is no manifest, so nothing here is proof. Two layouts are known, as the hub's own commands leave them:

    models--ORG--NAME/snapshots/<commit>/<path>    `--cache-dir`, links followed when it was copied
    models--ORG--NAME/blobs/<id>                   the same files again, or alone where links were skipped; which
                                                   path a blob stands for is in trees/<commit>.json
    ORG/NAME/<path>                                `--local-dir`; ids and commit in .cache/huggingface/download

Ids are the hub's: git's sha1 of a small file, the sha256 of one kept in LFS. `survey` reads, this decides.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.hf_layout import git_blob_id
from sie_core.artifacts.manifest import canonical_json, parse_path
from sie_core.artifacts.selection import selected
from sie_core.artifacts.store import Stat
from sie_core.ids import ModelId, Revision, cache_folder, is_revision

SMALL_BYTES = 32 << 20
"""The hub keeps longer files in LFS, under their sha256; git's sha1 is only computed of files up to here."""

LONGEST_HEADER_BYTES = 100_000_000
"""As the safetensors format has it."""

METADATA = ".cache/huggingface/download/"
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CONFIGS = ("config.json", "adapter_config.json", "gliner_config.json", "modules.json", "open_clip_config.json")
_SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", *_SENTENCEPIECE)
_WITHOUT_TOKENIZER = ("adapter_config.json", "gliner_config.json")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_ONLY_READ_BY_PEOPLE = (".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf")


class Piece(Struct, frozen=True, order=True):
    """One file of a repository, and where it is stored.

    Attributes:
        path: in the repository.
        name: in the store.
        tag: of its `Stat`.
        hub_id: what the hub's client noted of this path; None where it noted nothing.
    """

    path: str
    name: str
    size_bytes: int
    tag: str
    hub_id: str | None = None


class Pieces(Struct, frozen=True):
    """The files of one commit that are carried, sorted by path.

    Attributes:
        blobs: ids of stored blobs that no path is known of, with their lengths.
        tree: the repository's own listing, path → length; empty where it was not copied.
    """

    repo: ModelId
    revision: Revision
    files: tuple[Piece, ...]
    blobs: Mapping[str, int] = {}
    tree: Mapping[str, int] = {}

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.files)

    @property
    def listing(self) -> Digest:
        """One digest of names, lengths and tags: another one when any of these files was written anew."""
        return digest_of(canonical_json((self.revision, self.files)))


class TreeEntry(Struct, frozen=True):
    size: int
    blob_id: str = ""
    lfs_sha256: str | None = None

    @property
    def hub_id(self) -> str:
        return self.lfs_sha256 or self.blob_id


class _Tree(Struct, frozen=True):
    files: dict[str, TreeEntry]


class _Index(Struct, frozen=True):
    weight_map: dict[str, str]


class Noted(Struct, frozen=True):
    """What the hub's client wrote beside a file of a plain folder."""

    revision: Revision
    hub_id: str


def commits_in(repo: ModelId, listing: Iterable[Stat]) -> tuple[Revision, ...]:
    """The commits of which any file lies under `snapshots/`, sorted."""
    found = {stat.name.removeprefix(f"{cache_folder(repo)}/snapshots/").split("/", 1)[0] for stat in listing}
    return tuple(sorted(Revision(name) for name in found if is_revision(name)))


def read_tree(data: bytes | None) -> dict[str, TreeEntry]:
    """`trees/<commit>.json`; empty for none, and for one that cannot be read: it is only a help."""
    if data is None:
        return {}
    try:
        files = msgspec.json.decode(data, type=_Tree).files
        return {parse_path(path): entry for path, entry in files.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


def read_noted(data: bytes) -> Noted | None:
    """A `.metadata` file: the commit, the id, a time, each on a line of its own."""
    lines = data.decode("ascii", "replace").split("\n")
    return Noted(Revision(lines[0]), lines[1]) if len(lines) > 1 and is_revision(lines[0]) else None


def pieces_of_cache(
    repo: ModelId, revision: Revision, listing: Iterable[Stat], tree: Mapping[str, TreeEntry]
) -> Pieces:
    """The files of a commit in the hub's cache layout: those under `snapshots/`, and blobs for those that are not.

    Raises `ValueError` for a name that must never become a path on disk.
    """
    folder = cache_folder(repo)
    here = {stat.name: stat for stat in listing}
    prefix, blobs_prefix = f"{folder}/snapshots/{revision}/", f"{folder}/blobs/"
    stored = {name.removeprefix(prefix): stat for name, stat in here.items() if name.startswith(prefix)}
    for path, entry in tree.items():
        blob = here.get(blobs_prefix + entry.hub_id)
        if path not in stored and blob is not None:
            stored[path] = blob
    blobs = {name.removeprefix(blobs_prefix): stat.size_bytes for name, stat in here.items()}
    return Pieces(
        repo,
        revision,
        _carried(stored, {path: entry.hub_id for path, entry in tree.items()}),
        {name: size for name, size in blobs.items() if _ID.fullmatch(name)},
        {path: entry.size for path, entry in tree.items()},
    )


def pieces_of_folder(
    repo: ModelId, listing: Iterable[Stat], noted: Mapping[str, Noted], tree: Mapping[str, TreeEntry]
) -> Pieces | None:
    """The files of a plain folder; None where its notes name no commit, or several. Raises as `pieces_of_cache`."""
    commits = {note.revision for note in noted.values()}
    if len(commits) != 1:
        return None
    prefix = f"{repo}/"
    stored = {stat.name.removeprefix(prefix): stat for stat in listing if not stat.name.startswith(f"{repo}/.cache/")}
    ids = {path: note.hub_id for path, note in noted.items()}
    sizes = {path: entry.size for path, entry in tree.items()}
    return Pieces(repo, next(iter(commits)), _carried(stored, ids), {}, sizes)


def _carried(stored: Mapping[str, Stat], ids: Mapping[str, str]) -> tuple[Piece, ...]:
    return tuple(
        Piece(parse_path(path), stored[path].name, stored[path].size_bytes, stored[path].tag, ids.get(path) or None)
        for path in selected(stored)
    )


def indexes(pieces: Pieces) -> tuple[Piece, ...]:
    """Those that name the parts of a checkpoint."""
    return tuple(one for one in pieces.files if one.path.endswith((".safetensors.index.json", ".bin.index.json")))


def checkpoints(pieces: Pieces) -> tuple[Piece, ...]:
    """Those whose beginning says how long they are."""
    return tuple(one for one in pieces.files if one.path.endswith(".safetensors"))


def header_bytes(head: bytes) -> int:
    """How many bytes the header of a safetensors file takes after the first 8. Raises `ValueError`: it is none."""
    if len(head) < 8 or (length := struct.unpack("<Q", head[:8])[0]) > LONGEST_HEADER_BYTES:
        raise ValueError("its first 8 bytes are not those of a safetensors file")
    return int(length)


def whole_bytes(header: bytes) -> int:
    """How long a safetensors file with this header is. Raises `ValueError` for what is no header."""
    try:
        tensors = msgspec.json.decode(header, type=dict[str, dict[str, object]])
        ends = [_end(about) for name, about in tensors.items() if name != "__metadata__"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise ValueError("its header is not that of a safetensors file") from error
    return 8 + len(header) + max(ends, default=0)


def _end(about: Mapping[str, object]) -> int:
    first, end = msgspec.convert(about["data_offsets"], tuple[int, int])
    if not 0 <= first <= end:
        raise ValueError(f"its header has a tensor at bytes {first:,} to {end:,}")
    return end


def parts_of(index: bytes) -> frozenset[str]:
    """The files that an index names, beside it. Raises `ValueError` for what is no index."""
    try:
        weight_map = msgspec.json.decode(index, type=_Index).weight_map
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("it is not an index of weights") from error
    return frozenset(weight_map.values())


def lacking(
    pieces: Pieces, parts: Mapping[str, frozenset[str]], lengths: Mapping[str, int], unreadable: Mapping[str, str]
) -> tuple[str, ...]:
    """What is missing or cut short, a line each; nothing where it looks complete.

    Args:
        parts: of each index, `parts_of` it.
        lengths: of each checkpoint, `whole_bytes` of it.
        unreadable: of the indexes and checkpoints that are not what their names say, why.
    """
    have = {piece.path: piece.size_bytes for piece in pieces.files}
    found = [f"`{path}`: {why}" for path, why in sorted(unreadable.items())]
    for index, named in sorted(parts.items()):
        wanted = {str(PurePosixPath(index).with_name(name)) for name in named}
        found += [f"`{path}` is missing, and `{index}` names it" for path in sorted(wanted - have.keys())]
    for path, want_bytes in sorted(lengths.items()):
        if have[path] != want_bytes:
            found.append(f"`{path}` has {have[path]:,} bytes, and its header describes {want_bytes:,}")
    for path in selected(pieces.tree):
        if path not in have and not path.lower().endswith(_ONLY_READ_BY_PEOPLE):
            found.append(f"`{path}` is missing, and the repository has it")
    for path, size_bytes in have.items():
        want_bytes = pieces.tree.get(path, size_bytes)
        if size_bytes != want_bytes and path not in lengths:
            found.append(f"`{path}` has {size_bytes:,} bytes, and the repository's has {want_bytes:,}")
    return tuple(dict.fromkeys([*found, *_kinds_missing(have)]))


def _kinds_missing(have: Iterable[str]) -> list[str]:
    names = {PurePosixPath(path).name for path in have}
    found = []
    if not names.intersection(_CONFIGS):
        found.append("there is no `config.json`")
    if not any(name.endswith(_WEIGHTS) for name in names):
        found.append("there are no weights")
    if not names.intersection((*_TOKENIZERS, *_WITHOUT_TOKENIZER)):
        found.append("there is no tokenizer")
    return found


def hub_ids(digest: Digest, content: bytes | None) -> frozenset[str]:
    """What the hub may call a file: its sha256, and git's sha1 where `content` is given, as it is of a small one."""
    return frozenset((hex_of(digest), *([] if content is None else [git_blob_id(content)])))


def is_proved(piece: Piece, ids: frozenset[str], blobs: Mapping[str, int]) -> bool:
    """Whether the hub's client noted one of these ids, for this path or as a blob's name."""
    return piece.hub_id in ids or not ids.isdisjoint(blobs)


def contradictions(pieces: Pieces, ids: Mapping[str, frozenset[str]]) -> tuple[tuple[Piece, str], ...]:
    """Files that are not what the hub's client noted, each with the id that was noted.

    Where it noted no path (its blobs have the ids for names), that is a file which is none of the blobs, while
    there is a blob of its length that is none of the files: one of the two was altered.

    Args:
        ids: of each path, `hub_ids`.
    """
    claimed = frozenset().union(*ids.values())
    found = []
    for piece in pieces.files:
        if is_proved(piece, ids[piece.path], pieces.blobs):
            continue
        twins = [
            blob for blob, size in sorted(pieces.blobs.items()) if size == piece.size_bytes and blob not in claimed
        ]
        if piece.hub_id is not None or twins:
            found.append((piece, piece.hub_id or twins[0]))
    return tuple(found)
