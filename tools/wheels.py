"""Each wheel alone: build all seven, install each published one into a bare environment, import every module.

    python tools/wheels.py

For each Python of 3.11 to 3.13 that is here; those that are not are named. An environment holds one wheel of ours, the
wheels of ours that it asks for, and what they declare, at the versions and hashes of requirements/dev.txt: what
is not declared is not there. Modules that want an extra are imported once more with all extras but the largest
(`NOT_INSTALLED`). Our wheels are given by path, never by name: the names belong to somebody else where packages are
published.
"""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement

from sie_testing.interpreters import find_python

CHECKOUT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).parent / "uv"
PYTHONS = ("3.11", "3.12", "3.13")
PUBLISHED = ("sie-core", "sie-sdk", "sie-server", "sie-gateway", "sie-config", "sie-airgap")
FORBIDDEN = {"torch", "transformers", "sentence-transformers", "openvino-telemetry"}
"""No product brings these along, whatever asks for them."""

NOT_INSTALLED = {"cuda": "torch"}
"""Extras that are gigabytes, with what their modules miss here; `make parity` imports these modules."""

_IMPORT_ALL = """
import importlib, json, sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
(root,) = map(Path, find_spec(sys.argv[1]).submodule_search_locations)
# By files, since an import that fails would hide what is below it.
paths = [path.relative_to(root.parent).with_suffix("").parts for path in sorted(root.rglob("*.py"))]
names = [".".join(parts).removesuffix(".__init__") for parts in paths if parts[-1] != "__main__"]
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("sie_")
        failed[name] = (error.name if missing else None, f"{type(error).__name__}: {error}")
installed = sorted(each.metadata["Name"].lower().replace("_", "-") for each in distributions())
print(json.dumps({"modules": len(names), "failed": failed, "installed": installed}))
"""


@dataclass(frozen=True)
class Wheel:
    """One built wheel of ours, with what its own metadata says."""

    path: Path
    metadata: Message

    @property
    def extras(self) -> list[str]:
        return [extra for extra in self.metadata.get_all("Provides-Extra") or [] if extra not in NOT_INSTALLED]

    def asks_for(self) -> Iterator[str]:
        """Names of ours, in any extra too."""
        for line in self.metadata.get_all("Requires-Dist") or []:
            if (name := Requirement(line).name).startswith("sie-"):
                yield name


@dataclass(frozen=True)
class Row:
    """What one wheel did on one Python. `wrong` is empty when all is well."""

    python: str
    name: str
    packages: int
    modules: int
    with_extras: int
    seconds: float
    wrong: tuple[str, ...]


def build(folder: Path) -> dict[str, Wheel]:
    """The wheels of this checkout, by name. Raises `CalledProcessError`."""
    for package in sorted((CHECKOUT / "packages").iterdir()):
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(words, cwd=package, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return dict(sorted((str(wheel.metadata["Name"]), wheel) for wheel in map(_read, folder.glob("*.whl"))))


def _read(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Wheel(path, message_from_bytes(archive.read(name)))


def closure(name: str, wheels: dict[str, Wheel]) -> list[str]:
    """`name` and those of ours that it needs, itself first."""
    found = [name]
    for one in found:
        found += [more for more in dict.fromkeys(wheels[one].asks_for()) if more not in found]
    return found


def check(python: Path, version: str, name: str, wheels: dict[str, Wheel], scratch: Path) -> Row:
    """Install one wheel alone and import all of it, without and with its extras."""
    began_s = time.monotonic()
    venv = scratch / f"{name}-{version}"
    _uv("venv", "-q", "--python", str(python), str(venv))
    _install(venv, name, wheels, extras=[])
    bare = _import_all(venv, name)
    wrong = [f"{package} is installed" for package in FORBIDDEN & set(bare.installed)]
    if wheels[name].metadata.get_all("Provides-Extra"):
        wrong += [f"{module}: {why}" for module, (missing, why) in bare.failed.items() if missing is None]
        _install(venv, name, wheels, extras=wheels[name].extras)
        whole = _import_all(venv, name)
    else:
        whole = bare
    known = NOT_INSTALLED.values()
    wrong += [f"{module}: {why}" for module, (missing, why) in whole.failed.items() if missing not in known]
    wrong += _commands(venv, wheels[name])
    seconds = time.monotonic() - began_s
    shutil.rmtree(venv)
    modules = bare.modules - len(bare.failed)
    return Row(version, name, len(bare.installed), modules, whole.modules - modules, seconds, tuple(wrong))


@dataclass(frozen=True)
class _Imported:
    modules: int
    failed: dict[str, tuple[str | None, str]]
    installed: list[str]


def _import_all(venv: Path, name: str) -> _Imported:
    words = [str(venv / "bin" / "python"), "-I", "-c", _IMPORT_ALL, name.replace("-", "_")]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=venv)
    return _Imported(**json.loads(done.stdout))


def _install(venv: Path, name: str, wheels: dict[str, Wheel], *, extras: Sequence[str]) -> None:
    asked = f"[{','.join(extras)}]" if extras else ""
    ours = [f"{one}{asked if one == name else ''} @ {wheels[one].path.as_uri()}" for one in closure(name, wheels)]
    pinned = ["-c", "requirements/dev.txt", "--override", "requirements/overrides.txt"]
    words = ["pip", "install", "-q", "--python", str(venv / "bin" / "python"), *pinned, *ours]
    if _uv(*words, "--offline", must=False) != 0:
        _uv(*words)


def _uv(*words: str, must: bool = True) -> int:
    quiet = None if must else subprocess.DEVNULL
    return subprocess.run([str(UV), *words], cwd=CHECKOUT, check=must, stderr=quiet).returncode


def _commands(venv: Path, wheel: Wheel) -> Iterator[str]:
    """What is wrong with the commands that a wheel installs."""
    with zipfile.ZipFile(wheel.path) as archive:
        tables = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")]
    for command in [line.partition("=")[0].strip() for table in tables for line in table.splitlines() if "=" in line]:
        done = subprocess.run([venv / "bin" / command, "--help"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield f"`{command} --help` ended with {done.returncode}: {done.stderr.strip()[-300:]}"


def _show(row: Row) -> None:
    with_extras = f"+ {row.with_extras} with extras" if row.with_extras else ""
    print(
        f"  {row.python:<6} {row.name:<12} {row.packages:>3} packages  {row.modules:>3} modules {with_extras:<16}"
        f" {row.seconds:5.1f} s  {'wrong' if row.wrong else 'ok'}",
        flush=True,
    )
    for line in row.wrong:
        print(f"         {line}", flush=True)


def main() -> int:
    began_s = time.monotonic()
    with TemporaryDirectory(prefix="sie-wheels-") as temporary:
        scratch = Path(temporary)
        wheels = build(scratch / "wheels")
        print(f"wheels: {len(wheels)} built, each published one alone in an environment", flush=True)
        rows, absent = [], []
        for version in PYTHONS:
            python = find_python(version)
            if python is None:
                absent.append(version)
                continue
            for name in PUBLISHED:
                rows.append(check(python, version, name, wheels, scratch))
                _show(rows[-1])
    if absent:
        print(f"  not tried, because not on this machine: Python {', '.join(absent)}")
    wrong = sum(len(row.wrong) for row in rows)
    print(f"wheels: {len(rows)} environments, {wrong} things wrong, {time.monotonic() - began_s:.0f} s")
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
