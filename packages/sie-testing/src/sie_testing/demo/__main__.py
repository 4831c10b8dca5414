"""`python -m sie_testing.demo [--keep]`: see the package."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sie_airgap.progress import sized
from sie_core.artifacts.lock import Lock, decode_lock, lock_digest
from sie_testing import parts
from sie_testing.demo import connected, far
from sie_testing.demo.stage import BIN, MODEL, DemoFailed, Folder, Screen

_ARRIVED = "arrived\n"
WORK = connected.CHECKOUT / ".demo"
_PARTS = "the parts of the demo (real weights, Helm, SeaweedFS) are fetched once and checked by digest"


def main() -> int:
    given = _arguments()
    folder = Folder(given.work.resolve())
    screen = Screen(folder)
    if given.keep:
        # Ctrl-C is for the rehearsal, which then ends in good order; we go on to the summary.
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return _far(screen, folder, keep=given.keep) if given.far else _whole(screen, folder, keep=given.keep)
    except DemoFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=sys.modules["sie_testing.demo"].__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running and say how to call it")
    parser.add_argument("--work", type=Path, default=WORK, help="made anew each time")
    parser.add_argument("--far", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _whole(screen: Screen, folder: Folder, *, keep: bool) -> int:
    print(_PARTS, flush=True)
    for fetch in (parts.minilm_folder, parts.helm, parts.weed):
        fetch()
    began_s = time.monotonic()
    shutil.rmtree(folder.root, ignore_errors=True)
    folder.root.mkdir(parents=True)
    with _far_side(folder, keep=keep) as far_side:
        connected.run(screen, folder)
        far_side.communicate(_ARRIVED)
    report = folder.root / "report.json"
    if report.exists():
        _summarise(screen, folder, json.loads(report.read_text()), seconds=time.monotonic() - began_s)
    return far_side.returncode


@contextmanager
def _far_side(folder: Folder, *, keep: bool) -> Iterator["subprocess.Popen[str]"]:
    """The far side in a process of its own, behind which there is no network; it waits until the media arrive."""
    argv = [str(BIN / "sie-airgap"), "far-side", "--address", f"{far.ADDRESS}/24", "--"]
    argv += [sys.executable, "-m", "sie_testing.demo", "--far", "--work", str(folder.root)]
    argv += ["--keep"] if keep else []
    relay = [sys.executable, "-m", "sie_airgap.rehearsal.relay", "127.0.0.1:8080", f"unix:{folder.socket}"]
    with ExitStack() as stack:
        if keep:
            outside = stack.enter_context(subprocess.Popen(relay, stdout=subprocess.DEVNULL))
            stack.callback(outside.terminate)
        # Leaving the block closes its standard input: where nothing arrives, it ends.
        yield stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, text=True))


def _far(screen: Screen, folder: Folder, *, keep: bool) -> int:
    facts = far.run(screen, folder, keep=keep, arrived=lambda: sys.stdin.readline() == _ARRIVED)
    if facts is None:
        return 1
    (folder.root / "report.json").write_text(json.dumps(facts))
    return 0


def _summarise(screen: Screen, folder: Folder, facts: dict[str, Any], *, seconds: float) -> None:
    lock = decode_lock(folder.lock.read_bytes())
    volumes = sorted(folder.archive.glob("v*.tar"))
    carried = sum(volume.stat().st_size for volume in volumes)
    golden = facts["golden"][0].partition(": ")[2] if facts["golden"] else "not compared"
    namespaces = len(facts["namespaces"])
    screen.title("What this showed")
    screen.line("carried", f"{_contents(lock)}, in {len(volumes)} volumes, {sized(carried)}")
    screen.line("locked", f"every byte checked against airgap.lock {lock_digest(lock)[:26]}…")
    screen.line("first inference", f"encode {MODEL} → {facts['printed']}, through the gateway")
    screen.line("same answers", golden)
    screen.line("tried to leave", _egress(facts, namespaces))
    for number, each in enumerate(facts["not_honoured"]):
        screen.line("" if number else "not played", each)
    if os.geteuid() != 0:
        screen.line("as a plain user", "in a user namespace: the same isolation and count, no root on this machine")
    screen.line("took", f"{seconds:.1f} s; every command and what it printed: {folder.transcript}")


def _contents(lock: Lock) -> str:
    weights = sized(sum(model.size_bytes for model in lock.models))
    parts_of_it = f"{len(lock.models)} model ({weights})", f"{len(lock.images)} images", f"{len(lock.charts)} chart"
    return ", ".join((*parts_of_it, f"{len(lock.wheels)} wheels"))


def _egress(facts: dict[str, Any], namespaces: int) -> str:
    if facts["egress_attempts"] is None:
        return "not counted"
    counted = f"counted by the kernel in {namespaces} namespaces, DNS included"
    return f"{facts['egress_attempts']} attempts, {counted}; {facts['control_attempts']} made on purpose were counted"


if __name__ == "__main__":
    sys.exit(main())
