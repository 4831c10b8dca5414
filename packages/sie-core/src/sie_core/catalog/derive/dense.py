"""A dense head, completed from the snapshot's pooling modules. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_core.catalog.derive.modules import Modules
from sie_core.catalog.derive.projection import POOLED, Layer, read_layers
from sie_core.catalog.derive.snapshot import (
    CONFIG,
    DEFAULT,
    MODULES,
    PICTURED,
    PROMPTS,
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


@dataclass(frozen=True)
class Dense:
    """A head with nothing left open.

    Attributes:
        layers: linear layers after the pooling.
        pools_prompt: whether the tokens of a prompt are part of a mean.
        rescaled: whether a vector that is cut is scaled to length 1 again.
        origins: each value's, by name.
    """

    head: DenseHead
    layers: tuple[Layer, ...]
    pools_prompt: bool
    rescaled: bool
    origins: Mapping[str, str]


def complete_dense(
    head: DenseHead, read: Reader, config: Config, where: str, prompts: Prompts, modules: Modules
) -> Dense:
    """The head with nothing left open.

    Args:
        config: of the transformer, found at `where`.

    Raises:
        ValueError: a pooling that we do not serve; two files, or the spec and a file, that contradict each other.
    """
    raw = _raw(read, modules.pooling, config)
    pooled = Found(None, where) if config.model_type in PICTURED else _pooling(head, raw, modules.pooling)
    normalized = _normalize(head, modules.normalize)
    layers, origin = _layers(head, read, config, where, modules)
    dim = _dim(head, layers, config, prompts, origin)
    complete = DenseHead(pooling=pooled.value, normalize=normalized.value, dim=dim.value, projection=head.projection)
    origins = {"pooling": pooled.origin, "normalize": normalized.origin, "dim": dim.origin}
    # What `Normalize` has scaled is cut afterwards; a spec that says so means the vector that callers get.
    pools_prompt = raw.get("include_prompt", True) is True
    return Dense(complete, layers, pools_prompt, normalized.origin == SPEC, origins)


def _raw(read: Reader, module: Module | None, config: Config) -> Mapping[str, Any]:
    """`config.json` of the pooling, if there is one."""
    if module is None:
        return {}
    path = within(module.path, CONFIG)
    raw = read_json(read, path, dict[str, Any])
    width = raw.get("embedding_dimension", raw.get("word_embedding_dimension"))
    if width is not None and config.hidden_size is not None and width != config.hidden_size:
        raise ValueError(f"`{path}` pools vectors of {width}, `hidden_size` in `{CONFIG}` is {config.hidden_size}")
    return raw


def _pooling(head: DenseHead, raw: Mapping[str, Any], module: Module | None) -> Found[Pooling]:
    if head.pooling is not None:
        return Found(head.pooling, SPEC)
    if module is None:
        return Found("mean", DEFAULT)
    path = within(module.path, CONFIG)
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


def _layers(
    head: DenseHead, read: Reader, config: Config, where: str, modules: Modules
) -> tuple[tuple[Layer, ...], str]:
    """And where the width of the vector is said."""
    if config.hidden_size is None:
        raise ValueError(f"`{where}` has no `hidden_size`")
    # Without a pooling they are every token's.
    listed = modules.dense if modules.pooling is not None else ()
    if head.projection is not None:
        listed = (Module(type="Dense", path=head.projection),)
    if not listed:
        return (), where
    return read_layers(listed, read, config.hidden_size, of=POOLED), within(listed[-1].path, CONFIG)


def check_truncate_dim(prompts: Prompts) -> None:
    """Raises `ValueError` for one that no vector can have."""
    if prompts.truncate_dim is not None and prompts.truncate_dim < 1:
        raise ValueError(f"`truncate_dim` in `{PROMPTS}` is {prompts.truncate_dim}: want a positive number")


def _dim(head: DenseHead, layers: tuple[Layer, ...], config: Config, prompts: Prompts, where: str) -> Found[int]:
    width = layers[-1].outputs if layers else config.hidden_size
    assert width is not None
    name = "out_features" if layers else "hidden_size"
    found = Found(width, where)
    if prompts.truncate_dim is not None:
        check_truncate_dim(prompts)
        name, found = "truncate_dim", Found(min(width, prompts.truncate_dim), PROMPTS)
    if head.dim is not None and head.dim != found.value:
        raise ValueError(f"`dense.dim` is {head.dim}, `{name}` in `{found.origin}` is {found.value}")
    return found
