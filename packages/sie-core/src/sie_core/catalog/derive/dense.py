"""A dense head, completed from the snapshot's pooling modules. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from sie_core.catalog.derive.snapshot import (
    CONFIG,
    DEFAULT,
    MODULES,
    SPEC,
    Config,
    Found,
    Module,
    Prompts,
    Reader,
    read_json,
    within,
)
from sie_core.catalog.spec import DenseHead, Pooling

_MODES: Final[Mapping[str, Pooling]] = {"cls": "cls", "mean": "mean", "lasttoken": "last", "weightedmean": "weighted"}
_FLAG: Final = "pooling_mode_"
_FLAGS: Final[Mapping[str, str]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def complete_dense(
    head: DenseHead,
    read: Reader,
    config: Config,
    where: str,
    prompts: Prompts,
    *,
    pooling: Module | None,
    normalize: Module | None,
) -> tuple[DenseHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name.

    Args:
        config: of the transformer, found at `where`.
        pooling: that of `modules.json`, if it has one; `normalize` likewise.

    Raises:
        ValueError: a pooling that we do not serve; two files, or the spec and a file, that contradict each other.
    """
    pooled = _pooling(head, read, pooling, prompts, config)
    normalized = _normalize(head, normalize)
    dim = _dim(head, config, where)
    complete = DenseHead(pooling=pooled.value, normalize=normalized.value, dim=dim.value)
    return complete, {"pooling": pooled.origin, "normalize": normalized.origin, "dim": dim.origin}


def _pooling(head: DenseHead, read: Reader, module: Module | None, prompts: Prompts, config: Config) -> Found[Pooling]:
    said = head.pooling
    if module is None:
        return Found("mean", DEFAULT) if said is None else Found(said, SPEC)
    path = within(module.path, CONFIG)
    raw = read_json(read, path, dict[str, Any])
    width = raw.get("embedding_dimension", raw.get("word_embedding_dimension"))
    if width is not None and config.hidden_size is not None and width != config.hidden_size:
        raise ValueError(f"`{path}` pools vectors of {width}, `hidden_size` in `{CONFIG}` is {config.hidden_size}")
    if raw.get("include_prompt", True) is not True and any(prompts.prompts.values()):
        raise ValueError(f"`include_prompt` in `{path}` is false: supported is pooling over the prompt too")
    if said is not None:
        return Found(said, SPEC)
    return Found(_pooling_mode(raw, path), path)


def _pooling_mode(raw: Mapping[str, Any], path: str) -> Pooling:
    """Today's `pooling_mode`, or the flags that came before it; none set means the mean."""
    modes = raw.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if raw.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [key for key, value in raw.items() if key.startswith(_FLAG) and key not in _FLAGS and value]
    if unknown or len(modes) != 1 or modes[0] not in _MODES:
        names = ", ".join(f"`{name}`" for name in [*unknown, *modes])
        raise ValueError(f"`{path}` pools by {names}: supported is one of {', '.join(f'`{mode}`' for mode in _MODES)}")
    return _MODES[modes[0]]


def _normalize(head: DenseHead, module: Module | None) -> Found[bool]:
    if head.normalize is not None:
        return Found(head.normalize, SPEC)
    return Found(module is not None, MODULES)


def _dim(head: DenseHead, config: Config, where: str) -> Found[int]:
    if config.hidden_size is None:
        raise ValueError(f"`{where}` has no `hidden_size`")
    said = head.dim
    if said is not None and said != config.hidden_size:
        raise ValueError(f"`dense.dim` is {said}, `hidden_size` in `{where}` is {config.hidden_size}")
    return Found(config.hidden_size, where)
