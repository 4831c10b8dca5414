"""Bodies to structs and back, in MessagePack and JSON, from the same definitions.

`bytes` fields are base64 in JSON. Arrays are msgpack-numpy maps in MessagePack and nested lists in
JSON. numpy is imported when the first array is met, not before: a gateway never meets one.
"""

import re
from collections.abc import Iterable
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import msgspec

from sie_core.errors import ApiError

T = TypeVar("T")


class Format(Enum):
    JSON = "json"
    MSGPACK = "msgpack"


CONTENT_TYPES = {Format.JSON: "application/json", Format.MSGPACK: "application/msgpack"}
_PLACE = re.compile(r"at `\$(.*)`$")
_STEP = re.compile(r"\.\w+|\[[^]]*\]")
_MSGPACK_TYPES = ("application/msgpack", "application/x-msgpack")


def body_format(content_type: str | None) -> Format:
    """MessagePack where the content type says so; everything else is read as JSON."""
    said = (content_type or "").lower()
    return Format.MSGPACK if any(name in said for name in _MSGPACK_TYPES) else Format.JSON


def reply_format(accept: str | None, content_type: str | None) -> Format:
    """What a caller wants back: by `Accept`; with none, or `*/*`, in the format of the request."""
    said = (accept or "").lower()
    if any(name in said for name in _MSGPACK_TYPES):
        return Format.MSGPACK
    if "application/json" in said:
        return Format.JSON
    return body_format(content_type)


def encode(value: object, fmt: Format) -> bytes:
    """Raises `TypeError` for a value that has no form on the wire."""
    if fmt is Format.MSGPACK:
        return _MSGPACK_ENCODER.encode(value)
    return _JSON_ENCODER.encode(value)


def decode(data: bytes, content_type: str | None, struct: type[T]) -> T:
    """A body as `struct`.

    Raises:
        ApiError: INVALID_INPUT, naming the path inside the body and what was wanted there.
    """
    return decode_as(data, body_format(content_type), struct)


def decode_as(data: bytes, fmt: Format, struct: type[T]) -> T:
    """As `decode`, for a format that is known."""
    if not data:
        raise ApiError("INVALID_INPUT", f"the body is empty, want {fmt.value}")
    try:
        if fmt is Format.MSGPACK:
            return msgspec.msgpack.decode(data, type=struct)
        return msgspec.json.decode(data, type=struct)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        said = _first_lower(str(error))
        message = f"the {fmt.value} body is not what was expected: {said}"
        raise ApiError("INVALID_INPUT", message, hint=_possible(said, struct)) from error


def unknown_keys(data: bytes, fmt: Format, struct: type[msgspec.Struct]) -> list[str]:
    """Keys of a map body that `struct` does not have: they are ignored, and the caller is told.

    Looks at the top level and at `params`; items are many and are not looked into.

    Raises:
        ApiError: INVALID_INPUT, where what `struct` does not have cannot be read at all.
    """
    raw = _raw_map(data, fmt)
    return sorted(_strangers(raw, struct, ""))


def arrays_decoded(value: Any) -> Any:
    """A decoded MessagePack value with every msgpack-numpy map in it turned into an array.

    Raises:
        ValueError: a map that stands for an array and cannot be one.
    """
    if isinstance(value, dict):
        if b"nd" in value or "nd" in value:
            from sie_core.wire.arrays import from_wire

            return from_wire(value)
        return {key: arrays_decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [arrays_decoded(item) for item in value]
    return value


def _raw_map(data: bytes, fmt: Format) -> dict[Any, Any]:
    try:
        decoded: Any = msgspec.msgpack.decode(data) if fmt is Format.MSGPACK else msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # What a struct does not have is passed over when it is read, and looked at here for the first time.
        message = f"a key of the {fmt.value} body that is not known has no value: {_first_lower(str(error))}"
        raise ApiError("INVALID_INPUT", message) from error
    return decoded if isinstance(decoded, dict) else {}


def _strangers(raw: dict[Any, Any], struct: type[msgspec.Struct], prefix: str) -> Iterable[str]:
    known = _inner_structs(struct)
    for key, value in raw.items():
        if key not in known:
            yield f"{prefix}{key}"
        elif key == "params" and isinstance(value, dict) and (inner := known[key]) is not None:
            yield from _strangers(value, inner, "params.")


@cache
def _inner_structs(struct: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    """Each field's name on the wire, with the struct that it holds, if any. Cached: it is asked with every call."""
    found: dict[str, type[msgspec.Struct] | None] = {}
    for field in msgspec.structs.fields(struct):
        kinds = [arg for arg in getattr(field.type, "__args__", ()) if isinstance(arg, type)]
        found[field.encode_name] = next((kind for kind in kinds if issubclass(kind, msgspec.Struct)), None)
    return found


def _possible(said: str, struct: type[Any]) -> str | None:
    """What a field may be that has one of several values only; None for any other mistake."""
    place = _PLACE.search(said) if said.startswith("invalid enum value") else None
    if place is None:
        return None
    kinds: list[Any] = [msgspec.inspect.type_info(struct)]
    for step in _STEP.findall(place[1]):
        kinds = [inner for kind in _branches(kinds) for inner in _inside(kind, step)]
    values = [value for kind in _branches(kinds) for value in getattr(kind, "values", ())]
    return "want " + ", ".join(f"`{value}`" for value in values) if values else None


def _branches(kinds: Iterable[Any]) -> list[Any]:
    """Each side of every union."""
    return [side for kind in kinds for side in getattr(kind, "types", (kind,))]


def _inside(kind: Any, step: str) -> list[Any]:
    """The type of a field, `.name`, or of a list's items."""
    if step.startswith("["):
        return [kind.item_type] if hasattr(kind, "item_type") else []
    return [field.type for field in getattr(kind, "fields", ()) if field.encode_name == step[1:]]


def _first_lower(text: str) -> str:
    """`Expected …` in the middle of a sentence; `JSON …` stays as it is."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _array_to_msgpack(value: Any) -> object:
    if hasattr(value, "__array_interface__"):
        from sie_core.wire.arrays import to_wire

        return to_wire(value)
    raise TypeError(f"{type(value).__name__} has no form on the wire")


def _array_to_json(value: Any) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form on the wire")


_MSGPACK_ENCODER = msgspec.msgpack.Encoder(enc_hook=_array_to_msgpack)
_JSON_ENCODER = msgspec.json.Encoder(enc_hook=_array_to_json)
