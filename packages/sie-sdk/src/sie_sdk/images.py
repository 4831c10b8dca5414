"""Pictures as they travel: the bytes of a file, and what kind of file it is.

Bytes are sent as they are, labelled by what they are. Everything else (a path, a Pillow image, an array)
becomes a JPEG, for which Pillow must be installed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

ImageLike: TypeAlias = "Image | NDArray[Any] | bytes | str | Path"

DEFAULT_JPEG_QUALITY = 95

_WITHOUT_PILLOW = (
    "Pillow is not installed, and a picture that is a path, an array or a Pillow image needs it\n\n"
    "hint: send the bytes of a JPEG or PNG file, or install Pillow (this package's extra `images`)"
)
_MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
}


def to_jpeg_bytes(image: ImageLike, *, quality: int = DEFAULT_JPEG_QUALITY) -> bytes:
    """The bytes to send.

    Args:
        image: bytes of a file, which come back as they are; else a path, a Pillow image, or an array of uint8,
            (height, width) grey, (height, width, 3) red, green and blue, or (height, width, 4) with an alpha, which is
            left out.
        quality: of the JPEG, 1 to 100.

    Raises:
        FileNotFoundError: a path where nothing is.
        ValueError: an array of another shape or dtype, or a file that is no picture.
        TypeError: anything else.
        ImportError: Pillow is needed and not installed.
    """
    if isinstance(image, bytes):
        return image
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ImportError(_WITHOUT_PILLOW) from error

    if isinstance(image, str | Path):
        with _opened(Path(image), pillow) as opened:
            return _jpeg(opened, quality)
    if isinstance(image, pillow.Image):
        return _jpeg(image, quality)
    if hasattr(image, "__array_interface__"):
        return _jpeg(_of_array(image, pillow), quality)
    raise TypeError(f"a picture is a {type(image).__name__}, want bytes, a path, a Pillow image or an array")


def image_format(data: bytes) -> str | None:
    """`jpeg`, `png`, `gif`, `webp`, `bmp` or `tiff`, by a file's first bytes; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)


def convert_item_images(item: dict[str, Any]) -> dict[str, Any]:
    """The item, its `images` replaced by what is sent: `{"data": bytes, "format": "jpeg"}`.

    Changes the item itself and returns it; the clients do this to a copy.

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: as `to_jpeg_bytes`.
    """
    if item.get("images"):
        item["images"] = [_wired(image) for image in item["images"]]
    return item


def _wired(image: Any) -> dict[str, Any]:
    given = image if isinstance(image, Mapping) else {"data": image}
    if "data" not in given:
        raise ValueError(f"a picture has the keys {sorted(given)} and no `data`")
    data = to_jpeg_bytes(given["data"])
    is_ours = not isinstance(given["data"], bytes)
    kind = "jpeg" if is_ours else given.get("format") or image_format(data)
    return {"data": data, "format": kind} if kind else {"data": data}


def _opened(path: Path, pillow: Any) -> Any:
    try:
        return pillow.open(path)
    except pillow.UnidentifiedImageError as error:
        raise ValueError(f"`{path}` is not a picture that Pillow can read") from error


def _of_array(array: Any, pillow: Any) -> Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != "uint8" or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(
            f"a picture is an array of {array.dtype} and shape {array.shape}, "
            "want uint8 and (height, width) or (height, width, 3)"
        )
    picture: Image = pillow.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)
    return picture


def _jpeg(image: Image, quality: int) -> bytes:
    """Grey stays grey; everything else becomes red, green and blue, which is all that a JPEG has."""
    shown = image if image.mode in ("RGB", "L") else image.convert("RGB")
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


__all__ = ["DEFAULT_JPEG_QUALITY", "ImageLike", "convert_item_images", "image_format", "to_jpeg_bytes"]
