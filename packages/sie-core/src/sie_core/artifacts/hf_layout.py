"""Names in the cache layout that every release of the hub's client resolves offline.

A bucket, a worker's cache and a folder made for `HF_HUB_CACHE` are laid out alike:

    models--ORG--NAME/
      snapshots/<commit>/<path>     real files, no links, no blobs/ beside them
      refs/main                     the commit: exactly 40 bytes, no newline (with one, no release resolves it)
      trees/<commit>.json           the files of the commit that are here
      .no_exist/<commit>/<path>     0 bytes: an optional file that loaders ask for and the commit has not
      manifests/<commit>.json       ours: every file's digest; written when all of them are there
      unverified/<commit>.json      ours, in a worker's cache: likewise, of files that no manifest vouches for

Beside a file that is being fetched lie its `.incoming` and `.journal`, so no file of a snapshot may be called so.
Names only, relative to the store's root: nothing is read or written here.
"""

import hashlib

import msgspec

from sie_core.artifacts.digest import hex_of
from sie_core.artifacts.manifest import FileEntry, Manifest, parse_path
from sie_core.ids import ModelId, Revision, cache_folder, parse_model_id

PARTIAL, JOURNAL = ".incoming", ".journal"

_TREE_FORMAT_VERSION = 1
_FOLDER_PREFIX = "models--"


def snapshot_folder(model: ModelId, revision: Revision) -> str:
    return f"{cache_folder(model)}/snapshots/{revision}"


def snapshot_file(model: ModelId, revision: Revision, path: str) -> str:
    return f"{snapshot_folder(model, revision)}/{parse_path(path)}"


def ref_file(model: ModelId, ref: str = "main") -> str:
    return f"{cache_folder(model)}/refs/{parse_path(ref)}"


def manifest_file(model: ModelId, revision: Revision) -> str:
    return f"{cache_folder(model)}/manifests/{revision}.json"


def unverified_file(model: ModelId, revision: Revision) -> str:
    return f"{cache_folder(model)}/unverified/{revision}.json"


def tree_file(model: ModelId, revision: Revision) -> str:
    return f"{cache_folder(model)}/trees/{revision}.json"


def no_exist_file(model: ModelId, revision: Revision, path: str) -> str:
    return f"{cache_folder(model)}/.no_exist/{revision}/{parse_path(path)}"


def ref_bytes(revision: Revision) -> bytes:
    """What a ref holds: the 40 digits and nothing after them."""
    return revision.encode("ascii")


def model_of(name: str) -> ModelId | None:
    """The model that a stored file belongs to; None for other files and for folders that no model id makes.

    `--` stands for the slash, so an id that has `--` itself comes back with a slash in its place: good for
    telling people what is there, not for addressing it.
    """
    folder = name.split("/", 1)[0]
    if not folder.startswith(_FOLDER_PREFIX):
        return None
    try:
        return parse_model_id(folder.removeprefix(_FOLDER_PREFIX).replace("--", "/"))
    except ValueError:
        return None


def tree_json(manifest: Manifest) -> bytes:
    """`trees/<commit>.json`: the listing the hub's client holds a snapshot against when it is offline.

    It names the carried files only: with the repository's full listing a filtered snapshot counts as
    incomplete in releases from 1.23 on. Every file is described as one kept in LFS, whether or not the
    hub keeps it so: that form has the sha256 and needs nothing else of the hub.
    """
    files = {entry.path: _tree_entry(entry) for entry in manifest.files}
    return msgspec.json.encode({"format_version": _TREE_FORMAT_VERSION, "files": files}, order="sorted") + b"\n"


def _tree_entry(entry: FileEntry) -> dict[str, str | int]:
    return {
        "size": entry.size_bytes,
        "blob_id": _pointer_id(entry),
        "lfs_sha256": hex_of(entry.digest),
        "lfs_size": entry.size_bytes,
    }


def _pointer_id(entry: FileEntry) -> str:
    """The git blob id of the LFS pointer that stands for a file."""
    oid = hex_of(entry.digest)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {entry.size_bytes}\n".encode()
    return git_blob_id(pointer)


def is_unfinished(path: str) -> bool:
    """Whether a name is that of a file on its way."""
    return path.endswith((PARTIAL, JOURNAL))


def git_blob_id(data: bytes) -> str:
    """The sha1 that git, and the hub for small files, knows `data` by."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
