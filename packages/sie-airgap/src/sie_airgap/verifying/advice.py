"""What to run for a level of the ladder that is not true. Pure."""

import shlex
from collections.abc import Mapping

from sie_airgap.verifying.checks import Check, Kind, Level
from sie_airgap.verifying.ladder import Rung

_USUAL: Mapping[Level, tuple[str, ...]] = {
    Level.SIGNATURE: ("trust", "show"),
    Level.INDEX: ("verify", "MEDIA"),
    Level.MEDIA: ("verify", "MEDIA"),
    Level.REGISTRY: ("verify", "oci://HOST/PATH", "--lock", "LOCK"),
    Level.BUCKET: ("verify", "s3://BUCKET/PREFIX/", "--lock", "LOCK"),
    Level.MANIFESTS: ("status", "--values", "values-offline.yaml"),
    Level.RUNNING: ("verify", "http://HOST:8080", "--lock", "LOCK"),
    Level.ANSWERS: ("golden", "compare", "golden.json", "--url", "http://HOST:8080"),
    Level.EGRESS: ("rehearse", "--values", "values-offline.yaml"),
}
"""Where nothing was ever checked; words in capitals are for the operator to fill in."""


def advice(rung: Rung, lock_path: str, *, store: str | None = None) -> str:
    """A command for a shell: the one that checked the place before, of this lock or of another, or the usual one.

    `store`: the toolkit's own, where the lock was read from one.
    """
    bad = [place.check for place in rung.places if not place.state.is_true]
    if not bad and Kind.PODS in rung.lacking:
        return _pods(rung.other)
    last = bad[0] if bad else rung.other
    if last is not None and last.kind == Kind.PODS:
        return _pods(last)
    words = last.again if last is not None and last.again else _USUAL[rung.level]
    meant = [store if word == "MEDIA" and store is not None else word for word in _with_lock(words, lock_path)]
    return shlex.join(["sie-airgap", *meant])


def _with_lock(words: tuple[str, ...], lock_path: str) -> list[str]:
    """With the lock that is asked about, where the last check named another."""
    return [lock_path if before == "--lock" else word for before, word in zip(("", *words), words, strict=False)]


def _pods(last: Check | None) -> str:
    namespace = last.place.rpartition(" ")[2] if last is not None and last.kind == Kind.PODS else "sie"
    return f"kubectl get pods -n {shlex.quote(namespace)} -o json | sie-airgap status --pods -"
