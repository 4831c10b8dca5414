"""What a call may say of its vectors and of what stands around its texts, by the wire's names.

As v0.3.1's embedding adapters took them; `dimensions` as OpenAI's clients call it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sie_core.catalog.spec import Pooling
from sie_core.errors import ApiError
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.task import flag, refuse_unknown_options, whole_number

POOLINGS: Final[Mapping[str, Pooling]] = {
    "cls": "cls",
    "mean": "mean",
    "last": "last",
    "last_token": "last",
    "weighted": "weighted",
}
"""By what a call says: ours, and v0.3.1's longer name of one."""

_NORMALIZE: Final = "normalize"
_DIMENSIONS: Final = "dimensions"
_POOLING: Final = "pooling"
_QUERY: Final = "query_template"
_DOCUMENT: Final = "doc_template"
_INSTRUCTION: Final = "default_instruction"


@dataclass(frozen=True)
class Wishes:
    """As the fields of `calls.Prepared`."""

    normalized: bool
    pooling: Pooling | None
    dims: int | None


@dataclass(frozen=True)
class VectorOptions:
    """What one model lets a call say.

    Attributes:
        model: its id, for messages.
        normalize: whether a dense vector's length is made 1, when a call does not say.
        dims: of its dense vector; None where it has none.
        is_pooled: whether a call may choose how its hidden states become one vector.
    """

    model: str
    normalize: bool
    dims: int | None
    is_pooled: bool

    def read(self, options: Mapping[str, object]) -> Wishes:
        """Raises `ApiError` INVALID_INPUT for an option, or a value, that there is not."""
        refuse_unknown_options(self.model, options, self._known())
        return Wishes(flag(options, _NORMALIZE, self.normalize), _pooling(options), self._dims(options))

    def _known(self) -> tuple[str, ...]:
        pooling = (_POOLING,) if self.is_pooled else ()
        dimensions = (_DIMENSIONS,) if self.dims is not None else ()
        return (_NORMALIZE, *dimensions, *pooling, _QUERY, _DOCUMENT, _INSTRUCTION)

    def _dims(self, options: Mapping[str, object]) -> int | None:
        asked = whole_number(options, _DIMENSIONS, None)
        if asked is not None and self.dims is not None and asked > self.dims:
            said = f"option `{_DIMENSIONS}` is {asked}, and vectors of model `{self.model}` have {self.dims}"
            raise ApiError("INVALID_INPUT", said, hint=f"want 1 to {self.dims}")
        # Who asks for length 1 means the vector that comes back, whatever the model cuts after it has scaled.
        return self.dims if asked is None and options.get(_NORMALIZE) is True else asked


def prompts_asked(options: Mapping[str, object], prompts: Prompts) -> Prompts:
    """What is put around a call's texts.

    Args:
        prompts: what the call does not say.

    Raises:
        ApiError: INVALID_INPUT; a template without a place for the text.
    """
    query, document = (
        _template(options, name, known) for name, known in ((_QUERY, prompts.query), (_DOCUMENT, prompts.document))
    )
    instruction = _text(options, _INSTRUCTION, prompts.default_instruction)
    return replace(prompts, query=query, document=document, default_instruction=instruction)


def _template(options: Mapping[str, object], name: str, default: str | None) -> str | None:
    asked = _text(options, name, default)
    if name in options and asked is not None and "{text}" not in asked:
        raise ApiError("INVALID_INPUT", f"option `{name}` is `{asked}`: want `{{text}}` in it")
    return asked


def _text(options: Mapping[str, object], name: str, default: str | None) -> str | None:
    asked = options.get(name, default)
    if asked is not None and not isinstance(asked, str):
        raise ApiError("INVALID_INPUT", f"option `{name}` is `{asked}`: want a text")
    return asked


def _pooling(options: Mapping[str, object]) -> Pooling | None:
    asked = options.get(_POOLING)
    if asked is not None and (not isinstance(asked, str) or asked not in POOLINGS):
        known = ", ".join(f"`{name}`" for name in POOLINGS)
        raise ApiError("INVALID_INPUT", f"option `{_POOLING}` is `{asked}`: known are {known}")
    return None if asked is None else POOLINGS[asked]
