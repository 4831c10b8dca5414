"""Language models as encoders: Qwen2, Qwen3, Llama, Mistral and the text half of Gemma 3, without their next token.

One network with parts that a family has or has not: root-mean-square norms, rotary positions, grouped queries, a gated
feed-forward, and tokens that see those before them, or all where the configuration or the spec says so.

Follows transformers 5.23 `models/{qwen2,qwen3,llama,mistral,gemma3}/modeling_*.py`, `masking_utils.py` (windows).
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from sie_server.models.backbones.asked import Asked
from sie_server.models.backbones.post_norm import linear
from sie_server.models.backbones.rotary import Rotary, angles, read_rotary
from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
_THETA: Final = 10_000.0
_GEMMA_THETA: Final = 1_000_000.0


class _Config(msgspec.Struct, frozen=True):
    """`config.json` of any of the families."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str | None = None
    hidden_activation: str | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 0
    sliding_window_pattern: int = 6
    layer_types: tuple[str, ...] | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_theta: float | None = None
    rope_local_base_freq: float = _THETA
    partial_rotary_factor: float = 1.0
    is_causal: bool = True
    use_bidirectional_attention: bool | None = None
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None


class DecoderConfig(msgspec.Struct, frozen=True):
    """What the graph needs.

    Attributes:
        head_size: of the values of a head; heads × it need not be `hidden_size`.
        sliding: of each layer, whether a token sees no farther than `reach`.
        reach: how far it sees there, if causal, and if not.
        far: rotary positions of the other layers; `near`: of the sliding ones.
        input_bias: whether query, key and value have biases; `output_bias`: what is made of them;
            `inner_bias`: the feed-forward.
        head_norms: whether each head's query and key are normed.
        after_norms: whether what attention and the feed-forward give is normed too, before it is added.
        one_centred: whether a norm's weights are stored less 1.
        embedding_scale: what the words' vectors are multiplied with.
        scale: of the products of queries and keys.
        causal: whether a token sees only itself and those before it.
        max_tokens: longest sequence.
    """

    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_size: int
    vocab_size: int
    epsilon: float
    activation: Activation
    sliding: tuple[bool, ...]
    reach: tuple[int, int]
    far: Rotary
    near: Rotary
    input_bias: bool
    output_bias: bool
    inner_bias: bool
    scale: float
    causal: bool
    max_tokens: int
    head_norms: bool = False
    after_norms: bool = False
    one_centred: bool = False
    embedding_scale: float = 1.0


def read_qwen2(data: bytes) -> DecoderConfig:
    """`config.json` of a Qwen2; raises `LoadError`, as the others do."""
    config = read_json(data, _Config, "a Qwen2")
    return _shared(config, _windowed_from(config), input_bias=True, output_bias=False)


def read_qwen3(data: bytes) -> DecoderConfig:
    """`config.json` of a Qwen3."""
    config = read_json(data, _Config, "a Qwen3")
    bias = config.attention_bias
    shared = _shared(config, _windowed_from(config), input_bias=bias, output_bias=bias)
    return msgspec.structs.replace(shared, head_norms=True)


def read_llama(data: bytes) -> DecoderConfig:
    """`config.json` of a Llama."""
    config = read_json(data, _Config, "a Llama")
    layers, bias = (_FULL,) * config.num_hidden_layers, config.attention_bias
    return _shared(config, layers, input_bias=bias, output_bias=bias, inner_bias=config.mlp_bias)


def read_llama_both_ways(data: bytes) -> DecoderConfig:
    """`config.json` of a Llama whose tokens see each other, which Nvidia's code calls `llama_bidirec`."""
    return msgspec.structs.replace(read_llama(data), causal=False)


def read_mistral(data: bytes) -> DecoderConfig:
    """`config.json` of a Mistral, whose window is every layer's."""
    config = read_json(data, _Config, "a Mistral")
    kind = _FULL if config.sliding_window is None else _SLIDING
    return _shared(config, (kind,) * config.num_hidden_layers, input_bias=False, output_bias=False)


def read_gemma3(data: bytes) -> DecoderConfig:
    """`config.json` of a Gemma 3's text half."""
    config = read_json(data, _Config, "a Gemma 3")
    if config.attn_logit_softcapping is not None:
        raise LoadError(
            f"`attn_logit_softcapping` in `config.json` is {config.attn_logit_softcapping}: supported is none"
        )
    every, bias = config.sliding_window_pattern, config.attention_bias
    if every < 1:
        raise LoadError(f"`sliding_window_pattern` in `config.json` is {every}: want 1 at least")
    default = tuple(_SLIDING if (layer + 1) % every else _FULL for layer in range(config.num_hidden_layers))
    shared = _shared(config, _layer_types(config, default), input_bias=bias, output_bias=bias, nested=True)
    window = config.sliding_window or 0
    squared = config.query_pre_attn_scalar
    return msgspec.structs.replace(
        shared,
        # Both ways, the window is the whole of what is seen.
        reach=(window - 1, window // 2),
        head_norms=True,
        after_norms=True,
        one_centred=True,
        embedding_scale=config.hidden_size**0.5,
        scale=shared.scale if squared is None else squared**-0.5,
        causal=config.is_causal and not config.use_bidirectional_attention,
    )


def _shared(
    config: _Config,
    layers: tuple[str, ...],
    *,
    input_bias: bool,
    output_bias: bool,
    inner_bias: bool = False,
    nested: bool = False,
) -> DecoderConfig:
    """What is read alike of every family.

    Args:
        nested: whether sliding layers have rotary positions of their own.
    """
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    refuse_uneven_heads(heads, kv_heads, ("num_attention_heads", "num_key_value_heads"))
    if config.head_dim is None:
        refuse_uneven_heads(config.hidden_size, heads)
    if _SLIDING in layers and not config.sliding_window:
        raise LoadError(f"`config.json` has layers of `{_SLIDING}`, and `sliding_window` is {config.sliding_window}")
    window = config.sliding_window or 0
    far, near = _rotaries(config) if nested else (_rotary(config),) * 2
    size = config.head_dim or config.hidden_size // heads
    name = "hidden_activation" if config.hidden_act is None else "hidden_act"
    return DecoderConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        vocab_size=config.vocab_size,
        epsilon=config.rms_norm_eps,
        activation=activation_of(config.hidden_act or config.hidden_activation or "silu", name),
        sliding=tuple(kind == _SLIDING for kind in layers),
        reach=(window - 1, window),
        far=far,
        near=near,
        input_bias=input_bias,
        output_bias=output_bias,
        inner_bias=inner_bias,
        scale=size**-0.5,
        causal=config.is_causal,
        max_tokens=config.max_position_embeddings,
    )


def _windowed_from(config: _Config) -> tuple[str, ...]:
    """Qwen's: all see all, up to a layer that may begin a window."""
    layers = config.num_hidden_layers
    sliding = config.use_sliding_window and config.sliding_window is not None
    first = config.max_window_layers if sliding else layers
    found = _layer_types(config, tuple(_FULL if layer < first else _SLIDING for layer in range(layers)))
    if _SLIDING in found and not config.use_sliding_window:
        raise LoadError(f"`layer_types` in `config.json` has `{_SLIDING}`, and `use_sliding_window` is false")
    return found


def _layer_types(config: _Config, default: tuple[str, ...]) -> tuple[str, ...]:
    layers = config.layer_types
    if layers is None:
        return default
    if len(layers) != config.num_hidden_layers:
        raise LoadError(
            f"`layer_types` in `config.json` names {len(layers)} layers, "
            f"`num_hidden_layers` is {config.num_hidden_layers}"
        )
    for kind in layers:
        if kind not in (_FULL, _SLIDING):
            raise LoadError(f"`layer_types` in `config.json` names `{kind}`: supported are `{_FULL}` and `{_SLIDING}`")
    return layers


def _rotary(config: _Config) -> Rotary:
    given = config.rope_scaling or config.rope_parameters
    where = "rope_scaling" if config.rope_scaling else "rope_parameters"
    return _read(config, given, _THETA if config.rope_theta is None else config.rope_theta, where)


def _rotaries(config: _Config) -> tuple[Rotary, Rotary]:
    """Gemma's: scaling in the older form is of the layers that see all."""
    given: Mapping[str, Any] = config.rope_parameters or {}
    full = (given.get(_FULL) or {}) | (config.rope_scaling or {})
    theta = _GEMMA_THETA if config.rope_theta is None else config.rope_theta
    near = _read(config, given.get(_SLIDING), config.rope_local_base_freq, "rope_parameters")
    return _read(config, full, theta, "rope_parameters"), near


def _read(config: _Config, given: Any, theta: float, where: str) -> Rotary:
    part = {} if config.partial_rotary_factor == 1 else {"partial_rotary_factor": config.partial_rotary_factor}
    return read_rotary(part | (given or {}), theta=theta, longest=config.max_position_embeddings, where=where)


def adapt(config: DecoderConfig, asked: Asked) -> DecoderConfig:
    """The config as the spec wants it."""
    causal = config.causal if asked.causal is None else asked.causal
    return msgspec.structs.replace(config, causal=causal, max_tokens=asked.max_tokens)


def pair_bytes(config: DecoderConfig) -> int:
    """Measured 13: the mask of what comes after, which all heads share, and what it is made of. A window needs none."""
    return 16 if config.causal and not all(config.sliding) else 0


def decoder(ops: Ops[X], config: DecoderConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden), normed.

    Args:
        prefix: what stands before every tensor's name: checkpoints of models with a task's head have `model.`.
    """
    words = ops.weight(prefix + "embed_tokens.weight", (config.vocab_size, config.hidden_size))
    hidden = ops.gather(words, ops.feed(IDS))
    if config.embedding_scale != 1:
        hidden = ops.multiply(hidden, ops.constant(np.array([config.embedding_scale], np.float32)))
    turned = {
        rotary: angles(ops, rotary, config.head_size, config.max_tokens)
        for rotary in dict.fromkeys(_rotary_of(config, sliding) for sliding in config.sliding)
    }
    for layer, sliding in enumerate(config.sliding):
        hidden = _layer(ops, config, hidden, f"{prefix}layers.{layer}.", sliding, turned[_rotary_of(config, sliding)])
    return _norm(ops, config, hidden, prefix + "norm")


def _rotary_of(config: DecoderConfig, sliding: bool) -> Rotary:
    return config.near if sliding else config.far


def _layer(ops: Ops[X], config: DecoderConfig, hidden: X, at: str, sliding: bool, turned: tuple[X, X]) -> X:
    normed = _norm(ops, config, hidden, at + "input_layernorm")
    seen = _attention(ops, config, normed, at + "self_attn.", sliding, turned)
    if config.after_norms:
        seen = _norm(ops, config, seen, at + "post_attention_layernorm")
    hidden = ops.add(hidden, seen)
    before = "pre_feedforward_layernorm" if config.after_norms else "post_attention_layernorm"
    made = _feed_forward(ops, config, _norm(ops, config, hidden, at + before), at + "mlp.")
    if config.after_norms:
        made = _norm(ops, config, made, at + "post_feedforward_layernorm")
    return ops.add(hidden, made)


def _attention(ops: Ops[X], config: DecoderConfig, x: X, at: str, sliding: bool, turned: tuple[X, X]) -> X:
    width, whole, part = config.hidden_size, config.heads * config.head_size, config.kv_heads * config.head_size
    query = linear(ops, x, at + "q_proj", width, whole, bias=config.input_bias)
    key = linear(ops, x, at + "k_proj", width, part, bias=config.input_bias)
    value = linear(ops, x, at + "v_proj", width, part, bias=config.input_bias)
    if config.head_norms:
        query = _head_norm(ops, config, query, at + "q_norm", config.heads)
        key = _head_norm(ops, config, key, at + "k_norm", config.kv_heads)
    seen = ops.attention(
        ops.rotary(query, *turned, heads=config.heads),
        ops.rotary(key, *turned, heads=config.kv_heads),
        value,
        heads=config.heads,
        kv_heads=config.kv_heads,
        scale=config.scale,
        causal=config.causal,
        window=config.reach[0 if config.causal else 1] if sliding else None,
    )
    return linear(ops, seen, at + "o_proj", whole, width, bias=config.output_bias)


def _feed_forward(ops: Ops[X], config: DecoderConfig, x: X, at: str) -> X:
    width, inner, bias = config.hidden_size, config.intermediate_size, config.inner_bias
    gate = linear(ops, x, at + "gate_proj", width, inner, bias=bias, activation=config.activation)
    wide = linear(ops, x, at + "up_proj", width, inner, bias=bias)
    return linear(ops, ops.multiply(gate, wide), at + "down_proj", inner, width, bias=bias)


def _head_norm(ops: Ops[X], config: DecoderConfig, x: X, at: str, heads: int) -> X:
    normed = _norm(ops, config, ops.heads(x, heads), at, config.head_size)
    return ops.merged(normed)


def _norm(ops: Ops[X], config: DecoderConfig, x: X, at: str, width: int | None = None) -> X:
    weight = ops.weight(at + ".weight", (width or config.hidden_size,))
    if config.one_centred:
        weight = ops.add(weight, ops.constant(np.ones(1, np.float32)))
    return ops.rms_norm(x, weight, epsilon=config.epsilon)
