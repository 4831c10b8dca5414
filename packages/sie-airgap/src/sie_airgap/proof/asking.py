"""What a model is asked, by what it declares, and its answers as golden answers.

One call a text, so that what one text is refused for does not hide the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sie_airgap.proof.golden_file import (
    Answer,
    Extraction,
    Found,
    Kind,
    Said,
    Series,
    dense,
    extraction,
    multivector,
    score,
    sparse,
)
from sie_core.artifacts.errors import Unreachable
from sie_core.ids import ModelId
from sie_sdk import SIEClient
from sie_sdk.client.errors import RequestError, SIEError
from sie_sdk.types import EncodeResult, ExtractResult, Item, OutputType

PATIENCE_S = 300.0
"""How long one answer may take, loading the model included."""
THRESHOLD = 0.3
"""Below what models have by themselves: the more is found, the more of a wrong model shows."""
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
QUERY = "At what time of day do ships leave the harbour, and what do they carry?"
"""`longest` answers it, and `question` sounds like it."""
LABELS = ("person", "organization", "city", "date")
HOLDING: Mapping[str, str] = {
    "short": "Ada Lovelace lived in London.",
    "empty": "",
    "nothing": "It rained, and then it rained some more.",
    "notice": "Every person who works for an organization in this city notes the date: 14 March 1879.",
    "unicode": "🇨🇭👩🏽‍🔬 Zoë Müller, e\u0301lue à Genève, joined Médecins Sans Frontières on 3 May 2019.",
    "german": "Am 1. August 1914 fuhr Albert Einstein von Berlin nach Zürich.",
    "lines": "Grace Hopper\nUnited States Navy\nNew York City\n9 December 1906\n",
    "longest": "On 20 July 1969 Neil Armstrong of NASA spoke to the city of Houston. " * 64,
}
"""Texts that hold what the labels name; the words of `LABELS` themselves are in `notice`."""

_REFUSED = "INVALID_INPUT"
_OUTPUTS: Mapping[str, Kind] = {
    "dense": "dense",
    "sparse": "sparse",
    "multivector": "multivector",
    "score": "score",
    "json": "extract",
}


def kinds_of(outputs: Sequence[str]) -> tuple[Kind, ...]:
    """What a model is asked for that declares these outputs; where a server says none, vectors."""
    return tuple(kind for output, kind in _OUTPUTS.items() if output in outputs) or ("dense",)


@dataclass(frozen=True)
class Question:
    """What is asked in one kind; attributes as of `Series`, `texts` by name."""

    kind: Kind
    texts: Mapping[str, str]
    query: str | None = None
    labels: tuple[str, ...] = ()
    threshold: float | None = None


def question(client: SIEClient, model: ModelId, kind: Kind) -> Question:
    """What is asked for a recording. Raises `Unreachable` as `ask`."""
    match kind:
        case "score":
            return Question(kind, TEXTS, query=QUERY)
        case "extract":
            return Question(kind, HOLDING, labels=LABELS, threshold=_threshold(client, model))
        case _:
            return Question(kind, TEXTS)


def question_of(series: Series) -> Question:
    """What was asked for a recording, also with texts that a toolkit of another version would not ask by itself."""
    texts = {answer.name: answer.text for answer in series.answers}
    return Question(series.kind, texts, series.query, series.labels, series.threshold)


def ask(client: SIEClient, model: ModelId, question: Question) -> Series:
    """The model's answers.

    Raises:
        Unreachable: nobody answers, or for a reason that no text has.
    """
    answers = tuple(_answer(client, model, question, name, text) for name, text in question.texts.items())
    return Series(question.kind, answers, question.query, question.labels, question.threshold)


def _threshold(client: SIEClient, model: ModelId) -> float | None:
    """Models that judge every label have none, and refuse the option."""
    asked = Question("extract", HOLDING, labels=LABELS, threshold=THRESHOLD)
    return None if _answer(client, model, asked, "short", HOLDING["short"]).error else THRESHOLD


def _answer(client: SIEClient, model: ModelId, question: Question, name: str, text: str) -> Answer:
    try:
        return Answer(name, text, said=_said(client, model, question, {"text": text}))
    except RequestError as error:
        if error.code != _REFUSED:
            raise Unreachable(f"{client.base_url} does not answer for `{model}`: {error}") from error
        return Answer(name, text, error=error.code)
    except SIEError as error:
        raise Unreachable(f"{client.base_url} does not answer for `{model}`: {error}") from error


def _said(client: SIEClient, model: ModelId, question: Question, item: Item) -> Said:
    match question.kind:
        case "score":
            query: Item = {"text": question.query or ""}
            (entry,) = client.score(model, query, [item], provision_timeout_s=PATIENCE_S)["scores"]
            if "error" in entry:
                failed = entry["error"]
                raise RequestError(failed.get("message", "the item failed"), failed.get("code"), 400)
            return score(entry["score"])
        case "extract":
            options = None if question.threshold is None else {"threshold": question.threshold}
            labels = list(question.labels)
            return _extraction(
                client.extract(model, item, labels=labels, options=options, provision_timeout_s=PATIENCE_S)
            )
        case "dense" | "sparse" | "multivector" as output:
            encoded = client.encode(model, item, output_types=[output], provision_timeout_s=PATIENCE_S)
            return _encoded(output, encoded)


def _encoded(output: OutputType, result: EncodeResult) -> Said:
    match output:
        case "dense":
            return dense(result["dense"])
        case "sparse":
            return sparse(result["sparse"]["indices"], result["sparse"]["values"])
        case "multivector":
            return multivector(result["multivector"])


def _extraction(result: ExtractResult) -> Extraction:
    entities = {
        Found(one["label"], one["text"], one.get("start"), one.get("end")): one["score"] for one in result["entities"]
    }
    return extraction(entities | {Found(one["label"]): one["score"] for one in result["classifications"]})
