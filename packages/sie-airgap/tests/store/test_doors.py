"""What is no file where one is read whole: a device never ends, a pipe waits for ever."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sie_airgap.failures import Misused
from sie_airgap.store.blobs import read_lock
from sie_airgap.trust.files import read_envelope, read_pinned


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


MADE: dict[str, Callable[[Path], None]] = {"folder": Path.mkdir, "pipe": os.mkfifo, "device": _device}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("read", [read_lock, read_envelope, read_pinned])
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, made: str, read: Callable[[Path], object]) -> None:
    MADE[made](tmp_path / "x")

    with pytest.raises(Misused, match=r"x is not a file: a folder, a device or a pipe"):
        read(tmp_path / "x")
