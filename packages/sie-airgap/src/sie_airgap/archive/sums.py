"""`SHA256SUMS`: what `sha256sum -c` reads. Pure."""

from collections.abc import Mapping, Sequence

from sie_core.artifacts.digest import Digest, hex_of

SUMS_NAME = "SHA256SUMS"
LINE_BYTES = 80
"""No line for a volume is longer."""


def encode_sums(sums: Mapping[str, Digest], names: Sequence[str]) -> str:
    """A line for each of `names` that has a digest, in that order."""
    return "".join(f"{hex_of(sums[name])}  {name}\n" for name in names if name in sums)


def read_sums(text: str) -> dict[str, Digest]:
    """File name to digest. Lines that are not one are passed over."""
    sums = {}
    for line in text.splitlines():
        hexed, separator, name = line.partition("  ")
        if separator and len(hexed) == 64:
            sums[name] = Digest(f"sha256:{hexed}")
    return sums
