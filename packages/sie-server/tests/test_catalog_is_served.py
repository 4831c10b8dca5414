"""Every model that is shipped has an architecture that this worker builds."""

from typing import get_args

import pytest

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.derive import Architecture
from sie_core.catalog.spec import ModelSpec
from sie_server.models.backbones.known import BACKBONES

APART = {"clip", "siglip", "static"}
"""What is built without one of the text backbones, or of two networks."""

SPECS = tuple(Catalog.shipped().specs.values())


def test_what_is_derived_is_what_is_built() -> None:
    assert set(get_args(Architecture)) - APART <= set(BACKBONES)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_a_shipped_model_names_an_architecture_that_there_is(spec: ModelSpec) -> None:
    assert spec.architecture is None or spec.architecture in {*get_args(Architecture), "gliclass", "gliner"}
