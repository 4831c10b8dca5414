"""`python -m sie_testing.hub`: the hub as a process of its own, until SIGTERM or SIGINT."""

import argparse
from pathlib import Path

from sie_core.ids import Revision, parse_model_id, parse_revision
from sie_testing.hub.repository import DEFAULT_LFS_ABOVE_BYTES
from sie_testing.hub.server import Hub, serving_hub
from sie_testing.web import wait_for_signal


def _pin(text: str) -> tuple[str, Revision]:
    name, _, commit = text.partition("=")
    return parse_model_id(name), parse_revision(commit)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sie_testing.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="holds ORG/NAME/ for every repository")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--pin", type=_pin, action="append", default=[], metavar="ORG/NAME=SHA")
    parser.add_argument("--lfs-above", type=int, default=DEFAULT_LFS_ABOVE_BYTES, metavar="BYTES")
    parser.add_argument("--token", help="without it nothing is answered but 401")
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    hub = Hub(given.root, pins=dict(given.pin), lfs_above_bytes=given.lfs_above, token=given.token)
    with serving_hub(hub, host=given.host, port=given.port) as endpoint:
        print(f"hub: {endpoint}", flush=True)
        wait_for_signal()


if __name__ == "__main__":
    main()
