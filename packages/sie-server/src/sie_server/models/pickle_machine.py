"""What a pickled state dict says, read as data: nothing that it names is imported, and nothing of it is called.

Not `pickle.Unpickler` with names forbidden: that still calls what is left, sets attributes, and builds
whatever its opcodes ask for. This machine knows the opcodes that torch writes for tensors by name, and its
values are None, booleans, numbers, texts, tuples, lists, dicts with texts for keys, and the records below.
`REDUCE` makes one of three such values, `BUILD` takes a state dict's `_metadata`, and all else is refused
by name. Not here: where the bytes of a storage are (`pickled`).

Follows torch 2.13 `_utils.py` (`_rebuild_tensor_v2`, `_rebuild_parameter`), `serialization.py`
(`persistent_id`) and CPython's `pickletools` (the opcodes' arguments).
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.models.calls import LoadError

MAX_STEPS: Final = 1_000_000
"""A tensor takes about 40."""

_STORAGES: Final[Mapping[str, str]] = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_TENSOR: Final = "torch._utils._rebuild_tensor_v2"
_PARAMETER: Final = "torch._utils._rebuild_parameter"
_STATE_DICT: Final = "collections.OrderedDict"
_KNOWN: Final = frozenset((_TENSOR, _PARAMETER, _STATE_DICT, *(f"torch.{name}" for name in _STORAGES)))
_HIGHEST_PROTOCOL: Final = 5


@dataclass(frozen=True)
class Storage:
    """`key`: of its entry in the archive; `elements`: how many it says it has."""

    dtype: str
    key: str
    elements: int


@dataclass(frozen=True)
class TensorView:
    """A tensor as its pickle describes it, unchecked; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Named:
    """One of `_KNOWN`, as written."""

    name: str


class _StateDict(dict[str, Any]):
    """An `OrderedDict`: the only value that `BUILD` may follow."""


class _Mark:
    """Where a run of values on the stack starts."""


_MARK: Final = _Mark()


def read_pickle(data: bytes, where: str) -> object:
    """The value that the pickle describes.

    Args:
        where: the file it came from, for messages.

    Raises:
        LoadError: it names what no checkpoint needs, or is not a pickle.
    """
    return _Machine(data, where).run()


class _Machine:
    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where = data, where
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> object:
        for _ in range(MAX_STEPS):
            code = self._take(1)[0]
            if code == ord("."):
                return self._result()
            step = _STEPS.get(code)
            if step is None:
                raise self._refused(f"has the opcode {code:#04x} ({chr(code)!r}), which tensors by name do not need")
            step(self)
        raise self._refused(f"takes more than {MAX_STEPS:,} steps")

    def _result(self) -> object:
        if len(self._stack) != 1 or self._at != len(self._data):
            raise self._refused(
                f"ends at byte {self._at:,} of {len(self._data):,} with {len(self._stack)} values: want one at its end"
            )
        return self._stack[0]

    def _refused(self, why: str) -> LoadError:
        return LoadError(
            f"the pickle in `{self._where}` {why}",
            hint="nothing of it was run; save the weights as safetensors where the file is trusted",
        )

    # The bytes.

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise self._refused(f"is cut short: {count:,} bytes wanted at {self._at:,} of {len(self._data):,}")
        self._at += count
        return taken

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise self._refused(f"is cut short: a name at byte {self._at:,} does not end")
        return self._text(end + 1 - self._at)[:-1]

    def _text(self, count: int) -> str:
        try:
            return self._take(count).decode()
        except UnicodeDecodeError as error:
            raise self._refused(f"has a text that is not UTF-8 before byte {self._at:,}") from error

    # The stack.

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise self._refused(f"takes a value at byte {self._at:,} where there is none")
        return self._stack.pop()

    def _pop_run(self) -> list[Any]:
        run: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return run[::-1]
            run.append(value)
        raise self._refused(f"ends a run at byte {self._at:,} that was not begun")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    # What opcodes do.

    def protocol(self) -> None:
        version = self._take(1)[0]
        if version > _HIGHEST_PROTOCOL:
            raise self._refused(f"is of protocol {version}: supported are up to {_HIGHEST_PROTOCOL}")

    def frame(self) -> None:
        self._take(8)

    def number(self, form: str) -> None:
        self._push(self._number(form))

    def long(self) -> None:
        count = self._take(1)[0]
        if count > 8:
            raise self._refused(f"has a number of {count} bytes: want 8 at most")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def text(self, length: str) -> None:
        self._push(self._text(self._number(length)))

    def constant(self, value: object) -> None:
        self._push(value)

    def fresh(self, kind: type[list[Any]] | type[dict[str, Any]]) -> None:
        self._push(kind())

    def tuple_of(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def tuple_of_run(self) -> None:
        self._push(tuple(self._pop_run()))

    def append(self, run: bool) -> None:
        values = self._pop_run() if run else [self._pop()]
        target = self._pop()
        if type(target) is not list:
            raise self._refused(f"appends to what is no list at byte {self._at:,}")
        target.extend(values)
        self._push(target)

    def set_items(self, run: bool) -> None:
        values = self._pop_run() if run else [self._pop(), self._pop()][::-1]
        target = self._pop()
        keys = values[::2]
        if type(target) not in (dict, _StateDict) or len(values) % 2 or any(type(key) is not str for key in keys):
            raise self._refused(f"sets something other than a text's value in a dict at byte {self._at:,}")
        target.update(zip(keys, values[1::2], strict=True))
        self._push(target)

    def store(self, form: str) -> None:
        value = self._pop()
        self._memo[self._number(form)] = value
        self._push(value)

    def memoize(self) -> None:
        value = self._pop()
        self._memo[len(self._memo)] = value
        self._push(value)

    def recall(self, form: str) -> None:
        index = self._number(form)
        if index not in self._memo:
            raise self._refused(f"recalls value {index}, which it has not stored")
        self._push(self._memo[index])

    def named(self) -> None:
        module = self._line()
        self._push(self._known(module, self._line()))

    def named_by_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(module) is not str or type(name) is not str:
            raise self._refused(f"names something by what are no texts at byte {self._at:,}")
        self._push(self._known(module, name))

    def _known(self, module: str, name: str) -> _Named:
        if f"{module}.{name}" not in _KNOWN:
            raise self._refused(f"names `{module}.{name}`: a checkpoint may name tensors, storages and OrderedDict")
        return _Named(f"{module}.{name}")

    def persistent(self) -> None:
        match self._pop():
            case ("storage", _Named(name), str(key), str(), int(elements)) if name.startswith("torch."):
                dtype = _STORAGES.get(name.removeprefix("torch."))
                if dtype is not None and type(elements) is int:
                    self._push(Storage(dtype, key, elements))
                    return
        raise self._refused(f"refers at byte {self._at:,} to something that is no storage")

    def reduce(self) -> None:
        arguments, called = self._pop(), self._pop()
        match called, arguments:
            case _Named(name), () if name == _STATE_DICT:
                self._push(_StateDict())
            case _Named(name), (Storage() as storage, offset, shape, strides, _, _, *rest) if name == _TENSOR:
                if not _is_numbers((offset,)) or not _is_numbers(shape) or not _is_numbers(strides) or len(rest) > 1:
                    raise self._refused(f"has a tensor at byte {self._at:,} whose shape is no shape")
                self._push(TensorView(storage, offset, shape, strides))
            case _Named(name), (TensorView() as tensor, _, _) if name == _PARAMETER:
                self._push(tensor)
            case _Named(name), _:
                raise self._refused(f"calls `{name}` at byte {self._at:,} with what torch does not give it")
            case _:
                raise self._refused(f"calls at byte {self._at:,} what has no name")

    def build(self) -> None:
        state = self._pop()
        target = self._pop()
        if type(target) is not _StateDict or type(state) is not dict or set(state) - {"_metadata"}:
            raise self._refused(f"sets a state at byte {self._at:,} that is not the `_metadata` of a state dict")
        self._push(target)


def _is_numbers(value: object) -> bool:
    return type(value) is tuple and all(type(number) is int for number in value)


def _with(step: Callable[..., None], argument: object) -> Callable[[_Machine], None]:
    return lambda machine: step(machine, argument)


_STEPS: Final[Mapping[int, Callable[[_Machine], None]]] = {
    ord(code): step
    for code, step in {
        "\x80": _Machine.protocol,
        "\x95": _Machine.frame,
        "K": _with(_Machine.number, "<B"),
        "M": _with(_Machine.number, "<H"),
        "J": _with(_Machine.number, "<i"),
        "G": _with(_Machine.number, ">d"),
        "\x8a": _Machine.long,
        "X": _with(_Machine.text, "<I"),
        "\x8c": _with(_Machine.text, "<B"),
        "\x8d": _with(_Machine.text, "<Q"),
        "N": _with(_Machine.constant, None),
        "\x88": _with(_Machine.constant, True),
        "\x89": _with(_Machine.constant, False),
        "(": _with(_Machine.constant, _MARK),
        ")": _with(_Machine.constant, ()),
        "]": _with(_Machine.fresh, list),
        "}": _with(_Machine.fresh, dict),
        "\x85": _with(_Machine.tuple_of, 1),
        "\x86": _with(_Machine.tuple_of, 2),
        "\x87": _with(_Machine.tuple_of, 3),
        "t": _Machine.tuple_of_run,
        "a": _with(_Machine.append, False),
        "e": _with(_Machine.append, True),
        "s": _with(_Machine.set_items, False),
        "u": _with(_Machine.set_items, True),
        "q": _with(_Machine.store, "<B"),
        "r": _with(_Machine.store, "<I"),
        "\x94": _Machine.memoize,
        "h": _with(_Machine.recall, "<B"),
        "j": _with(_Machine.recall, "<I"),
        "c": _Machine.named,
        "\x93": _Machine.named_by_stack,
        "Q": _Machine.persistent,
        "R": _Machine.reduce,
        "b": _Machine.build,
    }.items()
}
