"""The small files of a snapshot, read as data: what a value was found in is kept beside it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Struct

CONFIG: Final = "config.json"
MODULES: Final = "modules.json"
LENGTH: Final = "sentence_bert_config.json"
PROMPTS: Final = "config_sentence_transformers.json"
TOKENIZER: Final = "tokenizer_config.json"
SPEC: Final = "spec"
"""Where a value came from when the spec itself says it."""

DEFAULT: Final = "default"
"""Where a value came from when no file says it."""

Reader = Callable[[str], bytes | None]
"""The bytes of a file of the snapshot by its path in it; None when it has none."""

S = TypeVar("S")


@dataclass(frozen=True)
class Found(Generic[S]):
    """A value and where it was found."""

    value: S
    origin: str


class Module(Struct, frozen=True):
    """One of `modules.json`."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        return self.type.rsplit(".", 1)[-1]


class Config(Struct, frozen=True):
    """What a spec needs of `config.json`; the shape of the network is its backbone's to read.

    `dim` is what DistilBERT calls `hidden_size`, and is that where there is no other; `n_embd` and `n_positions` are
    Nomic's names.
    """

    model_type: str
    hidden_size: int | None = None
    dim: int | None = None
    n_embd: int | None = None
    n_positions: int | None = None
    max_position_embeddings: int | None = None
    position_biased_input: bool = True
    pad_token_id: int | None = None
    vocab_size: int | None = None
    architectures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hidden_size is None:
            msgspec.structs.force_setattr(self, "hidden_size", self.n_embd if self.dim is None else self.dim)
        if self.max_position_embeddings is None:
            msgspec.structs.force_setattr(self, "max_position_embeddings", self.n_positions)


class Length(Struct, frozen=True):
    max_seq_length: int | None = None
    do_lower_case: bool = False


class Tokenizer(Struct, frozen=True):
    model_max_length: float | None = None


class Prompts(Struct, frozen=True):
    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None
    truncate_dim: int | None = None


def within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def read_json(read: Reader, path: str, kind: type[S], absent: S | None = None) -> S:
    """A file of the snapshot as `kind`.

    Raises:
        ValueError: it is not there and `absent` is None, or it is something else.
    """
    data = read(path)
    if data is None:
        if absent is None:
            raise ValueError(f"the snapshot has no `{path}`")
        return absent
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}") from error
