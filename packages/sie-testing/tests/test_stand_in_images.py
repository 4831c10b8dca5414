"""The stand-in images: the same bytes each time, and images to tools that know nothing of us."""

import filecmp
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sie_testing.images import NAMES, root_digests, write_images


def test_the_same_images_each_time(tmp_path: Path) -> None:
    first, second = (write_images(tmp_path / name) for name in ("a", "b"))
    blobs = [path.name for path in (first.folder / "blobs" / "sha256").iterdir()]

    assert root_digests(first) == root_digests(second)
    assert list(root_digests(first)) == list(NAMES)
    match, differing, missing = filecmp.cmpfiles(
        first.folder / "blobs" / "sha256", second.folder / "blobs" / "sha256", blobs, shallow=False
    )
    assert (sorted(match), differing, missing) == (sorted(blobs), [], [])


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (Debian package `skopeo`)")
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_skopeo_reads_each_platform(architecture: str, tmp_path: Path) -> None:
    write_images(tmp_path / "layout")
    command = ["skopeo", "--override-arch", architecture, "inspect", f"oci:{tmp_path / 'layout'}:{NAMES[0]}"]
    read = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert json.loads(read.stdout)["Architecture"] == architecture
