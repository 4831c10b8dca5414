"""The chart's values.yaml → values.schema.json and docs/reference/chart-values.md.

The comment above a key in values.yaml is the one place where a value is described; its default and the
directives in the comment say what it may be. `removed.yaml` lists what v0.3.1 had and this chart does not:
the schema lets those through, so that the chart's own templates can refuse them with what to do instead, and
everything else that values.yaml does not have is refused by the schema, by name.

    python tools/schema.py            writes both files
    python tools/schema.py --check    exits 1 where either is not what would be written
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from pages import write_or_check

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "sie-cluster"
REFERENCE = ROOT / "docs" / "reference" / "chart-values.md"

Schema = dict[str, Any]

POOL_NAME: Final = "^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$"
_STRINGS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITIES: Final[Schema] = {"type": "object", "additionalProperties": {"type": ["string", "integer", "number"]}}
_ENV: Final[Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "value": {"type": "string"},
        "valueFrom": {"type": "object"},
    },
}
_VOLUME_SOURCES: Final = ("persistentVolumeClaim", "nfs", "hostPath", "csi")

SHAPES: Final[Mapping[str, Schema]] = {
    "string-map": _STRINGS,
    "object": {"type": "object"},
    "objects": {"type": "array", "items": {"type": "object"}},
    "env": {"type": "array", "items": _ENV},
    "ports": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "cidrs": {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"}},
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"requests": _QUANTITIES, "limits": _QUANTITIES},
    },
    "pull-secrets": {
        "type": "array",
        "items": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {"name": {"type": "string", "minLength": 1}},
                },
            ]
        },
    },
    "image": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "repository": {"type": "string", "minLength": 1},
            "tag": {"type": "string"},
            "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
            "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        },
    },
    "volume-source": {
        "type": "object",
        "additionalProperties": False,
        "maxProperties": 1,
        "properties": {name: {"type": "object"} for name in _VOLUME_SOURCES},
    },
}
"""Shapes that a default (an empty list or map) does not show; named by `@shape` in values.yaml."""


class ChartError(ValueError):
    """values.yaml cannot be turned into a schema; the message names the line."""


@dataclass(frozen=True)
class Note:
    """The comment above a key: its text, and its directives."""

    text: str = ""
    directives: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """One key of values.yaml with all below it."""

    path: tuple[str, ...]
    line: int
    default: Any
    note: Note
    children: tuple["Value", ...]

    @property
    def shown(self) -> str:
        return ".".join(self.path)

    def child(self, name: str) -> "Value":
        return next(child for child in self.children if child.path[-1] == name)


def read_values(text: str) -> Value:
    """The values of a chart, as one tree whose root has the empty path."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ChartError("values.yaml is not a map")
    return _value((), 0, node, yaml.safe_load(text), text.splitlines(), Note())


def _value(path: tuple[str, ...], line: int, node: yaml.Node, default: Any, lines: Sequence[str], note: Note) -> Value:
    children: list[Value] = []
    if isinstance(node, yaml.MappingNode) and "shape" not in note.directives:
        for key, below in node.value:
            at = key.start_mark.line
            child_note = _note(lines, at)
            children.append(_value((*path, key.value), at + 1, below, default[key.value], lines, child_note))
    return Value(path=path, line=line, default=default, note=note, children=tuple(children))


def _note(lines: Sequence[str], at: int) -> Note:
    """The comment lines right above line `at` (from 0). A line `# @name rest` is a directive."""
    first = at
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    text: list[str] = []
    directives: dict[str, str] = {}
    for line in lines[first:at]:
        said = line.strip().removeprefix("#").strip()
        if said.startswith("@"):
            name, _, rest = said[1:].partition(" ")
            directives[name] = rest.strip()
        else:
            text.append(said)
    return Note(text=" ".join(text), directives=directives)


def undocumented(root: Value) -> Iterator[Value]:
    """Leaves, and maps given by shape, that have no description of their own or by `@like`."""
    for value in leaves(root):
        if not value.note.text:
            yield value


def leaves(root: Value) -> Iterator[Value]:
    """Every value that is set, in file order: under `@each` only the described entry, under `@like` with its notes."""
    yield from _leaves(root, root)


def _leaves(value: Value, root: Value) -> Iterator[Value]:
    each = value.note.directives.get("each")
    for child in _like(value, root).children:
        if each is not None and child.path[-1] != each:
            continue
        if child.children:
            yield from _leaves(child, root)
        else:
            yield child


def _like(value: Value, root: Value) -> Value:
    """`value` with the notes of the key that `@like` names on its children."""
    name = value.note.directives.get("like")
    if name is None:
        return value
    other = root
    for part in name.split("."):
        other = other.child(part)
    children = tuple(
        Value(child.path, child.line, child.default, other.child(child.path[-1]).note, child.children)
        for child in value.children
    )
    return Value(value.path, value.line, value.default, value.note, children)


def schema(root: Value, removed: Mapping[str, str]) -> Schema:
    """The closed schema of all values, with the removed ones let through to the templates that refuse them."""
    found: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart sie-cluster",
        **_object(root, root),
    }
    for path, message in removed.items():
        _let_through(found, path.split("."), message)
    return found


def _schema(value: Value, root: Value) -> Schema:
    directives = value.note.directives
    if "shape" in directives:
        found = dict(SHAPES[directives["shape"]])
    elif "each" in directives:
        each = _object(value.child(directives["each"]), root)
        found = {"type": "object", "propertyNames": {"pattern": POOL_NAME}, "additionalProperties": each}
    elif value.children:
        found = _object(_like(value, root), root)
    else:
        found = {**_plain(value), "default": value.default}
    if value.note.text:
        found = {"description": value.note.text, **found}
    extra = yaml.safe_load(directives["schema"]) if "schema" in directives else {}
    return {**found, **extra}


def _object(value: Value, root: Value) -> Schema:
    properties = {child.path[-1]: _schema(child, root) for child in value.children}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(value: Value) -> Schema:
    match value.default:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case str():
            return {"type": "string"}
        case None | list() if "schema" in value.note.directives:
            return {} if value.default is None else {"type": "array"}
    raise ChartError(f"values.yaml:{value.line}: the default of `{value.shown}` does not say its type: add `@shape`")


def _let_through(found: Schema, parts: Sequence[str], message: str) -> None:
    """Adds a property that takes anything at a removed value's path."""
    *folders, last = parts
    for part in folders:
        found = found["additionalProperties"] if part == "*" else found["properties"][part]
    if last in found["properties"]:
        raise ChartError(f"removed.yaml: `{'.'.join(parts)}` is a value of the chart")
    found["properties"][last] = {"description": f"Not part of this chart: {message}"}


def reference(root: Value, removed: Mapping[str, str]) -> str:
    """The reference page: a table for each top-level part, the shipped pools, and what v0.3.1 had."""
    parts = [_HEAD]
    for section in root.children:
        parts.append(f"## `{section.shown}`\n")
        if section.note.text and section.children:
            parts.append(f"{section.note.text}\n")
        rows = [section] if not section.children else list(_leaves(section, root))
        parts.append(_table(("Value", "Default", "Meaning"), [_row(row) for row in rows]))
    pools = root.child("workers").child("pools")
    parts.append("## The pools in values.yaml\n\n" + pools.note.text + "\n")
    columns = ("enabled", "minReplicas", "machineProfile", "gpuType")
    shipped = [
        (f"`{pool.path[-1]}`", *(_code(pool.default[name]) for name in columns), _code(pool.default["gpu"]["count"]))
        for pool in pools.children
    ]
    parts.append(_table(("Pool", *columns, "gpu.count"), shipped))
    parts.append("## Values of v0.3.1 that are refused\n")
    parts.append(_table(("Value", "Instead"), [(f"`{path}`", said) for path, said in removed.items()]))
    return "\n".join(parts)


_HEAD = """# Values of the chart `sie-cluster`

<!-- Written by `python tools/schema.py` from charts/sie-cluster/values.yaml: change that file. -->

Every value that is not in these tables is refused by name. `helm show values` prints the file that they are made from.
"""


def _row(value: Value) -> tuple[str, str, str]:
    shown = value.shown.replace("workers.pools.l4.", "workers.pools.NAME.")
    return (f"`{shown}`", _code(value.default), value.note.text)


def _code(default: object) -> str:
    return "`" + json.dumps(default) + "`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def generated(chart: Path = CHART) -> dict[Path, str]:
    """Path → text of both files."""
    root = read_values((chart / "values.yaml").read_text(encoding="utf-8"))
    removed = yaml.safe_load((chart / "removed.yaml").read_text(encoding="utf-8"))
    bare = [f"values.yaml:{value.line}: `{value.shown}` has no comment" for value in undocumented(root)]
    if bare:
        raise ChartError("\n".join(bare))
    return {
        chart / "values.schema.json": json.dumps(schema(root, removed), indent=2) + "\n",
        REFERENCE: reference(root, removed),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    return write_or_check(
        generated,
        arguments,
        root=ROOT,
        command="python tools/schema.py",
        description="Writes the chart's values schema and its reference page.",
        source="values.yaml says",
    )


if __name__ == "__main__":
    sys.exit(main())
