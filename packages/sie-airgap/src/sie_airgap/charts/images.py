"""The images of a chart: as an operator's values render it, and with every value that is off switched on.

What to render is decided in `switches`; this runs helm. An image that only other values bring is listed with
those values, so that whoever locks can tell what this release pulls from what a later `--set` would.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from sie_airgap.charts.helm import Refused, template, values_in
from sie_airgap.charts.inventory import ImageUse, images
from sie_airgap.charts.package import tree_of
from sie_airgap.charts.switches import Found, Refusal, Rendered, overlaid, search
from sie_airgap.charts.tree import effective_values


@dataclass(frozen=True)
class ChartImages:
    """What was found.

    Attributes:
        needed: what the release pulls with the operator's values.
        otherwise: what it would pull besides with other values, and which of those were never rendered.
    """

    needed: tuple[ImageUse, ...]
    otherwise: Found


def read(helm: Path, chart: Path, *, release: str, namespace: str, values: Sequence[Path] = ()) -> ChartImages:
    """Renders the chart as it is, and then as the search of its switches asks for.

    Raises:
        Refused: the chart does not render with the operator's own values.
        Incomplete: a chart that it depends on, or a values file, is not there.
    """

    def rendered(overrides: dict[str, Any] | None) -> Rendered:
        objects = template(helm, chart, release=release, namespace=namespace, values=values, overrides=overrides)
        return images(objects)

    tree = tree_of(chart)
    needed = rendered(None)
    own = reduce(overlaid, (values_in(path) for path in values), effective_values(tree))
    return ChartImages(needed, _searched(own, needed, rendered))


def _searched(values: dict[str, Any], needed: Rendered, rendered: Callable[[dict[str, Any]], Rendered]) -> Found:
    asking = search(values, known={use.reference for use in needed})
    try:
        overrides = next(asking)
        while True:
            try:
                answer: Rendered | Refusal = rendered(overrides)
            except Refused as error:
                answer = Refusal(error.message)
            overrides = asking.send(answer)
    except StopIteration as end:
        found: Found = end.value
        return found
