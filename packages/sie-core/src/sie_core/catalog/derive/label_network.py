"""What reads the labels of a GLiNER that has a network of their own for it. Pure.

Follows gliner 0.2.29 `model.py` (`BaseBiEncoderGLiNER`, and which tokenizer `from_pretrained` prefers).
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.positions import need_positions, positions_of, reserved_positions
from sie_core.catalog.derive.snapshot import CONFIG, TOKENIZER, Config, Reader, Tokenizer, read_json, within
from sie_core.catalog.derive.spans import GLINER, is_model_id
from sie_core.catalog.spec import ModelSpec

_OWN_TOKENIZER: Final = "labels_tokenizer"
"""The folder that gliner saves the labels' tokenizer in; the first such models were published without."""

_USUAL: Final = "deberta-v2"
_LONGEST: Final = 512
"""Tokens of a label, where no file has a limit."""


class _Config(Struct, frozen=True):
    labels_encoder: str | None = None
    labels_encoder_config: dict[str, Any] | None = None


@dataclass(frozen=True)
class LabelNetwork:
    """The network of the labels.

    Attributes:
        config: its `config.json`; `model_type` in it is one that there is a backbone for, or is refused.
        architecture: that `model_type`.
        tokenizer: the folder of the snapshot that its tokenizer is in; None: it is in `labels_base`.
        max_tokens: longest label, special tokens included.
    """

    config: bytes
    architecture: str
    tokenizer: str | None
    max_tokens: int


def read_label_network(spec: ModelSpec, read: Reader, base: Reader) -> LabelNetwork | None:
    """None where the labels are read with the text.

    Args:
        base: reads the snapshot of the spec's `labels_base`.

    Raises:
        ValueError: what the network or its tokenizer is, is in a repository that the spec does not name.
    """
    config = read_json(read, GLINER, _Config)
    if config.labels_encoder is None:
        if spec.labels_base is not None:
            raise ValueError(f"the spec of `{spec.id}` has `labels_base`, and `{GLINER}` no `labels_encoder`")
        return None
    own = within(_OWN_TOKENIZER, TOKENIZER)
    is_own = read(own) is not None
    if not is_own or config.labels_encoder_config is None:
        _check_base(spec, config.labels_encoder, base)
    said = config.labels_encoder_config
    if said is None:
        said = read_json(base, CONFIG, dict)
    network = {"model_type": _USUAL} | {name: value for name, value in said.items() if value is not None}
    try:
        known = msgspec.convert(network, Config)
    except msgspec.ValidationError as error:
        raise ValueError(f"`labels_encoder_config` in `{GLINER}` cannot be read: {error}") from error
    tokenizer = read_json(read, own, Tokenizer) if is_own else read_json(base, TOKENIZER, Tokenizer)
    return LabelNetwork(
        config=msgspec.json.encode(network),
        architecture=known.model_type,
        tokenizer=_OWN_TOKENIZER if is_own else None,
        max_tokens=_max_tokens(known, tokenizer),
    )


def _check_base(spec: ModelSpec, named: str, base: Reader) -> None:
    if spec.labels_base is None:
        raise ValueError(
            f"the snapshot has no `{_OWN_TOKENIZER}/{TOKENIZER}`, or `{GLINER}` in it no `labels_encoder_config`: they "
            f"are in another repository. Set `labels_base.repo` in the spec of `{spec.id}`; `labels_encoder` in "
            f"`{GLINER}` is `{named}`"
        )
    if is_model_id(named) and named != spec.labels_base.repo:
        raise ValueError(
            f"`labels_base.repo` in the spec of `{spec.id}` is `{spec.labels_base.repo}`, `labels_encoder` in "
            f"`{GLINER}` is `{named}`"
        )
    for path in (TOKENIZER, CONFIG):
        if base(path) is None:
            raise ValueError(f"`{spec.labels_base.repo}`, which `labels_base` names, has no `{path}`")


def _max_tokens(config: Config, tokenizer: Tokenizer) -> int:
    limits = []
    if tokenizer.model_max_length is not None and tokenizer.model_max_length < 2**31:
        limits.append(int(tokenizer.model_max_length))
    positions = positions_of(config)
    if positions is not None and need_positions(config):
        limits.append(positions - reserved_positions(config))
    return min(limits, default=_LONGEST)
