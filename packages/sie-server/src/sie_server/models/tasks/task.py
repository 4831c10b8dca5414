"""The protocol of every task, and how it reads a call's options."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sie_core.errors import ApiError
from sie_server.models.calls import Input, Output, Picture, Prepared, Result, Tokens


class Task(Protocol):
    """One of encode, score and extract, as one model does it."""

    def prepare(self, call: Any) -> list[Prepared]:
        """The call's sequences; see `calls.Model.prepare`.

        Args:
            call: the `Encode`, `Score` or `Extract` that this task is for.
        """
        ...

    def finish(self, call: Any, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        """One result per item of the call; see `calls.Model.finish`."""
        ...


def refuse_unknown_options(model: str, options: Mapping[str, object], known: Sequence[str]) -> None:
    """Raises `ApiError` INVALID_INPUT for an option that is none of `known`."""
    for name in options:
        if name not in known:
            have = "it has " + ", ".join(f"`{option}`" for option in known) if known else "it has none"
            raise ApiError("INVALID_INPUT", f"model `{model}` has no option `{name}`", have)


def flag(options: Mapping[str, object], name: str, default: bool) -> bool:
    """An option that is true or false; INVALID_INPUT otherwise."""
    wanted = options.get(name, default)
    if not isinstance(wanted, bool):
        raise ApiError("INVALID_INPUT", f"option `{name}` is `{wanted}`: want true or false")
    return wanted


def fraction(options: Mapping[str, object], name: str, default: float) -> float:
    """An option from 0 to 1; INVALID_INPUT otherwise."""
    wanted = options.get(name, default)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 <= wanted <= 1:
        raise ApiError("INVALID_INPUT", f"option `{name}` is `{wanted}`: want a number from 0 to 1")
    return float(wanted)


def whole_number(options: Mapping[str, object], name: str, default: int | None) -> int | None:
    """An option from 1; INVALID_INPUT otherwise."""
    wanted = options.get(name, default)
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1):
        raise ApiError("INVALID_INPUT", f"option `{name}` is `{wanted}`: want a whole number from 1")
    return wanted


def texts_of(model: str, inputs: Sequence[Input], *, query: bool = False) -> list[str]:
    """The items' texts, of a model that takes nothing else; or the query's, for messages."""
    for index, one in enumerate(inputs):
        where = "query" if query else f"items[{index}]"
        if isinstance(one, Picture):
            raise ApiError("INVALID_INPUT", f"`{where}` is a picture, and model `{model}` takes text only")
        if isinstance(one, Tokens):
            raise ApiError("INVALID_INPUT", f"`{where}` is token ids, and only texts are taken here")
    return [one for one in inputs if isinstance(one, str)]
