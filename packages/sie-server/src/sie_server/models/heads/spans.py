"""How well every short run of words fits every label: GLiNER's uni-encoders.

Follows gliner 0.2.29 `modeling/base.py` (`UniEncoderSpanModel`, `UniEncoderTokenModel`), `span_rep.py`
(`SpanMarkerV0`), `scorers.py`, `layers.py`. A span's vector is never made: of the layers over it all but one are
linear, so the first is of its first and of its last word apart, once a word, and the last is put into the label's
vector, once a label. For a BERT-base that is 24 matrices of the width's square a word, and not 144, as many as the
backbone has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError
from sie_server.models.config import read_json
from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.words import (
    TURNED_CELLS,
    TURNED_GRID,
    WORD_CELLS,
    WORD_GRID,
    WORD_ROWS,
    Labels,
)
from sie_server.models.ops.protocol import Activation, Ops

GLINER: Final = "gliner_config.json"
Floats = NDArray[np.float32]

NETWORK: Final = "token_rep_layer.bert_layer.model."
"""Before the tensors' names of the network inside."""

_SPANS: Final = "span_rep_layer.span_rep_layer."

STARTS: Final = "span_starts"
ENDS: Final = "span_ends"
LABELS: Final = "span_labels"
OFFSETS: Final = "span_offsets"
PAIRS: Final = "span_pairs"

TOKEN_LEVEL: Final = "token_level"  # noqa: S105 - no password
_MODES: Final = ("markerV0", TOKEN_LEVEL)
_USUAL: Final = "deberta-v2"
_UNUSED: Final = "[FLERT]"
"""A token that gliner adds before its own two."""


class _Config(msgspec.Struct, frozen=True):
    """`gliner_config.json`; absent keys as gliner has them."""

    hidden_size: int = 512
    max_width: int = 12
    max_len: int = 384
    span_mode: str = "markerV0"
    subtoken_pooling: str = "first"
    words_splitter_type: str = "whitespace"
    num_rnn_layers: int = 1
    fuse_layers: bool = False
    embed_ent_token: bool = True
    class_token_index: int = -1
    vocab_size: int = -1
    ent_token: str = "<<ENT>>"  # noqa: S105 - no password
    sep_token: str = "<<SEP>>"  # noqa: S105 - no password
    represent_spans: bool = False
    precomputed_prompts_mode: bool | None = None
    span_encoder_config: dict[str, Any] | None = None
    post_fusion_schema: str | None = None
    labels_encoder: str | None = None
    labels_decoder: str | None = None
    relations_layer: str | None = None
    encoder_config: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the tokenizer says which ids its own tokens have."""
        return -1 in (self.class_token_index, self.vocab_size)


_Served = Mapping[str, tuple[Any, ...]]

_SERVED: Final[_Served] = {
    "span_mode": _MODES,
    "subtoken_pooling": ("first",),
    "words_splitter_type": ("whitespace",),
    "fuse_layers": (False,),
    "represent_spans": (False,),
    "precomputed_prompts_mode": (None, False),
    "span_encoder_config": (None,),
    "labels_encoder": (None,),
    "labels_decoder": (None,),
    "relations_layer": (None,),
}

_SERVED_APART: Final[_Served] = {name: values for name, values in _SERVED.items() if name != "labels_encoder"} | {
    "span_mode": ("markerV0",),
    "post_fusion_schema": (None, ""),
}
"""Of those that read their labels apart."""


@dataclass(frozen=True)
class Spans:
    """See `head.Head`; gives `Output.spans`: logits, float32.

    Of `markerV0` (words, max_width, labels), the span that begins at a word and has so many more, with minus infinity
    where it would end after the text; of `token_level` (words, labels, 3): that a word begins one, ends one, is in one.

    Attributes:
        width: of the backbone's hidden state.
        size: of everything after it.
        layers: of the LSTM over words; 0: none.
        mode: `span_mode`.
        max_width: most words of a span.
        max_words: of a text; the others are left out.
        entity: the token before each label, as it is written; `separator` the one after them.
        labels: where they stand.
    """

    width: int
    size: int
    layers: int
    mode: str
    max_width: int
    max_words: int
    entity: str
    separator: str
    labels: Labels

    def build(self, ops: Ops[X], hidden: X) -> None:
        hidden = narrowed(ops, hidden, "token_rep_layer.projection", self.width, self.size)
        words = ops.gather(hidden, ops.feed(WORD_ROWS))
        for layer in range(self.layers):
            words = self._both_ways(ops, words, layer)
        labels = ops.gather(hidden, ops.feed(self.labels.rows))
        if self.mode == TOKEN_LEVEL:
            self._of_tokens(ops, words, labels)
        else:
            output_words(ops, words, self.size)
            output_labels(ops, labels, self.size)

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        words = [0 if item.words is None else int((item.words > 0).sum()) for item in done.items]
        labels = [int((item.ids == self.labels.marker).sum()) for item in done.items]
        return self._read_pairs(done, words, labels) if self.mode == TOKEN_LEVEL else self._read(done, words, labels)

    def _both_ways(self, ops: Ops[X], words: X, layer: int) -> X:
        """(W, size) → (W, size): half of it from the first word on, half from the last."""
        half, found = self.size // 2, []
        for grid, cells, way in ((WORD_GRID, WORD_CELLS, ""), (TURNED_GRID, TURNED_CELLS, "_reverse")):
            at = f"l{layer}{way}"
            made = ops.lstm(
                ops.gather(words, ops.feed(grid)),
                ops.weight(f"rnn.lstm.weight_ih_{at}", (4 * half, self.size)),
                ops.weight(f"rnn.lstm.weight_hh_{at}", (4 * half, half)),
                ops.add(
                    ops.weight(f"rnn.lstm.bias_ih_{at}", (4 * half,)), ops.weight(f"rnn.lstm.bias_hh_{at}", (4 * half,))
                ),
            )
            found.append(ops.gather(made, ops.feed(cells)))
        return ops.concat(found)

    def _of_tokens(self, ops: Ops[X], words: X, labels: X) -> None:
        size = self.size
        word, both_word = ops.split(linear(ops, words, "scorer.proj_token", size, 2 * size), [size, size])
        label, both_label = ops.split(linear(ops, labels, "scorer.proj_label", size, 2 * size), [size, size])
        over = ops.weight("scorer.out_mlp.0.weight", (4 * size, 3 * size))
        of_word, of_label, of_both = ops.once(over, lambda whole: ops.split(whole, [size] * 3))
        pair_words, pair_labels = ops.feed(self.labels.pair_words), ops.feed(self.labels.pair_labels)
        both = ops.multiply(ops.gather(both_word, pair_words), ops.gather(both_label, pair_labels))
        bias = ops.weight("scorer.out_mlp.0.bias", (4 * size,))
        apart = ops.add(
            ops.gather(ops.linear(word, of_word, bias), pair_words),
            ops.gather(ops.linear(label, of_label), pair_labels),
        )
        summed = ops.activation(ops.add(ops.linear(both, of_both), apart), "relu")
        ops.output(PAIRS, linear(ops, summed, "scorer.out_mlp.3", 4 * size, 3))

    def _read(self, done: Pass, words: list[int], labels: list[int]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        word = label = 0
        for some_words, some_labels in zip(words, labels, strict=True):
            starts, ends = (done.arrays[name][word : word + some_words] for name in (STARTS, ENDS))
            asked, offsets = (done.arrays[name][label : label + some_labels] for name in (LABELS, OFFSETS))
            logits = np.full((some_words, self.max_width, some_labels), -np.inf, np.float32)
            for more in range(min(self.max_width, some_words)):
                until = some_words - more
                logits[:until, more] = met(starts, ends, more) @ asked.T + offsets.sum(1)
            found.append(logits)
            word, label = word + some_words, label + some_labels
        return found

    def _read_pairs(self, done: Pass, words: list[int], labels: list[int]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        first = 0
        for some_words, some_labels in zip(words, labels, strict=True):
            pairs = done.arrays[PAIRS][first : first + some_words * some_labels]
            found.append(pairs.reshape(some_words, some_labels, 3).copy())
            first += some_words * some_labels
        return found


def narrowed(ops: Ops[X], x: X, at: str, width: int, size: int) -> X:
    """(…, width) → (…, size), by a layer that is only there where the two differ."""
    return x if size == width else linear(ops, x, at, width, size)


def output_words(ops: Ops[X], words: X, size: int) -> None:
    """What each word, (W, size), is worth as the first of a span and as its last."""
    at = _SPANS
    first, last = (_projected(ops, words, at + name, size, "relu") for name in ("project_start", "project_end"))
    over = ops.weight(at + "out_project.0.weight", (4 * size, 2 * size))
    of_first, of_last = ops.once(over, lambda whole: ops.split(whole, [size, size]))
    ops.output(STARTS, ops.linear(first, of_first, ops.weight(at + "out_project.0.bias", (4 * size,))))
    ops.output(ENDS, ops.linear(last, of_last))


def output_labels(ops: Ops[X], labels: X, size: int) -> None:
    """What a span is multiplied with for each label, (N, size), and what is added."""
    asked = _projected(ops, labels, "prompt_rep_layer", size, None)
    ops.output(LABELS, ops.product(asked, ops.weight(_SPANS + "out_project.3.weight", (size, 4 * size))))
    ops.output(OFFSETS, ops.multiply(asked, ops.weight(_SPANS + "out_project.3.bias", (size,))))


def met(starts: Floats, ends: Floats, more: int) -> Floats:
    """The spans of so many words more than one: what is multiplied with a label's, (spans, 4 · size)."""
    found: Floats = np.maximum(starts[: len(starts) - more] + ends[more:], np.float32(0))
    return found


def own_tokens(data: bytes) -> tuple[str, ...]:
    """The tokens that the tokenizer has beside its own, in the order of their ids, of a `gliner_config.json`.

    None where it says which ids they have: they are in the tokenizer then.
    """
    config = read_json(data, _Config, "a GLiNER")
    return (_UNUSED, config.ent_token, config.sep_token) if config.is_open else ()


def completed(data: bytes, of_base: bytes | None, vocabulary: int | None = None) -> bytes:
    """A `gliner_config.json` that says everything, as gliner `_resize_token_embeddings` completes it.

    Args:
        of_base: the base's `config.json`.
        vocabulary: how many tokens there are, `own_tokens` among them; None: none were added.

    Raises:
        LoadError: neither says what the network is.
    """
    config, whole = read_json(data, _Config, "a GLiNER"), msgspec.json.decode(data)
    if config.encoder_config is None:
        if of_base is None:
            raise LoadError(f"`{GLINER}` has no `encoder_config`, which says what its network is, and there is no base")
        said = {} if config.vocab_size == -1 else {"vocab_size": config.vocab_size}
        whole["encoder_config"] = msgspec.json.decode(of_base) | said
    if config.is_open and vocabulary is not None:
        whole["encoder_config"]["vocab_size"] = whole["vocab_size"] = vocabulary
        whole["class_token_index"] = vocabulary - 2
    return msgspec.json.encode(whole)


def network_config(data: bytes) -> bytes:
    """The network's own `config.json`, of a `gliner_config.json`.

    Raises:
        LoadError: it has none inside.
    """
    inside = read_json(data, _Config, "a GLiNER").encoder_config
    if inside is None:
        raise LoadError(f"`{GLINER}` has no `encoder_config`, which says what its network is")
    said = {name: value for name, value in inside.items() if value is not None}
    return msgspec.json.encode({"model_type": _USUAL} | said)


def read_spans(data: bytes, token: Callable[[str], int]) -> Spans:
    """The head that a `gliner_config.json` says its checkpoint has.

    Args:
        token: the id of a token that is written so.

    Raises:
        LoadError: a part of GLiNER that is not served, or a tokenizer that is not its own.
    """
    config = _read(data, _SERVED)
    marker = token(config.ent_token)
    if marker != config.class_token_index:
        raise LoadError(
            f"`class_token_index` in `{GLINER}` is {config.class_token_index}, `{config.ent_token}` of the tokenizer "
            f"is {marker}",
            hint="save the model with gliner's own `save_pretrained`, which adds its tokens",
        )
    return Spans(
        width=width_of(network_config(data), "encoder_config"),
        size=config.hidden_size,
        layers=max(config.num_rnn_layers, 0),
        mode=config.span_mode,
        max_width=config.max_width,
        max_words=config.max_len,
        entity=config.ent_token,
        separator=config.sep_token,
        labels=Labels(marker, config.embed_ent_token),
    )


@dataclass(frozen=True)
class Shape:
    """What a `gliner_config.json` says of spans and of labels that are read apart; as of `Spans`."""

    size: int
    max_width: int
    max_words: int


def read_shape(data: bytes) -> Shape:
    """Of a GLiNER that reads its labels apart. The LSTM over words that its checkpoint may have is used by none.

    Raises:
        LoadError: a part of GLiNER that is not served.
    """
    config = _read(data, _SERVED_APART)
    return Shape(config.hidden_size, config.max_width, config.max_len)


def width_of(network: bytes, where: str) -> int:
    """The width of a network's hidden state, of its `config.json`."""
    width = msgspec.json.decode(network).get("hidden_size")
    if not isinstance(width, int):
        raise LoadError(f"`{where}` in `{GLINER}` has no `hidden_size`")
    return width


def _read(data: bytes, served: _Served) -> _Config:
    config = read_json(data, _Config, "a GLiNER")
    for name, values in served.items():
        if getattr(config, name) not in values:
            known = ", ".join(f"`{one}`" for one in values)
            raise LoadError(f"`{name}` in `{GLINER}` is `{getattr(config, name)}`: supported is {known}")
    return config


def _projected(ops: Ops[X], x: X, at: str, size: int, activation: Activation | None) -> X:
    wide = linear(ops, x, at + ".0", size, 4 * size, activation="relu")
    narrow = linear(ops, wide, at + ".3", 4 * size, size)
    return narrow if activation is None else ops.activation(narrow, activation)


def linear(ops: Ops[X], x: X, at: str, inputs: int, outputs: int, *, activation: Activation | None = None) -> X:
    weight, bias = ops.weight(at + ".weight", (outputs, inputs)), ops.weight(at + ".bias", (outputs,))
    return ops.linear(x, weight, bias, activation=activation)
