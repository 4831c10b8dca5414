"""The sha256 of the files of one repository at one commit, and the bytes of the small ones, held against the hub."""

from collections.abc import Sequence

from sie_airgap.locking.derived import NotDerived, derived_files
from sie_airgap.patience import Say, Wait, patiently
from sie_airgap.progress import Task
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hf_layout import git_blob_id, snapshot_file
from sie_core.artifacts.lock import Lock, LockedFile
from sie_core.artifacts.stores.hub import HubFile, HubStore


def is_lfs(file: HubFile) -> bool:
    return len(file.hub_id) == 64


class Digests:
    """Each file's sha256: from the hub, from the previous lock, or by fetching it into the store."""

    def __init__(self, files: HubStore, store: BlobFolder, previous: Lock | None, *, say: Say, wait: Wait) -> None:
        self._files, self._store, self._say, self._wait = files, store, say, wait
        models = previous.models if previous is not None else ()
        self._known = {file.hub_id: file.digest for model in models for file in model.files}
        self._fetched: dict[str, bytes] = {}

    def lock(self, file: HubFile, task: Task) -> LockedFile:
        task.at(file.path)
        digest = self._digest(file)
        task.advance(0 if is_lfs(file) else file.size_bytes)
        return LockedFile(file.path, digest, file.size_bytes, file.hub_id)

    def _digest(self, file: HubFile) -> Digest:
        if is_lfs(file):
            return Digest(f"sha256:{file.hub_id}")
        before = self._known.get(file.hub_id)
        if before is not None and self._store.size(before) is not None:
            return before
        return self._store.add(self._fetched.get(file.path) or self._verified(file))

    def read(self, file: HubFile) -> bytes:
        """The bytes of a small file: from the store where it has them, else from the hub, and kept for `lock`."""
        digest = Digest(f"sha256:{file.hub_id}") if is_lfs(file) else self._known.get(file.hub_id)
        if digest is not None and self._store.size(digest) == file.size_bytes:
            with self._store.open(digest) as stream:
                data = stream.read()
            if digest_of(data) == digest:
                return data
        if file.path not in self._fetched:
            self._fetched[file.path] = self._verified(file)
        return self._fetched[file.path]

    def derived(self, carried: Sequence[HubFile]) -> tuple[list[LockedFile], list[str]]:
        """Files that are made of the carried ones, in the store, and what a reviewer should know of them."""
        files = {file.path: file for file in carried}
        made: list[LockedFile] = []
        notes: list[str] = []
        for found in derived_files(files, lambda path: self.read(files[path])):
            if isinstance(found, NotDerived):
                notes.append(f"`{found.source}` is not converted, and no worker reads it: {found.why}")
                continue
            digest = self._store.add(found.data)
            made.append(LockedFile(found.path, digest, len(found.data), hex_of(digest), found.source))
            notes.append(f"`{found.path}` is made from `{found.source}`: the hub has none")
        return made, notes

    def _verified(self, file: HubFile) -> bytes:
        """The file's bytes from the hub, held against the id that it lists."""
        name = snapshot_file(self._files.repo, self._files.revision, file.path)

        def fetched() -> bytes:
            with self._files.open(name) as stream:
                return stream.read()

        data = patiently(fetched, say=self._say, wait=self._wait)
        have = hex_of(digest_of(data)) if is_lfs(file) else git_blob_id(data)
        if have != file.hub_id:
            kind = "sha256" if is_lfs(file) else "git blob"
            raise TrustError(
                f"`{file.path}` is not what the hub lists",
                where=f"{self._files.url}{file.path}",
                want=f"{kind} {file.hub_id}  {file.size_bytes:,} bytes",
                have=f"{kind} {have}  {len(data):,} bytes",
                hint="run this again; if it stays, something between here and the hub alters what it passes on",
            )
        return data
