"""A tokenizer out of a snapshot's files, ready to be told how long an item may be.

`tokenizer.json` as it is, with what `tokenizer_config.json` says over it; where there is none, what
`vocabularies` builds.

Follows transformers 5.23 `tokenization_utils_tokenizers.py` and, for the one class that takes nothing of
`tokenizer.json` but its vocabulary, `models/deberta_v2/tokenization_deberta_v2.py`. One difference: `add_eos_token`
counts beside a `tokenizer.json`, too, as it did in transformers 4 and when the models that have it were trained.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors

from sie_core.catalog.derive import CONFIG
from sie_server.models.calls import LoadError
from sie_server.models.predicting import tokenizer_bytes
from sie_server.models.tokenizer_settings import FILE, ROLES, SETTINGS, Settings, read_settings
from sie_server.models.vocabularies import VOCABULARIES, built

_DEBERTA: Final = "DebertaV2Tokenizer"
_DEBERTA_MODEL: Final = "deberta-v2"


def read_tokenizer(folder: Path) -> tuple[Any, Settings]:
    """The tokenizer of the snapshot in `folder`, as the `tokenizers` library has it, and its settings.

    Raises:
        LoadError: there is none, it cannot be read, or it is of a kind that must be converted first.
    """
    settings = read_settings(folder)
    if (folder / FILE).is_file():
        tokenizer = _straight(folder / FILE)
        _apply(tokenizer, settings)
        if _is_deberta(folder, settings):
            _rebuild_deberta(tokenizer, settings)
    else:
        tokenizer, settings = built(folder, settings)
    _add_tokens(tokenizer, folder, settings)
    if settings.add_eos_token:
        _append_eos(tokenizer, folder, settings)
    return tokenizer, settings


def held_by_tokenizer(folder: Path) -> int:
    """What the tokenizer of the snapshot in `folder` will hold, in bytes; see `predicting`."""
    path = folder / FILE
    if path.is_file():
        return tokenizer_bytes(path.read_bytes())
    return tokenizer_bytes(None, sum((folder / one).stat().st_size for one in VOCABULARIES if (folder / one).is_file()))


def _straight(path: Path) -> Any:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot read
        raise LoadError(f"`{path}` cannot be read: {error}") from error


def _apply(tokenizer: Any, settings: Settings) -> None:
    """transformers lets `tokenizer_config.json` win over `tokenizer.json` in these."""
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        if settings.do_lower_case is not None:
            normalizer.lowercase = settings.do_lower_case
        if settings.strip_accents is not None:
            normalizer.strip_accents = settings.strip_accents
        if settings.tokenize_chinese_chars is not None:
            normalizer.handle_chinese_chars = settings.tokenize_chinese_chars
    splitter = tokenizer.pre_tokenizer
    if isinstance(splitter, pre_tokenizers.ByteLevel) and settings.add_prefix_space is not None:
        splitter.add_prefix_space = settings.add_prefix_space


class _Config(msgspec.Struct, frozen=True):
    model_type: str | None = None


def _is_deberta(folder: Path, settings: Settings) -> bool:
    """By the class that the files name; where they name none, by that of the model."""
    if settings.tokenizer_class is not None:
        return settings.tokenizer_class.removesuffix("Fast") == _DEBERTA
    path = folder / CONFIG
    try:
        return path.is_file() and msgspec.json.decode(path.read_bytes(), type=_Config).model_type == _DEBERTA_MODEL
    except msgspec.MsgspecError as error:
        raise LoadError(f"`{path}` cannot be read: {error}") from error


def _rebuild_deberta(tokenizer: Any, settings: Settings) -> None:
    """Whatever the file says of it: full-width forms and ligatures stay what they are, which the models' own
    sentencepiece, and transformers 4, made into others (NFKC)."""
    steps: list[Any] = [normalizers.Lowercase()] if settings.do_lower_case else []
    steps += [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC()]
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Strip(left=False, right=True)])
    splits: list[Any] = [pre_tokenizers.Punctuation(behavior="isolated")] if settings.split_by_punct else []
    scheme = "first" if settings.add_prefix_space is False else "always"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.Metaspace(prepend_scheme=scheme)])
    named = ((settings.token("cls"), "[CLS]"), (settings.token("sep"), "[SEP]"))
    cls, sep = (usual if token is None else token.content for token, usual in named)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(one, tokenizer.token_to_id(one) or 0) for one in (cls, sep)],
    )


def _add_tokens(tokenizer: Any, folder: Path, settings: Settings) -> None:
    """Tokens of `tokenizer_config.json` that are not yet looked for in texts, or in another way."""
    have = {id_: repr(token) for id_, token in tokenizer.get_added_tokens_decoder().items()}
    for key, token in sorted(settings.added_tokens_decoder.items(), key=lambda item: int(item[0])):
        if repr(token.added) in have.values():
            continue
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token.added])
        if tokenizer.token_to_id(token.content) != int(key):
            raise LoadError(
                f"`{token.content}` is {key} in `{SETTINGS}` of `{folder}`, "
                f"and {tokenizer.token_to_id(token.content)} in its vocabulary"
            )
    named = [one for role in ROLES if (one := settings.token(role)) is not None]
    known = set(have.values()) | {token.content for token in settings.added_tokens_decoder.values()}
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    # One that is not in the vocabulary has no row in the model's table either.
    missing = [one.added for one in named if one.content not in known | added]
    tokenizer.add_special_tokens([token for token in missing if tokenizer.token_to_id(token.content) is not None])


def _append_eos(tokenizer: Any, folder: Path, settings: Settings) -> None:
    """Makes every item end with the end token, where `tokenizer.json` does not do it itself."""
    eos = settings.token("eos")
    eos_id = None if eos is None else tokenizer.token_to_id(eos.content)
    if eos is None or eos_id is None:
        raise LoadError(f"`add_eos_token` is true in `{SETTINGS}` of `{folder}`, and its vocabulary has no `eos_token`")
    if tokenizer.encode("a").ids[-1:] == [eos_id]:
        return
    before = tokenizer.post_processor
    state = {"type": "Sequence", "processors": []} if before is None else msgspec.json.decode(before.__getstate__())
    after = processors.Sequence([])
    after.__setstate__(msgspec.json.encode(_ending(state, eos.content, eos_id)))
    tokenizer.post_processor = after


def _ending(state: dict[str, Any], eos: str, eos_id: int) -> dict[str, Any]:
    """A post-processor, as `tokenizer.json` has it, that adds one more token after each text.

    Two templates one after the other are more than the library does, so the token goes into the one there is.
    """
    processors_ = state["processors"] if state["type"] == "Sequence" else [state]
    template = next((one for one in processors_ if one["type"] == "TemplateProcessing"), None)
    if template is None:
        texts = [{"Sequence": {"id": name, "type_id": type_}} for type_, name in enumerate("AB")]
        template = {"type": "TemplateProcessing", "single": texts[:1], "pair": texts, "special_tokens": {}}
        processors_ = [*processors_, template]
    ended = {
        **template,
        "single": _ended(template["single"], eos),
        "pair": _ended(template["pair"], eos),
        "special_tokens": {**template["special_tokens"], eos: {"id": eos, "ids": [eos_id], "tokens": [eos]}},
    }
    return {"type": "Sequence", "processors": [ended if one is template else one for one in processors_]}


def _ended(pieces: list[dict[str, Any]], eos: str) -> list[dict[str, Any]]:
    """With the end token right after the first of two texts, and after everything."""
    texts = [piece for piece in pieces if "Sequence" in piece]
    ended: list[dict[str, Any]] = []
    for piece in pieces:
        ended.append(piece)
        if piece in texts[:-1]:
            ended.append(_special(eos, piece))
    return [*ended, _special(eos, pieces[-1])]


def _special(token: str, after: dict[str, Any]) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": next(iter(after.values()))["type_id"]}}
