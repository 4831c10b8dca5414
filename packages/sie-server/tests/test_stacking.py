"""The factors that a batch brings along for its LoRAs; `tests/parity` has what comes of them."""

from typing import Any

import numpy as np

from sie_server.models.ops.adapted import Factors, Lora, Loras
from sie_server.models.ops.plan import Plan, plan_batch
from sie_server.models.tokens import TokenBatch

LAYERS = [f"layer.{number}.weight" for number in range(40)]


def lora(name: str, rank: int, **other: int) -> Lora:
    """Of every layer, of that rank or of another."""
    ranks = {layer: other.get(layer.split(".")[1], rank) for layer in LAYERS}
    return Lora(
        name, {at: Factors(np.full((of, 3), of, np.float32), np.ones((2, of), np.float32)) for at, of in ranks.items()}
    )


def plan(*names: str | None) -> Plan:
    tokens = np.arange(len(names) + 1, dtype=np.int32)
    return plan_batch(TokenBatch(tokens[:-1], tokens, loras=names))


def factors(loras: Loras, batch: Plan) -> list[Any]:
    made = [loras.down(layer, 3).make(batch) for layer in LAYERS]
    return [*made, *(loras.up(layer, 2, None).make(batch) for layer in LAYERS)]


def test_a_combination_is_stacked_once_however_many_layers_there_are() -> None:
    loras = Loras([lora("one", 1), lora("two", 2)])
    first, again = (factors(loras, plan("one", None, "two")) for _ in range(2))

    assert all(one is other for one, other in zip(first, again, strict=True))
    assert first[0].shape == (3, 3)
    assert first[-1].shape == (2, 3)


def test_of_a_lora_alone_nothing_is_copied() -> None:
    one = lora("one", 2)
    found = factors(Loras([one, lora("two", 3)]), plan("one", None))

    assert found[0] is one.layers[LAYERS[0]].down
    assert found[-1] is one.layers[LAYERS[-1]].up


def test_a_layer_of_a_lower_rank_is_filled_up_with_noughts() -> None:
    found = factors(Loras([lora("one", 2, **{"7": 1})]), plan("one"))

    assert [each.shape for each in found] == [*[(2, 3)] * 40, *[(2, 2)] * 40]
    assert found[7].tolist() == [[1] * 3, [0] * 3]
