"""What a snapshot's files say of its tokenizer beside the tokenizer itself: `tokenizer_config.json` and its older kin.

Only what counts here is read; the rest is transformers' own.
"""

from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from tokenizers import AddedToken

from sie_server.models.calls import LoadError

FILE: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
SPECIAL: Final = "special_tokens_map.json"

_TYPES: Final = "token_type_ids"
_WITH_TYPES: Final = frozenset(
    f"{name}Tokenizer"
    for name in ("Bert", "ConvBert", "Deberta", "DebertaV2", "Electra", "LayoutLM", "MobileBert", "SqueezeBert")
)
"""Classes whose `model_input_names` has token types."""

T = TypeVar("T")

Role = Literal["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
"""What a special token is for; as the keys `bos_token` … of the files."""

ROLES: Final[tuple[Role, ...]] = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
Side = Literal["right", "left"]


class Token(msgspec.Struct, frozen=True):
    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool | None = None
    special: bool = True

    @property
    def added(self) -> Any:
        return AddedToken(
            self.content,
            lstrip=self.lstrip,
            rstrip=self.rstrip,
            single_word=self.single_word,
            normalized=not self.special if self.normalized is None else self.normalized,
            special=self.special,
        )


_Named = str | Token | None


class Settings(msgspec.Struct, frozen=True):
    """What counts of `tokenizer_config.json`."""

    tokenizer_class: str | None = None
    model_input_names: tuple[str, ...] | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    add_prefix_space: bool | None = None
    split_by_punct: bool | None = None
    add_eos_token: bool | None = None
    truncation_side: Side | None = None
    added_tokens_decoder: dict[str, Token] = {}
    bos_token: _Named = None
    eos_token: _Named = None
    unk_token: _Named = None
    sep_token: _Named = None
    pad_token: _Named = None
    cls_token: _Named = None
    mask_token: _Named = None
    additional_special_tokens: tuple[str | Token, ...] | None = None
    extra_special_tokens: tuple[str | Token, ...] | dict[str, str | Token] | None = None

    @property
    def special(self) -> frozenset[str]:
        """What transformers lists as `all_special_tokens`, as far as this file names it."""
        extra = self.extra_special_tokens or self.additional_special_tokens or ()
        named = [*(self.token(role) for role in ROLES), *(extra.values() if isinstance(extra, dict) else extra)]
        return frozenset(one.content if isinstance(one, Token) else one for one in named if one is not None)

    @property
    def types(self) -> bool:
        """Whether a network is told which text of a pair a token is of; if no class is named, it is the network's."""
        if self.model_input_names is not None:
            return _TYPES in self.model_input_names
        return self.tokenizer_class is None or self.tokenizer_class.removesuffix("Fast") in _WITH_TYPES

    def token(self, role: Role) -> Token | None:
        named: _Named = getattr(self, f"{role}_token")
        return Token(named) if isinstance(named, str) else named


def read_settings(folder: Path) -> Settings:
    """`tokenizer_config.json`; what it leaves open of special tokens may stand in a file of their own."""
    settings = decode(folder / SETTINGS, Settings) or Settings()
    if settings.added_tokens_decoder:
        return settings
    special = decode(folder / SPECIAL, Settings) or Settings()
    open_roles = [f"{role}_token" for role in ROLES if settings.token(role) is None]
    return msgspec.structs.replace(settings, **{name: getattr(special, name) for name in open_roles})


def decode(path: Path, kind: type[T]) -> T | None:
    """What a file of JSON holds; None when there is none.

    Raises:
        LoadError: it cannot be read as that.
    """
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LoadError(f"`{path}` cannot be read: {error}") from error
