"""ModernBERT: rotary positions, attention within a window in most layers, norms before what they feed.

Follows transformers 5.23 `models/modernbert/modeling_modernbert.py` (`ModernBertModel`).
"""

from typing import Any, TypeVar

import msgspec

from sie_server.models.backbones.asked import Asked, seen_both_ways
from sie_server.models.backbones.post_norm import linear
from sie_server.models.backbones.rotary import Rotary, angles, read_rotary
from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


class _Config(msgspec.Struct, frozen=True):
    """`config.json`, in its older or its newer form."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    norm_eps: float
    local_attention: int
    hidden_activation: str = "gelu"
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    layer_types: tuple[str, ...] | None = None
    global_attn_every_n_layers: int = 3
    rope_parameters: dict[str, Any] | None = None
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None


class ModernBertConfig(msgspec.Struct, frozen=True):
    """What the graph needs.

    Attributes:
        windows: of each layer, how far a token sees; None: as far as there are tokens.
        far: rotary positions of the layers without a window; `near`: of those with one.
        max_tokens: longest sequence.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    vocab_size: int
    norm_eps: float
    activation: Activation
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool
    windows: tuple[int | None, ...]
    far: Rotary
    near: Rotary
    max_tokens: int


def read_config(data: bytes) -> ModernBertConfig:
    """`config.json` of a ModernBERT.

    Raises:
        LoadError: a key is missing, or says something this backbone does not do.
    """
    config = read_json(data, _Config, "a ModernBERT")
    width, heads = config.hidden_size, config.num_attention_heads
    refuse_uneven_heads(width, heads)
    if config.rope_scaling is not None:
        raise LoadError("`rope_scaling` in `config.json` is set: supported is `rope_parameters`, or none")
    given, longest = config.rope_parameters or {}, config.max_position_embeddings
    far = read_rotary(given.get(_GLOBAL), theta=config.global_rope_theta, longest=longest)
    near = read_rotary(given.get(_LOCAL), theta=config.local_rope_theta, longest=longest)
    return ModernBertConfig(
        hidden_size=width,
        intermediate_size=config.intermediate_size,
        num_attention_heads=heads,
        vocab_size=config.vocab_size,
        norm_eps=config.norm_eps,
        activation=activation_of(config.hidden_activation, "hidden_activation"),
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        norm_bias=config.norm_bias,
        windows=tuple(config.local_attention // 2 if kind == _LOCAL else None for kind in _layer_types(config)),
        far=far,
        near=near,
        max_tokens=longest,
    )


def _layer_types(config: _Config) -> tuple[str, ...]:
    layers, every = config.num_hidden_layers, config.global_attn_every_n_layers
    if config.layer_types is None:
        if every < 1:
            raise LoadError(f"`global_attn_every_n_layers` in `config.json` is {every}: want 1 at least")
        return tuple(_LOCAL if layer % every else _GLOBAL for layer in range(layers))
    if len(config.layer_types) != layers:
        raise LoadError(
            f"`layer_types` in `config.json` names {len(config.layer_types)} layers, `num_hidden_layers` is {layers}"
        )
    for kind in config.layer_types:
        if kind not in (_GLOBAL, _LOCAL):
            raise LoadError(f"`layer_types` in `config.json` names `{kind}`: supported are `{_GLOBAL}` and `{_LOCAL}`")
    return config.layer_types


def adapt(config: ModernBertConfig, asked: Asked) -> ModernBertConfig:
    """The config as the spec wants it; raises `LoadError`."""
    return msgspec.structs.replace(seen_both_ways(config, asked), max_tokens=asked.max_tokens)


def modernbert(ops: Ops[X], config: ModernBertConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden).

    Args:
        prefix: what stands before every tensor's name: checkpoints of models with a task's head have `model.`.
    """
    words = ops.weight(prefix + "embeddings.tok_embeddings.weight", (config.vocab_size, config.hidden_size))
    hidden = _norm(ops, config, ops.gather(words, ops.feed(IDS)), prefix + "embeddings.norm")
    size = config.hidden_size // config.num_attention_heads
    turned = {
        rotary: angles(ops, rotary, size, config.max_tokens)
        for rotary in dict.fromkeys(_rotary(config, window) for window in config.windows)
    }
    for layer, window in enumerate(config.windows):
        at = f"{prefix}layers.{layer}."
        # The first layer's input is normed already, and has no norm of its own.
        normed = hidden if layer == 0 else _norm(ops, config, hidden, at + "attn_norm")
        seen = _attention(ops, config, normed, at + "attn.", window, turned[_rotary(config, window)])
        hidden = ops.add(hidden, seen)
        hidden = ops.add(hidden, _feed_forward(ops, config, _norm(ops, config, hidden, at + "mlp_norm"), at + "mlp."))
    return _norm(ops, config, hidden, prefix + "final_norm")


def _rotary(config: ModernBertConfig, window: int | None) -> Rotary:
    return config.far if window is None else config.near


def _attention(ops: Ops[X], config: ModernBertConfig, x: X, at: str, window: int | None, turned: tuple[X, X]) -> X:
    width, heads, bias = config.hidden_size, config.num_attention_heads, config.attention_bias
    query, key, value = (
        linear(ops, x, at + "Wqkv", width, 3 * width, bias=bias, rows=(part * width, (part + 1) * width))
        for part in range(3)
    )
    query, key = (ops.rotary(one, *turned, heads=heads) for one in (query, key))
    seen = ops.attention(query, key, value, heads=heads, window=window)
    return linear(ops, seen, at + "Wo", width, width, bias=bias)


def _feed_forward(ops: Ops[X], config: ModernBertConfig, x: X, at: str) -> X:
    width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
    wide = linear(ops, x, at + "Wi", width, 2 * inner, bias=bias, rows=(0, inner), activation=config.activation)
    gate = linear(ops, x, at + "Wi", width, 2 * inner, bias=bias, rows=(inner, 2 * inner))
    return linear(ops, ops.multiply(wide, gate), at + "Wo", inner, width, bias=bias)


def _norm(ops: Ops[X], config: ModernBertConfig, x: X, at: str) -> X:
    width = (config.hidden_size,)
    bias = ops.weight(at + ".bias", width) if config.norm_bias else None
    return ops.layer_norm(x, ops.weight(at + ".weight", width), bias, epsilon=config.norm_eps)
