"""A model is warm when it is loaded; what fails then fails the load."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.ops.openvino import OpenvinoOps
from sie_server.models.ops.plan import Feed, Plan
from sie_testing import tiny_bert


def broken(plan: Plan) -> NDArray[Any]:
    raise ArithmeticError("no such batch")


@pytest.mark.parametrize("streams", [1, 2])
def test_an_error_of_the_first_pass_is_raised_by_whoever_loads(tmp_path: Path, streams: int) -> None:
    ops = OpenvinoOps(open_checkpoint(tiny_bert.write(tmp_path)), "f32")
    x = ops.feed(Feed("broken", (-1,), np.float32, broken))
    ops.output("twice", ops.add(x, x))

    with pytest.raises(ArithmeticError, match="no such batch"):
        ops.compiled(streams=streams, threads=1)
