"""XLM-RoBERTa, and the same under the names of Jina's code, where positions may be rotary.

Follows transformers 5.23 `models/jina_embeddings_v3/modeling_jina_embeddings_v3.py` under the names that the published
checkpoints have (`conversion_mapping.py`); without rotary positions it is XLM-RoBERTa, tensor by tensor.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from sie_server.models.backbones import bert, rope
from sie_server.models.backbones.asked import Asked, seen_both_ways
from sie_server.models.backbones.bert import BertConfig
from sie_server.models.backbones.rope import Names, RopeConfig
from sie_server.models.backbones.rotary import read_rotary
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.protocol import Ops

X = TypeVar("X")

_ROTARY: Final = "rotary"
_NORM: Final = "emb_ln"

NAMES: Final = Names(
    words_norm=_NORM,
    layer="encoder.layers.",
    packed="mixer.Wqkv",
    attended="mixer.out_proj",
    attended_norm="norm1",
    wide="mlp.fc1",
    gate=None,
    narrow="mlp.fc2",
    narrow_norm="norm2",
)

_LAYER: Final = re.compile(r"encoder\.layer\.(\d+)\.(.*)\.(weight|bias)")
_PARTS: Final = {f"attention.self.{name}": part for part, name in enumerate(("query", "key", "value"))}
_RENAMED: Final = {
    "attention.output.dense": NAMES.attended,
    "attention.output.LayerNorm": NAMES.attended_norm,
    "intermediate.dense": NAMES.wide,
    "output.dense": NAMES.narrow,
    "output.LayerNorm": NAMES.narrow_norm,
}


class _Flash(msgspec.Struct, frozen=True):
    """The keys as they are called there; absent ones as that code has them."""

    vocab_size: int = 250002
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    hidden_act: str = "gelu"
    max_position_embeddings: int = 8194
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    position_embedding_type: str = "absolute"
    rotary_emb_base: float = 10_000.0


def read_xlm_roberta(data: bytes) -> BertConfig | RopeConfig:
    """`config.json` of an XLM-RoBERTa, or of one with rotary positions.

    Raises:
        LoadError: it says something that neither backbone does.
    """
    config = read_json(data, _Flash, "an XLM-RoBERTa")
    if config.position_embedding_type != _ROTARY:
        return bert.read_xlm_roberta(data)
    refuse_uneven_heads(config.hidden_size, config.num_attention_heads)
    return RopeConfig(
        names=NAMES,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        types=config.type_vocab_size,
        epsilon=config.layer_norm_eps,
        activation=activation_of(config.hidden_act),
        rotary=read_rotary(None, theta=config.rotary_emb_base, longest=config.max_position_embeddings),
        attention_bias=True,
        narrow_bias=True,
        max_tokens=config.max_position_embeddings,
        wide_bias=True,
        gated=False,
    )


def adapt(config: BertConfig | RopeConfig, asked: Asked) -> BertConfig | RopeConfig:
    """The config as the spec wants it; raises `LoadError`."""
    return rope.adapt(config, asked) if isinstance(config, RopeConfig) else seen_both_ways(config, asked)


def xlm_roberta(ops: Ops[X], config: BertConfig | RopeConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden); for the arguments see `bert.bert`."""
    if isinstance(config, RopeConfig):
        return rope.rope(ops, config, prefix)
    is_renamed = ops.has(f"{prefix}{_NORM}.weight")
    return bert.bert(cast(Ops[X], RenamedOps(ops, prefix)) if is_renamed else ops, config, prefix)


class RenamedOps(Generic[X]):
    """See `protocol.Ops`: those of `inner`, whose checkpoint has Jina's names where XLM-RoBERTa's are asked for."""

    def __init__(self, inner: Ops[X], prefix: str) -> None:
        self._inner, self._prefix = inner, prefix

    def has(self, name: str) -> bool:
        return self._inner.has(self._found(name)[0])

    def weight(
        self, name: str, shape: Sequence[int], *, rows: tuple[int, int] | None = None, folded: bool = False
    ) -> X:
        found, part = self._found(name)
        if part is None:
            return self._inner.weight(found, shape, rows=rows, folded=folded)
        size, (first, end) = shape[0], rows or (0, shape[0])
        of_part = (part * size + first, part * size + end)
        return self._inner.weight(found, (3 * size, *shape[1:]), rows=of_part, folded=folded)

    # The rest is the engine's own.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _found(self, name: str) -> tuple[str, int | None]:
        """The name there, and which of three equal parts of its rows."""
        plain = name.removeprefix(self._prefix)
        if (layer := _LAYER.fullmatch(plain)) is None:
            return self._prefix + plain.replace("embeddings.LayerNorm.", f"{_NORM}."), None
        number, tensor, kind = layer.groups()
        part = _PARTS.get(tensor)
        renamed = NAMES.packed if part is not None else _RENAMED.get(tensor, tensor)
        return f"{self._prefix}{NAMES.layer}{number}.{renamed}.{kind}", part
