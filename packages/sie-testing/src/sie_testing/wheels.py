"""Tiny wheels that pip installs: of ours by name, and of anything else that a test makes up."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "import sys\n\n\ndef main():\n    print('the toolkit was asked to', *sys.argv[1:])\n"
OURS = {
    "sie-core": (),
    "sie-sdk": ("sie-core==0.3.1",),
    "sie-airgap": ("sie-core==0.3.1", "sie-sdk==0.3.1"),
}


def write_wheel(
    folder: Path,
    name: str,
    version: str = "0.3.1",
    *,
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    python: str = ">=3.8",
    content: str = PROGRAM,
) -> Path:
    """A wheel of one module, whose program prints what it is asked to do; it has the extras that `requires` names."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    extras = sorted({line.split("extra == ")[1].strip("'\" ") for line in requires if "extra == " in line})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {line}" for line in requires]
    files = {
        f"{module}.py": content,
        f"{about}/METADATA": "\n".join(lines) + "\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return path


def write_ours(folder: Path, *, content: str = PROGRAM) -> Path:
    """The toolkit, the SDK and the kernel, which need nothing but each other."""
    for name, requires in OURS.items():
        extras = ("sie-core==0.3.1; extra == 's3'", "sie-core==0.3.1; extra == 'gcs'") if name == "sie-airgap" else ()
        write_wheel(folder, name, requires=(*requires, *extras), content=content)
    return folder
