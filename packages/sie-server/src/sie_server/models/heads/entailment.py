"""Two of a classifier's logits: that the first text of a pair contradicts the second, and that it entails it.

Follows transformers 5.23 `pipelines/zero_shot_classification.py` (`entailment_id`, and `postprocess` for which
logit is the other's).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive.extract import entailment_of
from sie_server.models.calls import LoadError
from sie_server.models.config import read_json
from sie_server.models.heads.classify import Classify, read_classify
from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.modernbert import ModernBertClassify
from sie_server.models.ops.protocol import Ops


class _Config(msgspec.Struct, frozen=True):
    label2id: dict[str, int] | None = None
    id2label: dict[str, str] | None = None


@dataclass(frozen=True)
class Entailment:
    """See `head.Head`; gives `Output.logits`, (2,): contradiction, entailment.

    Attributes:
        classify: the head of all labels.
        entails: which of them says entailment; the first is taken for its contrary, or the last where it is the first.
    """

    classify: Classify | ModernBertClassify
    entails: int

    def build(self, ops: Ops[X], hidden: X) -> None:
        self.classify.build(ops, hidden)

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        contradicts = -1 if self.entails == 0 else 0
        return [logits[[contradicts, self.entails]] for logits in self.classify.read(done)]


def read_entailment(data: bytes) -> Entailment:
    """The head that a `config.json` says its checkpoint has.

    Raises:
        LoadError: no label says entailment, or `read_classify`'s.
    """
    config = read_json(data, _Config, "a classifier")
    entails = entailment_of(config.label2id, config.id2label)
    if entails is None:
        raise LoadError("no label in `label2id` of `config.json` has a name that begins with `entail`")
    return Entailment(read_classify(data), entails)
