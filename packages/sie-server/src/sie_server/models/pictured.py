"""Models of texts and pictures: from a snapshot's folder to two towers and the task that feeds them."""

import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from sie_core.catalog.derive import CONFIG, Derived
from sie_server.models.backbones.vision import VisionConfig, picture_tower, read_vision, text_tower
from sie_server.models.calls import LoadError, Precision, Take
from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.choosing import prompts_of
from sie_server.models.engines import Device, EngineName, open_engine
from sie_server.models.heads.features import FEATURES, Features
from sie_server.models.heads.head import HIDDEN
from sie_server.models.model import LoadedModel, OneNetwork
from sie_server.models.ops.plan import Plan, plan_batch
from sie_server.models.ops.protocol import Ops
from sie_server.models.pictures import PictureReader, load_pictures
from sie_server.models.tasks.encode import EncodeTexts
from sie_server.models.tasks.pictured import EncodePictured, Padding
from sie_server.models.tokenizer_files import held_by_tokenizer
from sie_server.models.tokenizing import SETTINGS, TextTokenizer, load_tokenizer
from sie_server.models.tokens import TokenBatch

_FILL_BEFORE: Final = ("GemmaTokenizer", "Siglip2Tokenizer")
"""Tokenizers of transformers that fill up before a text where `tokenizer_config.json` does not say where."""

_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


def load_pictured(
    derived: Derived,
    folder: Path,
    *,
    precision: Precision | Literal["auto"],
    streams: int,
    threads: int,
    engine: EngineName,
    device: Device,
    when_imported: Callable[[], object],
    take: Take,
) -> LoadedModel:
    """The model, warm; arguments and errors as of `build.load`.

    Args:
        folder: where `config.json` and the weights are.
    """
    config = read_vision((folder / CONFIG).read_bytes())
    reader = load_pictures(folder, kind=config.kind, side=config.picture.image_size, patch=config.picture.patch_size)
    tokenizer = load_tokenizer(folder, max_tokens=derived.max_tokens, lower_case=derived.lower_case)
    checkpoint = open_checkpoint(folder)
    features = Features(derived.truncate_dim, derived.rescaled)
    dim = min(config.dim, derived.truncate_dim or config.dim)
    opened = open_engine(engine, device)
    when_imported()
    decided = opened.precision_for(precision)
    held = opened.held_bytes(checkpoint.predicted(decided), made=0, streams=streams, networks=2)
    take(held + held_by_tokenizer(folder))

    def tower(build: Callable[[Ops[Any], VisionConfig], tuple[Any, Any]], warm: Plan | None) -> OneNetwork:
        ops = opened.ops(checkpoint, decided)
        hidden, vectors = build(ops, config)
        ops.output(HIDDEN, hidden)
        ops.output(FEATURES, vectors)
        return OneNetwork(ops.compiled(streams=streams, threads=threads, warm=warm), {"dense": features})

    return LoadedModel(
        name=derived.given.id,
        dims={"dense": dim},
        max_tokens=derived.max_tokens,
        text=tower(text_tower, None),
        tasks={"encode": _task(derived, folder, config, dim, tokenizer, reader)},
        pictures=tower(picture_tower, _warm(reader)),
        picture_tokens=reader.tokens,
    )


def _task(
    derived: Derived, folder: Path, config: VisionConfig, dim: int, tokenizer: TextTokenizer, reader: PictureReader
) -> EncodePictured:
    spec = derived.given
    normalize = derived.dense is not None and bool(derived.dense.normalize)
    texts = EncodeTexts(spec.id, {"dense": dim}, tokenizer, prompts_of(derived), normalize)
    written = _read(folder)
    return EncodePictured(texts, reader, _padding(config, tokenizer, written, derived), _shape(written))


class _Written(Struct, frozen=True):
    """What counts here of `tokenizer_config.json`."""

    tokenizer_class: str | None = None
    do_lower_case: bool | None = None
    padding_side: Literal["left", "right"] | None = None

    @property
    def kind(self) -> str:
        return (self.tokenizer_class or "").removesuffix("Fast")


def _read(folder: Path) -> _Written:
    path = folder / SETTINGS
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Written) if path.is_file() else _Written()
    except msgspec.MsgspecError as error:
        raise LoadError(f"`{path}` cannot be read: {error}") from error


def _padding(config: VisionConfig, tokenizer: TextTokenizer, written: _Written, derived: Derived) -> Padding | None:
    """SigLIP was trained on texts filled up to their full length, and sees what they are filled with."""
    if config.kind == "clip":
        return None
    padding = tokenizer.special_id("pad")
    if padding is None:
        raise LoadError(f"the tokenizer of `{derived.given.id}` has no `pad_token`, which SigLIP fills texts up with")
    side = written.padding_side or ("left" if written.kind in _FILL_BEFORE else "right")
    return Padding(padding, derived.max_tokens, before=side == "left")


def _shape(written: _Written) -> Callable[[str], str]:
    """What SigLIP's own tokenizers do before their vocabulary is asked; others do all of it themselves."""
    if written.kind == "Siglip2Tokenizer":
        return str.lower
    if written.kind != "SiglipTokenizer":
        return str
    return _canonical if written.do_lower_case in (None, True) else _without_punctuation


def _canonical(text: str) -> str:
    return _without_punctuation(text.lower())


def _without_punctuation(text: str) -> str:
    return re.sub(r"\s+", " ", text.translate(_PUNCTUATION)).strip()


def _warm(reader: PictureReader) -> Plan:
    """One picture, of which nothing is seen."""
    ids, starts = np.zeros(reader.tokens, np.int32), np.array([0, reader.tokens], np.int32)
    patches = np.zeros((reader.tokens, 3 * reader.patch**2), np.float32)
    return plan_batch(TokenBatch(ids=ids, starts=starts, patches=patches))
