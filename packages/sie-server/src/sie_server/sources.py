"""Where this worker gets its models from: the local cache, the bucket, the hub; each opened when first needed.

The clients of buckets take longer to import than a small model takes to load, and a cache that is whole needs
none of them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Lock as Mutex
from typing import TYPE_CHECKING, Any, BinaryIO

from sie_core.artifacts.digest import Digest, parse_digest
from sie_core.artifacts.errors import NoPermission, NotThere, Unreachable
from sie_core.artifacts.lock import Lock, encode_lock, lock_file
from sie_core.artifacts.store import Stat, Store, Traits
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.open import open_store, parse_store_url
from sie_core.artifacts.transfer import write
from sie_core.catalog.catalog import Catalog
from sie_core.catalog.refusals import why_refused
from sie_core.catalog.spec import ModelSpec
from sie_core.ids import ModelId, nearest
from sie_core.settings import SettingsError
from sie_server import weights
from sie_server.bucket import models_in, read_pin
from sie_server.local_cache import Holds
from sie_server.settings import ServeSettings

if TYPE_CHECKING:
    from sie_core.artifacts.stores.hub import Hub

ATTEMPTS_ALONE = 3
"""How often a machine on its own asks a hub that does not answer, before it says so and stops asking."""


class LateStore:
    """A bucket whose client is imported by the first question asked of it.

    After a refusal the next question is asked by a new client, which reads credentials, certificates and the rest of
    the environment's files anew: somebody may have put them right.
    """

    traits: Traits

    def __init__(self, url: str, *, path_style: bool) -> None:
        """Raises `ValueError` for a URL that names no store."""
        parse_store_url(url)
        self.url = url.rstrip("/") + "/"
        self._path_style = path_style

    @cached_property
    def opened(self) -> Store:
        return open_store(self.url, path_style=self._path_style)

    def __getattr__(self, name: str) -> Any:
        """`traits`, asked for the first time; a property would not do, since the protocol's is an attribute."""
        if name != "traits":
            raise AttributeError(name)
        self.traits = self.opened.traits
        return self.traits

    def stat(self, name: str) -> Stat | None:
        with self._refusals_noted():
            return self.opened.stat(name)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        with self._refusals_noted():
            return self.opened.open(name, start=start, length=length)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        with self._refusals_noted():
            self.opened.put(name, data, size_bytes=size_bytes, digest=digest)

    def list(self, prefix: str) -> Iterator[Stat]:
        with self._refusals_noted():
            return self.opened.list(prefix)

    def delete(self, name: str) -> None:
        with self._refusals_noted():
            self.opened.delete(name)

    @contextmanager
    def _refusals_noted(self) -> Iterator[None]:
        try:
            yield
        except (NoPermission, Unreachable):
            vars(self).pop("opened", None)
            raise


@dataclass
class Sources:
    """Safe from any thread.

    Attributes:
        hub: makes its client, when the cache lacks something; None: the hub is not asked.
        pinned: digest of the lock whose commits are served; None: what the bucket's refs say.
        budget_bytes: the most that the local cache may hold; None: what its disk does.
    """

    cache: Path
    cluster: LateStore | None
    hub: "Callable[[], Hub] | None"
    pinned: Digest | None
    require_verified: bool
    budget_bytes: int | None = None

    def __post_init__(self) -> None:
        self._mutex = Mutex()
        self._kept = Holds(self.cache)
        self._pin: Lock | None = None

    @classmethod
    def of(cls, settings: ServeSettings) -> "Sources":
        """Raises `SettingsError` for a URL, endpoint or digest that is none."""
        try:
            cluster, pinned = None, None
            if settings.cluster_cache is not None:
                cluster = LateStore(settings.cluster_cache, path_style=settings.cluster_cache_path_style)
            if settings.cluster_cache_lock is not None:
                pinned = parse_digest(settings.cluster_cache_lock)
            if settings.asks_hub and settings.hf_endpoint is not None:
                _hub(settings)  # refused here rather than when it is first asked
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if pinned is not None and cluster is None:
            raise SettingsError(
                "`SIE_CLUSTER_CACHE_LOCK` is set and `SIE_CLUSTER_CACHE` is not",
                hint="the lock is read from the bucket: set its URL",
            )
        hub = partial(_hub, settings) if settings.asks_hub else None
        required, budget_bytes = settings.cluster_cache_require_verified, settings.local_cache_bytes
        return cls(settings.cache_folder, cluster, hub, pinned, required, budget_bytes)

    def pin(self) -> Lock | None:
        """The lock whose commits are served: from the local cache, else from the bucket, and then kept here.

        Raises `TransferError` or `TrustError`.
        """
        with self._mutex:
            if self._pin is None and self.pinned is not None and self.cluster is not None:
                try:
                    self._pin = self._pin_here()
                except NotThere:
                    self._pin = read_pin(self.cluster, self.pinned)
                    write(LocalStore(self.cache), lock_file(self.pinned), encode_lock(self._pin))
            return self._pin

    def _pin_here(self) -> Lock | None:
        return None if self.pinned is None else read_pin(LocalStore(self.cache), self.pinned)

    def snapshot(self, spec: ModelSpec, tell: weights.Progress, take: weights.Take) -> weights.Snapshot:
        """The model's files, verified; waits for what passes by itself. `take` is told of them before they can go.

        Raises `TransferError` or `TrustError`.
        """
        patience = _Patience(tell, most=None if self.cluster is not None else ATTEMPTS_ALONE)
        pin = weights.keep_trying(self.pin, spec.id, progress=patience.tell, sleep=patience.sleep)
        if self.cluster is None and (found := weights.find(spec, self.cache, take=take)) is not None:
            return found
        return weights.ensure(
            spec,
            cache=self.cache,
            cluster=self.cluster,
            hub=self.hub() if self.hub is not None else None,
            pin=pin,
            require_verified=self.require_verified,
            budget_bytes=self.budget_bytes,
            take=take,
            progress=patience.tell,
            sleep=patience.sleep,
        )

    def keep(self, specs: Iterable[ModelSpec]) -> None:
        """What is here of these models stays while this process runs, whether or not it has come to use it."""
        for part in (part for spec in specs for part in parts_of(spec)):
            if (snapshot := self.here(part)) is not None:
                self._kept.take(snapshot.manifest.repo, snapshot.manifest.revision)

    def in_bucket(self) -> tuple[ModelId, ...]:
        """The models in the bucket; none without one. Raises as `snapshot` does, and when it cannot be read."""
        self.pin()
        return models_in(self.cluster) if self.cluster is not None else ()

    def here(self, spec: ModelSpec) -> weights.Snapshot | None:
        """What the local cache holds of the model that would be served, when it is complete; nobody is asked."""
        try:
            return weights.find(
                spec,
                self.cache,
                cluster=self.cluster,
                pin=self._pin_here(),
                require_verified=self.require_verified,
            )
        except NotThere:  # the lock is not here yet, or does not name the model
            return None


def parts_of(spec: ModelSpec) -> list[ModelSpec]:
    """A model, and those that it is built on."""
    return [spec, *(ModelSpec(base.repo, base) for base in spec.bases)]


def check_offered(settings: ServeSettings, catalog: Catalog) -> None:
    """Raises `SettingsError` for a bundle or a model that there is not; with a config service it may be yet to come."""
    if settings.config_service_url is not None:
        return
    if catalog.bundle(settings.bundle) is None:
        names = [bundle.name for bundle in catalog.bundles]
        raise SettingsError(f"`SIE_BUNDLE` names no bundle: `{settings.bundle}`", hint=f"there are: {', '.join(names)}")
    offered = catalog.models_of(settings.bundle)
    for model in settings.models:
        if model not in offered:
            reason = why_refused(model)
            if reason is not None:
                raise SettingsError(f"model `{model}` is not served: {reason}")
            near = nearest(model, offered)
            hint = f"nearest: {', '.join(near)}" if near else "`sie-server models` lists them all"
            raise SettingsError(f"no model `{model}` in bundle `{settings.bundle}`", hint=hint)


def _hub(settings: ServeSettings) -> "Hub":
    from sie_core.artifacts.stores.hub import PUBLIC_HUB, Hub

    token = settings.hf_token.reveal() if settings.hf_token is not None else None
    return Hub(settings.hf_endpoint or PUBLIC_HUB, token=token, ca_bundle=settings.hub_ca_bundle)


class _Patience:
    """Waits for who does not answer: for ever inside a cluster, a few times on a machine of its own."""

    def __init__(self, tell: weights.Progress, *, most: int | None) -> None:
        self._tell = tell
        self._most = most
        self._attempts = 0
        self._last = ""

    def tell(self, state: weights.State) -> None:
        self._last = state.message
        self._tell(state)

    def sleep(self, seconds: float) -> None:
        self._attempts += 1
        if self._most is not None and self._attempts >= self._most:
            raise Unreachable(self._last.split("; next attempt", 1)[0], hint="is this machine online?")
        time.sleep(seconds)
