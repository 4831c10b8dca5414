"""A small sentencepiece model, written field by field: kilobytes, and no sentencepiece."""

import struct
from collections.abc import Sequence
from typing import Final

UNKNOWN, CONTROL, USER_DEFINED, NORMAL = 2, 3, 4, 1
UNIGRAM, BPE = 1, 2

Piece = tuple[str, float, int]

XLM_ROBERTA: Final[Sequence[Piece]] = (("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL))
"""The pieces that such a model begins with, in its own order."""

DEBERTA: Final[Sequence[Piece]] = (
    ("[PAD]", 0.0, CONTROL),
    ("[CLS]", 0.0, CONTROL),
    ("[SEP]", 0.0, CONTROL),
    ("[UNK]", 0.0, UNKNOWN),
)
WORDS: Final[Sequence[Piece]] = (
    *((piece, score, NORMAL) for piece, score in (("▁", -2.5), ("▁the", -3.25), ("▁quick", -6.5), ("▁fox", -7.75))),
    *((letter, -9.0 - index / 8, NORMAL) for index, letter in enumerate("abcdefghijklmnopqrstuvwxyzé中,.")),
)


def sentencepiece_model(
    pieces: Sequence[Piece], *, unk_id: int, model_type: int = UNIGRAM, charsmap: bytes = b""
) -> bytes:
    """The bytes of a `.model`."""
    made = b"".join(_message(1, _piece(*piece)) for piece in pieces)
    made += _message(2, _number(3, model_type) + _number(40, unk_id))
    return made + _message(3, _message(1, b"nmt_nfkc") + (_message(2, charsmap) if charsmap else b""))


def _piece(text: str, score: float, type_: int) -> bytes:
    type_field = b"" if type_ == NORMAL else _number(3, type_)
    return _message(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + type_field


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])
