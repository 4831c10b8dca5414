"""One target under atheris, which sees what code its bytes reach: `python -m fuzz.guided NAME FLAG… CORPUS`."""

import importlib
import sys
from random import Random
from typing import Any


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["sie_core", "sie_airgap", "sie_server"]):
        from fuzz.targets import TARGETS
    from fuzz.mutation import altered

    target = TARGETS[sys.argv.pop(1)]

    def mutated(data: bytes, most_bytes: int, seed: int) -> bytes:
        chance = Random(seed)  # noqa: S311 - the same seed is to give the same bytes
        changed = altered(bytes(data), target, chance) if chance.random() < 0.7 else atheris.Mutate(data, most_bytes)
        return bytes(changed[:most_bytes])

    def run(data: bytes) -> None:
        target.check(data)

    atheris.Setup(sys.argv, run, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
