"""From a request's body to a call: what is checked before anything is spent on it. Pure.

Each refusal names the item by its index and the key by its path, says what is there and what was wanted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sie_core.catalog.spec import ModelSpec, Variant
from sie_core.errors import ApiError
from sie_core.wire import codec
from sie_core.wire.envelope import Verb
from sie_core.wire.messages import (
    OUTPUT_DTYPES,
    OUTPUT_TYPES,
    EncodeParams,
    EncodeRequest,
    ExtractParams,
    ExtractRequest,
    Item,
    OutputDtype,
    OutputType,
    ScoreRequest,
)
from sie_server.models.calls import Call, Encode, Extract, Input, Picture, Score

Request = EncodeRequest | ScoreRequest | ExtractRequest

REQUESTS: Final[Mapping[Verb, type[Any]]] = {"encode": EncodeRequest, "score": ScoreRequest, "extract": ExtractRequest}

DEFAULT: Final = "default"
"""What a caller may name a model's plain form, as in v0.3.1."""

_ITEM_IS_TEXT: Final = re.compile(r"got `str` - at `\$\.(query|items\[\d+\])`$")
_OTHER_MEDIA: Final = ("audio", "video", "document")


@dataclass(frozen=True)
class Asked:
    """What the engine is to run, and how its answer is to be written.

    Attributes:
        ids: the items' own, or None.
        dtype: of dense and multivector.
        query_id: of a score.
    """

    call: Call
    ids: Sequence[str | None]
    dtype: OutputDtype = "float32"
    query_id: str | None = None


def decoded(body: bytes, fmt: codec.Format, verb: Verb) -> Request:
    """The body as its verb's request. Raises `ApiError` INVALID_INPUT, with the place."""
    try:
        request: Request = codec.decode_as(body, fmt, REQUESTS[verb])
    except ApiError as error:
        if error.hint is None and _ITEM_IS_TEXT.search(error.message):
            error.hint = 'an item is an object, `{"text": "…"}`'
        raise
    return request


def noted(error: ApiError, unknown: Sequence[str]) -> ApiError:
    """A refusal of what a call says, with the keys that were ignored: one of them may have been meant."""
    if not unknown or error.kind.status != 400:
        return error
    ignored = "ignored unknown keys: " + ", ".join(f"`{key}`" for key in unknown)
    hint = f"{error.hint}; {ignored}" if error.hint else ignored
    return ApiError(error.code, error.message, hint=hint, retry_after_s=error.retry_after_s, extra=error.extra)


MOST_ITEMS: Final = 65_536
"""Of one call: a body of empty texts would be millions, and each costs a kilobyte here before it costs a token."""


def refuse_count(items: Sequence[object], name: str = "items") -> None:
    """Raises `ApiError` INVALID_INPUT for a call without items, or of more than `MOST_ITEMS`."""
    if not items:
        raise ApiError("INVALID_INPUT", f"`{name}` is empty, want at least one item", hint='send `[{"text": "…"}]`')
    if len(items) > MOST_ITEMS:
        said = f"`{name}` has {len(items)} items, and a call may have {MOST_ITEMS}"
        raise ApiError("INVALID_INPUT", said, hint="send them in several calls")


def refuse_undeclared(verb: Verb, spec: ModelSpec) -> None:
    """Raises `ApiError` INVALID_INPUT for a task that the model does not do, naming those that it does."""
    tasks = _tasks(spec)
    if verb not in tasks:
        said = ", ".join(f"`{task}`" for task in tasks)
        outputs = f", with {_named(encoded_outputs(spec))}" if "encode" in tasks else ""
        raise ApiError(
            "INVALID_INPUT",
            f"model `{spec.id}` does not declare the task `{verb}`",
            hint=f"it declares {said}{outputs}",
        )


def encoded_outputs(spec: ModelSpec) -> tuple[OutputType, ...]:
    """What `encode` can give."""
    return tuple(name for name in OUTPUT_TYPES if name in spec.outputs)


def read_call(request: Request, spec: ModelSpec) -> Asked:
    """The call in a body.

    Raises:
        ApiError: INVALID_INPUT, OUTPUT_UNSUPPORTED.
    """
    match request:
        case EncodeRequest():
            return _encode(request, request.params or EncodeParams(), spec)
        case ScoreRequest():
            return _score(request, spec)
        case ExtractRequest():
            return _extract(request, request.params or ExtractParams(), spec)


def _encode(request: EncodeRequest, params: EncodeParams, spec: ModelSpec) -> Asked:
    name, variant, options = _options(params.options, spec, "params.options")
    is_query = options.pop("is_query", False)
    if not isinstance(is_query, bool):
        raise ApiError("INVALID_INPUT", f"`params.options.is_query` is {is_query!r}, want true or false")
    dtype = _dtype(params.output_dtype, variant, spec, name)
    call = Encode(
        inputs=_inputs(request.items, spec),
        outputs=variant.outputs or _outputs(params, spec, has_muvera="muvera" in options),
        is_query=is_query,
        instruction=params.instruction,
        options=options,
        variant=name,
    )
    return Asked(call=call, dtype=dtype, ids=[item.id for item in request.items])


def _score(request: ScoreRequest, spec: ModelSpec) -> Asked:
    name, _, options = _options(request.options, spec, "options")
    call = Score(
        query=_input(request.query, "query", spec),
        inputs=_inputs(request.items, spec),
        instruction=request.instruction,
        options=options,
        variant=name,
    )
    return Asked(call=call, ids=[item.id for item in request.items], query_id=request.query.id)


def _extract(request: ExtractRequest, params: ExtractParams, spec: ModelSpec) -> Asked:
    name, _, options = _options(params.options, spec, "params.options")
    call = Extract(
        inputs=_inputs(request.items, spec),
        labels=tuple(params.labels or ()),
        schema=params.output_schema,
        instruction=params.instruction,
        options=options,
        variant=name,
    )
    return Asked(call=call, ids=[item.id for item in request.items])


def _inputs(items: Iterable[Item], spec: ModelSpec) -> tuple[Input, ...]:
    return tuple(_input(item, f"items[{index}]", spec) for index, item in enumerate(items))


def _input(item: Item, place: str, spec: ModelSpec) -> Input:
    """An item's content. A multivector beside it is the client's own, for MaxSim, and is passed over."""
    takes = _takes(spec)
    for name in _OTHER_MEDIA:
        if getattr(item, name) is not None:
            raise ApiError("INVALID_INPUT", f"`{place}.{name}` is there, and model `{spec.id}` takes {takes} only")
    if item.images:
        return _picture(item, place, spec)
    if item.text is not None:
        if "text" not in spec.inputs:
            raise ApiError("INVALID_INPUT", f"`{place}.text` is there, and model `{spec.id}` takes {takes} only")
        return item.text
    if item.multivector is not None:
        hint = "`sie_sdk.scoring.maxsim` compares multivectors that are at hand already"
        raise ApiError("INVALID_INPUT", f"`{place}` has a `multivector` alone, and no model takes one", hint=hint)
    wanted = " or ".join({"text": "`text`", "image": "`images`"}[kind] for kind in spec.inputs)
    raise ApiError("INVALID_INPUT", f"`{place}` has no {wanted}", hint=f"model `{spec.id}` takes {takes}")


def _picture(item: Item, place: str, spec: ModelSpec) -> Picture:
    assert item.images
    if "image" not in spec.inputs:
        said = f"`{place}.images` is there, and model `{spec.id}` takes {_takes(spec)} only"
        raise ApiError("INVALID_INPUT", said)
    if item.text is not None:
        said = f"`{place}` has `text` and `images`, and model `{spec.id}` takes one of them an item"
        raise ApiError("INVALID_INPUT", said, hint="send two items")
    if len(item.images) > 1:
        said = f"`{place}.images` has {len(item.images)} pictures, and model `{spec.id}` takes one an item"
        raise ApiError("INVALID_INPUT", said, hint="send an item for each")
    if not item.images[0].data:
        raise ApiError("INVALID_INPUT", f"`{place}.images[0].data` is empty, want the bytes of a picture's file")
    return Picture(item.images[0].data)


def _takes(spec: ModelSpec) -> str:
    return " or ".join({"text": "text", "image": "pictures"}[kind] for kind in spec.inputs)


def _options(
    given: Mapping[str, Any] | None, spec: ModelSpec, place: str
) -> tuple[str | None, Variant, dict[str, Any]]:
    """The variant's name and the variant, and the options: the call's own before the variant's, null for none."""
    own = dict(given or {})
    asked = own.pop("profile", None)
    asked = DEFAULT if asked is None else asked
    if not isinstance(asked, str) or (asked != DEFAULT and asked not in spec.variants):
        known = _named((DEFAULT, *(name for name in spec.variants if name != DEFAULT)))
        said = f"model `{spec.id}` has no variant `{asked}`"
        raise ApiError("INVALID_INPUT", said, hint=f"`{place}.profile` may be {known}")
    variant = spec.variants.get(asked, Variant())
    shared = {name: value for name, value in variant.options.items() if name not in ("output_dtype", "profile")}
    options = {name: value for name, value in {**shared, **own}.items() if value is not None}
    return asked if asked in spec.variants else None, variant, options


def _dtype(asked: OutputDtype | None, variant: Variant, spec: ModelSpec, name: str | None) -> OutputDtype:
    """The call's before the variant's; float32 where neither says."""
    if asked is not None:
        return asked
    found = variant.options.get("output_dtype", "float32")
    for dtype in OUTPUT_DTYPES:
        if found == dtype:
            return dtype
    said = f"variant `{name}` of model `{spec.id}` has `output_dtype: {found}`"
    raise ApiError("INVALID_INPUT", said, hint=f"name one in `params.output_dtype`: {_named(OUTPUT_DTYPES)}")


def _outputs(params: EncodeParams, spec: ModelSpec, *, has_muvera: bool) -> tuple[OutputType, ...]:
    """What was asked for, each once, in that order; left out: dense, or what the model has in its place."""
    have = encoded_outputs(spec)
    if has_muvera and "multivector" in have:
        have = ("dense", *(name for name in have if name != "dense"))
    wanted: tuple[OutputType, ...] = tuple(dict.fromkeys(params.output_types or have[:1]))
    for output in wanted:
        if output not in have:
            said = f"model `{spec.id}` has no `{output}` output"
            raise ApiError("OUTPUT_UNSUPPORTED", said, hint=f"it has {_named(have)}")
    return wanted


def _tasks(spec: ModelSpec) -> tuple[Verb, ...]:
    heads: dict[Verb, object] = {"encode": encoded_outputs(spec), "score": spec.score, "extract": spec.extract}
    return tuple(verb for verb, head in heads.items() if head)


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
