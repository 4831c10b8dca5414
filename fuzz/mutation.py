"""Sound bytes altered as an attacker would, or as damage does. Pure: the same source of chance gives the same bytes.

Formats that are JSON are altered as trees and written again in their own form, since a flipped bit hardly ever gets
past the parser, and what lies behind it is what is to be tried: other types, numbers beyond 64 bits, NaN, paths that
lead out, letters that move a cursor, keys that stand twice, nesting without end.
"""

import json
import re
from collections.abc import Iterator, MutableMapping, MutableSequence
from copy import deepcopy
from random import Random
from typing import Any

from fuzz.target import Target

_RAW: tuple[str, ...] = (
    *("NaN", "Infinity", "-0", "1.0", "1e999", "01", "1" + "0" * 4400, "'x'", "\ufeff1", '"\\ud800"'),
    *("[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "[" * 200_000),
)
"""What `json` cannot write: in the tree a text stands for each."""
_STAND_IN = re.compile('"\ue000([0-9]+)\ue000"')

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e308, "", "a", [], {}, [[]], [{}], {"": None}),
    *(1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, -(1 << 63) - 1, (1 << 64) - 1, 1 << 64, 1 << 200),
    *("..", "../x", "a/../../x", "/etc/passwd", "C:\\x", "a\\b", ".", "a//b", "a/", "./a", "~", "%2e%2e/x"),
    *("a\0b", "\x1b[2J", "\n", "\r", "\u202e", "\u2028", "é", "e\u0301", "\ud800", "𝕏", "x" * 3000, "🙂" * 700),
    *("sha256:" + "0" * 64, "sha256:" + "A" * 64, "sha512:" + "0" * 128, "0" * 64, "0" * 40, "sha256:"),
    *("-1", "1e5", "NaN", "true", "null", "0", "2026-13-41", "{text}", "{", "%s", "$(x)", "`", "é" * 255, "AAAA", "=="),
    *(f"\ue000{number}\ue000" for number in range(len(_RAW))),
)


def altered(data: bytes, target: Target, chance: Random) -> bytes:
    """The bytes with one to four changes; as a tree where they are one and chance says so."""
    if target.load is not None and target.dump is not None and chance.random() < 0.8:
        try:
            tree = target.load(data)
        except (ValueError, RecursionError):
            return _bytes_altered(data, chance)
        for _ in range(chance.randint(1, 3)):
            tree = _tree_altered(tree, chance)
        return target.dump(_written(tree, chance))
    return _bytes_altered(data, chance)


def _bytes_altered(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randint(0, len(changed)), chance.choice((0, 1, 1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = chance.randbytes(length)
            case 3:
                changed[at : at + length] = changed[chance.randint(0, len(changed)) :][:length]
            case 4:
                changed[at : at + 8] = chance.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
            case _:
                del changed[at:]
    return bytes(changed)


def _tree_altered(tree: Any, chance: Random) -> Any:
    """One node of it replaced, taken out, doubled, renamed, or put in another's place."""
    places = list(_places(tree))
    if not places:
        return _fresh(chance)
    holder, key = chance.choice(places)
    match chance.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(chance.randint(0, len(holder)), holder[key])
        case 1 | 2 if isinstance(holder, dict):
            holder[chance.choice((*_KEYS, str(key) + " "))] = holder.pop(key)
        case 2 if isinstance(holder, list):
            chance.shuffle(holder)
        case 3:
            other, at = chance.choice(places)
            holder[key] = deepcopy(other[at])
        case _:
            holder[key] = _near(holder[key], chance)
    return tree


_KEYS = ("", "also", "version", "a\0b", "../x", "\ud800", "x" * 300, "__metadata__", "__proto__")


def _near(value: Any, chance: Random) -> Any:
    """Another value; often one of the same type and nearly the same, which gets further."""
    if chance.random() < 0.5:
        return _fresh(chance)
    match value:
        case bool():
            return not value
        case int():
            return value + chance.choice((-1, 1, 1 << 20, -(1 << 20), value, -2 * value))
        case str() if value:
            at = chance.randrange(len(value))
            return value[:at] + chance.choice(("", "/", "..", "\0", "Z", "f", "\u0301", value)) + value[at + 1 :]
    return _fresh(chance)


def _fresh(chance: Random) -> Any:
    return deepcopy(chance.choice(VALUES))


def _places(tree: Any) -> Iterator[tuple[MutableMapping[str, Any] | MutableSequence[Any], Any]]:
    """Where every node but the root is held."""
    left = [tree]
    while left:
        node = left.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield node, key
            left.append(node[key])


def _written(tree: Any, chance: Random) -> str:
    """JSON with sorted keys and no spaces; now and then with a key that stands twice."""
    text = json.dumps(tree, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    text = _STAND_IN.sub(lambda found: _RAW[int(found[1]) % len(_RAW)], text)
    if chance.random() < 0.05 and text.startswith('{"'):
        first = text[1:].partition(":")[0]
        text = "{" + first + ":" + chance.choice(("1", "null", '"a"', "[]")) + "," + text[1:]
    return text
