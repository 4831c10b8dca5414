"""An extract head completed from the snapshot's own files: which labels a text entails. Pure; not here: `labels`.

Follows transformers 5.23 `pipelines/zero_shot_classification.py` (`entailment_id`, the template where none is said).
"""

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.snapshot import DEFAULT, SPEC, Reader, read_json
from sie_core.catalog.spec import ExtractHead

_HYPOTHESIS = "This example is {}."
_PLACE = "{}"
_ENTAILS = "entail"
_LABELS = 2


class _Config(Struct, frozen=True):
    id2label: dict[str, str] | None = None
    label2id: dict[str, int] | None = None
    num_labels: int = _LABELS


def entailment_of(label2id: dict[str, int] | None, id2label: dict[str, str] | None) -> int | None:
    """Which logit says that the first text of a pair entails the second; None where no label is named so."""
    if label2id is None:
        label2id = {label: int(index) for index, label in (id2label or {}).items() if index.isdecimal()}
    return next((index for label, index in label2id.items() if label.lower().startswith(_ENTAILS)), None)


def complete_entailment(head: ExtractHead, read: Reader, where: str) -> tuple[ExtractHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name.

    Args:
        where: `config.json` of the transformer.

    Raises:
        ValueError: no label of the snapshot's says entailment; a hypothesis without a place for the label.
    """
    config = read_json(read, where, _Config)
    labels = config.num_labels if config.id2label is None else len(config.id2label)
    entails = entailment_of(config.label2id, config.id2label)
    if entails is None or not 0 <= entails < labels or labels < _LABELS:
        named = ", ".join(f"`{label}`" for label in (config.id2label or config.label2id or {}).values()) or "unnamed"
        raise ValueError(
            f"the {labels} labels in `{where}` are {named}: the head `entailment` wants two at least, "
            "and one whose name begins with `entail`"
        )
    hypothesis = _HYPOTHESIS if head.hypothesis is None else head.hypothesis
    if hypothesis.count(_PLACE) != 1:
        raise ValueError(f"`extract.hypothesis` is `{hypothesis}`: want one `{_PLACE}` in it, where the label goes")
    origins = {
        "hypothesis": DEFAULT if head.hypothesis is None else SPEC,
        "multi_label": DEFAULT if head.multi_label is None else SPEC,
    }
    return msgspec.structs.replace(head, hypothesis=hypothesis, multi_label=bool(head.multi_label)), origins
