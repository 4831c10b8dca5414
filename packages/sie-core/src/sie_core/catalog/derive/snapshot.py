"""The small files of a snapshot, read as data: what a value was found in is kept beside it. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

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

PICTURED: Final[Mapping[str, tuple[int, int]]] = {"clip": (512, 77), "siglip": (768, 64)}
"""Models of texts and pictures, which pool by themselves: the width of a vector and the positions of a text, where
`config.json` leaves them out."""

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
    Nomic's names. Of a model of texts and pictures, `hidden_size` is the width of its vectors, and positions are its
    texts'.
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
    projection_dim: int | None = None
    text_config: dict[str, Any] | None = None
    text_config_dict: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.model_type in PICTURED:
            width, positions = PICTURED[self.model_type]
            text = {**(self.text_config or {}), **(self.text_config_dict or {})}
            of_texts = text.get("projection_size") or text.get("hidden_size")
            found = (self.projection_dim if self.model_type == "clip" else of_texts) or width
            msgspec.structs.force_setattr(self, "hidden_size", found)
            positions = text.get("max_position_embeddings") or positions
            msgspec.structs.force_setattr(self, "max_position_embeddings", positions)
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
    model_type: str = "SentenceTransformer"
    activation_fn: str | None = None


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
