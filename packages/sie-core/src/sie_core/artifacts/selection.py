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


def selected(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths to carry, sorted: safetensors rather than `pytorch_model*.bin` where a folder has both."""
    every = sorted(paths)
    with_safetensors = {PurePosixPath(path).parent for path in every if path.endswith(".safetensors")}
    return tuple(path for path in every if _is_wanted(PurePosixPath(path), with_safetensors))


def _is_wanted(path: PurePosixPath, with_safetensors: set[PurePosixPath]) -> bool:
    if path.suffix in _CODE or path.name == ".gitattributes" or is_unfinished(path.name):
        return False
    if path.suffix in _OTHER_FORMS or path.name in _OF_TRAINING or _OTHER_FOLDERS.intersection(path.parts[:-1]):
        return False
    is_pickled = path.name.startswith("pytorch_model") and (
        path.suffix == ".bin" or path.name.endswith(".bin.index.json")
    )
    return not (is_pickled and path.parent in with_safetensors)
