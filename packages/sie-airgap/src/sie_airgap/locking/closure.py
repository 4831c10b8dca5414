"""What else a repository needs, and what code it names: read from its own configuration files. Pure.

A model that is asked for is not whole without the repositories that its files name: the model that a LoRA changes,
the network's form and the tokenizer of a GLiNER whose own files lack them, the labels encoder of one that has two.
`auto_map` and the like name Python for loaders to run. It is listed for a reviewer; none of it is carried or run.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import msgspec

from sie_core.artifacts.lock import ADAPTED_BY, BASE_OF, LABELS_ENCODER_OF
from sie_core.artifacts.manifest import is_plain
from sie_core.ids import ModelId, is_revision, parse_model_id

ADAPTER, GLINER, MODULES = "adapter_config.json", "gliner_config.json", "modules.json"
LARGEST_CONFIG_BYTES = 1 << 20
_LONGEST_NAME = 300
_OURS = "sentence_transformers."
"""Begins the classes that `modules.json` names in every sentence-transformers folder: they are a library's."""


@dataclass(frozen=True)
class Part:
    """Another repository that a model needs.

    Attributes:
        named: as the file says it: not always something that a hub has.
        key: where it is said: `base_model_name_or_path in adapter_config.json`.
        role: how the reason for it begins: `base of `.
        ref: of the repository; None where the file names none.
        weights: whether they are needed too.
    """

    named: str
    key: str
    role: str
    ref: str | None = None
    weights: bool = False

    @property
    def repo(self) -> ModelId | None:
        """None for what is no repository: a folder of the authors' own machine."""
        try:
            return parse_model_id(self.named) if self.named.count("/") <= 1 else None
        except ValueError:
            return None


def is_config(path: str, size_bytes: int) -> bool:
    """Whether a file may name other repositories or code."""
    name = PurePosixPath(path).name
    return (name.endswith("config.json") or name == MODULES) and size_bytes <= LARGEST_CONFIG_BYTES


def parts(configs: Mapping[str, bytes], paths: Collection[str]) -> tuple[Part, ...]:
    """The other repositories that a model needs, in the order of its files.

    Args:
        configs: content by path, of those for which `is_config` holds.
        paths: of all that is carried of the repository, what was made when locking included.

    Raises:
        ValueError: a file that would name them cannot be read.
    """
    found: list[Part] = []
    if ADAPTER in configs:
        found += _of_adapter(_mapping(configs[ADAPTER], ADAPTER))
    if GLINER in configs:
        found += _of_gliner(_mapping(configs[GLINER], GLINER), paths)
    return tuple(found)


def _of_adapter(config: Mapping[str, Any]) -> Iterator[Part]:
    key = f"`base_model_name_or_path` in `{ADAPTER}`"
    named, ref = config.get("base_model_name_or_path"), config.get("revision")
    pinned = ref if isinstance(ref, str) and is_revision(ref) else None
    yield Part(_told(named), key, ADAPTED_BY, pinned, weights=True)


def _of_gliner(config: Mapping[str, Any], paths: Collection[str]) -> Iterator[Part]:
    """As `catalog.derive` reads it: a base is asked only for what the repository itself lacks."""
    if config.get("encoder_config") is None or "tokenizer.json" not in paths:
        yield Part(_told(config.get("model_name")), f"`model_name` in `{GLINER}`", BASE_OF)
    if config.get("labels_encoder") is None:
        return
    if config.get("labels_encoder_config") is None or "labels_tokenizer/tokenizer.json" not in paths:
        yield Part(_told(config["labels_encoder"]), f"`labels_encoder` in `{GLINER}`", LABELS_ENCODER_OF)


def remote_code(configs: Mapping[str, bytes]) -> tuple[str, ...]:
    """What the files ask loaders to run, sorted: `config.json: auto_map.AutoModel = org/code--modeling.Model`.

    A file that is not JSON names nothing: no loader reads it either.
    """
    found: set[str] = set()
    for path, data in configs.items():
        try:
            tree = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            continue
        said = _modules(tree) if PurePosixPath(path).name == MODULES else _code_in(tree, "", 0)
        found |= {f"{path}: {_shown(text)}" for text in said}
    return tuple(sorted(found))


def _modules(tree: Any) -> Iterator[str]:
    for module in tree if isinstance(tree, list) else ():
        kind = module.get("type") if isinstance(module, dict) else None
        if isinstance(kind, str) and not kind.startswith(_OURS):
            yield f"type = {kind}"


def _code_in(tree: Any, where: str, depth: int) -> Iterator[str]:
    if not isinstance(tree, dict) or depth > 8:
        return
    for key, below in tree.items():
        at = f"{where}{key}"
        if key == "auto_map" and isinstance(below, dict):
            yield from (f"{at}.{name} = {one}" for name, listed in below.items() for one in _each(listed))
        elif key == "custom_pipelines" and isinstance(below, dict):
            yield from (f"{at}.{name} = {one.get('impl')}" for name, one in below.items() if isinstance(one, dict))
        else:
            yield from _code_in(below, f"{at}.", depth + 1)


def _each(listed: Any) -> Iterator[str]:
    """A class, or two of which one may be missing: `["tokenization.Tokenizer", null]`."""
    for one in listed if isinstance(listed, list) else [listed]:
        if one is not None:
            yield str(one)


def _shown(text: str) -> str:
    plain = text if is_plain(text) else ascii(text)
    return plain[:_LONGEST_NAME]


def _told(named: object) -> str:
    return named if isinstance(named, str) else ""


def _mapping(data: bytes, path: str) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}") from error
