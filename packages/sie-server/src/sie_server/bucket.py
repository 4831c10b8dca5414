"""What the bucket of a cluster has of a model: a manifest, or the pieces of one that was filled by hand.

Only small files are read. `weights` fetches what is named here; every refusal says what is there, and what to
run next.
"""

from msgspec import Struct
from msgspec.structs import replace

from sie_core.artifacts import hf_layout, survey
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.handfilled import Pieces
from sie_core.artifacts.lock import CURRENT_FILE, Lock, decode_lock, lock_file
from sie_core.artifacts.manifest import Manifest, decode_manifest, manifest_digest
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read
from sie_core.ids import ModelId, Revision, nearest

_NAMED_MODELS = 12
_REQUIRED = "verified models are required"


class InBucket(Struct, frozen=True):
    """One model in a bucket.

    Attributes:
        model: as the catalog calls it.
        repo: whose files those are.
        expected: the commit to take where several are there, and neither lock nor ref says which.
        locked: what the lock says; None: there is no lock, and the bucket's `refs/main` says the commit.
        takes_unverified: whether files without a manifest, and with one that was only adopted, are wanted.
    """

    store: Store
    model: ModelId
    repo: ModelId
    expected: Revision | None
    locked: Manifest | None
    takes_unverified: bool

    def find(self) -> Manifest | Pieces:
        """What to fetch.

        Raises:
            NotThere: nothing, or nothing that is wanted.
            TrustError: the manifest is not what was locked, or cannot be read.
            TransferError: the bucket cannot be read.
        """
        locked = self.locked
        revision = locked.revision if locked else survey.main_of(self.store, self.repo)
        manifest = None if revision is None else self._manifest(revision)
        if manifest is None and self.takes_unverified:
            return self._pieces()
        if revision is None:
            raise missing(self.model, self.store.url, models_in(self.store))
        if manifest is None:
            raise self._no_manifest(revision)
        if locked is not None:
            if replace(manifest, adopted=False) != locked:
                where = f"{self.store.url}{hf_layout.manifest_file(self.repo, revision)}"
                want, have = manifest_digest(locked), manifest_digest(manifest)
                raise TrustError("a manifest is not what was locked", where=where, want=want, have=have)
            return locked
        if manifest.adopted and not self.takes_unverified:
            raise NotThere(
                f"`{self.model}` in {self.store.url} was adopted from a bucket filled by hand; {_REQUIRED}",
                hint=adopts(self.store, "--lock airgap.lock "),
            )
        return manifest

    def _manifest(self, revision: Revision) -> Manifest | None:
        name = hf_layout.manifest_file(self.repo, revision)
        data = read(self.store, name)
        if data is None:
            return None
        where = f"{self.store.url}{name}"
        try:
            manifest = decode_manifest(data)
        except ValueError as error:
            raise TrustError("a manifest cannot be read", where=where, want="a manifest", have=str(error)) from error
        if (manifest.repo, manifest.revision) != (self.repo, revision):
            have = f"{manifest.repo} at {manifest.revision}"
            raise TrustError(
                "a manifest is of another model", where=where, want=f"{self.repo} at {revision}", have=have
            )
        return manifest

    def _pieces(self) -> Manifest | Pieces:
        """The files that somebody copied by hand, all of them; a manifest where only the ref was missing."""
        pieces = survey.pieces_of(self.store, self.repo, expected=self.expected)
        if pieces is None:
            raise missing(self.model, self.store.url, models_in(self.store))
        manifest = self._manifest(pieces.revision)
        return pieces if manifest is None else manifest

    def _no_manifest(self, revision: Revision) -> NotThere:
        """Nothing of this commit, or files without the manifest that comes after them."""
        prefix = hf_layout.snapshot_folder(self.repo, revision) + "/"
        files = sum(1 for _ in self.store.list(prefix))
        if not files:
            error = missing(self.model, self.store.url, models_in(self.store))
            error.message = f"{error.message}; wanted is commit {revision}"
            return error
        return NotThere(
            f"`{self.model}` in {self.store.url} has {files} files of commit {revision} and no manifest; {_REQUIRED}",
            hint=f"the mirror was interrupted: run `sie-airgap mirror weights` again; or it was filled by hand: "
            f"{adopts(self.store, '--lock airgap.lock ')}",
        )


def read_pin(cluster: Store, digest: Digest) -> Lock:
    """The lock of that digest, from the bucket.

    Raises:
        NotThere: it was not mirrored; the hint names the one that was mirrored last.
        TrustError: what is there has another digest, or is no lock.
    """
    name = lock_file(digest)
    data = read(cluster, name)
    if data is None:
        current = (read(cluster, CURRENT_FILE) or b"").decode("utf-8", "replace").strip()
        last = f"the lock mirrored last is {current}; " if current else ""
        raise NotThere(
            f"the lock {digest} is not in {cluster.url}",
            hint=f"{last}`sie-airgap mirror weights` puts it there, and `sie-airgap values` writes its digest",
        )
    where = f"{cluster.url}{name}"
    if (have := digest_of(data)) != digest:
        raise TrustError("the lock is not the one that was pinned", where=where, want=digest, have=have)
    return decode_lock(data, where=where)


def models_in(store: Store) -> tuple[ModelId, ...]:
    """The models of which anything is there, sorted. Raises when the store cannot be read."""
    return tuple(sorted({model for stat in store.list("models--") if (model := hf_layout.model_of(stat.name))}))


def adopts(store: Store, lock: str = "") -> str:
    """The hint that ends a bucket's being unverified."""
    return f"`sie-airgap verify {store.url} {lock}--write-manifest` adopts what is there"


def missing(model: ModelId, where: str, there: tuple[ModelId, ...]) -> NotThere:
    """Says which models are there, and the names most like the one that is not."""
    shown = ", ".join(f"`{one}`" for one in there[:_NAMED_MODELS])
    more = f" and {len(there) - _NAMED_MODELS} more" if len(there) > _NAMED_MODELS else ""
    found = f"the models there are {shown}{more}" if there else "there are no models at all"
    near = [one for one in nearest(model, there) if one != model]
    hint = f"nearest: {', '.join(f'`{one}`' for one in near)}" if near else "check the URL and its prefix"
    return NotThere(f"`{model}` is not in {where}: {found}", hint=hint)
