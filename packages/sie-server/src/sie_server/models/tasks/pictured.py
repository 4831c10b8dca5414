"""Texts and pictures to vectors of one space: an item is one of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sie_core.errors import ApiError
from sie_server.models.calls import Encode, Output, Picture, Prepared, Result
from sie_server.models.tasks.encode import EncodeTexts


@dataclass(frozen=True)
class Padding:
    """What texts are filled up with, to so many tokens, and whether it stands before them."""

    id: int
    tokens: int
    before: bool


@dataclass(frozen=True)
class EncodePictured:
    """See `task.Task`, for `Encode`.

    Attributes:
        texts: what becomes of texts.
        read: a picture's bytes, and where they stand, to patches.
        padding: how every text is filled up; None where none is.
        shape: what is done to a text before all else.
    """

    texts: EncodeTexts
    read: Callable[[bytes, str], NDArray[np.float32]]
    padding: Padding | None
    shape: Callable[[str], str]

    def prepare(self, call: Encode) -> list[Prepared]:
        pictures = {index: one for index, one in enumerate(call.inputs) if isinstance(one, Picture)}
        others = {
            index: self.shape(one) if isinstance(one, str) else one
            for index, one in enumerate(call.inputs)
            if index not in pictures
        }
        found = self.texts.prepare(replace(call, inputs=tuple(others.values())))
        prepared = {index: replace(self._filled(one), item=index) for index, one in zip(others, found, strict=True)}
        # What a call says of outputs and options is the same for a picture as for any text.
        (like,) = self.texts.prepare(replace(call, inputs=("",)))
        for index, picture in pictures.items():
            patches = self.read(picture.data, f"items[{index}].images[0].data")
            ids = np.zeros(len(patches), np.int32)
            prepared[index] = replace(like, ids=ids, types=None, truncated=False, item=index, patches=patches)
        return [prepared[index] for index in range(len(call.inputs))]

    def finish(self, call: Encode, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        return self.texts.finish(call, prepared, outputs)

    def _filled(self, one: Prepared) -> Prepared:
        if self.padding is None:
            return one
        filling = np.full(self.padding.tokens - len(one.ids), self.padding.id, np.int32)
        parts = [filling, one.ids] if self.padding.before else [one.ids, filling]
        return replace(one, ids=np.concatenate(parts))
