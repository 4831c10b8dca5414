"""A small seeded GLiNER as its authors publish one: whole, or with its tokenizer in another repository."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.artifacts.stores.local import LocalStore
from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import ExtractHead, ModelSpec, Source
from sie_core.ids import ModelId
from sie_server import fetching
from sie_server.app import maker
from sie_server.bucket import models_in
from sie_server.models import build
from sie_server.models.calls import Extract, Extracted, LoadError, Model
from sie_server.settings import ServeSettings
from sie_server.sources import Sources
from sie_testing import tiny_bert
from sie_testing.hub import Hub, serving_hub
from sie_testing.tiny_bert import HIDDEN

WORDS = len(tiny_bert.VOCABULARY)
OWN = ("[FLERT]", "<<ENT>>", "<<SEP>>")
BASE = Source(ModelId("acme/network"))
TEXTS = ("ab c, de! fg", "", "a b? c-d e_f", "中 a")
LABELS = ("per", "a", "org")


def linear(random: np.random.Generator, at: str, outputs: int, inputs: int) -> dict[str, Any]:
    shapes = {f"{at}.weight": (outputs, inputs), f"{at}.bias": (outputs,)}
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def write_weights(folder: Path) -> None:
    random = np.random.default_rng(6)
    arrays = dict(tiny_bert.weights(0))
    table = "embeddings.word_embeddings.weight"
    more = random.normal(0, 0.3, (len(OWN), HIDDEN)).astype(np.float32)
    arrays[table] = np.concatenate([arrays[table], more])
    arrays = {f"token_rep_layer.bert_layer.model.{name}": array for name, array in arrays.items()}
    at = "span_rep_layer.span_rep_layer."
    for name, inputs in (
        (at + "project_start", HIDDEN),
        (at + "project_end", HIDDEN),
        (at + "out_project", 2 * HIDDEN),
    ):
        arrays |= linear(random, f"{name}.0", 4 * HIDDEN, inputs) | linear(random, f"{name}.3", HIDDEN, 4 * HIDDEN)
    arrays |= linear(random, "prompt_rep_layer.0", 4 * HIDDEN, HIDDEN)
    arrays |= linear(random, "prompt_rep_layer.3", HIDDEN, 4 * HIDDEN)
    tiny_bert.write_safetensors(folder / "model.safetensors", arrays)


def write(folder: Path, **said: Any) -> Path:
    """`gliner_config.json` and the weights, and nothing else."""
    folder.mkdir(parents=True)
    shape = {"hidden_size": HIDDEN, "max_width": 4, "num_rnn_layers": 0, "model_name": BASE.repo}
    (folder / "gliner_config.json").write_text(json.dumps(shape | said))
    write_weights(folder)
    return folder


def write_whole(folder: Path) -> Path:
    """The same, as gliner's `save_pretrained` writes it now."""
    network = tiny_bert.CONFIG | {"vocab_size": WORDS + 3}
    write(folder, encoder_config=network, vocab_size=WORDS + 3, class_token_index=WORDS + 1)
    tokenizer: dict[str, Any] = copy.deepcopy(dict(tiny_bert.TOKENIZER))
    said = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [{"id": WORDS + at, "content": token} | said for at, token in enumerate(OWN)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def spec_of(base: Source | None) -> ModelSpec:
    return ModelSpec(id=ModelId("acme/spans"), architecture="gliner", extract=ExtractHead("spans"), base=base)


def load(folder: Path, base: Path | None = None) -> Model:
    spec = spec_of(None if base is None else BASE)
    return build.load(spec, folder, base=base, precision="f32", streams=1, threads=1)


def found(model: Model) -> list[list[tuple[str, str, float]]]:
    call = Extract(TEXTS, labels=LABELS, options={"threshold": 0.2, "flat_ner": False})
    prepared = model.prepare(call)
    items = model.finish(call, prepared, model.run(prepared, stream=0))
    assert all(isinstance(item, Extracted) for item in items)
    return [
        [(one.text, one.label, one.score) for one in item.entities] for item in items if isinstance(item, Extracted)
    ]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """The base: a BERT whose tokenizer has none of the tokens that GLiNER adds."""
    return tiny_bert.write(tmp_path / "hub" / BASE.repo)


def test_with_its_base_a_model_finds_what_the_whole_one_does(tmp_path: Path, network: Path) -> None:
    whole = found(load(write_whole(tmp_path / "whole")))

    assert sum(map(len, whole)) > 5
    assert found(load(write(tmp_path / "bare"), network)) == whole


def test_a_model_that_says_its_ids_takes_the_tokenizer_as_it_is(tmp_path: Path, network: Path) -> None:
    bare = write(tmp_path / "bare", vocab_size=WORDS + 3, class_token_index=WORDS + 1)

    with pytest.raises(LoadError, match="`<<ENT>>` is not among the"):
        load(bare, network)


def test_without_its_base_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"Set `base\.repo`"):
        load(write(tmp_path / "bare"))


def test_a_worker_fetches_the_base_as_well(tmp_path: Path, network: Path) -> None:
    write(tmp_path / "hub" / "acme" / "spans")
    with serving_hub(Hub(tmp_path / "hub")) as endpoint:
        settings = ServeSettings(local_cache=tmp_path / "cache", hf_endpoint=endpoint, precision="f32")
        make = maker(settings, Sources.of(settings), when_imported=lambda: None)
        made = make(spec_of(BASE), lambda said: None, lambda size_bytes: None)

    assert made.verified
    assert found(made.model) == found(load(tmp_path / "hub" / "acme" / "spans", network))


def test_the_init_container_fetches_the_base_as_well(tmp_path: Path) -> None:
    spec = Catalog.shipped().specs[ModelId("urchade/gliner_small-v2.1")]
    assert spec.revision is not None
    assert spec.base is not None
    for repo in (spec.repo, spec.base.repo):
        (tmp_path / "hub" / repo).mkdir(parents=True)
        (tmp_path / "hub" / repo / "config.json").write_text("{}")
    with serving_hub(Hub(tmp_path / "hub", pins={spec.repo: spec.revision})) as endpoint:
        cache = tmp_path / "cache"
        assert fetching.fetch(ServeSettings(local_cache=cache, hf_endpoint=endpoint, models=(spec.id,))) == 0

    assert models_in(LocalStore(cache)) == (spec.base.repo, spec.repo)
