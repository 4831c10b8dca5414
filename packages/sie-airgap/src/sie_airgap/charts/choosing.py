"""Of what charts name, what is locked: decided from what was rendered and from what the operator says. Pure.

What a release pulls with the operator's values is locked. What only other values bring is locked where the operator
names one of them (`--with VALUE`) or asks for everything; else it stands in the lock, with those values, as seen and
not locked, so that a review can tell a decision from an oversight.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sie_airgap.charts.inventory import ImageUse
from sie_airgap.charts.switches import Found, Switched
from sie_airgap.failures import Misused
from sie_core.artifacts.lock import UnlockedImage
from sie_core.ids import nearest

GUESS = "looks like one: "
_MOST_NAMED = 6
_MOST_TEXT = 500


@dataclass(frozen=True)
class Seen:
    """What one chart names.

    Attributes:
        chart: its name, said of charts that are not ours.
        needed: with the operator's values.
        otherwise: with others.
        is_extra: it was given beside ours.
    """

    chart: str
    needed: Sequence[ImageUse]
    otherwise: Found
    is_extra: bool = False

    def told(self, use: ImageUse) -> ImageUse:
        """The use as the lock gives its reasons."""
        start = f"{self.chart}: " if self.is_extra else ""
        mark = GUESS if use.is_guess else ""
        why = tuple(sorted({_cut(f"{start}{mark}{reason}") for reason in use.why}))
        return ImageUse(use.reference, why, use.is_guess)


def wanted(charts: Sequence[Seen], *, switches: Collection[str] = (), everything: bool = False) -> tuple[ImageUse, ...]:
    """The images to lock, each once, sorted.

    Args:
        switches: values, as `a.b.c`, whose images are wanted, too.
        everything: all of them are.

    Raises:
        Misused: a switch brings no image; the nearest that does is named.
    """
    _refuse_idle(charts, switches)
    uses = [seen.told(use) for seen in charts for use in seen.needed]
    uses += [
        seen.told(_with_switches(image))
        for seen in charts
        for image in seen.otherwise.images
        if everything or set(image.switches) & set(switches)
    ]
    return _merged(uses)


def unlocked(seen: Seen, locked: Collection[str], refused: Mapping[str, str]) -> tuple[UnlockedImage, ...]:
    """What the chart names and the lock has not.

    Args:
        locked: the references that are in the lock.
        refused: by reference, why an image that was only guessed is not.
    """
    uses = [*seen.needed, *(_with_switches(image) for image in seen.otherwise.images)]
    return tuple(
        UnlockedImage(use.reference, tuple(sorted({*use.why, *_reason(use.reference, refused)})))
        for use in _merged([seen.told(use) for use in uses])
        if use.reference not in locked
    )


def _reason(reference: str, refused: Mapping[str, str]) -> Iterable[str]:
    return (_cut(refused[reference]),) if reference in refused else ()


def _refuse_idle(charts: Sequence[Seen], switches: Collection[str]) -> None:
    known = sorted({switch for seen in charts for image in seen.otherwise.images for switch in image.switches})
    for switch in switches:
        if switch not in known:
            near = nearest(switch, known, most=1)
            brings = f"did you mean `{near[0]}`?" if near else f"these do: {', '.join(known) or 'none'}"
            raise Misused(f"`--with {switch}`: no image is brought by that value", hint=brings)


def _with_switches(image: Switched) -> ImageUse:
    names = [f"`{name}`" for name in image.switches[:_MOST_NAMED]]
    more = f" and {len(image.switches) - _MOST_NAMED} more" if len(image.switches) > _MOST_NAMED else ""
    only = f"only with {', '.join(names)}{more}"
    return ImageUse(image.use.reference, tuple(f"{only}: {why}" for why in image.use.why), image.use.is_guess)


def _merged(uses: Iterable[ImageUse]) -> tuple[ImageUse, ...]:
    found: dict[str, ImageUse] = {}
    for use in uses:
        other = found.get(use.reference, use)
        why = tuple(sorted({*use.why, *other.why}))
        found[use.reference] = ImageUse(use.reference, why, use.is_guess and other.is_guess)
    return tuple(found[reference] for reference in sorted(found))


def _cut(text: str) -> str:
    """As a lock takes it: strangers wrote the names of objects."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= _MOST_TEXT else plain[: _MOST_TEXT - 1] + "…"
