"""Which labels of a call are a text's, by a model that reads them all beside the text: GLiClass.

Follows gliclass 0.1.21 `pipeline.py` (`UniEncoderZeroShotClassificationPipeline`), and SIE v0.3.1 in that every
label has its score. Other than there, of a sequence that is too long the text loses its end, and never a label,
wherever the labels stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive import Derived
from sie_core.errors import ApiError
from sie_server.models.calls import Classification, Extract, Extracted, Output, Prepared, Result
from sie_server.models.cutting import beginnings
from sie_server.models.heads.gliclass import END_OF_LABELS, LABEL, Gliclass
from sie_server.models.tasks.task import flag, fraction, refuse_unknown_options, texts_of
from sie_server.models.tokenizing import TextTokenizer

_THRESHOLD: Final = "threshold"
_MULTI_LABEL: Final = "multi_label"

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class ExtractLabels:
    """See `task.Task`, for `Extract`.

    Attributes:
        name: the model's id, for messages.
        tokenizer: texts to ids.
        label: the id of the token before each label.
        labels_first: whether they stand before the text.
        max_tokens: longest sequence.
        threshold: least score of a label, where a call does not say.
        multi_label: whether labels are judged each by itself, or against each other, likewise.
    """

    name: str
    tokenizer: TextTokenizer
    label: int
    labels_first: bool
    max_tokens: int
    threshold: float
    multi_label: bool

    def prepare(self, call: Extract) -> list[Prepared]:
        """One sequence an item; an instruction stands after the labels."""
        refuse_unknown_options(self.name, call.options, (_THRESHOLD, _MULTI_LABEL))
        # Before the work, and not after it.
        self._settings(call)
        texts = texts_of(self.name, call.inputs)
        asked = self._asked(call)
        before, after = self._around()
        room = self.max_tokens - len(before) - len(after)
        needed = len(self.tokenizer.plain([asked])[0])
        if needed >= room:
            raise ApiError(
                "INVALID_INPUT",
                f"the {len(call.labels)} labels are {needed} tokens, and of those that model `{self.name}` takes they "
                f"leave none of {room} for a text",
                "want fewer labels or shorter ones",
            )
        read = beginnings(texts, self.tokenizer.counts, max_tokens=self.max_tokens)
        wholes = self.tokenizer.plain([asked + text if self.labels_first else text + asked for text in read])
        kept = [whole if len(whole) <= room else self._cut(whole, room, len(call.labels)) for whole in wholes]
        return [
            Prepared(
                ids=np.concatenate([before, ids, after], dtype=np.int32),
                truncated=len(whole) > room,
                wanted=("logits",),
                item=index,
                detail=len(call.labels),
            )
            for index, (ids, whole) in enumerate(zip(kept, wholes, strict=True))
        ]

    def finish(self, call: Extract, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        threshold, multi_label = self._settings(call)
        return [
            output if isinstance(output, ApiError) else _classified(call.labels, output, threshold, multi_label)
            for output in outputs
        ]

    def _settings(self, call: Extract) -> tuple[float, bool]:
        return fraction(call.options, _THRESHOLD, self.threshold), flag(call.options, _MULTI_LABEL, self.multi_label)

    def _asked(self, call: Extract) -> str:
        """What stands beside every text."""
        if not call.labels:
            raise ApiError(
                "INVALID_INPUT",
                f"model `{self.name}` says which labels fit a text, and `params.labels` is empty",
                'send `params.labels`, such as `["sports", "politics"]`',
            )
        said = {f"params.labels[{at}]": label for at, label in enumerate(call.labels)}
        for where, one in (*said.items(), ("params.instruction", call.instruction or "")):
            for mark in (LABEL, END_OF_LABELS):
                if mark in one:
                    raise ApiError("INVALID_INPUT", f"`{where}` has `{mark}` in it, which says where labels are")
        return "".join(LABEL + label for label in call.labels) + END_OF_LABELS + (call.instruction or "")

    def _around(self) -> tuple[Ids, Ids]:
        """The special tokens before and after a sequence."""
        whole, inner = self.tokenizer([LABEL])[0].ids, self.tokenizer.plain([LABEL])[0]
        at = int(np.flatnonzero(whole == self.label)[0]) - int(np.flatnonzero(inner == self.label)[0])
        return whole[:at], whole[at + len(inner) :]

    def _cut(self, ids: Ids, room: int, labels: int) -> Ids:
        """Without the end of its text."""
        if self.labels_first:
            return ids[:room]
        asked = int(np.flatnonzero(ids == self.label)[-labels])
        return np.concatenate([ids[: room - (len(ids) - asked)], ids[asked:]])


def extract_labels(derived: Derived, tokenizer: TextTokenizer, head: Gliclass) -> ExtractLabels:
    """The task of a completed spec whose head is `labels`."""
    extract = derived.extract
    assert extract is not None
    assert extract.threshold is not None
    return ExtractLabels(
        name=derived.given.id,
        tokenizer=tokenizer,
        label=head.marks.label,
        labels_first=head.labels_first,
        max_tokens=derived.max_tokens,
        threshold=extract.threshold,
        multi_label=bool(extract.multi_label),
    )


def _classified(labels: Sequence[str], output: Output, threshold: float, multi_label: bool) -> Extracted:
    """Best first; of equal ones the call's order stays."""
    assert output.logits is not None
    scores = _sigmoid(output.logits) if multi_label else _softmax(output.logits)
    found = [
        Classification(label, float(score)) for label, score in zip(labels, scores, strict=True) if score >= threshold
    ]
    return Extracted(classifications=tuple(sorted(found, key=lambda one: -one.score)))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(logits - logits.max())
    scores: NDArray[np.float32] = raised / raised.sum()
    return scores


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By the exponential of what is not positive: of the other it may be infinite.
    falling = np.exp(-np.abs(logits))
    scores = np.where(logits >= 0, np.float32(1), falling) / (np.float32(1) + falling)
    return scores.astype(np.float32)
