"""Every target by name."""

from collections.abc import Mapping

from fuzz.target import Target
from fuzz.targets import bucket, charts, deltas, images, locks, trusted, volumes, weights, wire

TARGETS: Mapping[str, Target] = {
    target.name: target
    for module in (locks, volumes, deltas, images, trusted, weights, bucket, wire, charts)
    for target in module.TARGETS
}
