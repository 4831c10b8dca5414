"""The images of a chart: as an operator's values render it, and with everything that is off switched on in turn.

An image that only a switched-on value brings is listed with that value, so that whoever locks can tell what
this release pulls from what a later `--set` would. A switch that the chart refuses by itself (it needs other
values beside it) is listed as not tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.helm import Refused, default_values, template
from sie_airgap.inventory import ImageUse, conditionals, images


@dataclass(frozen=True)
class ChartImages:
    """What was found.

    Attributes:
        needed: what the release pulls with the operator's values.
        with_switches: what it would pull besides, with the values that bring each in `why`.
        not_tried: switches that the chart does not render with alone.
    """

    needed: tuple[ImageUse, ...]
    with_switches: tuple[ImageUse, ...]
    not_tried: tuple[str, ...]


def read(helm: Path, chart: Path, *, release: str, namespace: str, values: Sequence[Path] = ()) -> ChartImages:
    """Renders the chart once as it is and once for each value that is off.

    Raises:
        Refused: the chart does not render with the operator's own values.
    """
    needed = images(template(helm, chart, release=release, namespace=namespace, values=values))
    known = {use.reference for use in needed}
    extra: dict[str, list[str]] = {}
    guessed: set[str] = set()
    not_tried: list[str] = []
    for name, override in conditionals(default_values(helm, chart)):
        try:
            objects = template(helm, chart, release=release, namespace=namespace, values=values, overrides=override)
        except Refused:
            not_tried.append(name)
            continue
        for use in images(objects):
            if use.reference not in known:
                extra.setdefault(use.reference, []).append(f"only with `{name}: true`")
                guessed |= {use.reference} if use.is_guess else set()
    with_switches = tuple(ImageUse(name, tuple(extra[name]), name in guessed) for name in sorted(extra))
    return ChartImages(needed=needed, with_switches=with_switches, not_tried=tuple(not_tried))
