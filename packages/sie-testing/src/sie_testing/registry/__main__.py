"""`python -m sie_testing.registry`: the registry as a process of its own, until SIGTERM or SIGINT."""

import argparse
from pathlib import Path

from sie_testing.registry.access import Access
from sie_testing.registry.server import Registry, serving_registry
from sie_testing.web import wait_for_signal


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sie_testing.registry", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="where blobs and manifests are kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--htpasswd", metavar="USER:PASS", help="without it everybody may pull and push")
    parser.add_argument("--token-auth", action="store_true", help="the password opens /token, a token opens the rest")
    parser.add_argument("--read-only", action="store_true", help="pushing is refused with 403")
    parser.add_argument("--no-referrers", action="store_true", help="as registries before distribution 1.1")
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    user, _, password = given.htpasswd.partition(":") if given.htpasswd else (None, "", None)
    access = Access(user, password, with_tokens=given.token_auth, read_only=given.read_only)
    registry = Registry(given.root, access=access, referrers_api=not given.no_referrers)
    with serving_registry(registry, host=given.host, port=given.port) as origin:
        print(f"registry: {origin}", flush=True)
        wait_for_signal()


if __name__ == "__main__":
    main()
