"""A score head, completed from the snapshot's own files. Pure.

Follows sentence-transformers 6.2 `cross_encoder/model.py`: the activation of a cross-encoder's logit is named in
`config_sentence_transformers.json`, or in `config.json` under a newer key or an older, and is sigmoid otherwise.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.snapshot import DEFAULT, MODULES, PROMPTS, SPEC, Found, Prompts, Reader, read_json
from sie_core.catalog.derive.verdict import complete_verdict
from sie_core.catalog.spec import ScoreHead

_Activation = Literal["sigmoid", "identity"]

_ACTIVATIONS: Final[Mapping[str, _Activation]] = {"Sigmoid": "sigmoid", "Identity": "identity"}

_TRUSTED: Final = "torch."
"""A name outside torch is code of the snapshot's, which sentence-transformers does not run either."""

_LABELS: Final = 2
"""Where `config.json` says nothing, as transformers has it."""


class _Config(Struct, frozen=True):
    id2label: dict[str, str] | None = None
    num_labels: int = _LABELS
    sentence_transformers: dict[str, Any] | None = None
    sbert_ce_default_activation_function: str | None = None


def of_cross_encoder(read: Reader, prompts: Prompts) -> Prompts:
    """The file as a cross-encoder has it: one that another kind of model wrote, or nobody did, is left unread."""
    return prompts if prompts.model_type == "CrossEncoder" and read(MODULES) is not None else Prompts()


def complete_score(head: ScoreHead, read: Reader, where: str, own: Prompts) -> tuple[ScoreHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name.

    Args:
        where: `config.json` of the transformer.
        own: `of_cross_encoder`.

    Raises:
        ValueError: a classifier of several labels, an activation that we do not serve.
    """
    if head.head == "verdict":
        return complete_verdict(head, read, where)
    if head.head != "classify":
        return head, {}
    config = read_json(read, where, _Config)
    labels = config.num_labels if config.id2label is None else len(config.id2label)
    if labels != 1:
        named = "" if config.id2label is None else ", ".join(f"`{label}`" for label in config.id2label.values())
        raise ValueError(
            f"`{where}` has {labels} labels{f': {named}' if named else ''}; a score is of 1. "
            "Labels are served by `extract` with the head `entailment`"
        )
    activation = _activation(head, config, own, where)
    return msgspec.structs.replace(head, activation=activation.value), {"activation": activation.origin}


def _activation(head: ScoreHead, config: _Config, own: Prompts, where: str) -> Found[_Activation]:
    if head.activation is not None:
        return Found(head.activation, SPEC)
    said, origin = own.activation_fn, PROMPTS
    if said is None or not said.startswith(_TRUSTED):
        newer = config.sentence_transformers or {}
        said, origin = newer.get("activation_fn", config.sbert_ce_default_activation_function), where
    if not isinstance(said, str) or not said.startswith(_TRUSTED):
        return Found("sigmoid", DEFAULT)
    name = said.rsplit(".", 1)[-1]
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"`{origin}` has the activation `{said}`: supported are {', '.join(f'`{one}`' for one in _ACTIVATIONS)}"
        )
    return Found(_ACTIVATIONS[name], origin)
