"""A spans head completed: GLiNER, whose `gliner_config.json` has the network's own configuration inside. Pure.

Follows gliner 0.2.29 `config.py`. Not here: the shape of what is after the network, which the head reads from the file.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.positions import need_positions, positions_of, reserved_positions
from sie_core.catalog.derive.snapshot import (
    CONFIG,
    DEFAULT,
    SPEC,
    TOKENIZER,
    Config,
    Found,
    Reader,
    Tokenizer,
    read_json,
)
from sie_core.catalog.spec import ExtractHead, ModelSpec
from sie_core.ids import parse_model_id

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


def read_gliner(spec: ModelSpec, read: Reader, base: Reader) -> Config:
    """The configuration of the network inside a GLiNER, or where there is none inside, that of its base.

    Raises:
        ValueError: it is not there, or is something else; or the tokenizer is not there.
    """
    if spec.architecture not in (None, ARCHITECTURE):
        raise ValueError(f"`architecture` is `{spec.architecture}`: the head `spans` is for `{ARCHITECTURE}`")
    config = read_json(read, GLINER, _Config)
    has_tokenizer = read(TOKENIZER) is not None
    if config.encoder_config is None or not has_tokenizer:
        _check_base(spec, config)
    if not has_tokenizer and base(TOKENIZER) is None:
        raise ValueError(f"neither the snapshot nor its base has a `{TOKENIZER}`")
    where, usual, said = f"`encoder_config` in `{GLINER}`", {"model_type": _USUAL}, config.encoder_config
    if said is None:
        where, usual = f"`{CONFIG}` of its base", {}
        if (data := base(CONFIG)) is None:
            raise ValueError(f"neither `{GLINER}` nor its base says what the network is: there is no `{CONFIG}`")
        said = read_json(lambda path: data, CONFIG, dict)
    # gliner writes what is not said as null.
    try:
        return msgspec.convert(usual | {name: value for name, value in said.items() if value is not None}, Config)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where} cannot be read: {error}") from error


def _check_base(spec: ModelSpec, config: _Config) -> None:
    """Another network of the same width with fewer layers would be built, and answer wrongly."""
    if spec.base is None:
        raise ValueError(
            f"the snapshot has no `{TOKENIZER}`, or `{GLINER}` in it no `encoder_config`: they are in another "
            f"repository. Set `base.repo` in the spec of `{spec.id}`; `model_name` in `{GLINER}` is "
            f"`{config.model_name}`"
        )
    if is_model_id(config.model_name) and config.model_name != spec.base.repo:
        raise ValueError(
            f"`base.repo` in the spec of `{spec.id}` is `{spec.base.repo}`, `model_name` in `{GLINER}` is "
            f"`{config.model_name}`"
        )


def is_model_id(name: str) -> bool:
    """Whether it can be a repository; a model may have been made from a folder of its authors."""
    try:
        return "/" in parse_model_id(name)
    except ValueError:
        return False


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


def spans_max_tokens(spec: ModelSpec, read: Reader, base: Reader, config: Config) -> Found[int]:
    """The spec's, or the tokenizer's own limit, or that of the positions; the words have theirs in the head."""
    limits = [Found(max(_TOKENS_A_WORD * read_json(read, GLINER, _Config).max_len, 512), GLINER)]
    positions = positions_of(config)
    if positions is not None and need_positions(config):
        limits.append(Found(positions - reserved_positions(config), GLINER))
    if spec.max_tokens is not None:
        limits.append(Found(spec.max_tokens, SPEC))
    length = read_json(base if read(TOKENIZER) is None else read, TOKENIZER, Tokenizer, Tokenizer()).model_max_length
    if length is not None and length < 2**31:
        limits.append(Found(int(length), TOKENIZER))
    return min(limits, key=lambda limit: limit.value)
