"""A sentencepiece model as the `tokenizer.json` that says the same: what a lock carries beside it.

Pure, and the same bytes every time: the file has a digest of its own in the lock. Known are XLM-RoBERTa's
`sentencepiece.bpe.model` and DeBERTa's `spm.model`, both Unigram. Nothing but the protobuf's own wire format
is needed to read one.

Follows transformers 5.23: `models/xlm_roberta/tokenization_xlm_roberta.py`, `models/deberta_v2/
tokenization_deberta_v2.py`, `convert_slow_tokenizer.py` (`SentencePieceExtractor`, `XLMRobertaConverter`), and
sentencepiece's `sentencepiece_model.proto`. As there, DeBERTa's texts are normalised to NFC, and not by the
model's own character map.
"""

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import msgspec

Kind = Literal["XLMRobertaTokenizer", "DebertaV2Tokenizer"]
"""`tokenizer_class` of what can be converted."""

MODELS: Final[Mapping[str, Kind]] = {
    "sentencepiece.bpe.model": "XLMRobertaTokenizer",
    "spm.model": "DebertaV2Tokenizer",
}
"""What each kind's model is called; under the same name other kinds lay their vocabularies out in other ways."""

_MODEL_TYPES: Final[Mapping[str, Kind]] = {"xlm-roberta": "XLMRobertaTokenizer", "deberta-v2": "DebertaV2Tokenizer"}
_UNIGRAM: Final = 1
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_SPACE: Final = "▁"


@dataclass(frozen=True)
class _Piece:
    text: str
    score: float
    type: int


@dataclass(frozen=True)
class _Model:
    pieces: tuple[_Piece, ...]
    model_type: int
    unk_id: int
    charsmap: bytes


_S = TypeVar("_S")


class _Named(msgspec.Struct, frozen=True):
    content: str


_Token = str | _Named | None


class _Settings(msgspec.Struct, frozen=True):
    tokenizer_class: str | None = None
    do_lower_case: bool = False
    split_by_punct: bool = False
    bos_token: _Token = None
    eos_token: _Token = None
    unk_token: _Token = None
    sep_token: _Token = None
    pad_token: _Token = None
    cls_token: _Token = None
    mask_token: _Token = None

    def token(self, role: str, default: str) -> str:
        named: _Token = getattr(self, f"{role}_token")
        return named.content if isinstance(named, _Named) else named or default


class _Config(msgspec.Struct, frozen=True):
    model_type: str | None = None


def kind_of(file: str, settings: bytes | None, config: bytes | None) -> Kind | None:
    """What kind of tokenizer a repository's sentencepiece model is; None for one that is not converted.

    Args:
        file: the model's name without folders.
        settings: `tokenizer_config.json` beside it.
        config: `config.json` beside it, for repositories whose settings name no class.

    Raises:
        ValueError: one of the two is not what it should be.
    """
    named = _settings(settings).tokenizer_class
    if named is None and config is not None:
        named = _MODEL_TYPES.get(_decode(config, _Config, "config.json").model_type or "")
    return MODELS.get(file) if named is not None and named.removesuffix("Fast") == MODELS.get(file) else None


def tokenizer_json(model: bytes, kind: Kind, settings: bytes | None) -> bytes:
    """The `tokenizer.json`.

    Args:
        model: the sentencepiece model's bytes.
        settings: `tokenizer_config.json` beside it.

    Raises:
        ValueError: it is no Unigram model of sentencepiece, or lacks what every model of the kind has.
    """
    parsed = _parse(model)
    if parsed.model_type != _UNIGRAM or not parsed.pieces:
        raise ValueError(
            f"the sentencepiece model is of type {parsed.model_type} with {len(parsed.pieces):,} pieces: "
            f"supported is {_UNIGRAM} (unigram) with one at least"
        )
    asked = _settings(settings)
    made = _xlm_roberta(parsed, asked) if kind == "XLMRobertaTokenizer" else _deberta(parsed, asked)
    if made["model"]["unk_id"] >= len(made["model"]["vocab"]):
        raise ValueError(f"the unknown piece is {made['model']['unk_id']} of {len(made['model']['vocab']):,}")
    return msgspec.json.encode(made) + b"\n"


def _xlm_roberta(model: _Model, settings: _Settings) -> dict[str, Any]:
    """fairseq's own ids for the first four, and the mask after all pieces."""
    defaults = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    named = {role: settings.token(role, default) for role, default in defaults.items()}
    pieces = [
        *((named[role], 0.0) for role in ("bos", "pad", "eos", "unk")),
        *((piece.text, piece.score) for piece in model.pieces[3:]),
        (named["mask"], 0.0),
    ]
    bos, eos = named["bos"], named["eos"]
    return _tokenizer(
        vocabulary=pieces,
        unk_id=3,
        special=[*named.values(), settings.token("sep", "</s>"), settings.token("cls", "<s>")],
        model=model,
        normalizer=_precompiled(model.charsmap),
        splitters=[{"type": "WhitespaceSplit"}],
        single=[(bos, 0), ("A", 0), (eos, 0)],
        pair=[(bos, 0), ("A", 0), (eos, 0), (eos, 0), ("B", 0), (eos, 0)],
    )


def _deberta(model: _Model, settings: _Settings) -> dict[str, Any]:
    defaults = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
    named = {role: settings.token(role, default) for role, default in defaults.items()}
    special = [settings.token("bos", "[CLS]"), settings.token("eos", "[SEP]"), *named.values()]
    cls, sep = named["cls"], named["sep"]
    steps: list[dict[str, Any]] = [{"type": "Lowercase"}] if settings.do_lower_case else []
    steps += [
        {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "},
        {"type": "NFC"},
        {"type": "Strip", "strip_left": False, "strip_right": True},
    ]
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    return _tokenizer(
        vocabulary=pieces,
        unk_id=pieces.index((named["unk"], 0.0)) if (named["unk"], 0.0) in pieces else model.unk_id,
        special=special,
        model=model,
        normalizer={"type": "Sequence", "normalizers": steps},
        splitters=[{"type": "Punctuation", "behavior": "Isolated"}] if settings.split_by_punct else [],
        single=[(cls, 0), ("A", 0), (sep, 0)],
        pair=[(cls, 0), ("A", 0), (sep, 0), ("B", 1), (sep, 1)],
    )


def _tokenizer(
    *,
    vocabulary: list[tuple[str, float]],
    unk_id: int,
    special: Sequence[str],
    model: _Model,
    normalizer: dict[str, Any] | None,
    splitters: list[dict[str, Any]],
    single: list[tuple[str, int]],
    pair: list[tuple[str, int]],
) -> dict[str, Any]:
    ids = {text: id_ for id_, (text, _) in enumerate(vocabulary)}
    added = {piece.text: piece.type == _CONTROL for piece in model.pieces if piece.type in (_CONTROL, _USER_DEFINED)}
    added = {text: is_special for text, is_special in added.items() if text in ids} | dict.fromkeys(special, True)
    for text in added:  # what no piece stands for comes after all pieces
        ids.setdefault(text, len(ids))
    spaces = {"replacement": _SPACE, "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(ids[text], text, is_special)
            for text, is_special in sorted(added.items(), key=lambda item: ids[item[0]])
        ],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splitters, {"type": "Metaspace", **spaces}]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_template(*piece) for piece in single],
            "pair": [_template(*piece) for piece in pair],
            "special_tokens": {
                name: {"id": name, "ids": [ids[name]], "tokens": [name]}
                for name in sorted({single[0][0], single[-1][0]})
            },
        },
        "decoder": {"type": "Metaspace", **spaces},
        "model": {"type": "Unigram", "unk_id": unk_id, "vocab": vocabulary, "byte_fallback": False},
    }


def _added(id_: int, text: str, is_special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id_, "content": text, **flags, "special": is_special}


def _template(name: str, type_id: int) -> dict[str, Any]:
    return {("Sequence" if name in ("A", "B") else "SpecialToken"): {"id": name, "type_id": type_id}}


def _precompiled(charsmap: bytes) -> dict[str, Any] | None:
    if not charsmap:
        return None
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}


def _settings(data: bytes | None) -> _Settings:
    return _Settings() if data is None else _decode(data, _Settings, "tokenizer_config.json")


def _decode(data: bytes, kind: type[_S], file: str) -> _S:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"`{file}` cannot be read: {error}") from error


# The protobuf.


def _parse(data: bytes) -> _Model:
    pieces: list[_Piece] = []
    model_type, unk_id, charsmap = _UNIGRAM, 0, b""
    for field, value in _fields(data):
        match field, value:
            case 1, bytes():
                pieces.append(_piece(value))
            case 2, bytes():
                trainer = dict(_fields(value))
                model_type, unk_id = _number(trainer.get(3, _UNIGRAM)), _number(trainer.get(40, 0))
            case 3, bytes():
                charsmap = _bytes(dict(_fields(value)).get(2, b""))
    return _Model(tuple(pieces), model_type, unk_id, charsmap)


def _piece(data: bytes) -> _Piece:
    fields = dict(_fields(data))
    raw = _bytes(fields.get(2, bytes(4)))
    score: float = struct.unpack("<f", raw)[0] if len(raw) == 4 else math.nan
    if not math.isfinite(score):
        raise ValueError(f"it is no sentencepiece model: a piece has the score {raw.hex()}")
    try:
        text = _bytes(fields.get(1, b"")).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no sentencepiece model: a piece is not UTF-8: {error}") from error
    return _Piece(text, score, _number(fields.get(3, _NORMAL)))


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("it is no sentencepiece model: a number of it is none")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("it is no sentencepiece model: a text of it is a number")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field's number and value: an int, or bytes of any of the other wire types."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case other:
                raise ValueError(f"it is no sentencepiece model: wire type {other} at byte {at:,}")
        if at + size > len(data):
            raise ValueError(f"it is cut short: {size:,} bytes wanted at {at:,} of {len(data):,}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError(f"it is cut short at byte {at:,}")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise ValueError(f"it is no sentencepiece model: a number before byte {at:,} does not end")
