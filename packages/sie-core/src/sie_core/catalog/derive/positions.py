"""How many tokens an item may have, by the positions that its network knows. Pure.

Follows transformers 5.23 `modeling_roberta.py` and `modeling_mpnet.py`: positions there begin after the padding's.
"""

from collections.abc import Mapping
from typing import Final

from sie_core.catalog.derive.snapshot import Config

_PADDING: Final[Mapping[str, int]] = {"camembert": 1, "roberta": 1, "xlm-roberta": 1}
"""`pad_token_id` where `config.json` has none, of those that count positions from the one after it."""

_PADDING_WHATEVER: Final[Mapping[str, int]] = {"mpnet": 1}
"""The same, of those that do not ask `config.json`."""

_POSITIONS: Final = 512
"""`max_position_embeddings` where `config.json` has none, of all that learn them."""

_LEARN_POSITIONS: Final = ("bert", "deberta-v2", "distilbert", "electra", *_PADDING, *_PADDING_WHATEVER)


def positions_of(config: Config) -> int | None:
    """`max_position_embeddings`; None where nothing says it."""
    if config.max_position_embeddings is None and config.model_type in _LEARN_POSITIONS:
        return _POSITIONS
    return config.max_position_embeddings


def need_positions(config: Config) -> bool:
    """Whether a token must have one: DeBERTa may know distances alone, however many tokens there are."""
    return config.model_type != "deberta-v2" or config.position_biased_input


def reserved_positions(config: Config) -> int:
    """How many of them no token ever has."""
    kind = config.model_type
    if kind in _PADDING:
        return 1 + (config.pad_token_id if config.pad_token_id is not None else _PADDING[kind])
    return 1 + _PADDING_WHATEVER[kind] if kind in _PADDING_WHATEVER else 0
