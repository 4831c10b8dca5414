"""A network that LoRAs can be added to while it serves.

The first LoRA that changes layers no other did has the network made anew with a place for it, beside the one that
serves, which goes when its last pass has ended; after that a LoRA of the same layers is only added. A model
whose LoRAs nobody asks for pays nothing for them.
"""

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Precision, Take
from sie_server.models.model import Network
from sie_server.models.ops.adapted import Lora, Loras
from sie_server.models.ops.plan import Plan

_LAST_PASS_S: Final = 60.0
"""How long a pass through the network that was replaced is waited for. Only who had it replaced waits; and an error
somewhere may hold what it was raised in."""


class AdaptingNetwork:
    """See `model.Network`.

    Args:
        make: the network with places for the layers that these LoRAs change; takes a few seconds, and until the one
            before has gone the memory of another.
    """

    def __init__(self, make: Callable[[Loras], Network]) -> None:
        self._make = make
        self._adding = threading.Lock()
        self._loras = Loras()
        self._places = self._loras.layers
        self._network = make(self._loras)

    @property
    def precision(self) -> Precision:
        return self._network.precision

    @property
    def memory_bytes(self) -> int:
        return self._network.memory_bytes + self._loras.size_bytes

    def add(self, lora: Lora, take: Take) -> None:
        """From its return on sequences may name it; blocks, one at a time.

        Args:
            take: see `calls.Take`; of the network that is made anew and of the LoRA.

        Raises:
            LoadError: the network has a layer that no LoRA can change.
        """
        with self._adding:
            if set(lora.layers) <= self._places:
                take(lora.size_bytes)
                self._loras.add(lora)
                return
            self._network.settle()  # it may be growing still, and the next one will as well
            take(self._network.memory_bytes + lora.size_bytes)
            grown = self._loras.with_(lora)
            self._replace(self._make(grown), grown)

    def _replace(self, network: Network, loras: Loras) -> None:
        """Whoever runs on the one before holds it until then, and its results hold their own memory."""
        gone = threading.Event()
        weakref.finalize(self._network, gone.set)
        self._network, self._loras, self._places = network, loras, loras.layers
        gone.wait(_LAST_PASS_S)

    def run(self, plan: Plan, *, stream: int) -> Mapping[str, NDArray[np.float32]]:
        return self._network.run(plan, stream=stream)

    def settle(self) -> None:
        self._network.settle()

    def close(self) -> None:
        self._network.close()
