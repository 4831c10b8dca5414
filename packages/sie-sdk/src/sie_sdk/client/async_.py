"""The awaiting client. `sync.py` beside it is generated from this file by `tools/unasync.py`: edit this one."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, overload

from sie_sdk import _flows, _inputs
from sie_sdk._drivers import AwaitingDriver
from sie_sdk._verdicts import Patience
from sie_sdk.types import EncodeResult, ExtractResult, Item, ModelInfo, OutputDType, OutputType, PoolSpec, ScoreResult

PROVISION_TIMEOUT_S = 900.0


class SIEAsyncClient:
    """A client of an SIE worker or gateway.

    Calls wait, by default, for what passes: no worker yet, a model still loading, a server restarting.
    `HTTP_PROXY` and its like are honoured, though not for `localhost`; https is checked against the
    operating system's trust store. One client may be used by many tasks at once.

    Args:
        base_url: of the worker or the gateway, `http://localhost:8080`.
        timeout_s: the longest silence of one try.
        api_key: sent as a bearer token.
        gpu: the machine profile that calls go to, `l4`, or `pool/l4`; None for any.
        options: sent with every call; a call's own come before them, key by key.
        pool: `{"name": …}` of a pool that exists; `gpu="pool/profile"` says the same.
        max_connections: connections open at once; None for 100 (async only).
        max_concurrency: requests on their way at once; None for no limit but that (async only).

    Raises:
        ValueError: an argument that cannot be used, with what is wanted.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        api_key: str | None = None,
        gpu: str | None = None,
        options: Mapping[str, Any] | None = None,
        pool: PoolSpec | None = None,
        max_connections: int | None = None,  # async only
        max_concurrency: int | None = None,  # async only
    ) -> None:
        self._caller = _inputs.caller(
            base_url, timeout_s=timeout_s, api_key=api_key, gpu=gpu, options=options, pool=pool
        )
        self._driver = AwaitingDriver(
            self._caller.base_url,
            max_connections=max_connections,  # async only
            max_concurrency=max_concurrency,  # async only
        )

    @property
    def base_url(self) -> str:
        """As it was given, without a slash at its end."""
        return self._caller.base_url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Calls after this fail."""
        await self._driver.close()

    @overload
    async def encode(
        self,
        model: str,
        items: Item,
        *,
        output_types: Sequence[OutputType] | None = None,
        instruction: str | None = None,
        output_dtype: OutputDType | None = None,
        is_query: bool | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> EncodeResult: ...

    @overload
    async def encode(
        self,
        model: str,
        items: Sequence[Item],
        *,
        output_types: Sequence[OutputType] | None = None,
        instruction: str | None = None,
        output_dtype: OutputDType | None = None,
        is_query: bool | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> list[EncodeResult]: ...

    async def encode(
        self,
        model: str,
        items: Item | Sequence[Item],
        *,
        output_types: Sequence[OutputType] | None = None,
        instruction: str | None = None,
        output_dtype: OutputDType | None = None,
        is_query: bool | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> EncodeResult | list[EncodeResult]:
        """Dense, sparse or multivector outputs of one item or of a list.

        Args:
            model: `org/name`; `bundle:/org/name` for one bundle's.
            items: `{"text": "…"}`, or a list of such; results come in the same order.
            output_types: which outputs; None for `["dense"]`.
            instruction: put before each text, for models that take one.
            output_dtype: of dense and multivector; None for float32.
            is_query: whether the items are queries, for models that tell queries from documents.
            options: for the model; `{"profile": …}` picks a variant.
            gpu: as in the constructor, for this call.
            wait_for_capacity: wait for a worker, and for a server that does not answer; False raises at once.
            provision_timeout_s: the call's whole time, waits and tries together; None for 900.
            max_oom_retries: how often to try again what the worker had no memory for.

        Returns:
            For each item a dict with the outputs asked for, as numpy arrays; in a list, an item that
            failed by itself has `error` in their place.

        Raises:
            RequestError: 4xx: the model does not exist, or does not take this.
            ServerError: 5xx, and its subclasses for a model that cannot be loaded and for memory.
            ProvisioningError: no worker could serve the call in time.
            ModelLoadingError, LoraLoadingError: it was still being loaded when the time was over.
            SIEConnectionError: nobody answered.
            TypeError, ValueError: an argument that cannot be sent.
        """
        items = await self._driver.ready(items)
        call = _inputs.EncodeCall(model, items, output_types, instruction, output_dtype, is_query, options, gpu)
        patience = _patience(wait_for_capacity, provision_timeout_s, max_oom_retries)
        return await self._driver.run(_flows.encode(self._caller, call, patience, started_s=self._driver.now_s()))

    async def score(
        self,
        model: str,
        query: Item,
        items: Sequence[Item],
        *,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> ScoreResult:
        """How well each item answers a query.

        Args:
            model: as of `encode`; rerankers score pairs, others compare what they encode.
            query: `{"text": "…"}`.
            items: a list of such.
            instruction: what the model is told to look for, where it takes one.
            options: for the model; `{"profile": …}` picks a variant, `{"score_mode": …}` how bge-m3 compares.
            gpu: as in the constructor, for this call.
            wait_for_capacity: as of `encode`.
            provision_timeout_s: the call's whole time, waits and tries together; None for 900.
            max_oom_retries: how often to try again what the worker had no memory for.

        Returns:
            `scores`, one for each item, best first, each with the item's id (`item-` and its index where it has
            none), its score and its rank from 0. Items that failed by themselves come last, with `error`.

        Raises:
            SIEError: as `encode`.
            TypeError, ValueError: an argument that cannot be sent.
        """
        query, items = await self._driver.ready(query), await self._driver.ready(items)
        call = _inputs.ScoreCall(model, query, items, instruction, options, gpu)
        patience = _patience(wait_for_capacity, provision_timeout_s, max_oom_retries)
        return await self._driver.run(_flows.score(self._caller, call, patience, started_s=self._driver.now_s()))

    @overload
    async def extract(
        self,
        model: str,
        items: Item,
        *,
        labels: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> ExtractResult: ...

    @overload
    async def extract(
        self,
        model: str,
        items: Sequence[Item],
        *,
        labels: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> list[ExtractResult]: ...

    async def extract(
        self,
        model: str,
        items: Item | Sequence[Item],
        *,
        labels: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = 3,
    ) -> ExtractResult | list[ExtractResult]:
        """What is in one item or in each of a list: entities, relations, classes, objects, or data of a schema.

        Args:
            model: as of `encode`.
            items: `{"text": "…"}`, or a list of such; results come in the same order.
            labels: what to look for: kinds of entities, or classes.
            output_schema: a JSON schema, for models that fill one in.
            instruction: for models that take one.
            options: for the model; `{"profile": …}` picks a variant.
            gpu: as in the constructor, for this call.
            wait_for_capacity: as of `encode`.
            provision_timeout_s: the call's whole time, waits and tries together; None for 900.
            max_oom_retries: how often to try again what the worker had no memory for.

        Returns:
            For each item a dict with `entities`, `relations`, `classifications` and `objects`, empty where the
            model finds none; in a list, an item that failed by itself has `error`.

        Raises:
            SIEError: as `encode`.
            TypeError, ValueError: an argument that cannot be sent.
        """
        items = await self._driver.ready(items)
        call = _inputs.ExtractCall(model, items, labels, output_schema, instruction, options, gpu)
        patience = _patience(wait_for_capacity, provision_timeout_s, max_oom_retries)
        return await self._driver.run(_flows.extract(self._caller, call, patience, started_s=self._driver.now_s()))

    async def list_models(self) -> list[ModelInfo]:
        """Every model that the server would serve, loaded or not.

        Raises:
            SIEError: as `encode`; nothing is tried twice.
        """
        return await self._driver.run(_flows.list_models(self._caller, started_s=self._driver.now_s()))

    async def get_model(self, model: str) -> ModelInfo:
        """One model.

        Raises:
            RequestError: 404 for an id that is not known; the message names the nearest.
        """
        return await self._driver.run(_flows.get_model(self._caller, model, started_s=self._driver.now_s()))


def _patience(wait_for_capacity: bool, provision_timeout_s: float | None, max_oom_retries: int) -> Patience:
    budget_s = PROVISION_TIMEOUT_S if provision_timeout_s is None else provision_timeout_s
    return Patience(wait_for_capacity, budget_s, max_oom_retries)
