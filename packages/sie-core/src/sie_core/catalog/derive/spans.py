"""A spans head completed: GLiNER, whose `gliner_config.json` has the network's own configuration inside. Pure.

Follows gliner 0.2.29 `config.py`. Not here: the shape of what is after the network, which the head reads from the file.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.positions import need_positions, positions_of, reserved_positions
from sie_core.catalog.derive.snapshot import DEFAULT, SPEC, TOKENIZER, Config, Found, Reader, Tokenizer, read_json
from sie_core.catalog.spec import ExtractHead, ModelSpec

GLINER: Final = "gliner_config.json"
ARCHITECTURE: Final = "gliner"
"""What a spec calls it."""

_USUAL: Final = "deberta-v2"
"""The network's architecture, where it does not say."""

_THRESHOLD: Final = 0.5
_TOKENS_A_WORD: Final = 4
"""Of a text as long as it may be, where no file has a limit of tokens: words have one and a half, and labels some."""


class _Config(Struct, frozen=True):
    model_name: str = "unknown"
    encoder_config: dict[str, Any] | None = None
    max_len: int = 384


def read_gliner(spec: ModelSpec, read: Reader) -> Config:
    """The configuration of the network inside a GLiNER.

    Raises:
        ValueError: it is not there, or is something else.
    """
    if spec.architecture not in (None, ARCHITECTURE):
        raise ValueError(f"`architecture` is `{spec.architecture}`: the head `spans` is for `{ARCHITECTURE}`")
    config = read_json(read, GLINER, _Config)
    if config.encoder_config is None:
        raise ValueError(
            f"`{GLINER}` has no `encoder_config`: what its network is, and its tokenizer, are in another repository, "
            f"`{config.model_name}`. gliner's own `save_pretrained` puts both beside the weights"
        )
    # gliner writes what is not said as null.
    said = {name: value for name, value in config.encoder_config.items() if value is not None}
    try:
        return msgspec.convert({"model_type": _USUAL} | said, Config)
    except msgspec.ValidationError as error:
        raise ValueError(f"`encoder_config` in `{GLINER}` cannot be read: {error}") from error


def complete_spans(head: ExtractHead) -> tuple[ExtractHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name."""
    origins = {
        "threshold": DEFAULT if head.threshold is None else SPEC,
        "multi_label": DEFAULT if head.multi_label is None else SPEC,
        "merge_adjacent": DEFAULT if head.merge_adjacent is None else SPEC,
    }
    complete = msgspec.structs.replace(
        head,
        threshold=_THRESHOLD if head.threshold is None else head.threshold,
        multi_label=bool(head.multi_label),
        merge_adjacent=bool(head.merge_adjacent),
    )
    return complete, origins


def spans_max_tokens(spec: ModelSpec, read: Reader, config: Config) -> Found[int]:
    """The spec's, or the tokenizer's own limit, or that of the positions; the words have theirs in the head."""
    limits = [Found(max(_TOKENS_A_WORD * read_json(read, GLINER, _Config).max_len, 512), GLINER)]
    positions = positions_of(config)
    if positions is not None and need_positions(config):
        limits.append(Found(positions - reserved_positions(config), GLINER))
    if spec.max_tokens is not None:
        limits.append(Found(spec.max_tokens, SPEC))
    length = read_json(read, TOKENIZER, Tokenizer, Tokenizer()).model_max_length
    if length is not None and length < 2**31:
        limits.append(Found(int(length), TOKENIZER))
    return min(limits, key=lambda limit: limit.value)
