"""The catalog: what is in it, what it refuses, and the one fingerprint that all processes compare."""

from importlib import resources
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.catalog.catalog import SHIPPED, Bundle, Catalog
from sie_core.catalog.export import encode_export, export_of, read_export
from sie_core.catalog.fingerprint import fingerprint
from sie_core.catalog.reading import read_bundles, read_catalog, read_specs
from sie_core.catalog.refusals import refusals
from sie_core.catalog.spec import DenseHead, ModelSpec, Source
from sie_core.ids import BundleName, ModelId

NAMES = st.lists(
    st.from_regex(r"[a-z][a-z0-9]{0,6}/[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}", fullmatch=True).filter(
        lambda n: ".." not in n and "--" not in n
    ),
    unique=True,
    min_size=1,
    max_size=6,
)


def spec(model: str, dim: int = 8) -> ModelSpec:
    return ModelSpec(id=ModelId(model), dense=DenseHead(dim=dim))


EVERYTHING = Bundle(name=BundleName("default"), models="all")


def test_shipped_catalog_has_every_spec_in_the_default_bundle() -> None:
    shipped = Catalog.shipped()

    assert shipped.find("sentence-transformers/all-MiniLM-L6-v2") is not None
    assert shipped.models_of("default") == tuple(shipped.specs)


def test_what_is_shipped_is_what_the_specs_say() -> None:
    written = read_catalog(resources.files("sie_core").joinpath("specs"))

    assert written == Catalog.shipped(), "`make fix` writes `specs/shipped.json` again"
    assert written.as_shipped() == resources.files("sie_core").joinpath(*SHIPPED).read_text()


@given(NAMES, st.randoms(use_true_random=False))
def test_fingerprint_does_not_depend_on_the_order(names: list[str], random: object) -> None:
    specs = [spec(name) for name in names]
    shuffled = list(specs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert Catalog.of(specs, [EVERYTHING]).fingerprint == Catalog.of(shuffled, [EVERYTHING]).fingerprint


@given(NAMES, st.integers(0, 5), st.integers(9, 4096))
def test_fingerprint_changes_with_any_spec(names: list[str], which: int, dim: int) -> None:
    specs = [spec(name) for name in names]
    changed = list(specs)
    changed[which % len(specs)] = spec(names[which % len(specs)], dim)

    assert Catalog.of(specs, [EVERYTHING]).fingerprint != Catalog.of(changed, [EVERYTHING]).fingerprint


@given(NAMES)
def test_what_is_sent_is_what_is_read(names: list[str]) -> None:
    some = Bundle(name=BundleName("some"), models=(ModelId(names[0]),), priority=1)
    catalog = Catalog.of([spec(name) for name in names], [EVERYTHING, some])

    read = read_export(encode_export(export_of(catalog, epoch=3, generated_at="2026-01-01T00:00:00Z")))

    assert read == catalog
    assert read.fingerprint == catalog.fingerprint


def test_export_with_other_content_than_it_says_is_refused() -> None:
    data = encode_export(export_of(Catalog.of([spec("a/b")], [EVERYTHING]), epoch=0, generated_at=""))

    with pytest.raises(ValueError, match=r"the export says sha256:.* and holds sha256:"):
        read_export(data.replace(b'"dim":8', b'"dim":9'))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"<html>", b'{"snapshot_version":2}', b'{"snapshot_version":1}'])
def test_what_is_no_export_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"snapshot_version|not a catalog export"):
        read_export(data)


def test_model_in_several_bundles_is_meant_in_the_first_by_priority_then_name() -> None:
    bundles = [
        Bundle(name=BundleName(name), models="all", priority=priority)
        for name, priority in (("b", 1), ("a", 1), ("z", 0))
    ]

    assert Catalog.of([spec("a/b")], bundles).bundles_of(ModelId("a/b")) == ("z", "a", "b")


def test_bundle_with_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="bundle `some` names `x/y`"):
        Catalog.of([spec("a/b")], [Bundle(name=BundleName("some"), models=(ModelId("x/y"),))])


def test_same_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="model `a/b` stands twice"):
        Catalog.of([spec("a/b"), spec("a/b", 9)], [])


def test_misspelt_model_is_answered_with_the_nearest() -> None:
    error = Catalog.shipped().no_model("sentence-transformers/all-minilm-l6-v2")

    assert error.code == "MODEL_NOT_FOUND"
    nearest = error.extra["nearest"]
    assert isinstance(nearest, list)
    assert nearest[0] == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_model_that_is_known_and_not_served_is_answered_with_the_reason() -> None:
    error = Catalog.shipped().no_model("docling")

    assert error.message == (
        "model `docling` is not served: it parses documents, which is a pipeline of programs and not a model"
    )


def test_no_model_is_both_served_and_refused() -> None:
    refused = [model for refusal in refusals() for model in refusal.models]

    assert len(set(refused)) == len(refused)
    assert not set(refused) & set(Catalog.shipped().specs)


def test_the_models_of_the_guide_are_served() -> None:
    assert {
        "BAAI/bge-m3",
        "intfloat/e5-base-v2",
        "mixedbread-ai/mxbai-rerank-large-v1",
        "sentence-transformers/all-MiniLM-L6-v2",
    } <= set(Catalog.shipped().specs)


def test_file_named_after_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x__y.yaml").write_text("id: a/b\ndense: {}\n")

    with pytest.raises(ValueError, match=r"x__y\.yaml holds `a/b`: want it named `a__b\.yaml`"):
        read_specs(tmp_path)


def test_bundle_with_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bundles.yaml").write_text("- {name: default, models: all, adapters: []}\n")

    with pytest.raises(ValueError, match=r"bundles\.yaml: .*adapters"):
        read_bundles(tmp_path / "bundles.yaml")


def test_a_field_at_its_default_does_not_change_the_fingerprint() -> None:
    spelt_out = msgspec.convert({"id": "a/b", "dense": {"head": "pooled", "dim": 8}}, ModelSpec)

    assert Catalog.of([spelt_out], []).fingerprint == Catalog.of([spec("a/b")], []).fingerprint


def test_field_that_holds_its_default_counts_as_absent() -> None:
    """So that a version with one more field has the fingerprint of one without it."""

    class OlderBundle(msgspec.Struct):
        name: str
        models: str

    older, newer = OlderBundle("default", "all"), Bundle(name=BundleName("default"), models="all")
    open_source = ModelSpec(id=ModelId("a/b"), source=Source(repo=ModelId("c/d")), dense=DenseHead())

    assert fingerprint([], [newer]) == fingerprint([], [older])
    assert b"revision" not in msgspec.json.encode(open_source)


def test_bundles_that_are_no_yaml_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "bundles.yaml"
    file.write_text("- {name: [")

    with pytest.raises(ValueError, match=r"bundles\.yaml is not YAML: "):
        read_bundles(file)
