"""What a spec says of a backbone that `config.json` does not."""

from dataclasses import dataclass
from typing import TypeVar

from sie_server.models.calls import LoadError

C = TypeVar("C")


@dataclass(frozen=True)
class Asked:
    """See `known.Backbone.adapt`.

    Attributes:
        max_tokens: longest sequence, special tokens included.
        causal: whether a token sees only those before it; None: as `config.json` has it.
    """

    max_tokens: int
    causal: bool | None


def seen_both_ways(config: C, asked: Asked) -> C:
    """The config as it is, of a backbone whose tokens see each other whatever is asked.

    Raises:
        LoadError: something else is asked.
    """
    if asked.causal:
        raise LoadError(
            "`causal` in the spec is true, and in this architecture a token sees those after it as well",
            hint="leave `causal` out",
        )
    return config
