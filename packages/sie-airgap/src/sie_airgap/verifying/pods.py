"""What `kubectl get pods -o json` says of running images, held against the lock. Pure.

A node says of each container what it runs: the digest that the image was pulled by (of the index, or of a platform's
manifest) or, where it was loaded otherwise, the image's id, which is the digest of its configuration. All three stand
in the lock.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from sie_airgap.failures import Drift, Expected, Incomplete, Misused
from sie_airgap.store.contents import kind_of_blob
from sie_core.artifacts.lock import Lock


class _Container(Struct, frozen=True):
    name: str
    image: str = ""
    imageID: str = ""
    state: dict[str, Any] = {}


class _Status(Struct, frozen=True):
    containerStatuses: tuple[_Container, ...] = ()
    initContainerStatuses: tuple[_Container, ...] = ()
    phase: str = ""


class _Metadata(Struct, frozen=True):
    name: str
    namespace: str = "default"


class Pod(Struct, frozen=True):
    """One pod, as far as it is looked at."""

    metadata: _Metadata
    status: _Status = _Status()
    kind: str = "Pod"

    @property
    def containers(self) -> tuple[_Container, ...]:
        return (*self.status.initContainerStatuses, *self.status.containerStatuses)


class _List(Struct, frozen=True):
    items: tuple[Pod, ...]


def read_pods(data: bytes, *, where: str) -> tuple[Pod, ...]:
    """Raises `Misused` for what is no list of pods."""
    try:
        pods = msgspec.json.decode(data, type=_List).items
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Misused(f"{where} is no list of pods: {error}", hint=_HOW) from error
    others = sorted({pod.kind for pod in pods if pod.kind != "Pod"})
    if others:
        raise Misused(f"{where} is a list of {', '.join(others)}", hint=_HOW)
    return pods


_HOW = "`kubectl get pods -n sie -o json` writes one"


def differences(lock: Lock, pods: Sequence[Pod], *, where: str) -> Iterator[Expected]:
    """Every container that runs, or ran, something else than an image of the lock, and those that have not started."""
    known = {
        str(digest)
        for image in lock.images
        for digest in (
            image.digest,
            *image.platforms.values(),
            *(blob.digest for blob in image.blobs if kind_of_blob(blob.media_type) == "config"),
        )
    }
    if not pods:
        yield Incomplete(f"no pod is in {where}", hint="is it another namespace? " + _HOW)
    for pod in pods:
        for one in pod.containers:
            digest = one.imageID.rpartition("@")[2].removeprefix("docker://")
            named = f"container `{one.name}` of pod `{pod.metadata.namespace}/{pod.metadata.name}`"
            if not digest:
                yield Incomplete(f"{named} has not started", hint="`kubectl describe pod` says what it waits for")
            elif digest not in known:
                have = f"{one.imageID} ({one.image})"
                yield Drift(f"{named} runs what was not locked\n  want  an image of the lock\n  have  {have}")
        if not pod.containers:
            yield Incomplete(f"pod `{pod.metadata.namespace}/{pod.metadata.name}` has no container: {pod.status.phase}")


def namespaces(pods: Sequence[Pod]) -> tuple[str, ...]:
    return tuple(sorted({pod.metadata.namespace for pod in pods}))


def started_s(pods: Sequence[Pod]) -> int | None:
    """When the last container that runs was started, in seconds since 1970; None where nothing says so."""
    times = []
    for pod in pods:
        for one in pod.status.containerStatuses:
            text = (one.state.get("running") or {}).get("startedAt")
            try:
                times.append(int(datetime.fromisoformat(text).timestamp()) if isinstance(text, str) else None)
            except ValueError:
                continue
    return max((each for each in times if each is not None), default=None)
