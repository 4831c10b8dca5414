"""Hold a bucket without a lock against its own manifests: all that was adopted.

Nothing says that the manifests are right; that the files are still what they were then is what is shown.
"""

from sie_airgap.failures import Expected, Incomplete
from sie_airgap.mirror.adoption import COPY_AGAIN
from sie_airgap.patience import Wait
from sie_airgap.progress import Progress
from sie_airgap.verifying.remembered import Remembered
from sie_airgap.verifying.wanted import Wanted, look_at
from sie_core.artifacts import hf_layout, survey
from sie_core.artifacts.errors import NotThere, TransferError, TrustError
from sie_core.artifacts.manifest import Manifest, decode_manifest
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read
from sie_core.ids import ModelId


def verify_manifests(
    store: Store, *, progress: Progress, remembered: Remembered | None = None, wait: Wait | None = None
) -> list[Expected]:
    """Every byte of a bucket that has manifests and no lock. As `verify_bucket`.

    Raises `Incomplete` for a bucket without any model, and `TransferError` where nobody answers.
    """
    findings: list[Expected] = []
    wanted: list[Wanted] = []
    repos = survey.models_in(store)
    for repo in repos:
        try:
            wanted += _wanted(_manifest_of(store, repo))
        except (TransferError, TrustError) as error:
            if isinstance(error, TransferError) and error.transient:
                raise
            findings.append(error)
    if not repos:
        raise Incomplete(f"no models are in {store.url}", hint="look at the URL's prefix")
    return findings + look_at(store, wanted, COPY_AGAIN, progress=progress, remembered=remembered, wait=wait)


def _wanted(manifest: Manifest) -> list[Wanted]:
    return [
        Wanted(
            hf_layout.snapshot_file(manifest.repo, manifest.revision, entry.path),
            f"`{entry.path}` of `{manifest.repo}`",
            entry.digest,
            entry.size_bytes,
            should="what its manifest says",
        )
        for entry in manifest.files
    ]


def _manifest_of(store: Store, repo: ModelId) -> Manifest:
    revision = survey.main_of(store, repo)
    data = None if revision is None else read(store, hf_layout.manifest_file(repo, revision))
    if revision is None or data is None:
        raise NotThere(
            f"`{repo}` in {store.url} has no manifest: nothing says what its bytes should be",
            hint=f"`sie-airgap verify {store.url} --write-manifest` adopts it, with `--lock airgap.lock` as locked",
        )
    try:
        return decode_manifest(data)
    except ValueError as error:
        where = f"{store.url.rstrip('/')}/{hf_layout.manifest_file(repo, revision)}"
        raise TrustError("a manifest cannot be read", where=where, want="a manifest", have=str(error)) from error
