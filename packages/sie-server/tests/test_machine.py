"""What the machine and its control groups allow, as their files say it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sie_server import machine

TOTAL = 16_000_000 * 1024
UNLIMITED_V1 = 9_223_372_036_854_771_712


def files(root: Path, *, groups: str, limits: dict[str, str]) -> Path:
    for path, text in {"proc/meminfo": "MemTotal:  16000000 kB\nMemFree: 1 kB\n", "proc/self/cgroup": groups}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for path, text in limits.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "want"),
    [
        ("0::/\n", {}, TOTAL),
        ("0::/\n", {"memory.max": "4000000000"}, 4_000_000_000),
        ("0::/\n", {"memory.max": "max"}, TOTAL),
        ("0::/kubepods/pod1/one\n", {"memory.max": "5000000000"}, 5_000_000_000),
        (
            "0::/a/b\n",
            {"a/b/memory.max": "max", "a/memory.max": "3000000000", "memory.max": "7000000000"},
            3_000_000_000,
        ),
        ("9:cpu:/x\n5:memory:/docker/1\n", {"memory/memory.limit_in_bytes": "2000000000"}, 2_000_000_000),
        ("5:memory:/docker/1\n", {"memory/docker/1/memory.limit_in_bytes": "1000000000"}, 1_000_000_000),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": str(UNLIMITED_V1)}, TOTAL),
        ("5:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": "2000000000", "memory.max": "max"}, 2_000_000_000),
    ],
)
def test_the_least_limit_above_the_process_counts(
    tmp_path: Path, groups: str, limits: dict[str, str], want: int
) -> None:
    assert machine.memory_bytes(files(tmp_path, groups=groups, limits=limits)) == want


def test_where_nothing_says_so_it_is_the_machines_memory(tmp_path: Path) -> None:
    assert machine.memory_bytes(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_files_are_not_counted_and_what_was_written_to_is(tmp_path: Path) -> None:
    """In a process of its own: memory of this one moves with whatever else runs in it."""
    pages = 20_000
    (tmp_path / "file").write_bytes(b"\1" * 4096 * pages)
    code = (
        "import mmap, sys; from sie_server import machine; size = 4096 * int(sys.argv[2])\n"
        "file = open(sys.argv[1], 'rb'); mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)\n"
        "before = machine.anonymous_bytes(); sum(mapped[at] for at in range(0, size, 4096))\n"
        "read = machine.anonymous_bytes(); held = bytearray(b'\\1') * size\n"
        "print(read - before, machine.anonymous_bytes() - read)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file"), str(pages)], capture_output=True, text=True, check=True
    ).stdout
    read, written = map(int, said.split())

    assert read < 4096 * pages / 10
    assert 0.9 < written / (4096 * pages) < 1.2


def test_off_linux_nothing_is_measured(tmp_path: Path) -> None:
    assert machine.anonymous_bytes(tmp_path) is None
