"""GTE (Alibaba's NewModel) and Nomic: BERTs with rotary positions and a gated feed-forward.

Follows transformers 5.23 `models/{gte,nomic_bert}/modeling_*.py` under the names that the published checkpoints have
(`conversion_mapping.py`), for GTE's `ntk` scaling what `rotary` says, and for a Nomic without gates, its v2, the
published code (`modeling_hf_nomic_bert.py`) as several reimplementations restate it: there no reference is live, and
the tests' is our own reading. Its mixture of experts is in `experts`.
"""

from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from sie_server.models.backbones.asked import Asked, seen_both_ways
from sie_server.models.backbones.experts import Experts, mixture
from sie_server.models.backbones.post_norm import linear
from sie_server.models.backbones.rotary import Rotary, angles, read_rotary
from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS, TYPES
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")

_GTE_THETA: Final = 160_000.0
_NOMIC_THETA: Final = 1_000.0
_GATED: Final = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}


class Names(msgspec.Struct, frozen=True):
    """What a checkpoint calls its tensors; a gate is rows of a packed tensor, or has a name of its own."""

    words_norm: str
    layer: str
    packed: str
    attended: str
    attended_norm: str
    wide: str
    gate: str | None
    narrow: str
    narrow_norm: str


GTE: Final = Names(
    words_norm="embeddings.LayerNorm",
    layer="encoder.layer.",
    packed="attention.qkv_proj",
    attended="attention.o_proj",
    attended_norm="attn_ln",
    wide="mlp.up_gate_proj",
    gate=None,
    narrow="mlp.down_proj",
    narrow_norm="mlp_ln",
)
_UNGATED: Final = {"gelu": "gelu", "relu": "relu"}

NOMIC: Final = Names(
    words_norm="emb_ln",
    layer="encoder.layers.",
    packed="attn.Wqkv",
    attended="attn.out_proj",
    attended_norm="norm1",
    wide="mlp.fc11",
    gate="mlp.fc12",
    narrow="mlp.fc2",
    narrow_norm="norm2",
)
NOMIC_UNGATED: Final = msgspec.structs.replace(NOMIC, wide="mlp.fc1", gate=None)


class RopeConfig(msgspec.Struct, frozen=True):
    """What the graph needs.

    Attributes:
        types: token types; 0: none, 1: one for all.
        gated: whether the feed-forward is.
        attention_bias: of query, key, value and of what is made of them; `wide_bias` and `narrow_bias`: of the
            feed-forward's two ends.
        experts: the mixture in some layers' feed-forward.
        max_tokens: longest sequence.
    """

    names: Names
    hidden_size: int
    intermediate_size: int
    heads: int
    layers: int
    vocab_size: int
    types: int
    epsilon: float
    activation: Activation
    rotary: Rotary
    attention_bias: bool
    narrow_bias: bool
    max_tokens: int
    wide_bias: bool = False
    gated: bool = True
    experts: Experts | None = None


class _Gte(msgspec.Struct, frozen=True):
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    type_vocab_size: int
    hidden_act: str
    rope_theta: float = _GTE_THETA
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    position_embedding_type: str = "rope"
    layer_norm_type: str = "layer_norm"
    pack_qkv: bool = True
    logn_attention_scale: bool = False


class _Nomic(msgspec.Struct, frozen=True):
    """Both forms of it: GPT-2's names, and those of everything else."""

    vocab_size: int
    type_vocab_size: int
    hidden_size: int | None = None
    n_embd: int | None = None
    intermediate_size: int | None = None
    n_inner: int | None = None
    num_attention_heads: int | None = None
    n_head: int | None = None
    num_hidden_layers: int | None = None
    n_layer: int | None = None
    max_position_embeddings: int | None = None
    n_positions: int | None = None
    layer_norm_eps: float | None = None
    layer_norm_epsilon: float | None = None
    hidden_act: str | None = None
    activation_function: str | None = None
    rope_parameters: dict[str, Any] | None = None
    rotary_emb_base: float = _NOMIC_THETA
    rotary_emb_fraction: float = 1.0
    rotary_emb_interleaved: bool = False
    rotary_emb_scale_base: float | None = None
    rotary_scaling_factor: float | None = None
    prenorm: bool = False
    use_rms_norm: bool = False
    parallel_block: bool = False
    causal: bool = False
    qkv_proj_bias: bool = False
    mlp_fc1_bias: bool = False
    mlp_fc2_bias: bool = False
    num_experts: int = 0
    moe_top_k: int = 1
    moe_every_n_layers: int = 0
    moe_normalize_expert_weights: bool = False
    expert_choice_router: bool = False
    num_shared_experts: int = 0
    ffn_div: int = 1


def read_gte(data: bytes) -> RopeConfig:
    """`config.json` of a GTE, in Alibaba's form or in that of transformers.

    Raises:
        LoadError: a key is missing, or says something this backbone does not do.
    """
    config = read_json(data, _Gte, "a GTE")
    refuse_uneven_heads(config.hidden_size, config.num_attention_heads)
    wanted = {
        "position_embedding_type": "rope",
        "layer_norm_type": "layer_norm",
        "pack_qkv": True,
        "logn_attention_scale": False,
    }
    _refuse_others(config, wanted)
    scaling = config.rope_scaling or config.rope_parameters
    return RopeConfig(
        names=GTE,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        types=config.type_vocab_size,
        epsilon=config.layer_norm_eps,
        activation=activation_of(config.hidden_act),
        rotary=read_rotary(scaling, theta=config.rope_theta, longest=config.max_position_embeddings),
        attention_bias=True,
        narrow_bias=True,
        max_tokens=config.max_position_embeddings,
    )


def read_nomic(data: bytes) -> RopeConfig:
    """`config.json` of a Nomic, in its own form or in that of transformers.

    Raises:
        LoadError: a key is missing, or says something this backbone does not do.
    """
    config = read_json(data, _Nomic, "a Nomic")
    wanted = {
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "prenorm": False,
        "use_rms_norm": False,
        "parallel_block": False,
        "causal": False,
        "moe_normalize_expert_weights": False,
        "expert_choice_router": False,
        "num_shared_experts": 0,
        "ffn_div": 1,
    }
    gated = config.activation_function not in _UNGATED
    if gated:
        wanted |= {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "num_experts": 0}
    _refuse_others(config, wanted)
    width, heads = _either(config, "hidden_size", "n_embd"), _either(config, "num_attention_heads", "n_head")
    refuse_uneven_heads(width, heads)
    longest = _either(config, "max_position_embeddings", "n_positions")
    return RopeConfig(
        names=NOMIC if gated else NOMIC_UNGATED,
        hidden_size=width,
        intermediate_size=_either(config, "intermediate_size", "n_inner"),
        heads=heads,
        layers=_either(config, "num_hidden_layers", "n_layer"),
        vocab_size=config.vocab_size,
        types=config.type_vocab_size,
        epsilon=_either(config, "layer_norm_eps", "layer_norm_epsilon"),
        activation=_nomic_activation(config),
        rotary=read_rotary(config.rope_parameters, theta=config.rotary_emb_base, longest=longest),
        attention_bias=config.qkv_proj_bias,
        narrow_bias=config.mlp_fc2_bias,
        max_tokens=longest,
        wide_bias=config.mlp_fc1_bias,
        gated=gated,
        experts=_experts(config),
    )


def _refuse_others(config: msgspec.Struct, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if (said := getattr(config, name)) != value:
            have, want = (msgspec.json.encode(one).decode() for one in (said, value))
            raise LoadError(f"`{name}` in `config.json` is {have}: supported is {want}")


def _either(config: _Nomic, name: str, older: str) -> Any:
    for one in (older, name):
        if (said := getattr(config, one)) is not None:
            return said
    raise LoadError(f"`config.json` is not that of a Nomic: it has neither `{name}` nor `{older}`")


def _nomic_activation(config: _Nomic) -> Activation:
    if config.activation_function is None:
        return activation_of(config.hidden_act or "silu")
    name = config.activation_function
    known = _GATED | _UNGATED
    if name not in known:
        names = ", ".join(f"`{one}`" for one in known)
        raise LoadError(f"`activation_function` in `config.json` is `{name}`: supported are {names}")
    return activation_of(known[name])


def _experts(config: _Nomic) -> Experts | None:
    if config.num_experts == 0:
        return None
    count, chosen, every = config.num_experts, config.moe_top_k, config.moe_every_n_layers
    if not 1 <= chosen <= count or every < 1:
        raise LoadError(
            f"`config.json` has {count} experts, `moe_top_k` {chosen} and `moe_every_n_layers` {every}: "
            "want a token to have at least one of them, and every so many layers from 1"
        )
    return Experts(count=count, chosen=chosen, every=every)


def adapt(config: RopeConfig, asked: Asked) -> RopeConfig:
    """The config as the spec wants it; raises `LoadError`."""
    return msgspec.structs.replace(seen_both_ways(config, asked), max_tokens=asked.max_tokens)


def rope(ops: Ops[X], config: RopeConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden).

    Args:
        prefix: what stands before every tensor's name: checkpoints of models with a task's head have `new.`, say.
    """
    width = config.hidden_size
    words = ops.weight(prefix + "embeddings.word_embeddings.weight", (config.vocab_size, width))
    hidden = ops.gather(words, ops.feed(IDS))
    if config.types:
        types = ops.weight(prefix + "embeddings.token_type_embeddings.weight", (config.types, width))
        hidden = ops.add(hidden, types if config.types == 1 else ops.gather(types, ops.feed(TYPES)))
    hidden = _norm(ops, config, hidden, prefix + config.names.words_norm)
    turned = angles(ops, config.rotary, width // config.heads, config.max_tokens)
    for layer in range(config.layers):
        hidden = _layer(ops, config, hidden, f"{prefix}{config.names.layer}{layer}.", layer, turned)
    return hidden


def _layer(ops: Ops[X], config: RopeConfig, hidden: X, at: str, layer: int, turned: tuple[X, X]) -> X:
    names, width = config.names, config.hidden_size
    bias = config.attention_bias
    query, key, value = (
        linear(ops, hidden, at + names.packed, width, 3 * width, bias=bias, rows=(part * width, (part + 1) * width))
        for part in range(3)
    )
    query, key = (ops.rotary(one, *turned, heads=config.heads) for one in (query, key))
    seen = ops.attention(query, key, value, heads=config.heads)
    seen = linear(ops, seen, at + names.attended, width, width, bias=bias)
    hidden = _norm(ops, config, ops.add(hidden, seen), at + names.attended_norm)
    narrow = _feed_forward(ops, config, hidden, at, layer)
    return _norm(ops, config, ops.add(hidden, narrow), at + names.narrow_norm)


def _feed_forward(ops: Ops[X], config: RopeConfig, x: X, at: str, layer: int) -> X:
    names, width, inner, kind = config.names, config.hidden_size, config.intermediate_size, config.activation
    if config.experts is not None and config.experts.within(layer):
        return mixture(ops, config.experts, x, at + "mlp.", width, inner, kind)
    if config.gated:
        wide = ops.multiply(*_wide_and_gate(ops, config, x, at))
    else:
        wide = linear(ops, x, at + names.wide, width, inner, bias=config.wide_bias, activation=kind)
    return linear(ops, wide, at + names.narrow, inner, width, bias=config.narrow_bias)


def _wide_and_gate(ops: Ops[X], config: RopeConfig, x: X, at: str) -> tuple[X, X]:
    names, width, inner, kind = config.names, config.hidden_size, config.intermediate_size, config.activation
    if names.gate is None:
        half = partial(linear, ops, x, at + names.wide, width, 2 * inner, bias=False)
        return half(rows=(0, inner)), half(rows=(inner, 2 * inner), activation=kind)
    wide = linear(ops, x, at + names.wide, width, inner, bias=False)
    return wide, linear(ops, x, at + names.gate, width, inner, bias=False, activation=kind)


def _norm(ops: Ops[X], config: RopeConfig, x: X, at: str) -> X:
    width = (config.hidden_size,)
    weight, bias = ops.weight(at + ".weight", width), ops.weight(at + ".bias", width)
    return ops.layer_norm(x, weight, bias, epsilon=config.epsilon)
