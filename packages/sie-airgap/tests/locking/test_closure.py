"""What a model's own files name: other repositories that it needs, and code that nobody here runs."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.locking.closure import LARGEST_CONFIG_BYTES, Part, is_config, parts, remote_code
from sie_core.artifacts.lock import ADAPTED_BY, BASE_OF, LABELS_ENCODER_OF


def files(**contents: object) -> dict[str, bytes]:
    return {name.replace("__", "/") + ".json": json.dumps(content).encode() for name, content in contents.items()}


def found(contents: Mapping[str, bytes], *more: str) -> list[tuple[str, str]]:
    return [(part.role, part.named) for part in parts(contents, {*contents, *more})]


def test_a_lora_names_the_model_that_it_changes() -> None:
    (part,) = parts(files(adapter_config={"base_model_name_or_path": "org/whole"}), set())

    assert (part.role, part.repo, part.weights) == (ADAPTED_BY, "org/whole", True)
    assert part.key == "`base_model_name_or_path` in `adapter_config.json`"


@pytest.mark.parametrize(("said", "ref"), [("a" * 40, "a" * 40), ("main", None), (None, None), (7, None)])
def test_the_commit_that_a_lora_was_trained_on_is_the_one(said: object, ref: str | None) -> None:
    (part,) = parts(files(adapter_config={"base_model_name_or_path": "org/whole", "revision": said}), set())

    assert part.ref == ref


@pytest.mark.parametrize(
    ("config", "more", "want"),
    [
        ({"model_name": "org/base"}, [], [(BASE_OF, "org/base")]),
        ({"model_name": "org/base"}, ["tokenizer.json"], [(BASE_OF, "org/base")]),
        ({"model_name": "org/base", "encoder_config": {}}, [], [(BASE_OF, "org/base")]),
        ({"model_name": "org/base", "encoder_config": {}}, ["tokenizer.json"], []),
        (
            {"model_name": "org/base", "encoder_config": {}, "labels_encoder": "org/labels"},
            ["tokenizer.json"],
            [(LABELS_ENCODER_OF, "org/labels")],
        ),
        (
            {"encoder_config": {}, "labels_encoder": "org/labels", "labels_encoder_config": {}},
            ["tokenizer.json"],
            [(LABELS_ENCODER_OF, "org/labels")],
        ),
        (
            {"encoder_config": {}, "labels_encoder": "org/labels"},
            ["tokenizer.json", "labels_tokenizer/tokenizer.json"],
            [(LABELS_ENCODER_OF, "org/labels")],
        ),
        (
            {"encoder_config": {}, "labels_encoder": "org/labels", "labels_encoder_config": {}},
            ["tokenizer.json", "labels_tokenizer/tokenizer.json"],
            [],
        ),
        ({"encoder_config": {}, "labels_encoder": None}, ["tokenizer.json"], []),
    ],
)
def test_a_gliner_names_what_its_own_files_lack(config: object, more: list[str], want: list[tuple[str, str]]) -> None:
    assert found(files(gliner_config=config), *more) == want


@pytest.mark.parametrize("named", ["/home/me/model", "../out", "a/b/c", "", "org/na me", "a--b/c"])
def test_a_folder_of_the_authors_is_no_repository(named: str) -> None:
    assert Part(named, "key", BASE_OF).repo is None


@pytest.mark.parametrize("named", ["org/name", "bert-base-cased"])
def test_a_repository_may_be_named_without_its_owner(named: str) -> None:
    assert Part(named, "key", BASE_OF).repo == named


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("path", ["adapter_config.json", "gliner_config.json"])
def test_what_would_name_others_and_cannot_be_read_is_refused(path: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=f"`{path}` cannot be read"):
        parts({path: data}, set())


def test_most_models_need_nothing_else() -> None:
    assert found(files(config={"_name_or_path": "org/other", "model_type": "bert"}), "model.safetensors") == []


def test_code_that_is_named_is_listed_with_its_file_and_key() -> None:
    named = files(
        config={"auto_map": {"AutoModel": "org/code--modeling.Model", "AutoConfig": "configuration.Config"}},
        tokenizer_config={"auto_map": {"AutoTokenizer": ["tokenization.Tokenizer", None]}},
        sub__config={"text_config": {"auto_map": {"AutoModel": "deep.Model"}}},
        modules=[
            {"type": "sentence_transformers.models.Transformer"},
            {"type": "custom_st.Transformer"},
        ],
    ) | {"processor_config.json": b'{"custom_pipelines": {"pair": {"impl": "pipe.Pair"}}}'}

    assert remote_code(named) == (
        "config.json: auto_map.AutoConfig = configuration.Config",
        "config.json: auto_map.AutoModel = org/code--modeling.Model",
        "modules.json: type = custom_st.Transformer",
        "processor_config.json: custom_pipelines.pair = pipe.Pair",
        "sub/config.json: text_config.auto_map.AutoModel = deep.Model",
        "tokenizer_config.json: auto_map.AutoTokenizer = tokenization.Tokenizer",
    )


def test_code_named_in_letters_that_move_a_cursor_is_shown_as_ascii() -> None:
    (line,) = remote_code(files(config={"auto_map": {"AutoModel": "a\x1b[2Jb"}}))

    assert line == r"config.json: 'auto_map.AutoModel = a\x1b[2Jb'"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["auto_map", "custom_pipelines", "impl", "type", "labels_encoder", "model_name", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["config.json", "modules.json", "a/config.json"]), json_values, max_size=3))
def test_nothing_that_is_json_breaks_the_reading(trees: dict[str, object]) -> None:
    said = remote_code({path: json.dumps(tree).encode() for path, tree in trees.items()})

    assert list(said) == sorted(set(said))


@given(st.binary(max_size=50))
def test_nothing_that_is_no_json_breaks_the_reading(data: bytes) -> None:
    remote_code({"config.json": data, "modules.json": data})


@pytest.mark.parametrize(
    ("path", "size_bytes", "is_one"),
    [
        ("config.json", 100, True),
        ("2_Dense/config.json", 100, True),
        ("gliner_config.json", 100, True),
        ("modules.json", 100, True),
        ("tokenizer.json", 100, False),
        ("config.json", LARGEST_CONFIG_BYTES + 1, False),
    ],
)
def test_which_files_are_read(path: str, size_bytes: int, is_one: bool) -> None:
    assert is_config(path, size_bytes) is is_one
