"""Small seeded CLIPs and SigLIPs, saved by transformers and read back by both: texts, pictures, and pixels."""

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel

from sie_core.catalog.spec import DenseHead, ModelSpec, SparseHead
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError, Picture
from sie_server.models.model import LoadedModel
from sie_server.models.pictures import load_pictures
from sie_server.models.tasks.pictured import EncodePictured
from sie_server.models.tokenizing import load_tokenizer
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

Load = Callable[[ModelSpec, Path], LoadedModel]

WITHIN = 1e-5
TEXTS = ("a photo of a cat", "", "a", "x" * 60, "Á b? 中 😀 שלום", *("ab " * n for n in range(9)))
LENGTH = 16
PAD, END = 0, 3
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = SHAPE | {"vocab_size": len(tiny_bert.TOKENIZER["model"]["vocab"]), "max_position_embeddings": LENGTH}
SEEN = SHAPE | {"hidden_size": 48, "image_size": 30, "patch_size": 10}


def save(folder: Path, kind: str, *, text: dict[str, Any] | None = None, picture: dict[str, Any] | None = None) -> Path:
    """Weights large enough for every part to matter; its tokens are letters, and [SEP] ends a text."""
    torch.manual_seed(0)
    if kind == "clip":
        text = TEXT | {"eos_token_id": END} | (text or {})
        config = transformers.CLIPConfig(text_config=text, vision_config=SEEN | (picture or {}), projection_dim=24)
        network = transformers.CLIPModel(config)
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}
        )
    else:
        text = TEXT | {"projection_size": 48} | (text or {})
        config = transformers.SiglipConfig(text_config=text, vision_config=SEEN | (picture or {}))
        network = transformers.SiglipModel(config)
        processor = transformers.SiglipImageProcessorPil(size={"height": 30, "width": 30})
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.2 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def spec(*, normalize: bool = True) -> ModelSpec:
    return ModelSpec(id=ModelId("acme/tiny"), inputs=("text", "image"), dense=DenseHead(normalize=normalize))


def ours(model: LoadedModel, items: tuple[str | Picture, ...]) -> np.ndarray:
    return np.array([output.dense for output in model.run(model.prepare(Encode(items)), stream=0)])


def unit(vectors: Any) -> np.ndarray:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


def their_texts(folder: Path, kind: str, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    fill = "max_length" if kind == "siglip" else True
    ids = tokenizer(list(texts), padding=fill, truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return unit(network.get_text_features(input_ids=ids).pooler_output)


def their_pixels(folder: Path, kind: str, files: list[bytes]) -> Any:
    kinds = {"clip": transformers.CLIPImageProcessorPil, "siglip": transformers.SiglipImageProcessorPil}
    processor = kinds[kind].from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pictures = [transformers.image_utils.load_image(Image.open(BytesIO(data))) for data in files]
    return processor(pictures, return_tensors="pt")["pixel_values"]


def rows_of(pixels: Any) -> np.ndarray:
    """Of one picture, its patches of 10 × 10."""
    return torch.nn.functional.unfold(pixels, 10, stride=10)[0].T.numpy()


def their_pictures(folder: Path, kind: str, files: list[bytes]) -> np.ndarray:
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return unit(network.get_image_features(pixel_values=their_pixels(folder, kind, files)).pooler_output)


def drawn(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def file(picture: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    data = BytesIO()
    picture.save(data, kind, **more)
    return data.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(drawn(50, 31), "JPEG", exif=exif)


def moving() -> bytes:
    frames = [drawn(40, 33, "P", seed) for seed in range(3)]
    return file(frames[0], "GIF", save_all=True, append_images=frames[1:])


FILES = {
    "square": file(drawn(30, 30)),
    "wide": file(drawn(97, 40)),
    "tall": file(drawn(33, 101)),
    "small": file(drawn(7, 9)),
    "one pixel": file(drawn(1, 1)),
    "with alpha": file(drawn(45, 60, "RGBA")),
    "grey": file(drawn(45, 60, "L")),
    "grey with alpha": file(drawn(45, 60, "LA")),
    "one bit": file(drawn(45, 60, "1")),
    "palette": file(drawn(45, 60, "P")),
    "cmyk": file(drawn(45, 60, "CMYK"), "JPEG"),
    "16 bits": file(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)),
    "jpeg": file(drawn(64, 48), "JPEG"),
    "webp": file(drawn(64, 48), "WEBP"),
    "bmp": file(drawn(64, 48), "BMP"),
    "tiff": file(drawn(64, 48), "TIFF"),
    "turned": turned(),
    "moving": moving(),
}
KINDS = pytest.mark.parametrize("kind", ["clip", "siglip"])


@KINDS
def test_texts(load_model: Load, tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path, kind)

    assert np.abs(ours(load_model(spec(), folder), TEXTS) - their_texts(folder, kind)).max() <= WITHIN


@KINDS
def test_pictures(load_model: Load, tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path, kind)
    found = ours(load_model(spec(), folder), tuple(Picture(data) for data in FILES.values()))

    assert np.abs(found - their_pictures(folder, kind, list(FILES.values()))).max() <= WITHIN


@KINDS
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_the_same_to_the_last_bit(tmp_path: Path, kind: Any, name: str) -> None:
    folder = save(tmp_path, kind)
    reader = load_pictures(folder, kind=kind, side=30, patch=10)
    patches = reader(FILES[name], "items[0]")[reader.leading :]

    assert np.array_equal(patches, rows_of(their_pixels(folder, kind, [FILES[name]])))


@KINDS
def test_texts_and_pictures_together_are_as_alone(load_model: Load, tmp_path: Path, kind: str) -> None:
    model = load_model(spec(), save(tmp_path, kind))
    items = ("ab", Picture(FILES["wide"]), "", Picture(FILES["tall"]), "abc " * 30)
    alone = np.concatenate([ours(model, (item,)) for item in items])

    assert np.abs(ours(model, items) - alone).max() <= 1e-6
    assert np.abs(ours(model, items[::-1])[::-1] - alone).max() <= 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
def test_where_a_siglip_text_is_filled_up(load_model: Load, tmp_path: Path, side: str) -> None:
    folder = rewritten(save(tmp_path, "siglip"), "tokenizer_config.json", padding_side=side)

    assert np.abs(ours(load_model(spec(), folder), TEXTS) - their_texts(folder, "siglip")).max() <= WITHIN


def test_a_wrong_side_is_noticed(load_model: Load, tmp_path: Path) -> None:
    folder = save(tmp_path, "siglip")
    wanted = their_texts(folder, "siglip")
    model = load_model(spec(), rewritten(folder, "tokenizer_config.json", padding_side="left"))

    assert np.abs(ours(model, TEXTS) - wanted).max() > 100 * WITHIN


def test_texts_in_clips_own_vocabulary(tmp_path: Path) -> None:
    """Bytes as letters, each of which may end a word, and a few that go together."""
    letters = sorted(ByteLevel.alphabet())
    merges = [("a", "b"), ("t", "h"), ("th", "e</w>"), ("c", "a"), ("ca", "t</w>")]
    words = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    theirs.save_pretrained(tmp_path)
    texts = [*TEXTS, "The CAT's  cats,\t2024!", "<|endoftext|> in a text", "ÀÉ e\u0301"]
    found = load_tokenizer(tmp_path, max_tokens=LENGTH, lower_case=False)(texts)

    assert [one.ids.tolist() for one in found] == theirs(texts, truncation=True, max_length=LENGTH)["input_ids"]
    assert found[0].ids[0] == vocabulary["<|startoftext|>"]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("SiglipTokenizer", "hello wide world"),
        ("Siglip2Tokenizer", " hello,  wide\tworld! "),
        ("GemmaTokenizer", " Hello,  wide\tWorld! "),
    ],
)
def test_what_is_done_to_a_text_first(tmp_path: Path, kind: str, wanted: str) -> None:
    """By `canonicalize_text` of the one and the normaliser of the next; the first needs sentencepiece to be run."""
    folder = rewritten(save(tmp_path, "siglip"), "tokenizer_config.json", tokenizer_class=kind)
    model = build.load(spec(), folder, precision="f32", streams=1, threads=1)
    task = model.tasks["encode"]

    assert isinstance(task, EncodePictured)
    assert task.shape(" Hello,  wide\tWorld! ") == wanted


@pytest.mark.parametrize("end", [2, END])
def test_where_a_clip_text_ends(load_model: Load, tmp_path: Path, end: int) -> None:
    """2 was once written wrongly, and means the highest id."""
    folder = save(tmp_path, "clip", text={"eos_token_id": end})

    assert np.abs(ours(load_model(spec(), folder), TEXTS) - their_texts(folder, "clip")).max() <= WITHIN


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "gelu_pytorch_tanh"])
def test_activations(load_model: Load, tmp_path: Path, activation: str) -> None:
    folder = save(tmp_path, "clip", text={"hidden_act": activation}, picture={"hidden_act": activation})
    model = load_model(spec(), folder)

    assert np.abs(ours(model, TEXTS) - their_texts(folder, "clip")).max() <= WITHIN
    found = ours(model, (Picture(FILES["wide"]),))
    assert np.abs(found - their_pictures(folder, "clip", [FILES["wide"]])).max() <= WITHIN


def test_vectors_are_left_as_they_are_where_the_spec_says_so(load_model: Load, tmp_path: Path) -> None:
    folder = save(tmp_path, "siglip")
    found = ours(load_model(spec(normalize=False), folder), TEXTS)
    lengths = np.linalg.norm(found, axis=1)

    assert np.abs(lengths - 1).min() > 0.01
    assert np.abs(found / lengths[:, None] - their_texts(folder, "siglip")).max() <= WITHIN


def rewritten(folder: Path, name: str, **keys: Any) -> Path:
    """Changes what we read, after they have read it."""
    read = json.loads((folder / name).read_text())
    for key, value in keys.items():
        read[key] = {**read[key], **value} if isinstance(value, dict) else value
    (folder / name).write_text(json.dumps(read))
    return folder


@KINDS
def test_a_wrong_epsilon_is_noticed(load_model: Load, tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path, kind)
    texts, pictures = their_texts(folder, kind), their_pictures(folder, kind, [FILES["wide"]])
    wrong = {"layer_norm_eps": 0.1}
    model = load_model(spec(), rewritten(folder, "config.json", text_config=wrong, vision_config=wrong))

    assert np.abs(ours(model, TEXTS) - texts).max() > 100 * WITHIN
    assert np.abs(ours(model, (Picture(FILES["wide"]),)) - pictures).max() > 100 * WITHIN


def test_a_wrong_end_is_noticed(load_model: Load, tmp_path: Path) -> None:
    folder = save(tmp_path, "clip")
    wanted = their_texts(folder, "clip")
    model = load_model(spec(), rewritten(folder, "config.json", text_config={"eos_token_id": 5}))

    assert np.abs(ours(model, TEXTS) - wanted).max() > 100 * WITHIN


def test_a_wrong_filter_is_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path, "siglip")
    wanted = rows_of(their_pixels(folder, "siglip", [FILES["wide"]]))
    wrong = rewritten(folder, "preprocessor_config.json", resample=2)
    reader = load_pictures(wrong, kind="siglip", side=30, patch=10)

    assert np.abs(reader(FILES["wide"], "") - wanted).max() > 0.01


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"%PDF-1.4 hello", r"`items\[1\].images\[0\].data` is no picture .* 14 bytes begin with b'%PDF-1.4 hel'"),
        (b"", "is no picture that can be read: its 0 bytes"),
        (FILES["jpeg"][:300], "is a picture that is damaged"),
        (FILES["wide"][:200], "is a picture that is damaged"),
        (file(Image.new("1", (20_000, 20_000))), "is a picture of 20,000 × 20,000 pixels: want 64,000,000 at most"),
    ],
    ids=["a document", "nothing", "half a jpeg", "half a png", "a bomb"],
)
def test_what_is_no_picture_is_named(load_model: Load, tmp_path: Path, data: bytes, why: str) -> None:
    model = load_model(spec(), save(tmp_path, "clip"))

    with pytest.raises(ApiError, match=why) as caught:
        model.prepare(Encode(("a text", Picture(data))))
    assert caught.value.code == "INVALID_INPUT"


def test_pictures_of_another_size_are_refused_when_loading(load_model: Load, tmp_path: Path) -> None:
    folder = rewritten(save(tmp_path, "siglip"), "preprocessor_config.json", size={"height": 40, "width": 40})

    with pytest.raises(LoadError, match=r"makes pictures of 40 × 40, `image_size` in `config.json` is 30"):
        load_model(spec(), folder)


def test_other_outputs_than_one_vector_are_refused_when_loading(load_model: Load, tmp_path: Path) -> None:
    wrong = ModelSpec(
        id=ModelId("acme/tiny"), dense=DenseHead(), sparse=SparseHead(head="lexical", weights="sparse_linear.pt", dim=9)
    )

    with pytest.raises(LoadError, match=r"has `dense`, `sparse`: a model of texts and pictures has `dense` alone"):
        load_model(wrong, save(tmp_path, "clip"))
