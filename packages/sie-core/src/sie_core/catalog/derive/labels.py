"""A labels head completed: GLiClass, whose `config.json` has the network's own inside. Pure.

Follows gliclass 0.1.21 `config.py` (what stands where), `model.py` (what becomes of it) and `poolings.py`. What that
makes of a batch's padding (a sum or a mean of part of a text) has no meaning for one text, and is refused.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.snapshot import DEFAULT, SPEC, Config, Reader, read_json
from sie_core.catalog.spec import ExtractHead, ModelSpec

GLICLASS: Final = "gliclass"
"""What a spec calls the architecture."""

ENCODER: Final = "encoder_config"
"""Where in `config.json` the network's own is."""

_MODEL_TYPE: Final = "GLiClass"
_USUAL: Final = "deberta-v2"
"""The network's, where it does not say."""

_POOLED: Final = ("first", "last", "avg", "max")
_NOT_POOLED: Final = ("pass",)
_LOOKS_AT_TOKENS: Final = "cross-attn"

_SERVED: Final[Mapping[str, tuple[Any, ...]]] = {
    "architecture_type": ("uni-encoder",),
    "scorer_type": ("simple", "weighted-dot", "mlp", _LOOKS_AT_TOKENS),
    "class_token_pooling": ("first", "average"),
    "squeeze_layers": (False,),
    "encoder_layer_id": (-1,),
    "use_lstm": (False,),
    "use_calibrator": (False,),
}


class _Config(Struct, frozen=True):
    """`config.json`; absent keys as gliclass has them."""

    model_type: str
    encoder_config: dict[str, Any] | None = None
    vocab_size: int | None = None
    architecture_type: str = "uni-encoder"
    scorer_type: str = "simple"
    pooling_strategy: str = "first"
    class_token_pooling: str = "first"  # noqa: S105 - no password
    extract_text_features: bool = False
    squeeze_layers: bool = False
    encoder_layer_id: int = -1
    use_lstm: bool = False
    use_calibrator: bool = False


def read_encoder(spec: ModelSpec, read: Reader, where: str) -> Config | None:
    """The configuration of the network inside a GLiClass; None where `config.json` is of something else.

    Raises:
        ValueError: the spec and the file do not agree on that, or there is none inside.
    """
    wanted = spec.extract is not None and spec.extract.head == "labels"
    # Of others, `model_type` may be anything, or nowhere: theirs to say.
    kind = read_json(read, where, _Kind, _Kind()).model_type
    if kind != _MODEL_TYPE:
        if wanted:
            raise ValueError(f"`model_type` in `{where}` is `{kind}`: the head `labels` is for `{_MODEL_TYPE}`")
        return None
    if not wanted or spec.outputs != ("json",):
        raise ValueError(f"`{where}` is of a {_MODEL_TYPE}, which classifies: the spec wants `extract` with `labels`")
    if spec.architecture not in (None, GLICLASS):
        raise ValueError(f"`architecture` is `{spec.architecture}`, `model_type` in `{where}` is `{kind}`")
    inside = read_json(read, where, _Config).encoder_config
    if inside is None:
        raise ValueError(f"`{where}` has no `{ENCODER}`, which says what its network is")
    # All that transformers knows of any network is written there, null where it means nothing.
    said = {name: value for name, value in inside.items() if value is not None}
    try:
        return msgspec.convert({"model_type": _USUAL} | said, Config)
    except msgspec.ValidationError as error:
        raise ValueError(f"`{ENCODER}` in `{where}` cannot be read: {error}") from error


def complete_labels(head: ExtractHead, read: Reader, where: str) -> tuple[ExtractHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name.

    Raises:
        ValueError: a part of GLiClass that we do not serve.
    """
    config = read_json(read, where, _Config)
    for name, served in _SERVED.items():
        _check(name, getattr(config, name), served, where)
    looks = config.scorer_type == _LOOKS_AT_TOKENS
    poolings = _NOT_POOLED if looks else _POOLED[:1] if config.extract_text_features else _POOLED
    _check("pooling_strategy", config.pooling_strategy, poolings, where)
    threshold = 0.0 if head.threshold is None else head.threshold
    origins = {
        "threshold": DEFAULT if head.threshold is None else SPEC,
        "multi_label": DEFAULT if head.multi_label is None else SPEC,
    }
    return msgspec.structs.replace(head, threshold=threshold, multi_label=bool(head.multi_label)), origins


class _Kind(Struct, frozen=True):
    model_type: str | None = None


def _check(name: str, found: Any, served: tuple[Any, ...], where: str) -> None:
    if found not in served:
        said, known = (f"`{msgspec.json.encode(one).decode().strip(chr(34))}`" for one in (found, served[0]))
        others = "".join(f", `{one}`" for one in served[1:])
        raise ValueError(f"`{name}` in `{where}` is {said}: supported is {known}{others}")
