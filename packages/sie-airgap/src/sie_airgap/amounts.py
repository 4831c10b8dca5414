"""How amounts are said to people: bytes as media are sold, counts with their noun, times as one waits. Pure."""

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
