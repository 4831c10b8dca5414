"""Tokenizers out of a vocabulary alone, for snapshots without a `tokenizer.json`.

WordPiece from `vocab.txt` (BERT, DistilBERT, Electra, MPNet) and byte-level BPE from `vocab.json` and
`merges.txt` (RoBERTa, CLIP). Not here: sentencepiece models, which become a `tokenizer.json` when locked.

Follows transformers 5.23 `models/{bert,mpnet,roberta,clip}/tokenization_*.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from sie_server.models.calls import LoadError
from sie_server.models.tokenizer_settings import FILE, Role, Settings, Token, decode

CONFIG: Final = "config.json"
VOCAB: Final = "vocab.txt"
BPE_VOCAB: Final = "vocab.json"
MERGES: Final = "merges.txt"
VOCABULARIES: Final = (VOCAB, BPE_VOCAB, MERGES)
SENTENCEPIECE: Final = ("sentencepiece.bpe.model", "spm.model", "spiece.model", "tokenizer.model")


class _Config(msgspec.Struct, frozen=True):
    model_type: str | None = None


_BERT: Final[Mapping[Role, Token]] = {
    "unk": Token("[UNK]"),
    "sep": Token("[SEP]"),
    "pad": Token("[PAD]"),
    "cls": Token("[CLS]"),
    "mask": Token("[MASK]"),
}
_MPNET: Final[Mapping[Role, Token]] = {
    "bos": Token("<s>"),
    "eos": Token("</s>"),
    "unk": Token("[UNK]"),
    "sep": Token("</s>"),
    "pad": Token("<pad>"),
    "cls": Token("<s>"),
    "mask": Token("<mask>", lstrip=True),
}
_ROBERTA: Final[Mapping[Role, Token]] = {
    "bos": Token("<s>"),
    "eos": Token("</s>"),
    "unk": Token("<unk>"),
    "sep": Token("</s>"),
    "pad": Token("<pad>"),
    "cls": Token("<s>"),
    "mask": Token("<mask>"),
}
_CLIP: Final[Mapping[Role, Token]] = {
    "bos": Token("<|startoftext|>"),
    "eos": Token("<|endoftext|>"),
    "unk": Token("<|endoftext|>"),
    "pad": Token("<|endoftext|>"),
}
_CLIP_PIECES: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLASSES: Final[Mapping[str, str]] = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "nomic_bert": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "clip": "CLIPTokenizer",
    "clip_text_model": "CLIPTokenizer",
}
"""By `model_type`, for folders whose `tokenizer_config.json` names no class."""


def built(folder: Path, settings: Settings) -> tuple[Any, Settings]:
    """The tokenizer of the class that the snapshot names, and the settings with its special tokens' names in them.

    Raises:
        LoadError: it is of another class, or its files are not there or not right.
    """
    name = settings.tokenizer_class
    if name is None:
        config = decode(folder / CONFIG, _Config) or _Config()
        name = _CLASSES.get(config.model_type or "", "")
    builder = _BUILDERS.get(name.removesuffix("Fast"))
    if builder is None or not all((folder / file).is_file() for file in builder[2]):
        raise _without_tokenizer(folder, name)
    build, tokens, files = builder
    named = {f"{role}_token": settings.token(role) or token for role, token in tokens.items()}
    settings = msgspec.structs.replace(settings, **named)
    try:
        tokenizer = build(*(str(folder / file) for file in files), settings)
    except LoadError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot read
        raise LoadError(f"{_quoted(files)} of `{folder}` cannot be read: {error}") from error
    return tokenizer, settings


def _without_tokenizer(folder: Path, name: str) -> LoadError:
    found = [file for file in SENTENCEPIECE if (folder / file).is_file()]
    if found:
        return LoadError(
            f"`{found[0]}` of `{folder}` is a sentencepiece model, and there is no `{FILE}` beside it",
            hint=f"`sie-airgap lock` converts it into a `{FILE}` with a digest of its own: mirror such a lock, "
            f"or save one with the tokenizers library",
        )
    have = _quoted(sorted(path.name for path in folder.glob("*") if path.is_file())) or "nothing"
    built = "; ".join(f"{_quoted(files)} of a `{known}`" for known, (_, _, files) in _BUILDERS.items())
    return LoadError(
        f"no `{FILE}` in `{folder}`, and its `{name or 'tokenizer_class'}` cannot be built: it has {have}",
        hint=f"the tokenizers library writes it: `save_pretrained`; one is built from {built}",
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _wordpiece(vocab: str, settings: Settings) -> Any:
    unknown = settings.token("unk")
    assert unknown is not None
    tokenizer = Tokenizer(models.WordPiece(models.WordPiece.read_file(vocab), unk_token=unknown.content))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_or_true(settings.tokenize_chinese_chars),
        strip_accents=settings.strip_accents,
        lowercase=_or_true(settings.do_lower_case),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _bert(vocab: str, settings: Settings) -> Any:
    tokenizer = _wordpiece(vocab, settings)
    (cls, cls_id), (sep, sep_id) = _required(tokenizer, vocab, settings, "cls", "sep")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )
    return tokenizer


def _mpnet(vocab: str, settings: Settings) -> Any:
    tokenizer = _wordpiece(vocab, settings)
    cls, sep = _required(tokenizer, vocab, settings, "cls", "sep")
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def _roberta(vocab: str, merges: str, settings: Settings) -> Any:
    pieces, pairs = models.BPE.read_file(vocab, merges)
    prefix = bool(settings.add_prefix_space)
    tokenizer = Tokenizer(models.BPE(pieces, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    cls, sep = _required(tokenizer, vocab, settings, "cls", "sep")
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=prefix)
    return tokenizer


def _clip(vocab: str, merges: str, settings: Settings) -> Any:
    pieces, pairs = models.BPE.read_file(vocab, merges)
    unknown = settings.token("unk")
    assert unknown is not None
    model = models.BPE(
        pieces, pairs, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=unknown.content
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_CLIP_PIECES), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    bos, eos = _required(tokenizer, vocab, settings, "bos", "eos")
    tokenizer.post_processor = processors.RobertaProcessing(eos, bos, trim_offsets=False, add_prefix_space=False)
    return tokenizer


def _required(tokenizer: Any, vocab: str, settings: Settings, *roles: Role) -> list[tuple[str, int]]:
    tokens = [token.content for role in roles if (token := settings.token(role)) is not None]
    ids = [tokenizer.token_to_id(token) for token in tokens]
    if None in ids:
        raise LoadError(f"`{vocab}` has no `{tokens[ids.index(None)]}`, which every item is to have")
    return list(zip(tokens, ids, strict=True))


def _or_true(value: bool | None) -> bool:
    return value is None or value


_BUILDERS: Final[Mapping[str, tuple[Callable[..., Any], Mapping[Role, Token], tuple[str, ...]]]] = {
    "BertTokenizer": (_bert, _BERT, (VOCAB,)),
    "DistilBertTokenizer": (_bert, _BERT, (VOCAB,)),
    "ElectraTokenizer": (_bert, _BERT, (VOCAB,)),
    "MPNetTokenizer": (_mpnet, _MPNET, (VOCAB,)),
    "RobertaTokenizer": (_roberta, _ROBERTA, (BPE_VOCAB, MERGES)),
    "CLIPTokenizer": (_clip, _CLIP, (BPE_VOCAB, MERGES)),
}
"""What builds the tokenizer, its special tokens where no file says them, and the files it is built from."""
