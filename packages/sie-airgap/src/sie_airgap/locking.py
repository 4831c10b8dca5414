"""Resolve what is to be carried into a lock: refs to commits, tags to digests, every file to its sha256.

The hub tells the sha256 of large files only; small ones are fetched here, checked against the git id that the
hub gives, and put into the store at once, so that `snapshot` has nothing left to do for them. What the
previous lock knew about a file is not asked again. A tokenizer that workers cannot read is converted here, and
locked as a file like the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from sie_airgap.blobs import BlobFolder
from sie_airgap.chart_package import identify
from sie_airgap.chart_package import pack as pack_chart
from sie_airgap.derived import NotDerived, derived_files
from sie_airgap.failures import Incomplete
from sie_airgap.patience import Say, patiently
from sie_airgap.progress import Progress, Task
from sie_airgap.wishes import Wish
from sie_core.artifacts.digest import Digest, digest_of, digest_of_stream, hex_of
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError
from sie_core.artifacts.hf_layout import git_blob_id, snapshot_file
from sie_core.artifacts.lock import (
    LOCK_VERSION,
    Lock,
    LockedChart,
    LockedFile,
    LockedImage,
    LockedModel,
    LockedWheel,
    lock_digest,
)
from sie_core.artifacts.selection import selected, without_weights
from sie_core.artifacts.stores.hub import Hub, HubFile, HubStore
from sie_core.ids import Revision, nearest

ASKED_FOR = (
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "modules.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_albert_config.json",
    "sentence_bert_config.json",
    "sentence_camembert_config.json",
    "sentence_distilbert_config.json",
    "sentence_roberta_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
"""Files that loaders ask for without knowing whether a repository has them."""


@dataclass
class Resolved:
    """The models of a lock, and what a reviewer should know of them, one line each."""

    models: list[LockedModel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def resolve_models(
    wishes: Iterable[Wish],
    hub: Hub,
    store: BlobFolder,
    *,
    previous: Lock | None,
    known: Iterable[str],
    progress: Progress,
) -> Resolved:
    """Every wish at its commit, with the digest of every file.

    Args:
        known: ids of the catalog, for the hint when a repository is not there.

    Raises:
        NotThere, NoPermission, Unreachable: of the hub, naming the repository.
        TrustError: the hub handed out other bytes than it lists.
    """
    resolved, names = Resolved(), list(known)
    for wish in wishes:
        revision = _revision(hub, wish, names, progress.say)
        files = patiently(partial(hub.files, wish.repo, revision), say=progress.say)
        card = patiently(partial(hub.card, wish.repo, revision), say=progress.say)
        paths = {file.path for file in files}
        wanted = set(selected(paths) if wish.weights else without_weights(selected(paths)))
        carried = [file for file in files if file.path in wanted]
        if not carried:
            raise Incomplete(f"`{wish.repo}` at {revision} holds no file that could be carried")
        with progress.task(f"lock {wish.id}", sum(file.size_bytes for file in carried if not _is_lfs(file))) as task:
            digests = Digests(hub.store(wish.repo, revision), store, previous, task, say=progress.say)
            locked = [digests.lock(file) for file in carried]
            made, notes = digests.derived(carried)
        locked = sorted([*locked, *made])
        resolved.models.append(
            LockedModel(
                id=wish.id,
                repo=wish.repo,
                ref=wish.ref,
                revision=revision,
                license=card.license,
                gated=card.gated,
                why=wish.why,
                files=tuple(locked),
                absent=tuple(name for name in ASKED_FOR if name not in {*paths, *(file.path for file in made)}),
            )
        )
        resolved.notes += [f"{wish.id}: {note}" for note in notes]
        resolved.notes += _notes(wish, sorted(paths - wanted), resolved.models[-1])
    return resolved


def _revision(hub: Hub, wish: Wish, known: Sequence[str], say: Say) -> Revision:
    try:
        return patiently(lambda: hub.resolve(wish.repo, wish.ref), say=say)
    except (NotThere, NoPermission) as error:
        near = [f"`{name}`" for name in nearest(wish.id, known) if name != wish.id]
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        told = f"\n{error.hint}" if error.hint is not None else ""
        error.hint = f"`{wish.id}` is asked for by {', '.join(wish.why)}{meant}{told}"
        raise


def _is_lfs(file: HubFile) -> bool:
    return len(file.hub_id) == 64


class Digests:
    """The sha256 of each file: from the hub, from the previous lock, or by fetching it."""

    def __init__(self, files: HubStore, store: BlobFolder, previous: Lock | None, task: Task, *, say: Say) -> None:
        self._files, self._store, self._task, self._say = files, store, task, say
        models = previous.models if previous is not None else ()
        self._known = {file.hub_id: file.digest for model in models for file in model.files}

    def lock(self, file: HubFile) -> LockedFile:
        if _is_lfs(file):
            return LockedFile(file.path, Digest(f"sha256:{file.hub_id}"), file.size_bytes, file.hub_id)
        self._task.at(file.path)
        before = self._known.get(file.hub_id)
        if before is not None and self._store.size(before) is not None:
            self._task.advance(file.size_bytes)
            return LockedFile(file.path, before, file.size_bytes, file.hub_id)
        return LockedFile(file.path, self._fetched(file), file.size_bytes, file.hub_id)

    def derived(self, carried: Sequence[HubFile]) -> tuple[list[LockedFile], list[str]]:
        """Files that are made of the carried ones, in the store, and what a reviewer should know of them."""
        files = {file.path: file for file in carried}
        made: list[LockedFile] = []
        notes: list[str] = []
        for found in derived_files(files, lambda path: self._verified(files[path])):
            if isinstance(found, NotDerived):
                notes.append(f"`{found.source}` is not converted, and no worker reads it: {found.why}")
                continue
            digest = self._store.add(found.data)
            made.append(LockedFile(found.path, digest, len(found.data), hex_of(digest), found.source))
            notes.append(f"`{found.path}` is made from `{found.source}`: the hub has none")
        return made, notes

    def _fetched(self, file: HubFile) -> Digest:
        data = self._verified(file)
        self._task.advance(len(data))
        return self._store.add(data)

    def _verified(self, file: HubFile) -> bytes:
        """The file's bytes from the hub, held against the id that it lists."""
        name = snapshot_file(self._files.repo, self._files.revision, file.path)
        data = patiently(lambda: _read(self._files, name), say=self._say)
        have = hex_of(digest_of(data)) if _is_lfs(file) else git_blob_id(data)
        if have != file.hub_id:
            kind = "sha256" if _is_lfs(file) else "git blob"
            raise TrustError(
                f"`{file.path}` is not what the hub lists",
                where=f"{self._files.url}{file.path}",
                want=f"{kind} {file.hub_id}  {file.size_bytes:,} bytes",
                have=f"{kind} {have}  {len(data):,} bytes",
                hint="run this again; if it stays, something between here and the hub alters what it passes on",
            )
        return data


def _read(files: HubStore, name: str) -> bytes:
    with files.open(name) as stream:
        return stream.read()


def _notes(wish: Wish, left_out: Sequence[str], model: LockedModel) -> list[str]:
    notes = []
    code = [path for path in left_out if path.endswith(".py")]
    if code:
        notes.append(f"{wish.id}: {len(code)} files of code are left out and never run ({', '.join(code[:3])})")
    if wish.weights and not any(file.path.endswith(".safetensors") for file in model.files):
        notes.append(f"{wish.id}: there are no safetensors at {model.revision}")
    if model.license is None:
        notes.append(f"{wish.id}: the hub names no licence")
    return notes


def lock_chart(chart: Path, store: BlobFolder) -> LockedChart:
    """A chart's folder, packed to the same bytes each time, or a `.tgz` as it is; into the store."""
    name = identify(chart)
    data = pack_chart(chart) if chart.is_dir() else chart.read_bytes()
    return LockedChart(name.name, name.version, name.file, store.add(data), len(data))


def lock_wheels(folder: Path, store: BlobFolder) -> tuple[LockedWheel, ...]:
    """Every wheel of a folder, into the store.

    Raises:
        Incomplete: there is none, or none of the toolkit itself.
    """
    paths = sorted(folder.glob("*.whl"))
    for needed in ("sie_airgap-", "sie_sdk-", "sie_core-"):
        if not any(path.name.startswith(needed) for path in paths):
            raise Incomplete(
                f"there is no `{needed}*.whl` among the {len(paths)} wheels in {folder}",
                hint="`pip wheel --wheel-dir FOLDER PACKAGES…` builds ours and what they need",
            )
    return tuple(_lock_wheel(path, store) for path in paths)


def _lock_wheel(path: Path, store: BlobFolder) -> LockedWheel:
    with path.open("rb") as stream:
        digest, size_bytes = digest_of_stream(stream)
    if store.size(digest) is None:
        store.add(path.read_bytes())
    return LockedWheel(path.name, digest, size_bytes)


def assemble(
    previous: Lock | None,
    *,
    models: Sequence[LockedModel],
    images: Sequence[LockedImage],
    charts: Sequence[LockedChart],
    wheels: Sequence[LockedWheel],
) -> Lock:
    """The lock: the previous one itself when nothing changed, else the next number after it."""
    lock = Lock(
        version=LOCK_VERSION,
        serial=1,
        previous=None,
        models=tuple(sorted(models, key=lambda model: model.id)),
        images=tuple(sorted(images, key=lambda image: image.reference)),
        charts=tuple(sorted(charts, key=lambda chart: chart.file)),
        wheels=tuple(sorted(wheels, key=lambda wheel: wheel.file)),
    )
    if previous is None:
        return lock
    same = msgspec.structs.replace(lock, serial=previous.serial, previous=previous.previous)
    if same == previous:
        return previous
    return msgspec.structs.replace(lock, serial=previous.serial + 1, previous=lock_digest(previous))
