"""How amounts are said to people: bytes as media are sold, counts with their noun, times as one waits. Pure."""

import re

_SIZE = re.compile(r"([0-9]{1,18})\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def sized(size_bytes: int) -> str:
    """`90.9 MB`: decimal, as media are sold; exact below 1000 bytes."""
    amount, unit = float(size_bytes), 0
    while amount >= 999.95 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def counted(number: int, noun: str) -> str:
    """`1 model`, `12 models`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def lasting(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def parse_size(text: str) -> int:
    """Bytes of `700MB` (decimal), `4GiB` (binary) or a bare number. Raises `ValueError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"`{text}` is not a size: want a number of bytes, or one like `700MB` or `4GiB`")
    power = "kmgt".find(match[2].lower()) + 1 if match[2] else 0
    size_bytes: int = int(match[1]) * (1024 if match[3] else 1000) ** power
    return size_bytes
