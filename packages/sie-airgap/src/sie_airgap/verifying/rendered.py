"""What a chart renders to, held against the lock. Pure.

Every image that Kubernetes itself would pull is one of the lock's by its digest, or has the very name that was locked,
which the rules of `mirror rules` lead to the mirror. Every worker is pinned to the lock. What only looks like an image
is not judged: the lock has what was found of it, and `review` shows it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sie_airgap.charts.inventory import images
from sie_airgap.failures import Drift, Expected
from sie_airgap.oci.reference import parse_reference
from sie_core.artifacts.lock import Lock, LockedImage, lock_digest

_PIN, _CACHE, _PRELOADED = "SIE_CLUSTER_CACHE_LOCK", "SIE_CLUSTER_CACHE", "SIE_PRELOAD_MODELS"
_WRITE_VALUES = "`sie-airgap values` writes values that name the lock's images by digest and pin the lock"


def differences(lock: Lock, objects: Iterable[Mapping[str, Any]]) -> Iterator[Expected]:
    """Every image, pin and model that the objects name and that is not the lock's."""
    rendered = list(objects)
    for use in images(rendered):
        if not use.is_guess and not is_locked(use.reference, lock.images):
            yield Drift(
                f"`{use.reference}` is rendered by {', '.join(use.why)}\n"
                "  want  an image of the lock, by its digest or by the name that was locked\n  have  another, or a tag",
                hint=_WRITE_VALUES,
            )
    for variables in _environments(rendered):
        yield from _pin(lock, variables)


def is_locked(reference: str, locked: Iterable[LockedImage]) -> bool:
    """Whether a name can mean nothing but an image of the lock."""
    try:
        digest = parse_reference(reference).digest
    except ValueError:
        return False
    if digest is None:
        return any(reference == image.reference for image in locked)
    return any(digest in (image.digest, *image.platforms.values()) for image in locked)


def _pin(lock: Lock, variables: Mapping[str, str]) -> Iterator[Expected]:
    if _CACHE not in variables:
        return
    want, have = lock_digest(lock), variables.get(_PIN, "")
    if have != want:
        yield Drift(
            f"a worker is not pinned to the lock\n  want  {_PIN} {want}\n  have  {have or 'none'}", hint=_WRITE_VALUES
        )
    for name in filter(None, variables.get(_PRELOADED, "").split(",")):
        if lock.model(name) is None:
            yield Drift(f"`{name}` is preloaded\n  want  a model of the lock\n  have  none", hint=_WRITE_VALUES)


def _environments(node: Any) -> Iterator[Mapping[str, str]]:
    """The variables of every container, wherever a pod stands; each of them once."""
    seen: set[tuple[tuple[str, str], ...]] = set()
    for container in _containers(node):
        variables = {
            str(one["name"]): str(one.get("value") or "")
            for one in container.get("env") or ()
            if isinstance(one, Mapping) and "name" in one
        }
        told = tuple((name, variables[name]) for name in (_CACHE, _PIN, _PRELOADED) if name in variables)
        if told not in seen:
            seen.add(told)
            yield variables


def _containers(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        for key, below in node.items():
            if key in ("containers", "initContainers") and isinstance(below, list):
                yield from (one for one in below if isinstance(one, Mapping))
            else:
                yield from _containers(below)
    elif isinstance(node, list):
        for below in node:
            yield from _containers(below)
