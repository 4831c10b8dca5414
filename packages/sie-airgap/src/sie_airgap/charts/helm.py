"""What a chart renders to, by the helm program itself.

`template` runs `helm template` with an operator's values files and gives the objects. Nothing here knows
our chart: charts that others wrote are rendered the same way. Helm is the operator's own, found on the PATH
or given by path; it is asked for nothing that needs a network.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sie_airgap.failures import Failure, Incomplete, Misused
from sie_core.yaml_documents import documents

Object = dict[str, Any]

TIMEOUT_S = 120


class Refused(Misused):
    """Helm does not render the chart with these values; the message is helm's own."""


def find(given: Path | None = None) -> Path:
    """The helm program: the one given, else the one on the PATH.

    Raises:
        Incomplete: there is none.
    """
    found = shutil.which(str(given) if given is not None else "helm")
    if found is None:
        where = f"`{given}` is not a program" if given is not None else "`helm` is not on the PATH"
        raise Incomplete(
            f"the chart cannot be rendered: {where}", hint="install Helm 3.19 or newer, or name it with `--helm PATH`"
        )
    return Path(found)


def template(
    helm: Path,
    chart: Path,
    *,
    release: str,
    namespace: str,
    values: Sequence[Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> list[Object]:
    """The objects that `helm install` would create, hooks included, in helm's order.

    Args:
        chart: a folder or a `.tgz`.
        values: files, the later over the earlier.
        overrides: values over all files.

    Raises:
        Refused: the chart's schema or a template refuses the values, or the chart is broken.
        Incomplete: the chart or a values file is not there.
    """
    for path in (chart, *values):
        if not path.exists():
            raise Incomplete(f"`{path}` is not there")
    command = [str(helm), "template", release, str(chart), "--namespace", namespace]
    for file in values:
        command += ["--values", str(file)]
    if overrides is not None:
        command += ["--values", "-"]
    text = _run(command, stdin=msgspec.json.encode(overrides or {}), what=f"`{chart}`")
    return parse(text)


def values_in(path: Path) -> Object:
    """What a values file holds. Raises `Refused` for what is no mapping, `Incomplete` where there is none."""
    try:
        loaded = _loaded(path.read_bytes(), where=f"`{path}`")
    except FileNotFoundError as error:
        raise Incomplete(f"`{path}` is not there") from error
    content: Any = next((each for each in loaded if each is not None), {})
    if not isinstance(content, dict):
        raise Refused(f"`{path}` holds a {type(content).__name__}, want a mapping of values")
    return content


def parse(text: str | bytes) -> list[Object]:
    """The objects of a stream of YAML documents; empty ones are left out and a `List` is unfolded.

    Raises:
        Refused: the text is not YAML, or a document is not a Kubernetes object.
    """
    objects: list[Object] = []
    for each in _loaded(text, where="what was rendered"):
        if each is None:
            continue
        if not isinstance(each, dict) or "kind" not in each:
            raise Refused(f"what was rendered is not a Kubernetes object: `{str(each)[:80]}`")
        objects += each.get("items") or [] if each["kind"] == "List" else [each]
    return objects


def _loaded(text: str | bytes, *, where: str) -> list[Any]:
    try:
        return documents(text, where=where)
    except ValueError as error:
        raise Refused(str(error)) from error


def _run(command: Sequence[str], *, stdin: bytes, what: str) -> bytes:
    try:
        ended = subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)
    except OSError as error:
        raise Incomplete(
            f"`{command[0]}` cannot be started: {error.strerror}", hint="name another helm with `--helm PATH`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"helm did not render {what} within {TIMEOUT_S} s") from error
    if ended.returncode != 0:
        said = ended.stderr.decode("utf-8", "replace").replace("Use --debug flag to render out invalid YAML", "")
        raise Refused(f"helm does not render {what}\n{said.strip()}", hint=f"`helm show values {what.strip('`')}`")
    return ended.stdout
