"""A logit for each label of a text that stands beside it: GLiClass's uni-encoders.

Labels and text are one sequence, each label after a token of its own. What the network makes of that token, and of
the text, go through a projection each, and a scorer says how well they fit. Row by row in the network, whatever
the number of labels: `gliclass_scorers`.

Follows gliclass 0.1.21 `model.py` (`GLiClassUniEncoder`), `layers.py` and `poolings.py`, for one text at a time:
what that pools over a batch's padding is not repeated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive.labels import ENCODER
from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json
from sie_server.models.heads.gliclass_marks import Marks
from sie_server.models.heads.gliclass_scorers import IN_MODEL, SCORERS, Parts, linear
from sie_server.models.heads.gliclass_segments import SegmentedOps
from sie_server.models.heads.head import Head, Pass, X
from sie_server.models.ops.plan import FIRST, LAST, Feed
from sie_server.models.ops.protocol import Activation, Ops

FITS: Final = "fits"
"""(labels of all items, 1), and some rows more."""

NETWORK: Final = IN_MODEL + "encoder_model."
"""Stands before the names of the network's own tensors."""

_TINY: Final = 1e-8
"""Added to a length before it is divided by."""

Pooling = Literal["first", "last", "avg", "max", "pass"]


class _Config(msgspec.Struct, frozen=True):
    """`config.json`; absent keys as gliclass has them."""

    encoder_config: dict[str, Any]
    hidden_size: int | None = None
    vocab_size: int | None = None
    class_token_index: int = -1
    text_token_index: int = -1
    projector_hidden_act: str = "gelu"
    scorer_type: str = "simple"
    scorer_num_heads: int = 16
    scorer_mlp_hidden_size: int = 1024
    pooling_strategy: Pooling = "first"
    class_token_pooling: str = "first"  # noqa: S105 - no password
    embed_class_token: bool = True
    extract_text_features: bool = False
    normalize_features: bool = False
    use_segment_embeddings: bool = False
    prompt_first: bool = False


@dataclass(frozen=True)
class Gliclass:
    """See `head.Head`; gives `Output.logits`: of an item, as many as its `detail` says, in the labels' order.

    Attributes:
        width: of the hidden state.
        inner: between the two layers of a projection.
        activation: there.
        marks: where labels and texts stand.
        averaged: whether a label is the mean of all its tokens, or one of them.
        pooling: how a text's hidden states become one vector; `pass`: they do not.
        unit: whether both are scaled to length 1, and their logits by a number of the checkpoint.
        scorer: of the two; see `gliclass_scorers.SCORERS`.
        score_heads: of a scorer that attends; `score_width`: of its inner layers.
        labels_first: whether they stand before the text.
        segments: which part of its sequence each token is of, where the network is told.
    """

    width: int
    inner: int
    activation: Activation
    marks: Marks
    averaged: bool
    pooling: Pooling
    unit: bool
    scorer: str
    score_heads: int
    score_width: int
    labels_first: bool
    segments: Feed | None

    def build(self, ops: Ops[X], hidden: X) -> None:
        marks = self.marks
        labels = (
            ops.weighted(hidden, ops.feed(marks.shares)) if self.averaged else ops.gather(hidden, ops.feed(marks.rows))
        )
        labels = self._projected(ops, labels, "classes_projector")
        texts = self._projected(ops, self._pooled(ops, hidden), "text_projector")
        fits = SCORERS[self.scorer](ops, Parts(texts, labels, self.width, self.score_heads, self.score_width, marks))
        if self.unit:
            fits = ops.multiply(fits, ops.weight(IN_MODEL + "logit_scale", ()))
        ops.output(FITS, fits)

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        fits = done.arrays[FITS][:, 0]
        at = np.flatnonzero(np.concatenate([item.ids for item in done.items]) == self.marks.label)
        limits = np.searchsorted(at, done.starts)
        return [
            self._own(fits[limits[index] : limits[index + 1]], item.detail) for index, item in enumerate(done.items)
        ]

    def _own(self, fits: NDArray[np.float32], labels: object) -> NDArray[np.float32]:
        """Without those of a text that has the labels' token in it."""
        assert isinstance(labels, int)
        return (fits[:labels] if self.labels_first else fits[len(fits) - labels :]).copy()

    def _pooled(self, ops: Ops[X], hidden: X) -> X:
        match self.pooling:
            case "first":
                return ops.gather(hidden, ops.feed(FIRST if self.marks.text is None else self.marks.texts))
            case "last":
                return ops.gather(hidden, ops.feed(LAST))
            case "avg":
                return ops.item_mean(hidden)
            case "max":
                return ops.item_max(hidden)
            case "pass":
                return hidden

    def _projected(self, ops: Ops[X], x: X, name: str) -> X:
        at = f"{IN_MODEL}{name}.linear_"
        inner = linear(ops, x, at + "1", self.width, self.inner, activation=self.activation)
        projected = linear(ops, inner, at + "2", self.inner, self.width)
        if not self.unit:
            return projected
        # x / length: the root of a mean is a length but for the width's own root.
        even = ops.constant(np.full(self.width, self.width**-0.5, np.float32))
        return ops.rms_norm(projected, even, epsilon=_TINY**2 / self.width)


def told_apart(heads: Iterable[Head], ops: Ops[X]) -> Ops[X]:
    """The operations for a network that one of the heads tells which part of a sequence a token is of."""
    for head in heads:
        if isinstance(head, Gliclass) and head.segments is not None:
            return cast(Ops[X], SegmentedOps(ops, IN_MODEL + "segment_embeddings.weight", head.width, head.segments))
    return ops


def network_config(data: bytes) -> bytes:
    """The network's own `config.json`, of that of a GLiClass."""
    config = read_json(data, _Config, "a GLiClass")
    said = {} if config.vocab_size is None else {"vocab_size": config.vocab_size}
    return msgspec.json.encode(config.encoder_config | said)


def read_gliclass(data: bytes, token: Callable[[str], int]) -> Gliclass:
    """The head that a `config.json` says its checkpoint has.

    Args:
        token: the id of a token as it is written.

    Raises:
        LoadError: its tokens are not the tokenizer's, or it has no width.
    """
    config = read_json(data, _Config, "a GLiClass")
    width = config.encoder_config.get("hidden_size")
    if not isinstance(width, int):
        raise LoadError(f"`hidden_size` in `{ENCODER}` of `config.json` is `{width}`: want a whole number")
    label = _token(config, "class_token_index", config.class_token_index, 0, token)
    # Where nothing asks for it, what the file says of it is often nothing.
    asked = config.extract_text_features or config.use_segment_embeddings
    text = _token(config, "text_token_index", config.text_token_index, 1, token) if asked else None
    return Gliclass(
        width=width,
        inner=width if config.hidden_size is None else config.hidden_size,
        activation=activation_of(config.projector_hidden_act, "projector_hidden_act"),
        marks=Marks(label, text if config.extract_text_features else None, config.embed_class_token),
        averaged=config.class_token_pooling == "average",  # noqa: S105 - no password
        pooling=config.pooling_strategy,
        unit=config.normalize_features,
        scorer=config.scorer_type,
        score_heads=config.scorer_num_heads,
        score_width=config.scorer_mlp_hidden_size,
        labels_first=config.prompt_first,
        segments=Marks(label, text, config.embed_class_token).segments if config.use_segment_embeddings else None,
    )


LABEL: Final = "<<LABEL>>"
"""Stands before a label."""

END_OF_LABELS: Final = "<<SEP>>"
"""Stands after all of them."""

_WRITTEN: Final[Mapping[str, str]] = {"class_token_index": LABEL, "text_token_index": END_OF_LABELS}


def _token(config: _Config, name: str, said: int, place: int, token: Callable[[str], int]) -> int:
    """Where `config.json` leaves it open, it was added after the vocabulary."""
    vocabulary = config.vocab_size or config.encoder_config.get("vocab_size")
    expected = said if said != -1 or not isinstance(vocabulary, int) else vocabulary + place
    found = token(_WRITTEN[name])
    if found != expected:
        raise LoadError(
            f"`{_WRITTEN[name]}` is the tokenizer's token {found}, `{name}` in `config.json` makes it {expected}",
            hint="the tokenizer and `config.json` are of two different models",
        )
    return found
