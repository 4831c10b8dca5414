"""Pictures to patches: a file's bytes decoded, resized, cropped and scaled as `preprocessor_config.json` says.

Follows transformers 5.23 `image_utils.py` (`load_image`: turned as EXIF says, then RGB) and the processors that
compute with Pillow, `image_processing_backends.py` (`PilBackend`) over `image_transforms.py`: the same pixels to the
last bit.
What a model does with patches: `backbones.vision`.
"""

import ctypes
import logging
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from sie_core.errors import ApiError
from sie_server.models.calls import LoadError

FILE: Final = "preprocessor_config.json"
WHOLE: Final = "processor_config.json"

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""As Pillow calls them; of a file with several pictures the first is taken."""

MOST_PIXELS: Final = 64_000_000
"""Of a picture as it comes and as it is resized: some bytes can be a picture that no memory holds. A camera's have up
to 50 million."""

_SHOWN_BYTES: Final = 12

# Pillow would warn on stderr at a limit of its own, and of what is odd in a file: ours is looked at before anything is
# decoded, and what callers send is nothing for whoever runs the worker.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _hush_libtiff() -> None:
    """libtiff writes what is wrong with a file to the process's stderr, whatever Python does with it, until it is told
    not to: its own two handlers, for the whole process and all threads. A Pillow that has it elsewhere keeps its own.
    """
    library = ctypes.CDLL(_imaging.__file__)  # a name is looked up in what it was linked with, too
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, name):
            function = library[name]
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            function(None)


_hush_libtiff()


class _Size(Struct, frozen=True):
    shortest_edge: int | None = None
    height: int | None = None
    width: int | None = None


class _Settings(Struct, frozen=True):
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    size: _Size | int
    crop_size: _Size | int | None = None
    do_center_crop: bool = False
    do_resize: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    do_convert_rgb: bool | None = True
    resample: int = Image.Resampling.BICUBIC
    rescale_factor: float = 1 / 255


_CLIP: Final[Mapping[str, object]] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
}
_SIGLIP: Final[Mapping[str, object]] = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": 224, "width": 224},
}
_DEFAULTS: Final = {"clip": _CLIP, "siglip": _SIGLIP}


@dataclass(frozen=True)
class PictureReader:
    """One model's way from bytes to patches; any number of threads may use it at once.

    Attributes:
        side: of the square that the model sees, in pixels.
        patch: of a patch, likewise.
        leading: rows of zeros before the patches, for tokens that are no patch.
    """

    settings: _Settings
    side: int
    patch: int
    leading: int

    @property
    def tokens(self) -> int:
        """Of every picture."""
        return (self.side // self.patch) ** 2 + self.leading

    def __call__(self, data: bytes, place: str) -> NDArray[np.float32]:
        """(tokens, 3 · patch · patch) float32, a patch's values by channel, y and x.

        Args:
            place: where the bytes stand in the call, for messages.

        Raises:
            ApiError: `INVALID_INPUT`; they are no picture, or one that is too large.
        """
        picture = _decoded(data, place)
        self._refuse_stretched(picture.size, place)
        pixels = self.pixels(picture)
        across = self.side // self.patch
        grid = pixels[:, : across * self.patch, : across * self.patch].reshape(
            3, across, self.patch, across, self.patch
        )
        rows = grid.transpose(1, 3, 0, 2, 4).reshape(across * across, -1)
        return np.concatenate([np.zeros((self.leading, rows.shape[1]), np.float32), rows]) if self.leading else rows

    def pixels(self, picture: Image.Image) -> NDArray[np.float32]:
        """(3, side, side) float32, of an RGB picture."""
        settings = self.settings
        if settings.do_resize:
            picture = picture.resize(_target(picture.size, settings.size), resample=settings.resample)
        image: NDArray[Any] = np.moveaxis(np.asarray(picture), -1, 0)
        if settings.do_center_crop:
            image = _cropped(image, self.side)
        if settings.do_rescale:
            image = (image.astype(np.float64) * settings.rescale_factor).astype(np.float32)
        image = image.astype(np.float32)
        if settings.do_normalize:
            mean, std = np.array(settings.image_mean, np.float32), np.array(settings.image_std, np.float32)
            image = ((image.T - mean) / std).T
        return image

    def _refuse_stretched(self, size: tuple[int, int], place: str) -> None:
        """A line of pixels, resized until its short side is `side` long, is a long side that no memory holds."""
        (width, height), (wide, high) = size, _target(size, self.settings.size)
        if wide * high > MOST_PIXELS:
            raise ApiError(
                "INVALID_INPUT",
                f"`{place}` is a picture of {width:,} × {height:,} pixels, which the model resizes to {wide:,} × "
                f"{high:,}: want {MOST_PIXELS:,} at most",
                hint="send a part of it that is less long",
            )


def load_pictures(folder: Path, *, kind: Literal["clip", "siglip"], side: int, patch: int) -> PictureReader:
    """What the snapshot in `folder` does with pictures.

    Raises:
        LoadError: it does not say, or its pictures are not of the side that `config.json` has.
    """
    settings = _read(folder, kind)
    crops = settings.crop_size if settings.do_center_crop else settings.size
    height, width = _square(crops)
    if (height, width) != (side, side) or (settings.do_center_crop and min(_square(settings.size)) < side):
        said = f"pictures of {width} × {height}" if height else "no size"
        raise LoadError(f"`{FILE}` in `{folder}` makes {said}, `image_size` in `config.json` is {side}")
    if not settings.do_resize:
        raise LoadError(f"`do_resize` in `{FILE}` in `{folder}` is false: supported are models that see one size")
    return PictureReader(settings, side, patch, leading=int(kind == "clip"))


def _read(folder: Path, kind: Literal["clip", "siglip"]) -> _Settings:
    path = next((folder / name for name in (FILE, WHOLE) if (folder / name).is_file()), None)
    if path is None:
        raise LoadError(f"no `{FILE}` and no `{WHOLE}` in `{folder}`: nothing says what is done with a picture")
    try:
        said = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        given = said.get("image_processor", {}) if path.name == WHOLE else said
        given = {key: value for key, value in given.items() if value is not None}
        return msgspec.convert({**_DEFAULTS[kind], **given}, _Settings)
    except msgspec.MsgspecError as error:
        raise LoadError(f"`{path}` cannot be read: {error}") from error


def _square(size: _Size | int | None) -> tuple[int, int]:
    match size:
        case int():
            return size, size
        case _Size(shortest_edge=int(edge)):
            return edge, edge
        case _Size(height=int(height), width=int(width)):
            return height, width
    return 0, 0


def _decoded(data: bytes, place: str) -> Image.Image:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                said = f"`{place}` is a picture of {width:,} × {height:,} pixels: want {MOST_PIXELS:,} at most"
                raise ApiError("INVALID_INPUT", said)
            picture = ImageOps.exif_transpose(opened)
            if isinstance(picture.info.get("transparency"), bytes):
                # It is left out of RGB anyway, and Pillow would warn of it.
                del picture.info["transparency"]
            return picture.convert("RGB")
    except UnidentifiedImageError:
        begins = data[:_SHOWN_BYTES]
        said = f"`{place}` is no picture that can be read: its {len(data):,} bytes begin with {begins!r}"
        raise ApiError("INVALID_INPUT", said, hint=f"supported are {', '.join(FORMATS)}") from None
    # What Pillow's decoders raise of damaged files, by their sources.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, ArithmeticError, struct.error) as error:
        raise ApiError("INVALID_INPUT", f"`{place}` is a picture that is damaged: {error}") from error


def _target(size: tuple[int, int], wanted: _Size | int) -> tuple[int, int]:
    """(width, height) to resize to."""
    if isinstance(wanted, _Size) and wanted.shortest_edge is None:
        height, wide = _square(wanted)
        return wide, height
    edge, _ = _square(wanted)
    width, height = size
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def _cropped(image: NDArray[Any], side: int) -> NDArray[Any]:
    _, height, width = image.shape
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]
