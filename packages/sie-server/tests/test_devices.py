"""What a worker runs on, and what is said where that is not to be had. No torch here: `tests/parity` has it."""

import importlib.util

import pytest

from sie_core.catalog.catalog import Catalog
from sie_core.settings import SettingsError
from sie_server.app import check, hardware_of, limits
from sie_server.settings import ServeSettings, read

without_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")


@without_torch
def test_cuda_without_torch_says_what_to_install() -> None:
    with pytest.raises(SettingsError, match=r"`SIE_DEVICE`: device is `cuda`, and torch is not installed") as caught:
        hardware_of(ServeSettings(device="cuda"))

    assert caught.value.hint == "`pip install 'sie-server[cuda]'` brings it"


def test_a_device_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="`--device` is `tpu`, want one of `cpu`, `cuda`"):
        read({"device": "tpu"})


def test_f16_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match=r"`SIE_PRECISION` is `f16` and `SIE_DEVICE` is `cpu`"):
        check(ServeSettings(precision="f16"), Catalog.shipped())


def test_models_may_have_four_fifths_of_the_device() -> None:
    hardware = hardware_of(ServeSettings())

    assert hardware.name
    assert limits(ServeSettings(), hardware).memory_bytes == int(hardware.memory_bytes * 0.8)
