"""A multivector model's dense output: the fixed dimensional encoding that a call asks for by `options.muvera`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sie_core.errors import ApiError
from sie_server.models.calls import Encode, Output, Prepared, Result
from sie_server.models.muvera import Muvera, encoded, read_muvera
from sie_server.models.tasks.encode import EncodeTexts

OPTION: Final = "muvera"


@dataclass(frozen=True)
class EncodeMuvera:
    """See `task.Task`, for `Encode`; without the option a call is `encode`'s.

    Attributes:
        dims: of the model's multivectors.
    """

    encode: EncodeTexts
    dims: int

    def prepare(self, call: Encode) -> list[Prepared]:
        if self._settings(call) is None:
            return self.encode.prepare(call)
        options = {name: value for name, value in call.options.items() if name != OPTION}
        outputs = tuple(dict.fromkeys("multivector" if name == "dense" else name for name in call.outputs))
        return self.encode.prepare(replace(call, outputs=outputs, options=options))

    def finish(self, call: Encode, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        settings = self._settings(call)
        if settings is None or "dense" not in call.outputs:
            return self.encode.finish(call, prepared, outputs)
        return [output if isinstance(output, ApiError) else _with_dense(output, call, settings) for output in outputs]

    def _settings(self, call: Encode) -> Muvera | None:
        if call.options.get(OPTION) is None:
            return None
        try:
            return read_muvera(call.options[OPTION], self.dims)
        except ValueError as error:
            raise ApiError("INVALID_INPUT", str(error)) from error


def _with_dense(output: Output, call: Encode, settings: Muvera) -> Output:
    assert output.multivector is not None
    dense = encoded(output.multivector, settings, is_query=call.is_query)
    return replace(output, dense=dense, multivector=output.multivector if "multivector" in call.outputs else None)
