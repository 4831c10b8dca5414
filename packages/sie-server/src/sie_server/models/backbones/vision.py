"""CLIP and SigLIP: a tower for texts and one for pictures, which end in vectors of one space.

Both are the same encoder, with norms before its layers. A picture is a sequence of patches, each a row of its
values by channel, y and x: a convolution whose stride is its size is a linear layer of them. CLIP puts a token of its
own before the patches, and reads its vectors off that and off a text's end; SigLIP has a query attend to the
patches, and reads a text, padded to its full length, off its last token.

Follows transformers 5.23 `models/clip/modeling_clip.py` and `models/siglip/modeling_siglip.py` (`get_text_features`,
`get_image_features`). Not here: how texts become ids (`tasks.pictured`) and pictures patches (`pictures`).
"""

import functools
from typing import Final, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sie_server.models.backbones.post_norm import linear
from sie_server.models.calls import LoadError
from sie_server.models.ops.plan import FIRST, IDS, LAST, POSITIONS, Feed, Plan
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")

CHANNELS: Final = 3

_ARGMAX_EOS: Final = 2
"""An `eos_token_id` that was once written wrongly: then a text ends at the highest of its ids."""

_ACTIVATIONS: Final[dict[str, Activation]] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

_IS_FIRST: Final = Feed("is_first", (-1, 1), np.float32, lambda plan: (plan.positions == 0).astype(np.float32)[:, None])
_NOUGHTS: Final = Feed("noughts", (-1,), np.int32, lambda plan: np.zeros_like(plan.positions))


class Encoder(Struct, frozen=True, kw_only=True):
    """What both towers have."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float

    def check(self, where: str) -> None:
        """Raises `LoadError` for what this encoder does not do."""
        if self.hidden_act not in _ACTIVATIONS:
            known = ", ".join(f"`{name}`" for name in _ACTIVATIONS)
            raise LoadError(f"`{where}.hidden_act` is `{self.hidden_act}`: supported are {known}")
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            heads = f"`num_attention_heads`, {self.num_attention_heads}"
            raise LoadError(f"`{where}.hidden_size` is {self.hidden_size}, which is not a multiple of {heads}")


class Texts(Encoder, frozen=True, kw_only=True):
    vocab_size: int
    max_position_embeddings: int
    eos_token_id: int = 49407
    projection_size: int | None = None


class Pictures(Encoder, frozen=True, kw_only=True):
    image_size: int = 224
    patch_size: int
    num_channels: int = CHANNELS
    vision_use_head: bool = True

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class VisionConfig(Struct, frozen=True):
    """Both towers of a model.

    Attributes:
        kind: whose way of pooling.
        dim: of the vectors.
    """

    kind: Literal["clip", "siglip"]
    dim: int
    text: Texts
    picture: Pictures

    @property
    def picture_tokens(self) -> int:
        return self.picture.patches + (self.kind == "clip")


class _Config(Struct, frozen=True):
    model_type: Literal["clip", "siglip"]
    text_config: dict[str, object] = {}
    vision_config: dict[str, object] = {}
    text_config_dict: dict[str, object] | None = None
    vision_config_dict: dict[str, object] | None = None
    projection_dim: int = 512


_CLIP: Final = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP: Final = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_WIDE: Final = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_DEFAULTS: Final[dict[str, tuple[dict[str, object], dict[str, object]]]] = {
    "clip": (
        {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
        | {"vocab_size": 49408, "max_position_embeddings": 77}
        | _CLIP,
        {"patch_size": 32} | _WIDE | _CLIP,
    ),
    "siglip": (
        {"vocab_size": 32000, "max_position_embeddings": 64} | _WIDE | _SIGLIP,
        {"patch_size": 16} | _WIDE | _SIGLIP,
    ),
}
"""What transformers has where `config.json` leaves it out, which it does for every value that is the default."""


def read_vision(data: bytes) -> VisionConfig:
    """`config.json` of a CLIP or a SigLIP.

    Raises:
        LoadError: it is something else, or says something these towers do not do.
    """
    try:
        config = msgspec.json.decode(data, type=_Config)
        of_texts, of_pictures = _DEFAULTS[config.model_type]
        text = msgspec.convert(of_texts | config.text_config | (config.text_config_dict or {}), Texts)
        picture = msgspec.convert(of_pictures | config.vision_config | (config.vision_config_dict or {}), Pictures)
    except msgspec.MsgspecError as error:
        raise LoadError(f"`config.json` is not that of a CLIP or SigLIP: {error}") from error
    text.check("text_config")
    picture.check("vision_config")
    if picture.num_channels != CHANNELS:
        raise LoadError(f"`vision_config.num_channels` is {picture.num_channels}: supported is {CHANNELS}")
    if picture.image_size < picture.patch_size or picture.patch_size < 1:
        raise LoadError(f"`vision_config` has patches of {picture.patch_size} in pictures of {picture.image_size}")
    if config.model_type == "siglip":
        if not picture.vision_use_head:
            raise LoadError("`vision_config.vision_use_head` is false: supported is SigLIP's own pooling")
        dim = text.projection_size or text.hidden_size
        if dim != picture.hidden_size:
            raise LoadError(f"texts become vectors of {dim} and pictures of {picture.hidden_size}: want one size")
        return VisionConfig("siglip", dim, text, picture)
    return VisionConfig("clip", config.projection_dim, text, picture)


def text_tower(ops: Ops[X], config: VisionConfig) -> tuple[X, X]:
    """The last hidden state, (T, hidden), and the texts' vectors, (S, dim), not scaled."""
    text, at, is_clip = config.text, "text_model.", config.kind == "clip"
    width = text.hidden_size
    words = ops.weight(at + "embeddings.token_embedding.weight", (text.vocab_size, width))
    places = ops.weight(at + "embeddings.position_embedding.weight", (text.max_position_embeddings, width))
    hidden = ops.add(ops.gather(words, ops.feed(IDS)), ops.gather(places, ops.feed(POSITIONS)))
    hidden = _layers(ops, text, hidden, at, causal=is_clip)
    hidden = _norm(ops, text, hidden, at + "final_layer_norm")
    if is_clip:
        ends = ops.gather(hidden, ops.feed(end_feed(text.eos_token_id)))
        return hidden, ops.linear(ends, ops.weight("text_projection.weight", (config.dim, width)))
    return hidden, linear(ops, ops.gather(hidden, ops.feed(LAST)), at + "head", width, config.dim)


def picture_tower(ops: Ops[X], config: VisionConfig) -> tuple[X, X]:
    """The last hidden state, (T, hidden), and the pictures' vectors, (S, dim), not scaled."""
    picture, at, is_clip = config.picture, "vision_model.", config.kind == "clip"
    width = picture.hidden_size
    hidden = _patches(ops, config, at + "embeddings.")
    if is_clip:
        hidden = _norm(ops, picture, hidden, at + "pre_layrnorm")
    hidden = _layers(ops, picture, hidden, at, causal=False)
    if is_clip:
        first = _norm(ops, picture, ops.gather(hidden, ops.feed(FIRST)), at + "post_layernorm")
        return hidden, ops.linear(first, ops.weight("visual_projection.weight", (config.dim, width)))
    hidden = _norm(ops, picture, hidden, at + "post_layernorm")
    return hidden, _attended(ops, picture, hidden, at + "head.")


def _patches(ops: Ops[X], config: VisionConfig, at: str) -> X:
    picture, is_clip = config.picture, config.kind == "clip"
    width, size = picture.hidden_size, picture.patch_size
    values = CHANNELS * size * size
    kernel = ops.weight(at + "patch_embedding.weight", (width, CHANNELS, size, size), folded=True)
    bias = None if is_clip else ops.weight(at + "patch_embedding.bias", (width,))
    hidden = ops.linear(ops.feed(patches_feed(values)), kernel, bias)
    if is_clip:
        # The row of the token before the patches is zeros.
        own = ops.weight(at + "class_embedding", (width,))
        hidden = ops.add(hidden, ops.multiply(ops.feed(_IS_FIRST), own))
    places = ops.weight(at + "position_embedding.weight", (config.picture_tokens, width))
    return ops.add(hidden, ops.gather(places, ops.feed(POSITIONS)))


def _attended(ops: Ops[X], config: Pictures, hidden: X, at: str) -> X:
    """(T, hidden) → (S, hidden): one query, learned, over each picture's patches, and a layer after it."""
    width = config.hidden_size
    weight, bias = at + "attention.in_proj_weight", at + "attention.in_proj_bias"
    probe = ops.weight(at + "probe", (1, 1, width), folded=True)
    query, key, value = (
        ops.linear(
            x,
            ops.weight(weight, (3 * width, width), rows=(part * width, (part + 1) * width)),
            ops.weight(bias, (3 * width,), rows=(part * width, (part + 1) * width)),
        )
        for part, x in enumerate((probe, hidden, hidden))
    )
    # Every token asks the same, and only the first is listened to: one layer of many, and no operation more.
    query = ops.gather(query, ops.feed(_NOUGHTS))
    seen = ops.attention(query, key, value, heads=config.num_attention_heads)
    pooled = linear(ops, ops.gather(seen, ops.feed(FIRST)), at + "attention.out_proj", width, width)
    return ops.add(pooled, _mlp(ops, config, _norm(ops, config, pooled, at + "layernorm"), at + "mlp."))


def _layers(ops: Ops[X], config: Encoder, hidden: X, at: str, *, causal: bool) -> X:
    width = config.hidden_size
    for index in range(config.num_hidden_layers):
        layer = f"{at}encoder.layers.{index}."
        normed = _norm(ops, config, hidden, layer + "layer_norm1")
        query, key, value = (
            linear(ops, normed, f"{layer}self_attn.{name}_proj", width, width) for name in ("q", "k", "v")
        )
        seen = ops.attention(query, key, value, heads=config.num_attention_heads, causal=causal)
        hidden = ops.add(hidden, linear(ops, seen, layer + "self_attn.out_proj", width, width))
        normed = _norm(ops, config, hidden, layer + "layer_norm2")
        hidden = ops.add(hidden, _mlp(ops, config, normed, layer + "mlp."))
    return hidden


def _mlp(ops: Ops[X], config: Encoder, x: X, at: str) -> X:
    width, inner = config.hidden_size, config.intermediate_size
    wide = linear(ops, x, at + "fc1", width, inner, activation=_ACTIVATIONS[config.hidden_act])
    return linear(ops, wide, at + "fc2", inner, width)


def _norm(ops: Ops[X], config: Encoder, x: X, at: str) -> X:
    width = (config.hidden_size,)
    return ops.layer_norm(
        x, ops.weight(at + ".weight", width), ops.weight(at + ".bias", width), epsilon=config.layer_norm_eps
    )


@functools.cache
def patches_feed(values: int) -> Feed:
    """(T, values) float32: a picture's patches, one a token."""
    return Feed("patches", (-1, values), np.float32, lambda plan: _given(plan.patches))


@functools.cache
def end_feed(eos_token_id: int) -> Feed:
    """(S,) int32: where each text ends, its first end token; its first token where it has none."""
    return Feed("ends", (-1,), np.int32, lambda plan: _ends(plan, eos_token_id))


def _given(patches: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert patches is not None
    return patches


def _ends(plan: Plan, eos_token_id: int) -> NDArray[np.int32]:
    ids, starts = plan.tokens.ids, plan.tokens.starts
    ending = np.full(len(starts) - 1, eos_token_id, np.int32)
    if eos_token_id == _ARGMAX_EOS:
        ending = np.maximum.reduceat(ids, starts[:-1])
    nowhere = np.int32(len(ids))
    places = np.where(ids == np.repeat(ending, plan.tokens.lengths), np.arange(len(ids), dtype=np.int32), nowhere)
    first: NDArray[np.int32] = np.minimum.reduceat(places, starts[:-1])
    return np.where(first == nowhere, starts[:-1], first).astype(np.int32)
