"""How well every short run of words fits every label: GLiNER's uni-encoders.

Follows gliner 0.2.29 `modeling/base.py` (`UniEncoderSpanModel`, `UniEncoderTokenModel`), `span_rep.py`
(`SpanMarkerV0`), `scorers.py`, `layers.py`. A span's vector is never made: of the layers over it all but one are
linear, so the first is of its first and of its last word apart, once a word, and the last is put into the label's
vector, once a label. For a BERT-base that is 24 matrices of the width's square a word, and not 144, as many as the
backbone has.
"""

from collections.abc import Callable, Sequence
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
NETWORK: Final = "token_rep_layer.bert_layer.model."
"""Before the tensors' names of the network inside."""

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
    labels_encoder: str | None = None
    labels_decoder: str | None = None
    relations_layer: str | None = None
    encoder_config: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the tokenizer says which ids its own tokens have."""
        return -1 in (self.class_token_index, self.vocab_size)


_SERVED: Final[dict[str, tuple[Any, ...]]] = {
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
        if self.size != self.width:
            hidden = _linear(ops, hidden, "token_rep_layer.projection", self.width, self.size)
        words = ops.gather(hidden, ops.feed(WORD_ROWS))
        for layer in range(self.layers):
            words = self._both_ways(ops, words, layer)
        labels = ops.gather(hidden, ops.feed(self.labels.rows))
        (self._of_tokens if self.mode == TOKEN_LEVEL else self._of_spans)(ops, words, labels)

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

    def _of_spans(self, ops: Ops[X], words: X, labels: X) -> None:
        size, at = self.size, "span_rep_layer.span_rep_layer."
        first, last = (self._projected(ops, words, at + name, "relu") for name in ("project_start", "project_end"))
        over = ops.weight(at + "out_project.0.weight", (4 * size, 2 * size))
        of_first, of_last = ops.once(over, lambda whole: ops.split(whole, [size, size]))
        ops.output(STARTS, ops.linear(first, of_first, ops.weight(at + "out_project.0.bias", (4 * size,))))
        ops.output(ENDS, ops.linear(last, of_last))
        asked = self._projected(ops, labels, "prompt_rep_layer", None)
        ops.output(LABELS, ops.product(asked, ops.weight(at + "out_project.3.weight", (size, 4 * size))))
        ops.output(OFFSETS, ops.multiply(asked, ops.weight(at + "out_project.3.bias", (size,))))

    def _of_tokens(self, ops: Ops[X], words: X, labels: X) -> None:
        size = self.size
        word, both_word = ops.split(_linear(ops, words, "scorer.proj_token", size, 2 * size), [size, size])
        label, both_label = ops.split(_linear(ops, labels, "scorer.proj_label", size, 2 * size), [size, size])
        over = ops.weight("scorer.out_mlp.0.weight", (4 * size, 3 * size))
        of_word, of_label, of_both = ops.once(over, lambda whole: ops.split(whole, [size] * 3))
        pair_words, pair_labels = ops.feed(self.labels.pair_words), ops.feed(self.labels.pair_labels)
        both = ops.multiply(ops.gather(both_word, pair_words), ops.gather(both_label, pair_labels))
        bias = ops.weight("scorer.out_mlp.0.bias", (4 * size,))
        apart = ops.add(
            ops.gather(ops.linear(word, of_word, bias), pair_words),
            ops.gather(ops.linear(label, of_label), pair_labels),
        )
        met = ops.activation(ops.add(ops.linear(both, of_both), apart), "relu")
        ops.output(PAIRS, _linear(ops, met, "scorer.out_mlp.3", 4 * size, 3))

    def _projected(self, ops: Ops[X], x: X, at: str, activation: Activation | None) -> X:
        wide = _linear(ops, x, at + ".0", self.size, 4 * self.size, activation="relu")
        narrow = _linear(ops, wide, at + ".3", 4 * self.size, self.size)
        return narrow if activation is None else ops.activation(narrow, activation)

    def _read(self, done: Pass, words: list[int], labels: list[int]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        word = label = 0
        for some_words, some_labels in zip(words, labels, strict=True):
            starts, ends = (done.arrays[name][word : word + some_words] for name in (STARTS, ENDS))
            asked, offsets = (done.arrays[name][label : label + some_labels] for name in (LABELS, OFFSETS))
            logits = np.full((some_words, self.max_width, some_labels), -np.inf, np.float32)
            for more in range(min(self.max_width, some_words)):
                until = some_words - more
                met = np.maximum(starts[:until] + ends[more:], np.float32(0))
                logits[:until, more] = met @ asked.T + offsets.sum(1)
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


def own_tokens(data: bytes) -> tuple[str, ...]:
    """The tokens that the tokenizer has beside its own, in the order of their ids, of a `gliner_config.json`.

    None where it says which ids they have: they are in the tokenizer then.
    """
    config = read_json(data, _Config, "a GLiNER")
    return (_UNUSED, config.ent_token, config.sep_token) if config.is_open else ()


def completed(data: bytes, of_base: bytes | None, vocabulary: int) -> bytes:
    """A `gliner_config.json` that says everything, as gliner `_resize_token_embeddings` completes it.

    Args:
        of_base: the base's `config.json`.
        vocabulary: how many tokens there are, `own_tokens` among them.

    Raises:
        LoadError: neither says what the network is.
    """
    config, whole = read_json(data, _Config, "a GLiNER"), msgspec.json.decode(data)
    if config.encoder_config is None:
        if of_base is None:
            raise LoadError(f"`{GLINER}` has no `encoder_config`, which says what its network is, and there is no base")
        whole["encoder_config"] = msgspec.json.decode(of_base) | {"vocab_size": config.vocab_size}
    if config.is_open:
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
    config = read_json(data, _Config, "a GLiNER")
    for name, served in _SERVED.items():
        if getattr(config, name) not in served:
            known = ", ".join(f"`{one}`" for one in served)
            raise LoadError(f"`{name}` in `{GLINER}` is `{getattr(config, name)}`: supported is {known}")
    marker = token(config.ent_token)
    if marker != config.class_token_index:
        raise LoadError(
            f"`class_token_index` in `{GLINER}` is {config.class_token_index}, `{config.ent_token}` of the tokenizer "
            f"is {marker}",
            hint="save the model with gliner's own `save_pretrained`, which adds its tokens",
        )
    network = msgspec.json.decode(network_config(data))
    width = network.get("hidden_size")
    if not isinstance(width, int):
        raise LoadError(f"`encoder_config` in `{GLINER}` has no `hidden_size`")
    return Spans(
        width=width,
        size=config.hidden_size,
        layers=max(config.num_rnn_layers, 0),
        mode=config.span_mode,
        max_width=config.max_width,
        max_words=config.max_len,
        entity=config.ent_token,
        separator=config.sep_token,
        labels=Labels(marker, config.embed_ent_token),
    )


def _linear(ops: Ops[X], x: X, at: str, inputs: int, outputs: int, *, activation: Activation | None = None) -> X:
    weight, bias = ops.weight(at + ".weight", (outputs, inputs)), ops.weight(at + ".bias", (outputs,))
    return ops.linear(x, weight, bias, activation=activation)
