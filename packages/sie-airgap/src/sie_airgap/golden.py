"""Golden answers: what a worker said on the connected side, to be held against what the far side says.

`record` asks a worker, or a gateway, for the vectors of fixed texts and keeps them with where they were made;
the small file travels in the archive. `compare` asks again elsewhere and grades (`grading`).
"""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import Struct

from sie_airgap import __version__
from sie_airgap.failures import Drift, Failure, Misused
from sie_airgap.grading import Grade, Graded, Vector, grade, ranks_hold, tells_apart
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import Unreachable
from sie_core.artifacts.lock import LockedModel
from sie_core.artifacts.manifest import canonical_json
from sie_core.ids import ModelId, Revision
from sie_sdk import SIEClient
from sie_sdk.client.errors import RequestError, SIEError
from sie_sdk.types import ModelInfo

GOLDEN_VERSION = 1
PATIENCE_S = 300.0
"""How long one answer may take, loading the model included."""
HEARD_WITHIN_S = 3
"""A gateway says what a model that was just loaded computes in once its worker was heard again: each second."""
BF16 = "bf16"
TEXTS: Mapping[str, str] = {
    "short": "hello world",
    "empty": "",
    "question": "How do I carry a model into a network that has no way out?",
    "unicode": "naïve café ☕ — ﬁancée, e\u0301tude, 𝒜𝓁𝑔𝑒𝒷𝓇𝒶, 🇨🇭👩🏽‍🔬",
    "german": "Der Zug nach Winterthur fährt heute von Gleis sieben.",
    "japanese": "明日の会議は午後三時から始まります。",
    "arabic": "تُشرق الشمس من الشرق وتغرب في الغرب.",
    "russian": "Зимой реки замерзают, и по льду можно ходить.",
    "code": "def mean(values):\n    return sum(values) / len(values)\n",
    "longest": "Ships leave the harbour before dawn, loaded with grain, timber and salted fish. " * 64,
}
"""Every text has a name; `longest` is cut by models of 512 tokens."""


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """What was said about one text: a vector (float32, little-endian), or the code of an error."""

    name: str
    text: str
    dense: bytes | None = None
    error: str | None = None

    @property
    def vector(self) -> Vector | None:
        return None if self.dense is None else np.frombuffer(self.dense, dtype="<f4")


class GoldenModel(Struct, frozen=True, forbid_unknown_fields=True):
    """The answers of one model at one commit, and what they were computed in and on, where the server says it."""

    id: ModelId
    revision: Revision
    answers: tuple[Answer, ...]
    precision: str | None = None
    device: str | None = None


class Golden(Struct, frozen=True, forbid_unknown_fields=True):
    """What was recorded, of which lock, and with which toolkit (`environment`)."""

    version: int
    lock: Digest
    environment: Mapping[str, str]
    models: tuple[GoldenModel, ...]


class Void(Failure):
    """The recorded answers cannot tell a right model from a wrong one."""

    exit_code = 9


@dataclass(frozen=True)
class Comparison:
    """One model's grade.

    Attributes:
        computed: what the two sides computed in, the recorded one first.
        answers: name of the text → its grade.
        ranks_held: whether the answers rank each other as the recorded ones do.
        errors: what differs besides vectors: a text refused here and not there, or the reverse.
    """

    id: ModelId
    computed: tuple[str | None, str | None]
    answers: Mapping[str, Graded]
    ranks_held: bool
    errors: tuple[str, ...]

    @property
    def grade(self) -> Grade:
        if self.errors or not self.ranks_held:
            return Grade.DIFFERENT
        return max((one.grade for one in self.answers.values()), default=Grade.DIFFERENT)

    def lines(self) -> Iterator[str]:
        """For an operator: the verdict, then every answer that is different."""
        worst = max((one.max_abs for one in self.answers.values()), default=float("inf"))
        cosine = min((one.cosine for one in self.answers.values()), default=0.0)
        figures = f"largest difference {worst:.1e}, least cosine {cosine:.6f}"
        sides = "; {} recorded, {} here".format(*(precision or "unknown precision" for precision in self.computed))
        yield f"{self.id}: {len(self.answers)} answers {self.grade} ({figures}{sides})"
        for name, one in self.answers.items():
            if one.grade is Grade.DIFFERENT:
                yield f"  {name}: different (largest difference {one.max_abs:.1e}, cosine {one.cosine:.6f})"
        if not self.ranks_held:
            yield "  the answers rank each other otherwise than the recorded ones do"
        yield from (f"  {error}" for error in self.errors)


def record(models: Sequence[LockedModel], lock: Digest, url: str) -> Golden:
    """Ask for every model's vectors.

    Raises:
        Unreachable: nobody answers at `url`, or it does not serve a model.
        Drift: it serves another commit than the lock's.
        Void: two different texts have the same vector, so that nothing could be told from them.
        Misused: `url` is none.
    """
    with _client(url) as client:
        recorded = tuple(_recorded(client, model) for model in models)
    for model in recorded:
        if not tells_apart([answer.vector for answer in model.answers if answer.vector is not None]):
            raise Void(f"`{model.id}` at {url} gives the same vector for different texts, or none at all")
    return Golden(GOLDEN_VERSION, lock, _environment(), recorded)


def compare(golden: Golden, url: str, *, gpu: str | None = None) -> list[Comparison]:
    """Ask the same again, of another worker or through a gateway. Raises `Unreachable`, `Misused`."""
    with _client(url, gpu=gpu) as client:
        found = []
        for model in golden.models:
            _served(client, model.id)
            now = _asked(client, model.id, {answer.name: answer.text for answer in model.answers})
            found.append(compared(model, now, precision=_loaded(client, model.id).get("precision")))
        return found


def compared(recorded: GoldenModel, now: Sequence[Answer], *, precision: str | None) -> Comparison:
    """Pure: every recorded answer against the one of the same name.

    Args:
        precision: what `now` was computed in; None: nobody said so, and it is held to float32.
    """
    in_bf16 = any(BF16 in (one or "").split(",") for one in (recorded.precision, precision))
    by_name = {answer.name: answer for answer in now}
    grades: dict[str, Graded] = {}
    errors: list[str] = []
    for before in recorded.answers:
        after = by_name[before.name]
        if before.vector is not None and after.vector is not None:
            grades[before.name] = grade(before.vector, after.vector, in_bf16=in_bf16)
        elif before.error != after.error:
            errors.append(f"{before.name}: was {before.error or 'a vector'}, is {after.error or 'a vector'}")
    same_shape = [name for name, one in grades.items() if one.cosine > 0]
    pairs = [(_vector(recorded.answers, name), _vector(now, name)) for name in same_shape]
    held = ranks_hold([a for a, _ in pairs], [b for _, b in pairs]) if len(pairs) == len(grades) and pairs else False
    return Comparison(recorded.id, (recorded.precision, precision), grades, held, tuple(errors))


def _vector(answers: Sequence[Answer], name: str) -> Vector:
    vector = next(answer.vector for answer in answers if answer.name == name)
    assert vector is not None
    return vector


def encode_golden(golden: Golden) -> bytes:
    return canonical_json(golden)


def decode_golden(data: bytes) -> Golden:
    """Raises `ValueError` for what no `golden record` wrote."""
    try:
        golden = msgspec.json.decode(data, type=Golden)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not golden answers: {error}") from error
    if golden.version != GOLDEN_VERSION:
        raise ValueError(f"golden answers of version {golden.version}, this toolkit reads {GOLDEN_VERSION}")
    return golden


def _client(url: str, *, gpu: str | None = None) -> SIEClient:
    try:
        return SIEClient(url, gpu=gpu)
    except ValueError as error:
        raise Misused(f"--url is `{url}`: want `http://HOST:PORT` or `https://HOST`") from error


def _recorded(client: SIEClient, model: LockedModel) -> GoldenModel:
    _served(client, model.id)
    answers = _asked(client, model.id, TEXTS)
    info = _loaded(client, model.id)
    serves = info.get("revision") or model.revision
    if serves != model.revision:
        raise Drift(
            f"{client.base_url} serves another commit of `{model.id}`\n  want  {model.revision}\n  have  {serves}",
            hint="start the worker on what `sie-airgap mirror weights file:///FOLDER` wrote",
        )
    return GoldenModel(model.id, model.revision, answers, info.get("precision"), info.get("device"))


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


def _asked(client: SIEClient, model: ModelId, texts: Mapping[str, str]) -> tuple[Answer, ...]:
    """One call a text, so that what one text is refused for does not hide the others."""
    return tuple(_answer(client, model, name, text) for name, text in texts.items())


def _answer(client: SIEClient, model: ModelId, name: str, text: str) -> Answer:
    try:
        result = client.encode(model, {"text": text}, provision_timeout_s=PATIENCE_S)
    except RequestError as error:
        if error.code != "INVALID_INPUT":
            raise Unreachable(f"{client.base_url} does not answer for `{model}`: {error}") from error
        return Answer(name, text, error=error.code)
    except SIEError as error:
        raise Unreachable(f"{client.base_url} does not answer for `{model}`: {error}") from error
    dense = np.ascontiguousarray(result["dense"], dtype="<f4")
    return Answer(name, text, dense=dense.tobytes())


def _environment() -> dict[str, str]:
    return {"machine": platform.machine(), "system": platform.system(), "sie_airgap": __version__}
