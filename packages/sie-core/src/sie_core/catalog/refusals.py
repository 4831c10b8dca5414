"""Models that are known and not served, and why: read from `specs/refused.yaml` when somebody asks for one."""

import functools
from collections.abc import Mapping
from importlib import resources

import msgspec
from msgspec import Struct


class Refusal(Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a clause that begins with what the model is or does."""

    reason: str
    models: tuple[str, ...]


def why_refused(model: str) -> str | None:
    """Why this version does not serve a model of SIE's published catalogues; None for any other id."""
    return _reasons().get(model)


@functools.cache
def refusals() -> tuple[Refusal, ...]:
    """All of them, in the order of the file."""
    import yaml  # here: a start needs none of it, and it takes 16 ms

    text = resources.files("sie_core").joinpath("specs", "refused.yaml").read_bytes()
    return msgspec.convert(yaml.safe_load(text), tuple[Refusal, ...])


@functools.cache
def _reasons() -> Mapping[str, str]:
    return {model: refusal.reason for refusal in refusals() for model in refusal.models}
