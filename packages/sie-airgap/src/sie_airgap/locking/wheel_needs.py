"""Whether a folder of wheels installs the toolkit and the SDK on every machine that it is carried to. Pure.

`lacking` follows the METADATA of the wheels as pip would with `--no-index`: markers, extras, version specifiers and
tags, for each `Target`. Far machines run CPython on Linux with a glibc of 2.28 or later (RHEL 8, Debian 10, Ubuntu
20.04 and what came after); wheels for musl count for nothing there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

OURS = ("sie-airgap", "sie-core", "sie-sdk")
ROOTS = (Requirement("sie-airgap[s3,gcs]"), Requirement("sie-sdk"))
_ASKED = "what is carried"
_GLIBC = 28
_OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_MOST_PASSES = 50


@dataclass(frozen=True)
class Target:
    """A kind of machine: `3.11` and `x86_64`."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine}"

    def tags(self) -> frozenset[Tag]:
        """What pip there would install; `abi3` wheels of older Pythons included."""
        version = tuple(int(part) for part in self.python.split("."))
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in range(_GLIBC, 4, -1)]
        platforms += [f"{name}_{self.machine}" for name in _OLD_NAMES.values()]
        platforms.append(f"linux_{self.machine}")
        interpreter = f"cp{version[0]}{version[1]}"
        return frozenset(
            (*cpython_tags(version, platforms=platforms), *compatible_tags(version, interpreter, platforms))
        )

    def environment(self, extra: str) -> dict[str, str]:
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": extra,
        }


TARGETS = tuple(Target(python, machine) for python in ("3.11", "3.12", "3.13") for machine in ("x86_64", "aarch64"))


@dataclass(frozen=True)
class Wheel:
    """One wheel: what its name and its METADATA say."""

    file: str
    name: NormalizedName
    version: Version
    tags: frozenset[Tag]
    metadata: Metadata

    def fits(self, target: Target, tags: frozenset[Tag]) -> bool:
        python = self.metadata.requires_python
        return not self.tags.isdisjoint(tags) and (python is None or f"{target.python}.0" in python)


@dataclass(frozen=True, order=True)
class Lack:
    """A requirement that no wheel of the folder satisfies.

    Attributes:
        wanted: `numpy<3,>=2.1`.
        by: the wheels that ask for it, sorted.
        have: the versions that there are, for whatever machine, sorted.
        targets: where it is missing.
    """

    wanted: str
    by: tuple[str, ...]
    have: tuple[str, ...]
    targets: tuple[str, ...]


def parse_wheel(file: str, metadata: bytes) -> Wheel:
    """Raises `ValueError` for a name or METADATA that pip would not take, or that do not agree."""
    try:
        name, version, _, tags = parse_wheel_filename(file)
        told = Metadata.from_email(metadata, validate=False)
        have = canonicalize_name(told.name), told.version
        _ = told.requires_python, told.requires_dist
    except (ExceptionGroup, ValueError) as error:
        raise ValueError(f"`{file}` is not a wheel that can be installed: {error}") from error
    if have != (name, version):
        raise ValueError(f"`{file}` says in its METADATA that it is {have[0]} {have[1]}")
    return Wheel(file, name, version, tags, told)


def told(lack: Lack) -> str:
    """One line: what is missing, for whom, where, and what there is."""
    where = "everywhere" if len(lack.targets) == len(TARGETS) else ", ".join(lack.targets)
    have = f"; there is {', '.join(lack.have)}" if lack.have else ""
    return f"{lack.wanted} (for {', '.join(lack.by)}): {where}{have}"


def foreign(wheels: Sequence[Wheel]) -> Iterator[str]:
    """What is wrong with the wheels that have our names, which are somebody else's where packages are published."""
    ours = {name: [wheel for wheel in wheels if wheel.name == name] for name in OURS}
    for name, found in ours.items():
        if len(found) > 1:
            yield f"`{name}` is there {len(found)} times: {', '.join(sorted(wheel.file for wheel in found))}"
        for wheel in found:
            asked = {canonicalize_name(each.name) for each in wheel.metadata.requires_dist or []}
            if name != "sie-core" and "sie-core" not in asked:
                yield f"`{wheel.file}` is another project's: it does not ask for `sie-core`"
    versions = {str(wheel.version) for found in ours.values() for wheel in found}
    if len(versions) > 1:
        yield f"ours are of {len(versions)} versions: {', '.join(sorted(versions))}"


def lacking(wheels: Sequence[Wheel], targets: Sequence[Target] = TARGETS) -> tuple[Lack, ...]:
    """Every requirement that is not met somewhere, with where; empty when all targets can install all of it."""
    missing: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for target in targets:
        for name, needed in _unmet(wheels, target):
            have = tuple(str(version) for version in sorted({wheel.version for wheel in wheels if wheel.name == name}))
            wanted = f"{name}{','.join(sorted({str(one) for each in needed.asked for one in each.specifier}))}"
            missing.setdefault((wanted, tuple(sorted(needed.by)), have), []).append(str(target))
    return tuple(sorted(Lack(*key, tuple(where)) for key, where in missing.items()))


@dataclass
class _Needed:
    asked: list[Requirement] = field(default_factory=list)
    by: set[str] = field(default_factory=set)
    extras: set[str] = field(default_factory=set)

    def takes(self, version: Version) -> bool:
        return all(each.specifier.contains(version, prereleases=True) for each in self.asked)


def _unmet(wheels: Sequence[Wheel], target: Target) -> list[tuple[NormalizedName, _Needed]]:
    tags = target.tags()
    fitting = [wheel for wheel in wheels if wheel.fits(target, tags)]
    chosen: dict[NormalizedName, Wheel | None] = {}
    needed: dict[NormalizedName, _Needed] = {}
    # Until nothing changes: what is asked for depends on what was chosen, and the other way round.
    for _ in range(_MOST_PASSES):
        needed = _asked(chosen, needed, target)
        now = {name: _newest(fitting, name, wants) for name, wants in needed.items()}
        if now == chosen:
            break
        chosen = now
    return [(name, wants) for name, wants in needed.items() if chosen.get(name) is None]


def _asked(
    chosen: Mapping[NormalizedName, Wheel | None], before: Mapping[NormalizedName, _Needed], target: Target
) -> dict[NormalizedName, _Needed]:
    needed: dict[NormalizedName, _Needed] = {}

    def ask(requirement: Requirement, by: str) -> None:
        wants = needed.setdefault(canonicalize_name(requirement.name), _Needed())
        wants.asked.append(requirement)
        wants.by.add(by)
        wants.extras |= {canonicalize_name(extra) for extra in requirement.extras}

    for root in ROOTS:
        ask(root, _ASKED)
    for name, wheel in chosen.items():
        extras = before[name].extras if name in before else set()
        for requirement in (wheel.metadata.requires_dist or []) if wheel is not None else ():
            marker = requirement.marker
            if marker is None or any(marker.evaluate(target.environment(extra)) for extra in ("", *extras)):
                ask(requirement, str(name))
    return needed


def _newest(fitting: Sequence[Wheel], name: NormalizedName, wants: _Needed) -> Wheel | None:
    found = [wheel for wheel in fitting if wheel.name == name and wants.takes(wheel.version)]
    return max(found, key=lambda wheel: (wheel.version, wheel.file), default=None)
