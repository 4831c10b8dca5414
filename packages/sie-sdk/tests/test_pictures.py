"""Pictures and documents on their way into a request."""

import asyncio
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sie_core.wire.codec import Format, encode
from sie_core.wire.messages import (
    Dense,
    EncodedItem,
    EncodeResponse,
    ExtractedItem,
    ExtractResponse,
    ScoreEntry,
    ScoreResponse,
)
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.documents import convert_item_document, infer_document_format, to_document_bytes
from sie_sdk.images import convert_item_images, image_format, to_jpeg_bytes
from sie_testing.script import Answer, Script

RED = Image.new("RGB", (16, 8), (200, 10, 10))


def saved(kind: str, image: Image.Image = RED) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16"])
def test_pillow_image_of_any_mode_becomes_a_jpeg_of_its_size(mode: str) -> None:
    image = Image.new("L", (16, 8)).convert("I").convert(mode) if mode == "I;16" else RED.convert(mode)
    found = opened(to_jpeg_bytes(image))

    assert (found.format, found.size) == ("JPEG", (16, 8))
    assert found.mode == ("L" if mode == "L" else "RGB")


@pytest.mark.parametrize("shape", [(8, 16), (8, 16, 1), (8, 16, 3), (8, 16, 4)])
def test_array_of_uint8_becomes_a_jpeg(shape: tuple[int, ...]) -> None:
    found = opened(to_jpeg_bytes(np.full(shape, 90, np.uint8)))

    assert (found.format, found.size) == ("JPEG", (16, 8))
    assert abs(int(np.asarray(found).mean()) - 90) <= 1


@pytest.mark.parametrize("array", [np.zeros((8, 16, 3)), np.zeros((3, 8, 16), np.uint8), np.zeros(8, np.uint8)])
def test_array_that_is_no_picture_is_named_with_its_dtype_and_shape(array: Any) -> None:
    with pytest.raises(ValueError, match=rf"array of {array.dtype} and shape \({array.shape[0]},"):
        to_jpeg_bytes(array)


def test_path_becomes_a_jpeg_of_quality_95_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(saved("PNG"))
    (tmp_path / "red.txt").write_text("red")

    for path in (tmp_path / "red.png", str(tmp_path / "red.png")):
        assert to_jpeg_bytes(path) == to_jpeg_bytes(RED) != to_jpeg_bytes(RED, quality=50)
    with pytest.raises(ValueError, match=r"red\.txt` is not a picture"):
        to_jpeg_bytes(tmp_path / "red.txt")
    with pytest.raises(FileNotFoundError):
        to_jpeg_bytes(tmp_path / "none.png")
    with pytest.raises(TypeError, match="a picture is a int, want bytes, a path"):
        to_jpeg_bytes(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp", "tiff"])
def test_bytes_stay_as_they_are_and_are_labelled_by_what_they_are(kind: str) -> None:
    """v0.3.1 called a PNG `jpeg`."""
    data = saved(kind)

    assert convert_item_images({"images": [data]}) == {"images": [{"data": data, "format": kind}]}
    assert convert_item_images({"images": [{"data": data, "format": "mine"}]})["images"][0]["format"] == "mine"


@given(st.binary(max_size=40))
def test_bytes_of_any_kind_pass_unchanged(data: bytes) -> None:
    (wired,) = convert_item_images({"images": [data]})["images"]

    assert wired == ({"data": data, "format": kind} if (kind := image_format(data)) else {"data": data})


def test_pillow_is_named_where_it_is_needed_and_lacking() -> None:
    code = """
import sys
sys.modules["PIL"] = None
from sie_sdk.images import to_jpeg_bytes
assert to_jpeg_bytes(b"abc") == b"abc"
try:
    to_jpeg_bytes("red.png")
except ImportError as error:
    sys.exit(0 if "Pillow is not installed" in str(error) else 2)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("name", "kind"), [("a.PDF", "pdf"), ("a.b.htm", "html"), ("notes.markdown", "md"), ("a.zip", None), ("a", None)]
)
def test_name_of_a_document_says_its_format(name: str, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"text")

    assert infer_document_format(name) == kind
    assert to_document_bytes(tmp_path / name) == (b"text", kind)
    assert convert_item_document({"document": str(tmp_path / name)}) == {"document": {"data": b"text", "format": kind}}
    given = {"document": {"data": tmp_path / name, "format": "rtf"}}
    assert convert_item_document(given) == {"document": {"data": b"text", "format": "rtf"}}


ANSWERS = {
    "encode": EncodeResponse("m", [EncodedItem(dense=Dense(1, "float32", np.ones(1, np.float32)))]),
    "score": ScoreResponse("m", [ScoreEntry("item-0", 1.0, 0)]),
    "extract": ExtractResponse("m", [ExtractedItem("item-0")]),
}


@pytest.mark.parametrize("verb", list(ANSWERS))
@pytest.mark.parametrize("waits", [False, True])
def test_pictures_go_with_every_verb_and_the_callers_items_stay_as_they_were(verb: str, waits: bool) -> None:
    item = {"images": [RED, {"data": RED}], "text": "red", "document": b"%PDF"}
    before = dict(item)
    arguments = ("o/m", item, [item]) if verb == "score" else ("o/m", [item])

    async def awaiting(url: str) -> None:
        async with SIEAsyncClient(url) as client:
            await getattr(client, verb)(*arguments)

    with Script(
        [Answer(200, {"content-type": "application/msgpack"}, encode(ANSWERS[verb], Format.MSGPACK))]
    ) as script:
        if waits:
            asyncio.run(awaiting(script.url))
        else:
            with SIEClient(script.url) as client:
                getattr(client, verb)(*arguments)

    body = msgspec.msgpack.decode(script.heard[0].body)
    jpeg = {"data": to_jpeg_bytes(RED), "format": "jpeg"}
    sent = [*body["items"], *([body["query"]] if verb == "score" else [])]
    assert sent
    assert all(one == {"images": [jpeg, jpeg], "text": "red", "document": sent_document()} for one in sent)
    assert item == before


def sent_document() -> dict[str, Any]:
    return {"data": b"%PDF", "format": None}


def test_picture_that_cannot_be_sent_is_named_with_its_item() -> None:
    with SIEClient("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="item 1: a picture is a int"):
        client.encode("o/m", [{"text": "a"}, {"images": [7]}])  # type: ignore[list-item]
