"""What a cluster needs, read off the rendered chart: which images, and why each.

`images` takes the objects that helm rendered. An image is certain where Kubernetes itself pulls it (a container
of any pod, an image volume) and where a custom resource has an `image` that can be nothing else. It is a guess
wherever an operator might put a pod together from what it reads: `image_texts` knows those places.

Nothing here reads a file or starts a program: `images` does.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sie_airgap.charts import image_texts

Objects = Iterable[Mapping[str, Any]]

_CONTAINERS = {"containers": "container", "initContainers": "init container", "ephemeralContainers": "container"}
_TEXT_KINDS = ("ConfigMap", "Secret")
_SCHEMAS = ("CustomResourceDefinition",)
"""What describes objects and is none: `image` is the name of a property there, and examples are prose."""


@dataclass(frozen=True)
class ImageUse:
    """One image.

    Attributes:
        reference: exactly as rendered.
        why: the objects and containers that name it, sorted.
        is_guess: it was only seen in what looks like a reference.
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
    kind, metadata = each.get("kind", "?"), each.get("metadata") or {}
    where = f"{kind}/{metadata.get('name', '?')}"
    annotations = metadata.get("annotations") or {}
    if "helm.sh/hook" in annotations:
        where += f" (hook {annotations['helm.sh/hook']})"
    if kind in _SCHEMAS:
        return
    yield from _annotated(annotations, where)
    if kind in _TEXT_KINDS:
        for key, text in _texts(each):
            yield from _guesses(image_texts.in_named(key, text), f"{where}, key {key}")
        return
    yield from _in_tree(each, where)


def _texts(each: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a ConfigMap or a Secret holds that is text."""
    for key, value in (each.get("data") or {}).items():
        if each["kind"] == "Secret":
            try:
                yield str(key), base64.b64decode(str(value), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue
        else:
            yield str(key), str(value)
    for key, value in (each.get("stringData") or {}).items():
        yield str(key), str(value)


def _in_tree(node: Any, where: str) -> Iterator[_Sighting]:
    """Images anywhere below a node: custom resources nest pods where they like."""
    if isinstance(node, Mapping):
        parts = list(image_texts.in_parts(node))
        yield from _guesses(parts, where)
        for key, below in node.items():
            if key != "image" or not parts:
                yield from _in_field(str(key), below, where)
    elif isinstance(node, list):
        yield from _guesses(image_texts.in_arguments([one for one in node if isinstance(one, str)]), where)
        for below in node:
            yield from _in_tree(below, where)


def _in_field(key: str, value: Any, where: str) -> Iterator[_Sighting]:
    if key in _CONTAINERS and isinstance(value, list):
        for container in value:
            if isinstance(container, Mapping):
                yield from _in_container(container, f"{where}, {_CONTAINERS[key]}")
    elif key == "image" and isinstance(value, str):
        if image_texts.can_be_pulled(value):
            yield _Sighting(value, f"{where}, image", False)
    elif key == "image" and isinstance(value, Mapping) and isinstance(value.get("reference"), str):
        yield _Sighting(value["reference"], f"{where}, image volume", False)
    elif key == "metadata" and isinstance(value, Mapping):
        yield from _annotated(value.get("annotations"), where)
    elif isinstance(value, str):
        yield from _guesses(image_texts.in_named(key, value), f"{where}, {key}")
    else:
        yield from _in_tree(value, where)


def _annotated(annotations: Any, where: str) -> Iterator[_Sighting]:
    for key, value in annotations.items() if isinstance(annotations, Mapping) else ():
        yield from _guesses(image_texts.in_named(str(key), str(value)), f"{where}, annotation {key}")


def _in_container(container: Mapping[str, Any], where: str) -> Iterator[_Sighting]:
    name = f"{where} {container.get('name', '?')}"
    if isinstance(container.get("image"), str) and container["image"]:
        yield _Sighting(container["image"], name, False)
    words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    yield from _guesses(image_texts.in_arguments(words), f"{name}, argument")
    variables = {
        str(variable["name"]): str(variable.get("value") or "")
        for variable in container.get("env") or []
        if isinstance(variable, Mapping) and "name" in variable
    }
    for told, value in variables.items():
        yield from _guesses(image_texts.in_named(told, value), f"{name}, variable {told}")
    yield from _guesses(image_texts.in_variables(variables), f"{name}, variables")


def _guesses(references: Iterable[str], why: str) -> Iterator[_Sighting]:
    for reference in references:
        yield _Sighting(reference, why, True)
