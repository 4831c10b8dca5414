"""The reference pages under docs/reference, from the programs themselves.

Nothing here describes anything: every sentence on these pages is the string under a setting, the help of a
command, the meaning in the error table or the help of a metric, so that a page can be wrong only where the
program is. `chart-values.md` beside them is `tools/schema.py`'s.

    python tools/reference.py            writes the pages
    python tools/reference.py --check    exits 1 where a page is not what would be written
"""

import dataclasses
import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

import sie_airgap.cli
import sie_config.cli
import sie_gateway.cli
import sie_sdk
import sie_server.cli
from models_table import models_page
from pages import write_or_check
from sie_airgap.settings import AirgapSettings
from sie_config.app import ConfigService
from sie_config.ledger import Ledger
from sie_config.settings import ConfigSettings
from sie_core.catalog.catalog import Catalog
from sie_core.errors import KINDS
from sie_core.http.auth import configure
from sie_core.http.metrics import Counter, Histogram
from sie_core.http.serve import Drain
from sie_core.settings import DROPPED, NAMES, Secret, field_docs, field_names
from sie_core.wire import messages
from sie_gateway.observability import Metrics as GatewayMetrics
from sie_gateway.settings import GatewaySettings
from sie_server.observability import Metrics as ServerMetrics
from sie_server.settings import ServeSettings

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"

_WRITTEN = "<!-- Written by `python tools/reference.py` from the programs: change them, not this page. -->\n"


@dataclass(frozen=True)
class Program:
    """A program: its command line, and what it may be set to."""

    name: str
    cli: click.Group
    settings: type[Any]


def _group(command: click.Command) -> click.Group:
    assert isinstance(command, click.Group)
    return command


PROGRAMS: Final = (
    Program("sie-server", _group(sie_server.cli.main), ServeSettings),
    Program("sie-gateway", _group(sie_gateway.cli.main), GatewaySettings),
    Program("sie-config", _group(sie_config.cli.main), ConfigSettings),
    Program("sie-airgap", _group(sie_airgap.cli.cli), AirgapSettings),
)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`"


# Settings


def settings_page() -> str:
    parts = ["# Settings\n", _WRITTEN, _SETTINGS_HEAD]
    for program in PROGRAMS:
        flags = "" if program.settings is AirgapSettings else "Flag"
        parts.append(f"## `{program.name}`\n")
        head = [*([flags] if flags else []), "Variable", "Kind", "Default", "Meaning"]
        parts.append(_table(head, list(_settings_rows(program, with_flags=bool(flags)))))
    parts.append("## Every `SIE_*` variable\n")
    parts.append(_table(("Variable", "Read by"), [(_code(name), owner) for name, owner in sorted(NAMES.items())]))
    parts.append("## Variables of v0.3.1 that are refused\n")
    parts.append(
        _table(("Variable", "Why, or what to do instead"), [(_code(k), v) for k, v in sorted(DROPPED.items())])
    )
    return "\n".join(parts)


_SETTINGS_HEAD = """A flag comes before the environment, the environment before the default. A flag that is left out
erases nothing, and an empty variable is one that is not set. Secrets have no flag: a command line can be read by every
user of a machine. A `SIE_*` variable that is in none of these tables stops the process, which names the nearest one;
`sie-server settings`, `sie-gateway settings` and `sie-config settings` print every effective value and its source.

Credentials and addresses of object stores are read by the stores' own clients (`AWS_*`).
"""


def _settings_rows(program: Program, *, with_flags: bool) -> Iterator[tuple[str, ...]]:
    docs, names = field_docs(program.settings), field_names(program.settings)  # type: ignore[arg-type]  # a class is hashable
    hints = get_type_hints(program.settings)
    for field in dataclasses.fields(program.settings):
        kind = hints[field.name]
        flag = "—" if _is_secret(kind) else _code("--" + field.name.replace("_", "-"))
        row = (_code(names[field.name]), _kind(kind), _default(field.default), docs[field.name])
        yield (flag, *row) if with_flags else row


def _is_secret(kind: Any) -> bool:
    return kind is Secret or Secret in get_args(kind)


def _kind(kind: Any) -> str:
    """A field's type in an operator's words."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = [arg for arg in get_args(kind) if arg is not type(None)]
    if get_origin(kind) is Literal:
        return ", ".join(_code(str(arg)) for arg in get_args(kind))
    if get_origin(kind) is tuple:
        return "list, by commas"
    words = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", Path: "path", Secret: "secret"}
    return words[kind]


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if value == ():
        return "empty"
    return _code(str(value).lower() if isinstance(value, bool) else str(value))


# Errors


def errors_page() -> str:
    rows = [
        (
            _code(kind.code),
            str(kind.status),
            "yes" if kind.passes else "no",
            "—" if kind.retry_after_s is None else f"{kind.retry_after_s:g} s",
            kind.meaning,
        )
        for kind in sorted(KINDS.values(), key=lambda kind: (kind.status, kind.code))
    ]
    head = ("Code", "Status", "Passes by itself", "`Retry-After`", "Meaning")
    parts = ["# Errors\n", _WRITTEN, _ERRORS_HEAD, _table(head, rows), "## Exit codes of `sie-airgap`\n"]
    parts.append(_table(("Code", "Meaning"), [(_code(code), meaning) for code, meaning in exit_codes().items()]))
    parts.append("`sie-server` ends with the codes of the same meaning.\n")
    return "\n".join(parts)


_ERRORS_HEAD = """Every server answers an error with the same body, `{"detail": {"code", "message", "hint"},
"error": {…}}` where `error` holds what `detail` holds, and with the code in the header `X-SIE-Error-Code`. The `hint`
may be missing. *Passes by itself* means that the same call may succeed later without anybody doing anything: those are
the ones that the SDK waits for. `Retry-After` is what is sent where the server knows nothing better.
"""


def exit_codes() -> dict[str, str]:
    """Code → meaning, as `sie-airgap --help` says them: each ends with its line, a stop, or two spaces."""
    _, _, said = inspect.cleandoc(sie_airgap.cli.cli.help or "").partition("Exit codes")
    found = dict(re.findall(r"\b(\d+) ([^;.\n]+?)(?=\s{2}|[;.\n]|$)", said))
    return {code: found[code] for code in sorted(found, key=int)}


# Commands


def cli_page() -> str:
    parts = ["# Commands\n", _WRITTEN]
    for program in PROGRAMS:
        parts.append(f"## `{program.name}`\n")
        parts.append(_help(program.cli))
        for path, command in commands(program.cli):
            parts.append(_command(program, path, command))
    return "\n".join(parts)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of a tree with the words that lead to it, in the order in which help lists them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def _command(program: Program, path: tuple[str, ...], command: click.Command) -> str:
    name = " ".join((program.name, *path))
    context = click.Context(command, info_name=name)
    parts = [f"### `{name}`\n", _help(command)]
    if isinstance(command, click.Group):
        return "\n".join(parts)
    usage = " ".join(command.collect_usage_pieces(context))
    parts.append(f"```text\n{name} {usage}\n```\n")
    own = [param for param in command.params if isinstance(param, click.Option) and not _is_setting(param, program)]
    if len(own) < len(command.params) and any(_is_setting(param, program) for param in command.params):
        parts.append(f"Takes every flag of [`{program.name}`'s settings](settings.md#{program.name}).\n")
    if own:
        parts.append(_table(("Option", "Meaning"), [_option(option, context) for option in own]))
    return "\n".join(parts)


def _is_setting(param: click.Parameter, program: Program) -> bool:
    if program.settings is AirgapSettings or not isinstance(param, click.Option) or param.help is None:
        return False
    variable = field_names(program.settings).get(param.name or "")
    return variable is not None and param.help.endswith(f"[{variable}]")


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    names, said = option.get_help_record(context) or (", ".join(option.opts), option.help or "")
    again = " May be given more than once." if option.multiple else ""
    return _code(names), f"{' '.join(said.split())}{again}"


def _help(command: click.Command) -> str:
    """Help as Markdown: paragraphs, and what click must not wrap as text."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if paragraph.startswith("\b"):
            parts.append("```text\n" + paragraph.removeprefix("\b\n") + "\n```")
        else:
            parts.append(" ".join(paragraph.split()))
    return "\n\n".join(parts) + "\n"


# Metrics


def metrics_page() -> str:
    parts = ["# Metrics\n", _WRITTEN, "Each server has them at `/metrics`, in Prometheus' text format.\n"]
    for program, metrics in metrics_by_program().items():
        parts.append(f"## `{program}`\n")
        rows = [
            (_code(one.name), one.kind, ", ".join(map(_code, one.labels)) or "—", one.meaning)
            for one in sorted(metrics, key=lambda one: one.name)
        ]
        parts.append(_table(("Metric", "Kind", "Labels", "Meaning"), rows))
    return "\n".join(parts)


def metrics_by_program() -> dict[str, list[Counter | Histogram]]:
    config = ConfigService(Ledger(Catalog.shipped(), epoch=0, began_at=""), auth=configure("none", ()), drain=Drain())
    holders = {"sie-server": ServerMetrics(), "sie-gateway": GatewayMetrics(), "sie-config": config}
    return {
        program: [value for value in vars(holder).values() if isinstance(value, Counter | Histogram)]
        for program, holder in holders.items()
    }


# Bodies


def bodies_page() -> str:
    parts = ["# Bodies\n", _WRITTEN, _BODIES_HEAD]
    for struct in structs():
        parts.append(f"## `{struct.__name__}`\n")
        if struct.__doc__:
            parts.append(_docstring(struct.__doc__))
        rows = [
            (_code(field.encode_name), _code(_shown_type(field.type)), "yes" if field.required else "no")
            for field in msgspec.structs.fields(struct)
        ]
        parts.append(_table(("Key", "Type", "Required"), rows))
    return "\n".join(parts)


_BODIES_HEAD = """What is inside requests and answers; [the wire](../formats/wire.md) says which route takes what.
`Any` of `values` and `indices` is an array: a msgpack-numpy map in MessagePack, a list in JSON. Bytes are base64 in
JSON.
"""


def structs() -> list[type[msgspec.Struct]]:
    """The structs of `wire.messages`, in the order of that file."""
    found = vars(messages).values()
    return [
        each
        for each in found
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and each is not msgspec.Struct
    ]


def _shown_type(kind: Any) -> str:
    """A type as Python writes it, without its modules, the same with every version of Python."""
    if kind in (type(None), msgspec.UnsetType):
        return "None" if kind is type(None) else ""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " | ".join(filter(None, map(_shown_type, args)))
    if origin is Literal:
        return " | ".join(f'"{arg}"' for arg in args)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_shown_type, args))}]"
    return re.sub(r"\b(?:\w+\.)+", "", kind) if isinstance(kind, str) else str(getattr(kind, "__name__", kind))


# The SDK


def sdk_page() -> str:
    parts = ["# `sie_sdk`\n", _WRITTEN, inspect.cleandoc(sie_sdk.__doc__ or "").split("\n\n")[0] + "\n"]
    clients = ("SIEClient", "SIEAsyncClient")
    parts += [_class(name, getattr(sie_sdk, name)) for name in clients]
    for name in sorted({*sie_sdk.__all__} - {*clients, "__version__"}):
        exported = getattr(sie_sdk, name)
        parts.append(f"## `{name}`\n")
        if callable(exported) and not isinstance(exported, type):
            parts.append(f"```python\n{name}{_signature(exported)}\n```\n")
        parts.append(_docstring(exported.__doc__ or ""))
        keys = getattr(exported, "__annotations__", {}) if hasattr(exported, "__total__") else {}
        if keys:
            parts.append(f"Keys: {', '.join(_code(key) for key in keys)}.\n")
    return "\n".join(parts)


def _class(name: str, client: type[Any]) -> str:
    parts = [f"## `{name}`\n", f"```python\n{name}{_signature(client)}\n```\n", _docstring(client.__doc__ or "")]
    for attribute, method in vars(client).items():
        if attribute.startswith("_") or not inspect.isfunction(method):
            continue
        word = "async def" if inspect.iscoroutinefunction(method) else "def"
        parts.append(f"### `{name}.{attribute}`\n")
        parts.append(f"```python\n{word} {attribute}{_signature(method)}\n```\n")
        parts.append(_docstring(method.__doc__ or ""))
    return "\n".join(parts)


def _signature(target: Any) -> str:
    """One parameter a line where one line would not hold them."""
    signature = inspect.signature(target)
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    shown = [_parameter(one) for one in parameters]
    kinds = [one.kind for one in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returns = signature.return_annotation
    tail = "" if returns in (inspect.Signature.empty, None) else f" -> {_shown_type(returns)}"
    line = f"({', '.join(shown)}){tail}"
    return line if len(line) <= 90 else "(\n" + "".join(f"    {one},\n" for one in shown) + f"){tail}"


def _parameter(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {_shown_type(parameter.annotation)}{default}"


def _docstring(text: str) -> str:
    """Paragraphs as they are; `Args:`, `Returns:` and their like as lists."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        head, *below = paragraph.split("\n")
        if head in ("Args:", "Attributes:", "Raises:", "Returns:"):
            entries = re.split(r"\n    (?=\S)", "\n" + "\n".join(below))[1:]
            joined = [" ".join(entry.split()) for entry in entries]
            parts.append(f"{head}\n\n" + "\n".join(f"- {entry}" for entry in _entries(head, joined)))
        else:
            parts.append(" ".join(paragraph.split()) if "`" in paragraph or "|" not in paragraph else paragraph)
    return "\n\n".join(parts) + "\n"


def _entries(head: str, entries: Sequence[str]) -> list[str]:
    if head == "Returns:":
        return [" ".join(entries)]
    return [re.sub(r"^([\w./, ]+?):", r"`\1`:", entry, count=1) for entry in entries]


def generated() -> dict[Path, str]:
    """Path → text of every page."""
    pages = {
        "bodies.md": bodies_page,
        "cli.md": cli_page,
        "errors.md": errors_page,
        "metrics.md": metrics_page,
        "models.md": models_page,
        "sdk.md": sdk_page,
        "settings.md": settings_page,
    }
    return {PAGES / name: page() for name, page in pages.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    return write_or_check(
        generated,
        arguments,
        root=ROOT,
        command="python tools/reference.py",
        description="Writes the reference pages.",
        source="the programs say",
    )


if __name__ == "__main__":
    sys.exit(main())
