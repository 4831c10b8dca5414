"""Which backbone a snapshot's `config.json` asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.models.backbones import bert
from sie_server.models.ops.protocol import Ops


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        read: `config.json` to what `build` needs; raises `LoadError`.
        build: the last hidden state, (T, hidden), of a config, under a prefix of the tensors' names.
        prefixes: what may stand before every tensor's name: checkpoints with a task's head have one.
        probe: the name, without prefix, of a tensor that every checkpoint of it has.
    """

    read: Callable[[bytes], Any]
    build: Callable[[Ops[Any], Any, str], Any]
    prefixes: tuple[str, ...]
    probe: str


BACKBONES: Final[Mapping[str, Backbone]] = {
    "bert": Backbone(bert.read_config, bert.bert, ("", "bert."), "embeddings.word_embeddings.weight"),
}
"""By `model_type`; `sie_core.catalog.derive` lists the same ones."""
