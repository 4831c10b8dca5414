"""What stands between a pooled vector and a caller: layers, prompts left out, cuts; beside sentence-transformers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec, Pooling
from sie_core.ids import ModelId
from sie_server.models.calls import Encode
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
modules = references.sentence_transformer.modules
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
NOTICED = 1e-3
TEXTS = ["hello world", "", "a", "a b! c?", "x" * 60, "中 é 😀 שלום"]
WIDTH = tiny_bert.HIDDEN
PROMPTS = {"query": "find this! ", "document": "here is ", "special": "tell apart [SEP]", "extra": "as it is?"}

Save = Callable[..., Path]
Load = Callable[[ModelSpec, Path], LoadedModel]


def layer(outputs: int, activation: Any, *, inputs: int = WIDTH, **settings: Any) -> Any:
    return modules.Dense(inputs, outputs, activation_function=activation, **settings)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a tiny BERT, its pooling and what follows it as sentence-transformers does.

    Without `ends` no special token follows a text, as in most decoders.
    """

    def saved(
        after: Sequence[Any] = (),
        *,
        pooling: str = "mean",
        include_prompt: bool = True,
        normalize: bool = True,
        truncate_dim: int | None = None,
        pickled: bool = False,
        ends: bool = True,
    ) -> Path:
        plain = tiny_bert.write(tmp_path / "plain")
        settings = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
        if not ends:
            first = {
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
            }
            changed(plain / "tokenizer.json", post_processor=tiny_bert.TOKENIZER["post_processor"] | first)
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": ["?"]}
        (plain / "tokenizer_config.json").write_text(json.dumps(kind | settings))
        torch.manual_seed(0)
        for one in after:
            for weight in one.parameters():
                torch.nn.init.normal_(weight, std=0.3)
        parts = [
            modules.Transformer(str(plain), max_seq_length=tiny_bert.MAX_TOKENS),
            modules.Pooling(WIDTH, pooling, include_prompt=include_prompt),
            *after,
            *([modules.Normalize()] if normalize else []),
        ]
        whole = references.SentenceTransformer(modules=parts, device="cpu", prompts=PROMPTS, truncate_dim=truncate_dim)
        whole.save(str(tmp_path / "saved"), safe_serialization=not pickled)
        return tmp_path / "saved"

    return saved


def theirs(folder: Path, *, prompt_name: str = "document", **asked: Any) -> np.ndarray:
    model = references.SentenceTransformer(str(folder), device="cpu")
    # One at a time: what is compared is not how they batch.
    found = [model.encode(text, prompt_name=prompt_name, **asked) for text in TEXTS]
    assert np.abs(np.array(found) - model.encode(TEXTS, prompt_name=prompt_name, **asked)).max() <= WITHIN
    return np.array(found)


def ours(model: LoadedModel, **call: Any) -> np.ndarray:
    prepared = model.prepare(Encode(tuple(TEXTS), **call))
    found = np.array([output.dense for output in model.run(prepared, stream=0)])
    alone = np.array([model.run([one], stream=0)[0].dense for one in prepared])
    assert np.abs(found - alone).max() <= WITHIN
    return found


def spec(**head: Any) -> ModelSpec:
    return ModelSpec(id=ModelId("acme/projected"), dense=DenseHead(**head))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


CHAINS: dict[str, Callable[[], list[Any]]] = {
    "tanh": lambda: [layer(24, torch.nn.Tanh())],
    "none, wider, without bias": lambda: [layer(48, torch.nn.Identity(), bias=False)],
    "two": lambda: [layer(WIDTH, torch.nn.ReLU(), bias=False), layer(WIDTH, torch.nn.Identity())],
    "silu and sigmoid": lambda: [layer(48, torch.nn.SiLU()), layer(16, torch.nn.Sigmoid(), inputs=48)],
    "residual": lambda: [layer(WIDTH, torch.nn.Tanh(), use_residual=True)],
    "residual with a layer": lambda: [layer(20, torch.nn.Tanh(), use_residual=True)],
}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
def test_layers_after_the_pooling(save: Save, load_model: Load, chain: str, normalize: bool) -> None:
    folder = save(CHAINS[chain](), normalize=normalize)

    assert difference(ours(load_model(spec(), folder)), theirs(folder)) <= WITHIN


def test_layers_that_torch_pickled(save: Save, load_model: Load) -> None:
    folder = save(CHAINS["two"](), pickled=True)
    assert (folder / "2_Dense" / "pytorch_model.bin").is_file()

    assert difference(ours(load_model(spec(), folder)), theirs(folder)) <= WITHIN


def test_a_spec_says_which_of_several_layers(save: Save, load_model: Load) -> None:
    """As stella: a folder for each width, and `modules.json` has another than the spec."""
    folder = save([layer(24, torch.nn.Identity())])
    (folder / "2_Dense_16").mkdir()
    layer(16, torch.nn.Identity()).save(str(folder / "2_Dense_16"))
    model = load_model(spec(projection="2_Dense_16"), folder)
    found = ours(model)

    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(
        json.dumps([one | {"path": one["path"].replace("2_Dense", "2_Dense_16")} for one in listed])
    )
    assert model.dims == {"dense": 16}
    assert difference(found, theirs(folder)) <= WITHIN


@pytest.mark.parametrize("wrong", ["bias", "activation", "order"])
def test_a_wrong_layer_is_noticed(save: Save, load_model: Load, wrong: str) -> None:
    folder = save([layer(WIDTH, torch.nn.Tanh()), layer(WIDTH, torch.nn.Identity())])
    right = theirs(folder)
    if wrong == "bias":
        changed(folder / "2_Dense" / "config.json", bias=False)
    if wrong == "activation":
        changed(folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.linear.Identity")
    if wrong == "order":
        listed = json.loads((folder / "modules.json").read_text())
        listed[2]["path"], listed[3]["path"] = listed[3]["path"], listed[2]["path"]
        (folder / "modules.json").write_text(json.dumps(listed))

    assert difference(ours(load_model(spec(), folder)), right) > NOTICED


@pytest.mark.parametrize("dims", [5, WIDTH - 1])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_snapshot_that_cuts_its_vectors(save: Save, load_model: Load, dims: int, normalize: bool) -> None:
    """They are cut after they are scaled, and not scaled again."""
    folder = save(truncate_dim=dims, normalize=normalize)
    model = load_model(spec(), folder)

    assert model.dims == {"dense": dims}
    assert difference(ours(model), theirs(folder)) <= WITHIN


def test_a_cut_at_the_wrong_moment_is_noticed(save: Save, load_model: Load) -> None:
    """A spec that wants length 1 has it, as `normalize_embeddings` does; that is another vector."""
    folder = save(truncate_dim=8)
    scaled = ours(load_model(spec(normalize=True), folder))

    assert difference(scaled, theirs(folder, normalize_embeddings=True)) <= WITHIN
    assert difference(scaled, theirs(folder)) > NOTICED


def test_a_cut_follows_the_layers(save: Save, load_model: Load) -> None:
    folder = save(CHAINS["two"](), truncate_dim=8)

    assert difference(ours(load_model(spec(), folder)), theirs(folder)) <= WITHIN


POOLINGS: dict[str, Pooling] = {"mean": "mean", "weightedmean": "weighted", "cls": "cls", "lasttoken": "last"}


@pytest.mark.parametrize("prompt_name", PROMPTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_prompt_that_is_not_pooled(save: Save, load_model: Load, pooling: str, prompt_name: str) -> None:
    folder = save(pooling=pooling, include_prompt=False)
    template = PROMPTS[prompt_name] + "{text}"
    found = ours(load_model(spec(), folder), options={"doc_template": template})

    assert difference(found, theirs(folder, prompt_name=prompt_name)) <= WITHIN


@pytest.mark.parametrize("prompt_name", PROMPTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_prompt_where_nothing_ends_a_text(save: Save, load_model: Load, pooling: str, prompt_name: str) -> None:
    """An empty text then has no token of its own; a special token that ends the prompt is not counted to it."""
    folder = save(pooling=pooling, include_prompt=False, ends=False)
    found = ours(load_model(spec(), folder), options={"doc_template": PROMPTS[prompt_name] + "{text}"})

    assert difference(found, theirs(folder, prompt_name=prompt_name)) <= WITHIN


def test_a_prompt_that_fills_the_sequence_leaves_its_last_token(save: Save, load_model: Load) -> None:
    folder = save(include_prompt=False)
    changed(folder / "config_sentence_transformers.json", prompts={"document": "y" * 60})

    assert difference(ours(load_model(spec(), folder)), theirs(folder)) <= WITHIN


@pytest.mark.parametrize("off", [-1, 1])
def test_a_prompt_counted_one_off_is_noticed(save: Save, load_model: Load, off: int) -> None:
    folder = save(include_prompt=False)
    model = load_model(spec(), folder)
    prepared = model.prepare(Encode(tuple(TEXTS)))
    wrong = [replace(one, unpooled=one.unpooled + off) for one in prepared]
    found = np.array([output.dense for output in model.run(wrong, stream=0)])

    assert prepared[0].unpooled == 1 + len("hereis")
    assert difference(found, theirs(folder)) > NOTICED


def test_an_instruction_is_left_out_as_its_template_has_it(save: Save, load_model: Load) -> None:
    """As GritLM: the prompt of one call is made of a template and of what that call asks."""
    folder = save(include_prompt=False)
    changed(folder / "config_sentence_transformers.json", prompts={"document": "of sort this, "})
    given = ModelSpec(id=ModelId("acme/instructed"), dense=DenseHead(), query="of {instruction}, {text}")
    found = ours(load_model(given, folder), is_query=True, instruction="sort this")

    assert difference(found, theirs(folder)) <= WITHIN


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_call_may_choose_the_pooling(save: Save, load_model: Load, pooling: str) -> None:
    folder = save(CHAINS["tanh"](), pooling=pooling)
    model = load_model(spec(pooling="mean"), folder)

    assert difference(ours(model, options={"pooling": POOLINGS[pooling]}), theirs(folder)) <= WITHIN


def test_calls_of_different_wishes_share_a_pass(save: Save, load_model: Load) -> None:
    model = load_model(spec(), save())
    wishes: list[dict[str, object]] = [{}, {"pooling": "last_token"}, {"dimensions": 8}, {"normalize": False}]
    prepared = [one for options in wishes for one in model.prepare(Encode(tuple(TEXTS), options=options))]
    together = [output.dense for output in model.run(prepared, stream=0)]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert (
        max(difference(a, b) for a, b in zip(together, alone, strict=True) if a is not None and b is not None) < WITHIN
    )


def test_a_call_may_choose_its_dimensions(save: Save, load_model: Load) -> None:
    folder = save(CHAINS["two"]())
    found = ours(load_model(spec(), folder), options={"dimensions": 8})

    assert difference(found, theirs(folder, truncate_dim=8, normalize_embeddings=True)) <= WITHIN


def test_a_call_that_asks_for_length_1_has_it(save: Save, load_model: Load) -> None:
    folder = save(truncate_dim=8)
    found = ours(load_model(spec(), folder), options={"normalize": True})

    assert difference(found, theirs(folder, normalize_embeddings=True)) <= WITHIN
