"""Pictures to patches, without a network: what is read, what is refused, and how. `tests/parity` has the pixels."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sie_core.errors import ApiError
from sie_server.models.calls import LoadError
from sie_server.models.pictures import FORMATS, PictureReader, load_pictures

SIGLIP = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 8, "width": 8}}
CLIP = {"image_mean": [0] * 3, "image_std": [1] * 3, "size": 8, "crop_size": 8, "do_center_crop": True}


def reader(folder: Path, kind: Any = "siglip", **keys: Any) -> PictureReader:
    said = (SIGLIP if kind == "siglip" else CLIP) | keys
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return load_pictures(folder, kind=kind, side=8, patch=4)


def file(picture: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    data = BytesIO()
    picture.save(data, kind, **more)
    return data.getvalue()


def counting() -> Image.Image:
    """8 × 8, each pixel another."""
    values = np.arange(8 * 8, dtype=np.uint8).reshape(8, 8)
    return Image.fromarray(np.stack([values, values + 64, values + 128], axis=-1))


def test_a_patch_is_its_values_by_channel_and_row(tmp_path: Path) -> None:
    patches = reader(tmp_path, do_normalize=False, do_rescale=False)(file(counting()), "items[0]")

    assert patches.shape == (4, 3 * 4 * 4)
    assert patches[0, :8].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert patches[1, 0] == 4
    assert patches[2, 0] == 32
    assert patches[3, 16] == 36 + 64


def test_clip_has_a_row_of_noughts_before_the_patches(tmp_path: Path) -> None:
    found = reader(tmp_path, "clip")
    patches = found(file(counting()), "items[0]")

    assert found.tokens == len(patches) == 5
    assert not patches[0].any()
    assert patches[1:].any(axis=1).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(tmp_path: Path, kind: str) -> None:
    assert reader(tmp_path)(file(counting(), kind), "items[0]").shape == (4, 48)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    read = reader(tmp_path)
    turned = read(file(counting(), "PNG", exif=exif), "items[0]")

    assert np.array_equal(turned, read(file(counting().rotate(180)), "items[0]"))


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path: Path) -> None:
    read, other = reader(tmp_path), Image.new("RGB", (8, 8), "red")
    both = file(counting(), "TIFF", save_all=True, append_images=[other])

    assert np.array_equal(read(both, "items[0]"), read(file(counting()), "items[0]"))


def test_more_pixels_than_a_camera_has_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    data = file(Image.new("1", (30_000, 30_000)))

    with pytest.raises(ApiError, match=r"`items\[3\]` is a picture of 30,000 × 30,000 pixels: want 64,000,000 at most"):
        reader(tmp_path)(data, "items[3]")


def test_a_line_that_would_be_resized_to_more_pixels_than_memory_holds_is_refused(tmp_path: Path) -> None:
    """A few hundred bytes, and gigabytes once its short side is as long as the model wants it."""
    data = file(Image.new("1", (1, 2_000_000)))

    with pytest.raises(ApiError, match=r"of 1 × 2,000,000 pixels, which the model resizes to 8 × 16,000,000: want"):
        reader(tmp_path, "clip")(data, "items[0]")
    assert reader(tmp_path)(data, "items[0]").shape == (4, 48)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_exif_that_is_damaged_anywhere_is_the_callers_fault_or_a_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    whole = file(counting(), "JPEG", exif=exif)
    read = reader(tmp_path)

    for place in range(whole.index(b"Exif") + 6, whole.index(b"a description")):
        for value in (0, 1, 255):
            try:
                read(whole[:place] + bytes([value]) + whole[place + 1 :], "items[0]")
            except ApiError as error:
                assert error.code == "INVALID_INPUT"


def test_a_format_that_is_not_among_them_is_named_by_its_first_bytes(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match=r"`items\[0\]` is no picture .* begin with b'%PDF-1.7 hel'") as caught:
        reader(tmp_path)(b"%PDF-1.7 hello", "items[0]")

    assert caught.value.hint == "supported are BMP, GIF, JPEG, PNG, TIFF, WEBP"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=200)
@given(kind=st.sampled_from(FORMATS), data=st.data())
def test_damaged_bytes_are_the_callers_fault_or_a_picture(tmp_path_factory: Any, kind: str, data: Any) -> None:
    whole = bytearray(file(counting(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    read = reader(tmp_path_factory.getbasetemp())

    try:
        assert read(cut, "items[0]").shape == (4, 48)
    except ApiError as error:
        assert error.code == "INVALID_INPUT"


IN_A_PROCESS = """
import io, sys, warnings
import numpy as np
from PIL import Image
if sys.argv[1] == "ours":
    import sie_server.models.pictures
warnings.simplefilter("ignore")
noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
    whole = io.BytesIO()
    noise.save(whole, "TIFF", compression=kind)
    for seed in range(20):
        damaged, random = bytearray(whole.getvalue()), np.random.default_rng(seed)
        for at in random.integers(8, len(damaged), 20):
            damaged[at] = random.integers(256)
        try:
            Image.open(io.BytesIO(bytes(damaged)), formats=("TIFF",)).convert("RGB")
        except Exception:
            pass
"""


def test_a_damaged_tiff_writes_nothing_to_stderr() -> None:
    """Not even what a C library writes by itself; the control shows that it would."""
    said = {
        who: subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS, who], capture_output=True, text=True, check=True
        ).stderr
        for who in ("ours", "pillow")
    }

    assert said["ours"] == ""
    assert "tempfile.tif: " in said["pillow"]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"size": {"height": 16, "width": 16}}, "makes pictures of 16 × 16, `image_size` in `config.json` is 8"),
        ({"do_resize": False}, "`do_resize` .* is false: supported are models that see one size"),
        ({"image_mean": [0.5]}, "cannot be read"),
        ({"size": {}}, "makes no size"),
    ],
)
def test_settings_that_do_not_fit_the_network_are_refused(tmp_path: Path, keys: dict[str, Any], why: str) -> None:
    with pytest.raises(LoadError, match=why):
        reader(tmp_path, **keys)


def test_a_snapshot_without_settings_for_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no `preprocessor_config.json` and no `processor_config.json`"):
        load_pictures(tmp_path, kind="clip", side=8, patch=4)
