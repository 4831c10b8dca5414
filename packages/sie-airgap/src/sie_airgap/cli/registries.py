"""What the verbs that talk to a registry share: how one is named and opened."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from sie_airgap.failures import Misused
from sie_airgap.oci.reference import Place, parse_place
from sie_airgap.oci.registry import TIMEOUT_S, Registry
from sie_airgap.settings import logins

full_names_option = click.option(
    "--full-names",
    is_flag=True,
    help="Under REGISTRY/ghcr.io/superlinked/sie-server in place of REGISTRY/sie-server: what `mirror rules` needs.",
)


@contextmanager
def opened_registry(target: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[Registry]:
    """The registry that a target names, with docker's logins. Raises `Misused` for what cannot be one.

    `timeout_s`: the longest silence.
    """
    with Registry(registry_place(target), logins=logins(), timeout_s=timeout_s) as registry:
        yield registry


def registry_place(target: str) -> Place:
    try:
        return parse_place(target)
    except ValueError as error:
        raise Misused(str(error)) from error
