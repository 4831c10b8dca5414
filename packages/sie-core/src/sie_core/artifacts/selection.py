"""Which files of a repository are carried: what serves the model here, once, and none of its other forms.

Pure: paths in, paths out. The worker and the toolkit choose alike, so that what was carried is what is asked for.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

from sie_core.artifacts.hf_layout import is_unfinished

_OTHER_FORMS = frozenset(
    (".onnx", ".onnx_data", ".h5", ".msgpack", ".gguf", ".ggml", ".ot", ".tflite", ".mlmodel", ".pb", ".xml", ".nemo")
)
_CODE = frozenset((".py", ".ipynb", ".so", ".sh"))
"""Nothing from a snapshot is ever executed, so none of it is carried."""
_OTHER_FOLDERS = frozenset(("onnx", "openvino", "coreml", "gguf", "tflite", "flax", "tf"))
_OF_TRAINING = frozenset(
    ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth", "trainer_state.json")
)


_WHOLE = ("model.safetensors", "model.safetensors.index.json")
_ADAPTER = "adapter_model.safetensors"
_WEIGHTS = frozenset((".safetensors", ".bin", ".pt", ".pth", ".ckpt"))
_INDEX = (".safetensors.index.json", ".bin.index.json")


def selected(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths to carry, sorted: the weights once, as safetensors where a folder has them so."""
    every = sorted(paths)
    have = frozenset(PurePosixPath(path) for path in every)
    return tuple(path for path in every if _is_wanted(PurePosixPath(path)) and not _is_again(PurePosixPath(path), have))


def without_weights(paths: Iterable[str]) -> tuple[str, ...]:
    """Of the paths to carry, those that say what a network and its tokenizer are."""
    return tuple(path for path in paths if PurePosixPath(path).suffix not in _WEIGHTS and not path.endswith(_INDEX))


def _is_wanted(path: PurePosixPath) -> bool:
    if path.suffix in _CODE or path.name == ".gitattributes" or is_unfinished(path.name):
        return False
    if path.name.startswith("openvino_") or path.suffix in _OTHER_FORMS or path.name in _OF_TRAINING:
        return False
    return not _OTHER_FOLDERS.intersection(path.parts[:-1])


def _is_again(path: PurePosixPath, have: frozenset[PurePosixPath]) -> bool:
    """Whether it says what safetensors in the same folder say, which are read first."""
    if path.name.startswith("adapter_model") and path.suffix == ".bin":
        return path.with_name(_ADAPTER) in have
    is_pickled = path.name.startswith("pytorch_model") and (
        path.suffix == ".bin" or path.name.endswith(".bin.index.json")
    )
    is_consolidated = path.name.startswith("consolidated") and path.suffix in (".safetensors", ".pth")
    return (is_pickled or is_consolidated) and any(path.with_name(name) in have for name in _WHOLE)
