"""From a request's body to a call: what is checked before anything is spent on it. Pure.

Each refusal names the item by its index and the key by its path, says what is there and what was wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sie_core.catalog.spec import ModelSpec
from sie_core.errors import ApiError
from sie_core.wire.messages import EncodeParams, EncodeRequest, Item, OutputDtype, OutputType
from sie_server.models.calls import Encode

_MEDIA = ("images", "audio", "video", "document")


@dataclass(frozen=True)
class EncodeCall:
    """What the engine is to run, and how its answer is to be written."""

    call: Encode
    dtype: OutputDtype
    ids: Sequence[str | None]


def encode_call(request: EncodeRequest, spec: ModelSpec) -> EncodeCall:
    """The call in a body.

    Raises:
        ApiError: INVALID_INPUT, OUTPUT_UNSUPPORTED.
    """
    params = request.params or EncodeParams()
    options = {name: value for name, value in (params.options or {}).items() if value is not None}
    _refuse_variant(options.pop("profile", "default"), spec)
    is_query = options.pop("is_query", False)
    if not isinstance(is_query, bool):
        raise ApiError("INVALID_INPUT", f"`params.options.is_query` is {is_query!r}, want true or false")
    call = Encode(
        inputs=tuple(_text(item, index, spec) for index, item in enumerate(request.items)),
        outputs=_outputs(params, spec),
        is_query=is_query,
        instruction=params.instruction,
        options=options,
    )
    return EncodeCall(call=call, dtype=params.output_dtype or "float32", ids=[item.id for item in request.items])


def refuse_empty(items: Sequence[Item]) -> None:
    if not items:
        raise ApiError("INVALID_INPUT", "`items` is empty, want at least one item", hint='send `[{"text": "…"}]`')


def no_such_task(verb: str, spec: ModelSpec) -> ApiError:
    """For `score` and `extract`, which no model of this version declares."""
    outputs = ", ".join(f"`{name}`" for name in spec.outputs)
    return ApiError(
        "INVALID_INPUT",
        f"model `{spec.id}` does not declare the task `{verb}`",
        hint=f"it declares `encode`, with {outputs}",
    )


def _text(item: Item, index: int, spec: ModelSpec) -> str:
    for name in _MEDIA:
        if getattr(item, name) is not None:
            raise ApiError("INVALID_INPUT", f"`items[{index}].{name}` is there, and model `{spec.id}` takes text only")
    if item.text is None:
        raise ApiError("INVALID_INPUT", f"`items[{index}]` has no `text`", hint=f"model `{spec.id}` takes text")
    return item.text


def _outputs(params: EncodeParams, spec: ModelSpec) -> tuple[OutputType, ...]:
    """What was asked for, each once, in that order; left out: dense, as ever."""
    wanted: tuple[OutputType, ...] = tuple(dict.fromkeys(params.output_types or ("dense",)))
    for output in wanted:
        if output not in spec.outputs:
            have = ", ".join(f"`{name}`" for name in spec.outputs)
            raise ApiError("OUTPUT_UNSUPPORTED", f"model `{spec.id}` has no `{output}` output", hint=f"it has {have}")
    return wanted


def _refuse_variant(name: object, spec: ModelSpec) -> None:
    if name != "default":
        raise ApiError(
            "INVALID_INPUT", f"model `{spec.id}` has no variant `{name}`", hint="leave `params.options.profile` out"
        )
