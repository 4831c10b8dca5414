"""`sie-airgap far-side -- COMMAND`: run a command where nothing but this machine can be reached, and count.

The command gets a network and a mount namespace of its own, with a bridge to plug pods into and the ruleset
that counts what tries to leave. As root that is all; a plain user gets a user namespace around it, in which
it is root. This module is also the program that stands between `unshare` and the command.
"""

import os
import sys
from collections.abc import Sequence
from ipaddress import IPv4Interface

from sie_airgap.rehearsal.netns import NamespaceError, make_far_side, tool

DEFAULT_ADDRESS = "10.77.0.1/24"


def entering(address: str, command: Sequence[str], *, is_root: bool) -> list[str]:
    """The words that run `command` on a far side whose bridge has `address` (`A.B.C.D/BITS`)."""
    user = [] if is_root else ["--map-root-user"]
    words = [tool("unshare"), "--net", "--mount", "--propagation", "private", *user, "--"]
    return [*words, sys.executable, "-m", "sie_airgap.rehearsal.far_side", address, *command]


def main(arguments: Sequence[str]) -> None:
    """Make the namespace that we are in a far side, then become the command."""
    interface = IPv4Interface(arguments[0])
    try:
        make_far_side(str(interface.ip), interface.network.prefixlen)
    except NamespaceError as error:
        print(f"egress: not counted ({error})", file=sys.stderr)
        sys.exit(10)
    try:
        os.execvp(arguments[1], list(arguments[1:]))  # noqa: S606 - a list of words, no shell
    except OSError as error:
        print(f"error: `{arguments[1]}` cannot be run: {error.strerror}", file=sys.stderr)
        sys.exit(6 if isinstance(error, PermissionError) else 4)


if __name__ == "__main__":
    main(sys.argv[1:])
