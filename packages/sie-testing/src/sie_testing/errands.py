"""A folder in which every verb of the toolkit has what it works on, and a program that runs many of them in trouble.

`make_errands` makes the folder by running the verbs themselves: stores, media, a bucket, keys, recordings.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.locking.building import lock_chart
from sie_airgap.oci.copy import resolve_image
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.lock import Lock
from sie_core.ids import Revision
from sie_testing import tiny_worker
from sie_testing.carried import FILES, filled_store, locked_model, make_lock
from sie_testing.images import NAMES, write_images

KEYS = "--lock-key alice.pub --root-key bob.pub"
_CHART = Path(__file__).resolve().parents[4] / "charts" / "sie-cluster"
_IN_TROUBLE = Path(__file__).with_name("in_trouble.py")


class Way(NamedTuple):
    """A command line that does its work in that folder.

    Attributes:
        words: `{bucket}`, `{registry}` and `{worker}` are where these are.
        changes: it writes something; then a dry run of it changes nothing, and a second run changes nothing more.
        again: the exit code of a second run.
    """

    words: str
    changes: bool = True
    again: int = 0


WAYS: dict[str, tuple[Way, ...] | str] = {
    "lock": (Way("--model org/small --lock new.lock --store new"),),
    "review": (Way("store", changes=False),),
    "plan": (Way("store", changes=False),),
    "snapshot": (Way("--lock small.lock --store new"),),
    "golden record": (Way("--url {worker} --store asked"),),
    "golden compare": (Way("recorded.json --url {worker}", changes=False),),
    "sign": (Way("small.lock --key alice.pem --passphrase-file secret --store store"),),
    "pack": (Way("new --store store --volume-size 2MB --parity 2"),),
    "inspect": (Way("media", changes=False),),
    "verify": (
        Way("media", changes=False),
        Way("store", changes=False),
        Way("{bucket}", changes=False),
        Way("file://{here}/hand --write-manifest --lock store/airgap.lock"),
    ),
    "repair": (Way("torn -o new"),),
    "unpack": (Way("media --store new"),),
    "mirror weights": (Way("file://{here}/new --from media"),),
    "mirror images": (Way("{registry} --from store"),),
    "mirror chart": (Way("oci://{registry} --from store"), Way("./new --from store")),
    "mirror rules": (
        Way("{registry} --format hosts.toml -o new --from store"),
        Way("{registry} --format idms --from store", changes=False),
    ),
    "mirror all": (Way("--bucket file://{here}/new --registry {registry} --from store --full-names"),),
    "values": (
        Way("--bucket s3://models/w/ --from store -o new.yaml"),
        Way("--bucket s3://models/w/ --from store", changes=False),
    ),
    "receipt": (Way("{bucket} -o new.json"), Way("store", changes=False)),
    "status": (Way("--from store", changes=False),),
    "rehearse": "starts the pods of a chart in namespaces: tests/rehearsal",
    "far-side": "becomes the command that it is given: tests/rehearsal",
    "rollback": (Way("--to 1 --store far"),),
    "gc": (
        Way("far --drop 1 --delete"),
        Way("{bucket} --drop 1 --delete"),
        Way("far", changes=False),
        Way("{bucket}", changes=False),
    ),
    "trust key": (Way("carol --passphrase-file secret", again=2),),
    "trust root": (Way(f"new.json {KEYS}"),),
    "trust pin": (Way("root.json.dsse"),),
    "trust show": (Way("--trust pinned.json", changes=False),),
    "why": (Way("org/small --from store", changes=False),),
    "explain": (Way("org/small --from media", changes=False),),
    "diff": (Way("small.lock store", changes=False),),
    "completion": (Way("bash", changes=False),),
}
"""By the words of each verb; a text says why it cannot be called here, and where it is."""


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


def tree(here: Path, *, with_times: bool = False) -> dict[str, object]:
    """Every file and folder; `with_times`: files that were written anew differ, too."""
    return {
        path.relative_to(here).as_posix(): (
            path.read_bytes() if path.is_file() else None,
            path.stat().st_mtime_ns if with_times and path.is_file() else None,
        )
        for path in here.rglob("*")
    }


def make_errands(here: Path, layout: Path, *, worker: str) -> None:
    """In the current folder, `here`. `HF_ENDPOINT` is a hub that has the models of `FILES`; `layout` is for images."""
    write_images(layout)
    filled_store(here / "store", _lock(layout, BlobFolder(here / "store")), FILES)
    shutil.copytree(layout / "blobs", here / "store" / "blobs", dirs_exist_ok=True)
    plain = locked_model("acme/plain", {"config.json": b"{}"}, Revision(tiny_worker.REVISION))
    asked = msgspec.structs.replace(make_lock({}), models=(plain,))
    filled_store(here / "asked", asked, {"acme/plain": {"config.json": b"{}"}})
    filled_store(here / "second", msgspec.structs.replace(make_lock({}), serial=2), {})
    (here / "secret").write_text("correct horse\n")
    for line in (
        "lock --model org/small --lock small.lock --store small",
        f"golden record --url {worker} --store asked",
        "pack media --store store --volume-size 2MB",
        "pack torn --store store --volume-size 2MB --parity 3",
        "pack media2 --store second",
        "unpack media --store far",
        "unpack media2 --store far",
        f"mirror weights file://{here}/bucket --from store",
        f"mirror weights file://{here}/bucket --from second",
        f"mirror weights file://{here}/hand --from store",
        "trust key alice --passphrase-file secret",
        "trust key bob --passphrase-file secret",
        f"trust root root.json {KEYS}",
        "sign root.json --key bob.pem --passphrase-file secret",
        "trust pin root.json.dsse --trust pinned.json",
    ):
        assert run(cli, shlex.split(line)) == 0, line
    (here / "asked/golden.json").rename(here / "recorded.json")
    (here / "torn/v0001.tar").unlink()
    shutil.rmtree(here / "hand/.sie")
    for manifests in here.glob("hand/models--*/manifests"):
        shutil.rmtree(manifests)


def _lock(layout: Path, store: BlobFolder) -> Lock:
    """Models of `FILES`, images of a layout, and this repository's chart."""
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout}")]) as sources:
        images = [resolve_image(name, sources.find(name), why=["the test"]) for name in sorted(NAMES)]
    return msgspec.structs.replace(make_lock(FILES), images=tuple(images), charts=(lock_chart(_CHART, store),))


def in_trouble(
    trouble: str, errands: Sequence[tuple[Path, Sequence[str]]], env: Mapping[str, str], *, at: int = 0
) -> list[list[Ended]]:
    """Runs each command line in its folder, in one process that cannot override what files permit.

    Args:
        trouble: `full`: no file can grow; `interrupted`: Ctrl-C at the file or connection of number `at`, and once
            more without; anything else: none but that of the folder.

    Returns:
        For each how it ended, and for `interrupted` also how it ended when it was run again.
    """
    asked = [{"here": str(here), "words": list(words)} for here, words in errands]
    weak = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*weak, sys.executable, str(_IN_TROUBLE), trouble, str(at)],
        input=json.dumps(asked),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [[Ended(**one) for one in each] for each in json.loads(ended.stdout)]
