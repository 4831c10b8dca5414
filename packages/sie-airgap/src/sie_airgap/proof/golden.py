"""Golden answers: what a worker said on the connected side, to be held against what the far side says.

`record` asks a worker, or a gateway, fixed questions (`asking`) and keeps the answers with where they were made;
the small file (`golden_file`) travels in the archive. `compare` asks again elsewhere and grades (`comparison`).
"""

import platform
import time
from collections.abc import Sequence

from sie_airgap import __version__
from sie_airgap.failures import Drift, Failure, Misused
from sie_airgap.proof.asking import ask, kinds_of, question, question_of
from sie_airgap.proof.comparison import Comparison, compared
from sie_airgap.proof.golden_file import GOLDEN_VERSION, Golden, GoldenModel, Kind
from sie_airgap.proof.grading import tells_apart
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import Unreachable
from sie_core.artifacts.lock import LockedModel
from sie_core.ids import ModelId
from sie_sdk import SIEClient
from sie_sdk.client.errors import SIEError
from sie_sdk.types import ModelInfo

HEARD_WITHIN_S = 3
"""A gateway says what a model that was just loaded computes in once its worker was heard again: each second."""


class Void(Failure):
    """The recorded answers cannot tell a right model from a wrong one."""

    exit_code = 9


def record(models: Sequence[LockedModel], lock: Digest, url: str) -> Golden:
    """Ask every model for each output that it declares.

    Raises:
        Unreachable: nobody answers at `url`, or it does not serve a model.
        Drift: it serves another commit than the lock's.
        Void: a model answers different texts alike, so that nothing could be told from it.
        Misused: `url` is none.
    """
    with _client(url) as client:
        recorded = tuple(_recorded(client, model) for model in models)
    return Golden(GOLDEN_VERSION, lock, _environment(), recorded)


def to_record(models: Sequence[LockedModel], url: str) -> dict[ModelId, tuple[Kind, ...]]:
    """What `record` would ask of each model; no text is sent. Raises as `record` where nobody serves a model."""
    with _client(url) as client:
        return {model.id: kinds_of(_served(client, model.id).get("outputs", ())) for model in models}


def compare(golden: Golden, url: str, *, gpu: str | None = None) -> list[Comparison]:
    """Ask the same again, of another worker or through a gateway. Raises `Unreachable`, `Misused`."""
    with _client(url, gpu=gpu) as client:
        found = []
        for model in golden.models:
            _served(client, model.id)
            now = {one.kind: ask(client, model.id, question_of(one)).answers for one in model.series}
            found.append(compared(model, now, precision=_loaded(client, model.id).get("precision")))
        return found


def _client(url: str, *, gpu: str | None = None) -> SIEClient:
    try:
        return SIEClient(url, gpu=gpu)
    except ValueError as error:
        raise Misused(f"--url is `{url}`: want `http://HOST:PORT` or `https://HOST`") from error


def _recorded(client: SIEClient, model: LockedModel) -> GoldenModel:
    kinds = kinds_of(_served(client, model.id).get("outputs", ()))
    series = tuple(ask(client, model.id, question(client, model.id, kind)) for kind in kinds)
    info = _loaded(client, model.id)
    serves = info.get("revision") or model.revision
    if serves != model.revision:
        raise Drift(
            f"{client.base_url} serves another commit of `{model.id}`\n  want  {model.revision}\n  have  {serves}",
            hint="start the worker on what `sie-airgap mirror weights file:///FOLDER` wrote",
        )
    for one in series:
        said = [answer.said for answer in one.answers if answer.said is not None]
        if not tells_apart(said, threshold=one.threshold):
            raise Void(
                f"`{model.id}` at {client.base_url} gives the same {one.kind} answer to different texts, or none"
            )
    return GoldenModel(model.id, model.revision, series, info.get("precision"), info.get("device"))


def _loaded(client: SIEClient, model: ModelId) -> ModelInfo:
    """What the server says of a model that has just answered; a gateway may have to hear of it first."""
    info = _served(client, model)
    for _ in range(HEARD_WITHIN_S):
        if "precision" in info:
            break
        time.sleep(1.0)
        info = _served(client, model)
    return info


def _served(client: SIEClient, model: ModelId) -> ModelInfo:
    """What the server says of a model. Raises `Unreachable` at once where it is not there or has no such model."""
    try:
        return client.get_model(model)
    except SIEError as error:
        raise Unreachable(
            f"{client.base_url} does not serve `{model}`: {error}",
            hint="is a worker or a gateway listening there, and is the model among those it serves?",
        ) from error


def _environment() -> dict[str, str]:
    return {"machine": platform.machine(), "system": platform.system(), "sie_airgap": __version__}
