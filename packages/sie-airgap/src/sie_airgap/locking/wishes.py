"""Which models are to be locked, and who asked for each. Pure.

Models are those that the operator's values preload, those named with `--model`, and whole bundles only where
`--bundle` names them, each with the LoRAs of its variants and with its bases, the repositories that its tokenizers are
in. What a model's spec says about its repository and commit is used; a model without a spec is its repository's `main`.
Where a command names no models at all, they are those that the lock has: `standing` says which of its commits stay.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sie_airgap.failures import Misused
from sie_core.artifacts.lock import BASE_OF, LABELS_ENCODER_OF, Lock, part_of
from sie_core.catalog.catalog import Catalog
from sie_core.catalog.refusals import why_refused
from sie_core.catalog.spec import Lora, Source
from sie_core.ids import ModelId, nearest, parse_model_id

DEFAULT_REF = "main"
_PAGE = re.compile(r"(?:https?://)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)")
"""What people copy from a browser."""


@dataclass(frozen=True)
class Wish:
    """One model to lock: which repository at which ref, and everybody who asked for it.

    `weights`: whether they are carried; of a repository that is only somebody's base, they are not.
    """

    id: ModelId
    repo: ModelId
    ref: str
    why: tuple[str, ...]
    weights: bool = True


def wishes(
    values: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    models: Iterable[str],
    bundles: Iterable[str],
    catalog: Catalog,
    locked: Lock | None = None,
) -> tuple[Wish, ...]:
    """The models, sorted by id.

    Args:
        values: name and content of each values file; as in Helm, a later one's list replaces an earlier one's.
        locked: whose models are meant where nothing names any.

    Raises:
        Misused: a bundle that is not there, an id that cannot be one or is not served, a repository asked for at two
            commits, or nothing asked for at all.
    """
    why: dict[str, list[str]] = {}
    asked_for = [*_preloaded(values), *((model, "--model") for model in models), *_bundled(bundles, catalog)]
    if not asked_for and not values:
        asked_for = _asked_before(locked)
    for model, source in asked_for:
        reasons = why.setdefault(model, [])
        if source not in reasons:
            reasons.append(source)
    if not why:
        raise Misused(
            "no model is asked for",
            hint="name some in `workers.common.preloadModels` of a values file (`-f`), with `--model ID`, "
            "or a whole bundle with `--bundle NAME`",
        )
    asked = [_wish(model, tuple(why[model]), catalog) for model in sorted(why)]
    return _with_bases(sorted([*asked, *_loras(asked, catalog)], key=lambda wish: wish.id), catalog)


def _asked_before(locked: Lock | None) -> list[tuple[str, str]]:
    """What the lock was asked for; what was locked as a part of something else follows from that again."""
    models = locked.models if locked is not None else ()
    return [(model.id, reason) for model in models for reason in model.why if part_of(reason) is None]


def with_part(wanted: Mapping[ModelId, Wish], part: Wish) -> dict[ModelId, Wish]:
    """With one more reason for a repository, or one more repository. A commit that a spec names stays."""
    have = wanted.get(part.id, replace(part, why=()))
    why = (*have.why, *(reason for reason in part.why if reason not in have.why))
    return {**wanted, part.id: replace(have, why=why, weights=have.weights or part.weights)}


def standing(locked: Lock | None, *, update: Iterable[str]) -> Lock | None:
    """What of a lock stays as it is: all but the models and images to update.

    Raises:
        Misused: the lock has no such model or image.
    """
    names = set(update)
    known = {*(model.id for model in locked.models), *(image.reference for image in locked.images)} if locked else set()
    for name in sorted(names - known):
        near = nearest(name, known, most=1)
        hint = f"did you mean `{near[0]}`?" if near else "leave `--update` out: what is new is resolved in any case"
        raise Misused(f"--update: the lock has no model or image `{name}`", hint=hint)
    if locked is None:
        return None
    return msgspec.structs.replace(
        locked,
        models=tuple(model for model in locked.models if model.id not in names),
        images=tuple(image for image in locked.images if image.reference not in names),
    )


def _wish(text: str, why: tuple[str, ...], catalog: Catalog) -> Wish:
    reason = why_refused(text)
    if reason is not None:
        raise Misused(f"`{text}`, asked for by {', '.join(why)}, is not served: {reason}")
    if (page := _PAGE.match(text)) is not None:
        message = f"`{text[:200]}`, asked for by {', '.join(why)}, is a model's page and not its id"
        raise Misused(message, hint=f"did you mean `{page[1]}`?")
    try:
        model = parse_model_id(text)
    except ValueError as error:
        raise Misused(f"{error} (asked for by {', '.join(why)})") from error
    spec = catalog.find(model)
    if spec is None:
        return Wish(model, model, DEFAULT_REF, why)
    return Wish(model, spec.repo, spec.revision or DEFAULT_REF, why)


def _loras(asked: Sequence[Wish], catalog: Catalog) -> list[Wish]:
    """The LoRAs of the models' variants, each once: a variant whose LoRA was left behind could not be called."""
    why: dict[Lora, list[str]] = {}
    for wish in asked:
        spec = catalog.find(wish.id)
        for name, variant in spec.variants.items() if spec is not None else ():
            if variant.lora is not None:
                why.setdefault(variant.lora, []).append(f"variant `{name}` of {wish.id}")
    return [Wish(lora.repo, lora.repo, lora.revision or DEFAULT_REF, tuple(said)) for lora, said in why.items()]


def _with_bases(wanted: Sequence[Wish], catalog: Catalog) -> tuple[Wish, ...]:
    """With the repositories of the models' bases, each once; one that is also asked for itself stays whole."""
    found = {wish.id: wish for wish in wanted}
    for wish in wanted:
        spec = catalog.find(wish.id)
        if spec is None:
            continue
        for base, role in ((spec.base, BASE_OF), (spec.labels_base, LABELS_ENCODER_OF)):
            if base is not None:
                _add_base(found, base, role + wish.id)
    return tuple(sorted(found.values(), key=lambda wish: wish.id))


def _add_base(found: dict[ModelId, Wish], base: Source, reason: str) -> None:
    ref = base.revision or DEFAULT_REF
    have = found.get(base.repo, Wish(base.repo, base.repo, ref, (), weights=False))
    if (have.repo, have.ref) != (base.repo, ref):
        raise Misused(
            f"`{have.id}` is asked for by {', '.join(have.why)} as `{have.repo}` at {have.ref}, "
            f"and is {reason} at {ref}",
            hint="a lock has one commit of a repository: name the same one in both specs",
        )
    found[have.id] = replace(have, why=(*have.why, reason))


def _preloaded(values: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    for name, content in reversed(values):
        listed: Any = content
        for key in ("workers", "common", "preloadModels"):
            listed = listed.get(key) if isinstance(listed, Mapping) else None
        if listed is None:
            continue
        if not isinstance(listed, list) or not all(isinstance(model, str) for model in listed):
            raise Misused(f"{name}: `workers.common.preloadModels` is `{listed}`, want a list of model ids")
        return [(model, f"preloadModels of {name}") for model in listed]
    return []


def _bundled(bundles: Iterable[str], catalog: Catalog) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in bundles:
        if catalog.bundle(name) is None:
            known = [bundle.name for bundle in catalog.bundles]
            near = nearest(name, known, most=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(f'`{one}`' for one in known)}"
            raise Misused(f"there is no bundle `{name}`", hint=hint)
        found += [(model, f"bundle {name}") for model in catalog.models_of(name)]
    return found
