"""Labels of a text by a small seeded GLiClass: what is asked of it, what is cut, and what comes back."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.catalog.spec import ExtractHead, ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Extract, Extracted, LoadError
from sie_server.models.heads.gliclass_marks import Marks
from sie_server.models.model import LoadedModel
from sie_server.models.ops.plan import plan_batch
from sie_server.models.tokens import pack
from sie_testing import tiny_bert
from sie_testing.tiny_bert import HIDDEN

WORDS = len(tiny_bert.VOCABULARY)
LONGEST = 32
LABELS = ("a", "bc", "!")


def write(folder: Path, **head: Any) -> Path:
    """A BERT inside a GLiClass, whose scorer is a dot product."""
    tiny_bert.write(folder)
    (folder / "modules.json").unlink()
    tokenizer: dict[str, Any] = copy.deepcopy(dict(tiny_bert.TOKENIZER))
    said = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": WORDS + at, "content": mark} | said for at, mark in enumerate(("<<LABEL>>", "<<SEP>>"))
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {
        "model_type": "GLiClass",
        "encoder_config": tiny_bert.CONFIG,
        "vocab_size": WORDS + 2,
        "class_token_index": WORDS,
        "prompt_first": True,
    }
    (folder / "config.json").write_text(json.dumps(config | {"text_token_index": WORDS + 1} | head))
    random = np.random.default_rng(1)
    words = "embeddings.word_embeddings.weight"
    arrays = dict(tiny_bert.weights(0))
    arrays[words] = random.normal(0, 0.3, (WORDS + 2, HIDDEN)).astype(np.float32)
    arrays = {f"model.encoder_model.{name}": array for name, array in arrays.items()}
    for name in ("classes_projector", "text_projector"):
        for layer in (1, 2):
            at = f"model.{name}.linear_{layer}"
            arrays[at + ".weight"] = random.normal(0, 0.1, (HIDDEN, HIDDEN)).astype(np.float32)
            arrays[at + ".bias"] = random.normal(0, 0.1, HIDDEN).astype(np.float32)
    tiny_bert.write_safetensors(folder / "model.safetensors", arrays)
    return folder


def load(folder: Path, **head: Any) -> LoadedModel:
    spec = ModelSpec(
        id=ModelId("acme/labels"),
        max_tokens=LONGEST,
        extract=ExtractHead(head="labels", **head),
        architecture="gliclass",
    )
    return build.load(spec, folder, precision="f32", streams=1, threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(write(tmp_path_factory.mktemp("labels")))


@pytest.fixture(scope="module")
def text_first(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(write(tmp_path_factory.mktemp("text_first"), prompt_first=False))


def found(model: LoadedModel, *texts: str, labels: tuple[str, ...] = LABELS, **call: Any) -> list[dict[str, float]]:
    asked = Extract(texts, labels, **call)
    prepared = model.prepare(asked)
    items = model.finish(asked, prepared, model.run(prepared, stream=0))
    assert all(isinstance(item, Extracted) for item in items)
    return [{one.label: one.score for one in item.classifications} for item in items if isinstance(item, Extracted)]


def test_every_label_has_a_score_best_first_and_they_share_one(model: LoadedModel) -> None:
    for scores in found(model, "one", "", "ab c"):
        assert set(scores) == set(LABELS)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        assert sum(scores.values()) == pytest.approx(1, abs=1e-6)


def test_labels_that_are_judged_each_by_itself_share_nothing(model: LoadedModel) -> None:
    one = found(model, "one", options={"multi_label": True})[0]

    assert abs(sum(one.values()) - 1) > 1e-3
    assert list(one) == list(found(model, "one")[0])


def test_a_spec_may_have_labels_judged_each_by_itself_and_leave_some_out(model: LoadedModel, tmp_path: Path) -> None:
    each = found(model, "one", options={"multi_label": True})[0]
    best, *_ = each.values()

    assert found(load(write(tmp_path), multi_label=True, threshold=best), "one") == [{next(iter(each)): best}]


def test_a_text_scores_in_any_batch_as_it_does_alone(model: LoadedModel) -> None:
    texts = ("one", "", "a b c d e f g", "ab " * 30)
    alone = [found(model, text)[0] for text in texts]

    for together, one in zip(found(model, *reversed(texts)), reversed(alone), strict=True):
        assert together == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("name", ["model", "text_first"])
def test_of_a_text_that_is_too_long_the_end_is_lost_and_no_label(name: str, request: pytest.FixtureRequest) -> None:
    loaded: LoadedModel = request.getfixturevalue(name)
    whole, cut = loaded.prepare(Extract(("a " * 20, "a " * 90), LABELS))

    assert (len(cut.ids), cut.truncated, whole.truncated) == (LONGEST, True, False)
    assert np.count_nonzero(cut.ids == WORDS) == len(LABELS)
    assert cut.ids[0] == whole.ids[0]
    assert cut.ids[-1] == whole.ids[-1]


def test_an_instruction_stands_between_the_labels_and_the_text(model: LoadedModel) -> None:
    one, other = model.prepare(Extract(("a",), LABELS, instruction="b ")), model.prepare(Extract(("b a",), LABELS))

    assert one[0].ids.tolist() == other[0].ids.tolist()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"labels": ()}, "`params.labels` is empty"),
        ({"labels": ("a", "b <<SEP>>")}, "`params.labels[1]` has `<<SEP>>` in it"),
        ({"instruction": "<<LABEL>>"}, "`params.instruction` has `<<LABEL>>` in it"),
        ({"labels": ("a",) * 15}, "the 15 labels are 31 tokens"),
        ({"options": {"hypothesis_template": "{}"}}, "has no option `hypothesis_template`"),
        ({"options": {"threshold": 2}}, "option `threshold` is `2`"),
        ({"options": {"multi_label": "yes"}}, "option `multi_label` is `yes`"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_runs(model: LoadedModel, call: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError, match=re.escape(said)):
        model.prepare(Extract(**({"inputs": ("a",), "labels": LABELS} | call)))


@pytest.mark.parametrize("head", [{"extract_text_features": True}, {"use_segment_embeddings": True}])
def test_a_texts_token_is_the_tokenizers_where_something_asks_for_it(head: dict[str, Any], tmp_path: Path) -> None:
    load(write(tmp_path / "unasked", text_token_index=-1))

    with pytest.raises(LoadError, match=f"`<<SEP>>` is the tokenizer's token {WORDS + 1}, `text_token_index`"):
        load(write(tmp_path / "asked", text_token_index=-1, **head))


def test_a_labels_token_that_is_not_the_tokenizers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"`class_token_index` in `config\.json` makes it 5"):
        load(write(tmp_path, class_token_index=5))


LABEL, TEXT = 7, 8


@given(st.lists(st.lists(st.sampled_from([1, 2, LABEL, TEXT]), min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_labels_share_is_of_its_own_tokens_before_its_text(items: list[list[int]]) -> None:
    plan = plan_batch(pack([np.array(item, np.int32) for item in items]))
    marks = Marks(LABEL, TEXT, own=True)
    shares = marks.shares.make(plan)
    expected = []
    for item, start in zip(items, plan.tokens.starts, strict=False):
        text = item.index(TEXT) if TEXT in item else len(item)
        at = [place for place, token in enumerate(item) if token == LABEL]
        for place, following in zip(at, [*at[1:], len(item)], strict=False):
            own = [int(start) + one for one in range(place, min(following, text))]
            expected.append({one: pytest.approx(1 / len(own)) for one in own})

    assert [{at: row[at] for at in np.flatnonzero(row)} for row in shares[: len(expected)]] == expected
    assert not shares[len(expected) :].any()
    assert len(marks.rows.make(plan)) == len(shares) == len(marks.items.make(plan))
