"""What a worker reads of a model: checkpoints of both kinds, tokenizers, sentencepiece models."""

import json
import struct
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzz.target import Target, bare, checked
from fuzz.targets.volumes import MEMORY
from sie_core.artifacts.sentencepiece import kind_of, tokenizer_json
from sie_server.models.calls import LoadError
from sie_server.models.checkpoint import open_tensors
from sie_server.models.pickle_machine import read_pickle
from sie_server.models.tokenizer_files import held_by_tokenizer, read_tokenizer
from sie_testing import tiny_bert, tiny_spm
from sie_testing.tiny_bert import write_safetensors
from sie_testing.torch_zip import Part, parameter, state_dict, tensor, write_torch

_ONES = np.ones((2, 3), np.float32)
_ARRAYS: dict[str, NDArray[Any]] = {"a": _ONES, "b": np.ones(4, np.float16)}


def _pickles() -> Iterator[bytes]:
    part = Part(np.ones(6, np.float32), (2, 3), (3, 1))
    yield state_dict({"a": tensor("0", part), "b": parameter(tensor("1", part))})


def _read_pickle(data: bytes) -> None:
    repr_of = read_pickle(data, "data.pkl")
    assert not callable(repr_of)


def _written(write: str) -> bytes:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name) / write
        if path.suffix == ".safetensors":
            write_safetensors(path, {"a": _ONES, "b": _ONES[0]})
        else:
            write_torch(path, _ARRAYS)
        return path.read_bytes()


def _torch_files() -> Iterator[bytes]:
    yield _written("x.pt")


def _read_torch_file(data: bytes) -> None:
    _read_tensors(_rechecked(data), "x.pt")


def _rechecked(data: bytes) -> bytes:
    """The pickle under the checksum that it has: else nothing behind that would ever be reached."""
    end = data.find(b"PK\1\2")
    at = data.find(b"x/data.pkl")
    if at < 30 or end < 0 or len(data) < end + 46:
        return data
    size, name, extra = struct.unpack_from("<I", data, at - 8)[0], *struct.unpack_from("<HH", data, at - 4)
    crc = zlib.crc32(data[at + name + extra :][:size])
    return data[: end + 16] + struct.pack("<I", crc) + data[end + 20 :]


def _safetensors() -> Iterator[bytes]:
    yield _written("x.safetensors")


def _header(data: bytes) -> object:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def _with_header(text: str) -> bytes:
    head = bare(text)
    return len(head).to_bytes(8, "little") + head + bytes(36)


def _read_safetensors(data: bytes) -> None:
    _read_tensors(data, "x.safetensors")


def _read_tensors(data: bytes, file: str) -> None:
    """Every tensor of it, where one that is no weight is refused by itself."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name) / file
        path.write_bytes(data)
        checkpoint = open_tensors(path)
        _ = checkpoint.size_bytes, checkpoint.predicted("f32")
        for each in checkpoint.names():
            assert checkpoint.weight(each, checkpoint.shape(each)).floats().size <= len(data)


def _sentencepieces() -> Iterator[bytes]:
    for pieces in (tiny_spm.XLM_ROBERTA, tiny_spm.DEBERTA):
        yield tiny_spm.sentencepiece_model((*pieces, *tiny_spm.WORDS), unk_id=0, charsmap=b"map")


def _read_sentencepiece(data: bytes) -> None:
    for kind in ("XLMRobertaTokenizer", "DebertaV2Tokenizer"):
        json.loads(tokenizer_json(data, kind, None))


def _settings() -> Iterator[bytes]:
    yield b'{"tokenizer_class":"XLMRobertaTokenizer","bos_token":{"content":"<s>"},"do_lower_case":true}'


@cache
def _spm() -> bytes:
    return next(_sentencepieces())


def _read_settings(data: bytes) -> None:
    kind_of("sentencepiece.bpe.model", data, data)
    tokenizer_json(_spm(), "XLMRobertaTokenizer", data)


def _tokenizers() -> Iterator[bytes]:
    yield json.dumps(tiny_bert.TOKENIZER).encode()


def _read_tokenizer_file(data: bytes) -> None:
    _read_tokenizer({"tokenizer.json": data})


def _read_tokenizer_settings(data: bytes) -> None:
    _read_tokenizer({"tokenizer.json": next(iter(_tokenizers())), "tokenizer_config.json": data, "config.json": data})


def _vocabularies() -> Iterator[bytes]:
    yield "\n".join(tiny_bert.VOCABULARY).encode()


def _read_vocabulary(data: bytes) -> None:
    _read_tokenizer({"vocab.txt": data, "config.json": b'{"model_type":"bert"}'})


def _read_tokenizer(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        tokenizer, _ = read_tokenizer(Path(name))
        held_by_tokenizer(Path(name))
        tokenizer.get_vocab_size()


TARGETS = (
    Target("pickle", _pickles, checked(_read_pickle, LoadError)),
    Target("torch-file", _torch_files, checked(_read_torch_file, LoadError)),
    Target("safetensors", _safetensors, checked(_read_safetensors, LoadError), _header, _with_header),
    Target("sentencepiece", _sentencepieces, checked(_read_sentencepiece, ValueError)),
    Target("tokenizer-settings", _settings, checked(_read_settings, ValueError), json.loads, bare),
    Target("tokenizer", _tokenizers, checked(_read_tokenizer_file, LoadError), json.loads, bare),
    Target("tokenizer-config", _settings, checked(_read_tokenizer_settings, LoadError), json.loads, bare),
    Target("vocabulary", _vocabularies, checked(_read_vocabulary, LoadError)),
)
