"""YAML that somebody else wrote, as data: charts, their values, what helm renders, specs, policies. Pure.

libyaml makes its tree by recursion in C, which Python's limit does not reach: fifty kilobytes of `[` end the process
with nothing said. So the events are counted first, which takes no stack and a third of the time of reading. Aliases are
counted as if they were written out, since whoever walks the values walks them so.
"""

from typing import Any

import yaml

DEEPEST = 200
"""Lists and mappings in each other. The deepest schemas that charts carry have some sixty."""

MOST_VALUES = 1_000_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str | bytes, *, where: str) -> list[Any]:
    """Every document of a stream; None stands for an empty one.

    Raises:
        ValueError: it is not YAML, is nested too deep, or has a value inside itself or more values than are read.
    """
    found = parsed(text, where=where)
    for each in found:
        _refuse_without_end(each, where)
    return found


def parsed(text: str | bytes, *, where: str) -> list[Any]:
    """As `documents`, for who walks no more values than a bound of its own: aliases may make them without end."""
    try:
        is_deep = _is_deeper(text, DEEPEST)
        found = [] if is_deep else list(yaml.load_all(text, Loader=_LOADER))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # `ValueError`: of a date or a number that is none
        raise ValueError(f"{where} is not YAML: {error}") from error
    if is_deep:
        raise ValueError(f"{where} is nested more than {DEEPEST} deep")
    return found


def document(text: str | bytes, *, where: str) -> Any:
    """The only document of a stream; None for an empty one. Raises as `documents`, and for more than one."""
    found = documents(text, where=where)
    if len(found) > 1:
        raise ValueError(f"{where} is not YAML of one document: it has {len(found)}")
    return found[0] if found else None


def _is_deeper(text: str | bytes, most: int) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > most:
            return True
    return False


def _refuse_without_end(value: object, where: str) -> None:
    try:
        values, depth = _written_out(value, {})
    except RecursionError as error:
        raise ValueError(f"{where} has a value inside itself") from error
    if depth > DEEPEST:
        raise ValueError(f"{where} is nested {depth:,} deep with its aliases written out, want {DEEPEST} at most")
    if values > MOST_VALUES:
        raise ValueError(f"{where} is {values:,} values with its aliases written out, at most {MOST_VALUES:,} are read")


def _written_out(value: object, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(values, depth) with every alias written out. Raises `RecursionError` for a value inside itself."""
    if not isinstance(value, dict | list):
        return 1, 0
    if id(value) not in known:
        inside = [_written_out(each, known) for each in (value.values() if isinstance(value, dict) else value)]
        known[id(value)] = 1 + sum(values for values, _ in inside), 1 + max((depth for _, depth in inside), default=0)
    return known[id(value)]
