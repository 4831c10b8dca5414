"""Resolve models: refs to commits, every file to its sha256, and the repositories that a model's own files name.

The hub tells the sha256 of large files only; small ones are fetched here, checked against the git id that the
hub gives, and put into the store at once, so that `snapshot` has nothing left to do for them. What the
previous lock knew about a file is not asked again. A tokenizer that workers cannot read is converted here, and
locked as a file like the others.

A model that stands in the lock already stays at its commit, and nobody is asked for it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec

from sie_airgap.failures import Drift, Incomplete
from sie_airgap.locking.closure import Part, is_config, parts, remote_code
from sie_airgap.locking.file_digests import Digests, is_lfs
from sie_airgap.locking.wishes import DEFAULT_REF, Wish, with_part
from sie_airgap.patience import Wait, patiently
from sie_airgap.progress import Progress
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, Unreachable
from sie_core.artifacts.lock import ADAPTED_BY, BASE_OF, LABELS_ENCODER_OF, Lock, LockedFile, LockedModel, part_of
from sie_core.artifacts.selection import selected, without_weights
from sie_core.artifacts.stores.hub import Card, Hub, HubFile
from sie_core.ids import ModelId, Revision, nearest

T = TypeVar("T")

MOST_PARTS = 100
"""More repositories than any models need besides themselves: what names more does so without end."""
_FOUND_IN_FILES = (ADAPTED_BY, BASE_OF, LABELS_ENCODER_OF)
_KEYS = {BASE_OF: "base.repo", LABELS_ENCODER_OF: "labels_base.repo"}
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
    hub: Hub | None,
    store: BlobFolder,
    *,
    previous: Lock | None,
    standing: Lock | None,
    known: Iterable[str],
    progress: Progress,
    wait: Wait = time.sleep,
) -> Resolved:
    """Every wish, and every repository that its files name, at its commit, with the digest of every file.

    Args:
        hub: None: nobody is asked, and what the lock does not have cannot be locked.
        previous: its digests are believed of files with the same name at the hub.
        standing: of its models the commits stay.
        known: ids of the catalog, for the hint when a repository is not there.

    Raises:
        NotThere, NoPermission, Unreachable: of the hub, naming the repository and who asked for it.
        Incomplete: a model names another repository in a way that cannot be followed, or `hub` is None and needed.
        TrustError: the hub handed out other bytes than it lists.
    """
    return _Resolving(hub, store, previous, standing, list(known), progress, wait).resolved(wishes)


@dataclass(frozen=True)
class _Seen:
    """A repository as the hub has it at one commit: `configs` is the content of its configuration files by path,
    `made` is made of its files, and `notes` says what was."""

    revision: Revision
    card: Card
    files: tuple[HubFile, ...]
    digests: Digests
    configs: Mapping[str, bytes]
    made: Sequence[LockedFile]
    notes: Sequence[str]


@dataclass
class _Resolving:
    hub: Hub | None
    store: BlobFolder
    previous: Lock | None
    standing: Lock | None
    known: list[str]
    progress: Progress
    wait: Wait
    notes: list[str] = field(default_factory=list)

    def resolved(self, wishes: Iterable[Wish]) -> Resolved:
        wanted = {wish.id: wish for wish in wishes}
        most, looked = len(wanted) + MOST_PARTS, dict[ModelId, LockedModel | _Seen]()
        while todo := [wish for wish in wanted.values() if wish.id not in looked]:
            for wish in todo:
                looked[wish.id] = self._looked_at(wish)
                for part in self._parts(wish, looked[wish.id], wanted):
                    wanted = with_part(wanted, part)
            if len(wanted) > most:
                raise Incomplete(f"the models name more than {MOST_PARTS} other repositories: {', '.join(wanted)}")
        found = Resolved(notes=self.notes)
        for wish in sorted(wanted.values(), key=lambda wish: wish.id):
            found.models.append(self._finished(wish, looked[wish.id]))
        return found

    def _looked_at(self, wish: Wish) -> LockedModel | _Seen:
        was = self.standing.model(wish.id) if self.standing is not None else None
        stays = was is not None and (was.repo, was.ref) == (wish.repo, wish.ref)
        if was is not None and stays and (was.has_weights or not wish.weights):
            return was
        return self._asked(wish, was.revision if was is not None and stays else None)

    def _asked(self, wish: Wish, revision: Revision | None) -> _Seen:
        hub = self._online(f"`{wish.id}`, asked for by {', '.join(wish.why)}, is not in the lock as it is asked for")
        with self._explained(wish, hub):
            if revision is None:
                at = wish.ref
                revision = self._patiently(partial(hub.resolve, wish.repo, at))
            files = self._patiently(partial(hub.files, wish.repo, revision))
            card = self._patiently(partial(hub.card, wish.repo, revision))
            carried = _carried(wish, files)
            if not carried:
                raise Incomplete(f"`{wish.repo}` at {revision} holds no file that could be carried")
            digests = Digests(
                hub.store(wish.repo, revision), self.store, self.previous, say=self.progress.say, wait=self.wait
            )
            configs = {file.path: digests.read(file) for file in carried if is_config(file.path, file.size_bytes)}
            made, notes = digests.derived(carried)
        return _Seen(revision, card, files, digests, configs, made, notes)

    def _parts(self, wish: Wish, found: LockedModel | _Seen, wanted: Mapping[ModelId, Wish]) -> Iterator[Wish]:
        """The repositories that the files of a model name, as wishes."""
        if isinstance(found, LockedModel):
            yield from self._parts_in_lock(wish)
        elif wish.weights:
            try:
                paths = {file.path for file in found.files} | {file.path for file in found.made}
                named = parts(found.configs, paths)
            except ValueError as error:
                raise Incomplete(f"`{wish.id}`: {error}") from error
            for part in named:
                yield from self._part(wish, part, wanted)

    def _parts_in_lock(self, wish: Wish) -> Iterator[Wish]:
        for model in self.standing.models if self.standing is not None else ():
            for reason in model.why:
                if part_of(reason) == wish.id and reason.startswith(_FOUND_IN_FILES):
                    weights = reason.startswith(ADAPTED_BY)
                    yield Wish(model.id, model.repo, model.ref, (reason,), weights=weights)

    def _part(self, wish: Wish, part: Part, wanted: Mapping[ModelId, Wish]) -> Iterator[Wish]:
        reason = part.role + wish.id
        if any(reason in other.why for other in wanted.values()):
            return  # its spec says where
        variants = [why for why in wish.why if why.startswith("variant ")]
        wholes = sorted({whole for why in variants if (whole := part_of(why)) is not None and whole in wanted})
        if part.role == ADAPTED_BY and wholes:
            if part.named not in {*wholes, *(wanted[whole].repo for whole in wholes)}:
                self.notes.append(f"{wish.id}: {part.key} is `{part.named}`, and it is a LoRA of {', '.join(wholes)}")
            return
        if part.repo is None:
            raise Incomplete(
                f"`{wish.id}` is not whole without another repository: {part.key} is `{part.named}`, which is none",
                hint="lock a model whose files name a repository of the hub"
                + (f", or one with a spec that has `{_KEYS[part.role]}`" if part.role in _KEYS else ""),
            )
        yield Wish(part.repo, part.repo, part.ref or DEFAULT_REF, (reason,), weights=part.weights)

    def _finished(self, wish: Wish, found: LockedModel | _Seen) -> LockedModel:
        if isinstance(found, LockedModel) and wish.weights and not found.has_weights:
            found = self._asked(wish, found.revision)  # somebody needs the whole of what was a part only
        if isinstance(found, LockedModel):
            return self._kept(wish, found)
        paths, carried = {file.path for file in found.files}, _carried(wish, found.files)
        total_bytes = sum(file.size_bytes for file in carried if not is_lfs(file))
        with self._explained(wish, self.hub), self.progress.task(f"lock {wish.id}", total_bytes) as task:
            locked = [found.digests.lock(file, task) for file in carried]
        model = LockedModel(
            id=wish.id,
            repo=wish.repo,
            ref=wish.ref,
            revision=found.revision,
            license=found.card.license,
            gated=found.card.gated,
            why=wish.why,
            files=tuple(sorted([*locked, *found.made])),
            absent=tuple(name for name in ASKED_FOR if name not in {*paths, *(file.path for file in found.made)}),
            remote_code=remote_code(found.configs),
        )
        self.notes += [f"{wish.id}: {note}" for note in found.notes]
        self.notes += _notes(wish, sorted(paths - {file.path for file in carried}), model)
        return model

    def _kept(self, wish: Wish, was: LockedModel) -> LockedModel:
        """As it is in the lock, but for who asks; files that only locking brings are made again where they are gone."""
        paths = {file.path for file in was.files}
        wanted = paths if wish.weights else set(without_weights(sorted(paths)))
        model = msgspec.structs.replace(
            was, why=wish.why, files=tuple(file for file in was.files if file.path in wanted)
        )
        bring_derived(model, self.hub, self.store, progress=self.progress, wait=self.wait)
        return model

    def _online(self, lacking: str) -> Hub:
        if self.hub is None:
            raise Incomplete(f"{lacking}, and `--offline` asks nobody", hint="run the same without `--offline`")
        return self.hub

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(call, say=self.progress.say, wait=self.wait)

    @contextmanager
    def _explained(self, wish: Wish, hub: Hub | None) -> Iterator[None]:
        """What the hub says no to is told with who asked for it, what else could be meant, and what to do."""
        try:
            yield
        except TransferError as error:
            if isinstance(error.__cause__, PermissionError):  # this disk's refusal, not the hub's
                raise
            hints = list(self._hints(error, wish, hub.endpoint if hub is not None else ""))
            error.hint = "\n".join([*hints, *([error.hint] if error.hint is not None else [])]) or None
            raise

    def _hints(self, error: TransferError, wish: Wish, endpoint: str) -> Iterator[str]:
        if isinstance(error, Unreachable):
            yield "HF_ENDPOINT says which hub is asked, HTTPS_PROXY through what; `--offline` asks nobody"
        if not isinstance(error, NotThere | NoPermission):
            return
        near = [f"`{name}`" for name in nearest(wish.id, self.known) if name != wish.id]
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        yield f"`{wish.id}` is asked for by {', '.join(wish.why)}{meant}"
        if isinstance(error, NoPermission):
            yield f"its page is {endpoint}/{wish.repo}"


def bring_derived(
    model: LockedModel, hub: Hub | None, store: BlobFolder, *, progress: Progress, wait: Wait = time.sleep
) -> None:
    """Make again what was made when locking and is not in the store; nothing without a hub.

    Raises `Drift` when this version makes something else, and what `resolve_models` raises.
    """
    gone = [file for file in model.files if file.derived_from is not None and store.size(file.digest) is None]
    if not gone or hub is None:
        return
    files = [HubFile(file.path, file.size_bytes, file.hub_id) for file in model.files if file.derived_from is None]
    digests = Digests(hub.store(model.repo, model.revision), store, None, say=progress.say, wait=wait)
    made = {file.path: file.digest for file in digests.derived(files)[0]}
    for file in gone:
        if made.get(file.path) != file.digest:
            raise Drift(
                f"`{file.path}` of `{model.id}` is made from `{file.derived_from}`, and this version makes another\n"
                f"  want  {file.digest}\n  have  {made.get(file.path, 'none')}",
                hint=f"`sie-airgap lock --update {model.id}` locks what this version makes",
            )


def _carried(wish: Wish, files: Sequence[HubFile]) -> list[HubFile]:
    paths = selected(file.path for file in files)
    wanted = set(paths if wish.weights else without_weights(paths))
    return [file for file in files if file.path in wanted]


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
