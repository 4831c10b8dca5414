"""A plot as SVG, by hand: two lines on logarithmic axes. Pure."""

import math
from collections.abc import Sequence
from typing import Final

_WIDTH: Final = 640
_HEIGHT: Final = 360
_LEFT: Final = 64
_BOTTOM: Final = 48
_TOP: Final = 40
_RIGHT: Final = 110
_COLOURS: Final = ("#1f6f8b", "#b5532a")


def lengths(points: Sequence[tuple[int, float, float]], cpu: str) -> str:
    """Milliseconds a token against the length of a text.

    Args:
        points: (tokens, ours, peer), at least two, by length.
    """
    xs = [math.log2(length) for length, _, _ in points]
    costs = [cost for _, *pair in points for cost in pair]
    low, high = math.log10(min(costs) * 0.8), math.log10(max(costs) * 1.25)

    def x(value: float) -> float:
        return _LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(cost: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(cost) - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20">Milliseconds a token against the length of a lone text; {cpu}</text>',
    ]
    for at, (length, _, _) in zip(xs, points, strict=True):
        parts.append(f'<text x="{x(at):.0f}" y="{_HEIGHT - 24}" text-anchor="middle">{length}</text>')
    parts += [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(cost):.1f}" y2="{y(cost):.1f}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 8}" y="{y(cost) + 4:.1f}" text-anchor="end">{cost:g}</text>'
        for cost in _round_costs(low, high)
    ]
    for side, (name, colour) in enumerate(zip(("sie-server", "sentence-transformers"), _COLOURS, strict=True), start=1):
        line = " ".join(f"{x(at):.1f},{y(point[side]):.1f}" for at, point in zip(xs, points, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 6}" y="{y(points[-1][side]) + 4:.1f}" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">tokens</text></svg>')
    return "\n".join(parts) + "\n"


def _round_costs(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten between two logarithms."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [
        step * 10.0**power for power in powers for step in (1, 2, 5) if low <= math.log10(step * 10.0**power) <= high
    ]
