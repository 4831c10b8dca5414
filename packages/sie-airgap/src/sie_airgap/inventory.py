"""What a cluster needs, read off the rendered chart: which images, and why each.

`images` takes the objects that helm rendered. An image is certain where Kubernetes itself pulls it (a
container of any pod, an image volume, the `image` of a custom resource); it is a guess where a string in an
environment variable, an argument or a ConfigMap looks like one, since operators start pods from such
strings. `conditionals` lists the values of a chart that are off, so that each can be rendered switched on.

Nothing here reads a file or starts a program: `chart_images.py` does.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Objects = Iterable[Mapping[str, Any]]

_CONTAINERS = {"containers": "container", "initContainers": "init container", "ephemeralContainers": "container"}
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_TAIL = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(?:@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})"
_HOST = r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[0-9]{1,5})?|localhost(?::[0-9]{1,5})?|[a-z0-9-]+:[0-9]{1,5})"
_WITH_HOST = re.compile(rf"(?<![A-Za-z0-9_./@:-]){_HOST}(?:/{_PATH})+{_TAIL}(?![A-Za-z0-9_./-])")
_SHORT = re.compile(rf"{_PATH}(?:/{_PATH})*{_TAIL}")


@dataclass(frozen=True)
class ImageUse:
    """One image.

    Attributes:
        reference: exactly as rendered.
        why: the objects and containers that name it, sorted.
        is_guess: it was only seen in text that looks like a reference.
    """

    reference: str
    why: tuple[str, ...]
    is_guess: bool = False


@dataclass(frozen=True)
class _Sighting:
    reference: str
    why: str
    is_guess: bool


def images(objects: Objects) -> tuple[ImageUse, ...]:
    """Every image that the objects name, each once, sorted by reference."""
    return _collected(sighting for each in objects for sighting in _in_object(each))


def conditionals(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each value that is `false`, with an override that switches it on: `("config.enabled", {"config": …})`."""
    for path in _false(values, ()):
        override: Any = True
        for part in reversed(path):
            override = {part: override}
        yield ".".join(path), override


def _false(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _false(value, (*path, key))
        elif value is False:
            yield (*path, key)


def _collected(sightings: Iterable[_Sighting]) -> tuple[ImageUse, ...]:
    reasons: dict[str, set[str]] = {}
    certain: set[str] = set()
    for sighting in sightings:
        reasons.setdefault(sighting.reference, set()).add(sighting.why)
        if not sighting.is_guess:
            certain.add(sighting.reference)
    return tuple(
        ImageUse(reference, tuple(sorted(reasons[reference])), reference not in certain)
        for reference in sorted(reasons)
    )


def _in_object(each: Mapping[str, Any]) -> Iterator[_Sighting]:
    metadata = each.get("metadata") or {}
    where = f"{each.get('kind', '?')}/{metadata.get('name', '?')}"
    hook = (metadata.get("annotations") or {}).get("helm.sh/hook")
    if hook is not None:
        where += f" (hook {hook})"
    if each.get("kind") in ("ConfigMap", "Secret"):
        for key, text in {**(each.get("data") or {}), **(each.get("stringData") or {})}.items():
            yield from _guesses(str(text), f"{where}, key {key}")
        return
    yield from _in_tree(each, where)


def _in_tree(node: Any, where: str) -> Iterator[_Sighting]:
    """Images anywhere below a node: custom resources nest pods where they like."""
    if isinstance(node, Mapping):
        for key, below in node.items():
            if key in _CONTAINERS and isinstance(below, Sequence) and not isinstance(below, str):
                for container in below:
                    yield from _in_container(container, f"{where}, {_CONTAINERS[key]}")
            elif key == "image" and isinstance(below, str) and below:
                yield _Sighting(below, f"{where}, image", False)
            elif key == "image" and isinstance(below, Mapping) and isinstance(below.get("reference"), str):
                yield _Sighting(below["reference"], f"{where}, image volume", False)
            else:
                yield from _in_tree(below, where)
    elif isinstance(node, list):
        for below in node:
            yield from _in_tree(below, where)


def _in_container(container: Mapping[str, Any], where: str) -> Iterator[_Sighting]:
    name = f"{where} {container.get('name', '?')}"
    if isinstance(container.get("image"), str):
        yield _Sighting(container["image"], name, False)
    for text in [*(container.get("command") or []), *(container.get("args") or [])]:
        yield from _guesses(str(text), f"{name}, argument")
    for variable in container.get("env") or []:
        told, value = str(variable.get("name", "")), str(variable.get("value") or "")
        why = f"{name}, variable {told}"
        if told.upper().endswith("IMAGE") and _SHORT.fullmatch(value):
            yield _Sighting(value, why, True)
        else:
            yield from _guesses(value, why)


def _guesses(text: str, why: str) -> Iterator[_Sighting]:
    for found in _WITH_HOST.finditer(text):
        yield _Sighting(found.group(), why, True)
