"""The file system a container of a rehearsal sees, as the shell script that makes it. Pure.

A root is a tmpfs of its own under `netns.ROOTS`, with the system and the Python environment bound in
read-only, an `/etc` of its own, and the pod's volumes at their mount paths. An overlay over `/` would
need less text and is refused in a plain user's namespace.
"""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from sie_airgap.rehearsal.netns import ROOTS
from sie_airgap.rehearsal.pods import Container, Pod

VOLUMES = f"{ROOTS}/.volumes"
FILES = f"{ROOTS}/.etc"
"""Where `hosts` and its like are written before the roots are made."""

_LINKED_OR_BOUND = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ETC_FROM_HERE = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ssl", "ca-certificates", "localtime", "mime.types")
ETC_FILES = {
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "passwd": "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n",
    "group": "root:x:0:\nnonroot:x:65532:\n",
    "resolv.conf": "# no resolver here: a query to port 53 is counted\noptions timeout:1\n",
}


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths without those that lie below another of them, and without what is bound anyway."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda each: (len(PurePosixPath(each).parts), each)):
        inside = PurePosixPath(path).parents
        if not path.startswith("/usr/") and not any(PurePosixPath(other) in inside for other in kept):
            kept.append(path)
    return kept


def volumes_script(pod: Pod) -> str:
    """Make the tmpfs that holds everything, and an empty folder for each volume that has no files yet."""
    lines = [f"mount -t tmpfs -o mode=755 rehearsal {ROOTS}", f"mkdir -p {VOLUMES} {FILES}"]
    for volume in pod.volumes:
        folder = shlex.quote(f"{VOLUMES}/{volume.name}")
        lines.append(f"mkdir -p {folder}")
        if volume.host is not None:
            lines.append(f"mount --bind {shlex.quote(volume.host)} {folder}")
    return "\n".join(lines)


def root_script(container: Container, *, programs: Sequence[str]) -> str:
    """Make the root of one container; `programs` are folders of this machine that hold the interpreter and packages."""
    root = f"{ROOTS}/{container.name}"
    lines = [
        f"mkdir -p {root}",
        f"mount -t tmpfs -o mode=755 root {root}",
        f"cd {root}",
        "mkdir -p usr etc proc sys dev tmp",
        "chmod 1777 tmp",
        *_bound("/usr", f"{root}/usr", read_only=True),
        f"for each in {' '.join(_LINKED_OR_BOUND)}; do",
        "  if [ -L /$each ]; then cp -P /$each $each",
        "  elif [ -d /$each ]; then mkdir $each; mount --bind /$each $each; fi",
        "done",
        f"for each in {' '.join(_ETC_FROM_HERE)}; do",
        "  if [ -d /etc/$each ]; then mkdir etc/$each; mount --bind /etc/$each etc/$each",
        "  elif [ -e /etc/$each ]; then cp -L /etc/$each etc/; fi",
        "done",
        f"cp {FILES}/* etc/",
        "for each in proc sys dev; do mount --rbind /$each $each; done",
    ]
    for mount in container.mounts:
        lines += _mounted(f"{VOLUMES}/{mount.volume}", mount.sub_path, root + mount.path, read_only=mount.read_only)
    # After the volumes: one that is mounted at /tmp must not hide programs that lie below it.
    for path in outermost(programs):
        lines += [f"mkdir -p {shlex.quote(root + path)}", *_bound(path, root + path, read_only=True)]
    if container.read_only_root:
        lines.append(f"cd /; mount -o remount,bind,ro {root}")
    return "\n".join(lines)


def _mounted(volume: str, sub_path: str, target: str, *, read_only: bool) -> list[str]:
    source = f"{volume}/{sub_path}" if sub_path else volume
    made, quoted = shlex.quote(source), shlex.quote(target)
    # A sub path may name a file of a Secret: then its target must be a file too.
    prepare = f"if [ -f {made} ]; then mkdir -p $(dirname {quoted}); touch {quoted}; else mkdir -p {made} {quoted}; fi"
    return [prepare, *_bound(source, target, read_only=read_only)]


def _bound(source: str, target: str, *, read_only: bool) -> list[str]:
    made, quoted = shlex.quote(source), shlex.quote(target)
    lines = [f"mount --bind {made} {quoted}"]
    if read_only:
        lines.append(f"mount -o remount,bind,ro {quoted}")
    return lines
