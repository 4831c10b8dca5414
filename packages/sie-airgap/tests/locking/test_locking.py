"""What is locked: refs become commits, every file gets its sha256, and who asked stays known."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_airgap.failures import Incomplete, Misused
from sie_airgap.locking.building import assemble, lock_chart
from sie_airgap.locking.file_digests import Digests
from sie_airgap.locking.resolving import Resolved, resolve_models
from sie_airgap.locking.wishes import Wish, wishes
from sie_airgap.progress import Silent
from sie_airgap.reviewing.diff import difference
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.snapshot import missing
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError
from sie_core.artifacts.hf_layout import git_blob_id
from sie_core.artifacts.lock import Lock, LockedModel, decode_lock, encode_lock, lock_digest
from sie_core.artifacts.sentencepiece import tokenizer_json
from sie_core.artifacts.stores.hub import Hub
from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import DenseHead, ExtractHead, Lora, ModelSpec, Source, Variant
from sie_core.ids import ModelId, Revision
from sie_testing.hub import Fault, FaultKind, serving_hub
from sie_testing.hub import Hub as Fake
from sie_testing.tiny_spm import DEBERTA, NORMAL, WORDS, sentencepiece_model

COMMIT = Revision("12" * 20)
WEIGHTS = bytes(range(256)) * 300
FILES = {
    "config.json": b'{"auto_map": {}}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"import os",
    "onnx/model.onnx": b"onnx",
    "1_Pooling/config.json": b"{}",
    ".gitattributes": b"*",
}
TINY = Wish(ModelId("org/tiny"), ModelId("org/tiny"), "main", ("--model",))


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    for path, data in FILES.items():
        file = tmp_path / "hub" / "org" / "tiny" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return Fake(tmp_path / "hub", pins={"org/tiny": COMMIT}, lfs_above_bytes=1000)


@pytest.fixture
def hub(fake: Fake) -> Iterator[Hub]:
    with serving_hub(fake) as endpoint:
        yield Hub(endpoint)


@pytest.fixture
def empty(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "empty")


def all_resolved(
    hub: Hub | None,
    store: BlobFolder,
    *wishes: Wish,
    previous: Lock | None = None,
    stays: Lock | None = None,
) -> Resolved:
    """`previous`: what is believed of digests; `stays`: what keeps its commit."""
    return resolve_models(
        wishes,
        hub,
        store,
        previous=previous or stays,
        standing=stays,
        known=["org/tiny"],
        progress=Silent(),
        wait=lambda seconds: None,
    )


def resolved(hub: Hub, store: BlobFolder, *, previous: Lock | None = None, wish: Wish = TINY) -> LockedModel:
    return all_resolved(hub, store, wish, previous=previous).models[0]


def made(model: LockedModel, previous: Lock | None = None) -> Lock:
    return assemble(previous, models=[model], images=[], charts=[], wheels=[])


def test_a_branch_is_locked_as_the_commit_that_it_is_now(hub: Hub, empty: BlobFolder) -> None:
    model = resolved(hub, empty)

    assert (model.ref, model.revision) == ("main", COMMIT)


def test_every_file_has_its_sha256_whatever_the_hub_says_of_it(hub: Hub, empty: BlobFolder) -> None:
    files = {file.path: file for file in resolved(hub, empty).files}

    assert {path: file.digest for path, file in files.items()} == {path: digest_of(FILES[path]) for path in files}
    assert files["model.safetensors"].hub_id == hex_of(digest_of(WEIGHTS))
    assert len(files["config.json"].hub_id) == 40


def test_other_forms_of_the_weights_and_code_are_not_carried(hub: Hub, empty: BlobFolder) -> None:
    model = resolved(hub, empty)

    assert [file.path for file in model.files] == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert "adapter_config.json" in model.absent
    assert "config.json" not in model.absent


def test_of_a_base_only_the_weights_are_left_behind(hub: Hub, empty: BlobFolder) -> None:
    base = Wish(TINY.id, TINY.repo, "main", ("base of org/a",), weights=False)
    found = all_resolved(hub, empty, base)

    assert [file.path for file in found.models[0].files] == ["1_Pooling/config.json", "config.json"]
    assert found.models[0].is_part
    assert not any("safetensors" in note for note in found.notes)


def test_what_is_left_out_and_why_is_told(hub: Hub, empty: BlobFolder) -> None:
    found = all_resolved(hub, empty, TINY)

    assert any("modeling.py" in note for note in found.notes)


def test_small_files_are_in_the_store_once_they_are_locked(hub: Hub, empty: BlobFolder) -> None:
    resolved(hub, empty)

    assert empty.size(digest_of(FILES["config.json"])) == len(FILES["config.json"])
    assert empty.size(digest_of(WEIGHTS)) is None


def test_what_the_previous_lock_knew_is_not_asked_again(fake: Fake, hub: Hub, empty: BlobFolder) -> None:
    first = made(resolved(hub, empty))
    fake.seen.clear()

    assert resolved(hub, empty, previous=first) == first.models[0]
    assert not [seen for seen in fake.seen if "/resolve/" in seen.path]


def test_a_lock_of_the_same_things_is_the_same_lock(hub: Hub, empty: BlobFolder) -> None:
    first = made(resolved(hub, empty))

    assert made(resolved(hub, empty), first) is first


def test_a_changed_lock_counts_up_and_names_the_one_before(hub: Hub, empty: BlobFolder, tmp_path: Path) -> None:
    first = made(resolved(hub, empty))
    (tmp_path / "hub/org/tiny/config.json").write_bytes(b"{}")
    second = made(resolved(hub, empty), first)

    assert (second.serial, second.previous) == (2, lock_digest(first))
    (change,) = difference(first, second)
    assert (change.sign, change.name) == ("~", "org/tiny config.json")
    assert (change.before, change.after) == (digest_of(FILES["config.json"]), digest_of(b"{}"))
    assert decode_lock(encode_lock(second)) == second


def test_a_file_altered_on_its_way_is_refused_with_both_ids(hub: Hub, empty: BlobFolder, tmp_path: Path) -> None:
    listed = hub.files(ModelId("org/tiny"), COMMIT)
    (tmp_path / "hub/org/tiny/config.json").write_bytes(b'{"auto_map": []}')
    digests = Digests(hub.store(ModelId("org/tiny"), COMMIT), empty, None, say=print, wait=print)

    with pytest.raises(TrustError, match=r"config\.json") as caught:
        digests.lock(next(file for file in listed if file.path == "config.json"), Silent())
    assert git_blob_id(b'{"auto_map": []}') in caught.value.have
    assert git_blob_id(FILES["config.json"]) in caught.value.want
    assert not empty.root.exists()


def test_a_repository_that_is_not_there_is_answered_with_the_nearest(hub: Hub, empty: BlobFolder) -> None:
    wrong = Wish(ModelId("org/tinny"), ModelId("org/tinny"), "main", ("preloadModels of values.yaml",))

    with pytest.raises(NotThere) as caught:
        resolved(hub, empty, wish=wrong)
    assert caught.value.hint is not None
    assert "org/tiny" in caught.value.hint
    assert "values.yaml" in caught.value.hint


def test_a_gated_repository_says_which_page_to_accept(fake: Fake, hub: Hub, empty: BlobFolder) -> None:
    fake.set_faults(Fault(FaultKind.GATED))

    with pytest.raises(NoPermission) as caught:
        resolved(hub, empty)
    assert caught.value.hint is not None
    assert hub.endpoint in caught.value.hint


def test_models_are_those_preloaded_and_those_named() -> None:
    values = [("a.yaml", {"workers": {"common": {"preloadModels": ["org/a"]}}}), ("b.yaml", {})]
    found = wishes(values, models=["org/b", "org/a"], bundles=[], catalog=Catalog.of([], []))

    assert [(wish.id, wish.why) for wish in found] == [
        ("org/a", ("preloadModels of a.yaml", "--model")),
        ("org/b", ("--model",)),
    ]


def test_a_later_values_file_replaces_the_list_of_an_earlier_one() -> None:
    values = [(name, {"workers": {"common": {"preloadModels": [f"org/{name}"]}}}) for name in ("a", "b")]

    assert [wish.id for wish in wishes(values, models=[], bundles=[], catalog=Catalog.of([], []))] == ["org/b"]


def test_the_commit_that_a_spec_pins_is_the_one_locked() -> None:
    catalog = Catalog.shipped()
    spec = next(spec for spec in catalog.specs.values() if spec.revision is not None)

    (wish,) = wishes([], models=[spec.id], bundles=[], catalog=catalog)
    assert (wish.repo, wish.ref) == (spec.repo, spec.revision)


def test_a_bundle_is_locked_only_by_name() -> None:
    catalog = Catalog.shipped()
    bundle = catalog.bundles[0].name

    found = {wish.id for wish in wishes([], models=[], bundles=[bundle], catalog=catalog)}
    loras = {variant.lora.repo for spec in catalog.specs.values() for variant in spec.variants.values() if variant.lora}

    bases = {base.repo for spec in catalog.specs.values() for base in spec.bases}

    assert found == {*catalog.models_of(bundle), *loras, *bases}
    with pytest.raises(Misused, match="there is no bundle"):
        wishes([], models=[], bundles=[bundle + "x"], catalog=catalog)


def test_the_loras_of_a_models_variants_are_locked_with_it_each_once() -> None:
    pinned = Lora(ModelId("acme/lora"), Revision("a" * 40))
    variants = {"one": Variant(lora=pinned), "two": Variant(lora=pinned), "plain": Variant()}
    spec = ModelSpec(id=ModelId("acme/base"), dense=DenseHead(), variants=variants)
    found = wishes([], models=["acme/base"], bundles=[], catalog=Catalog.of([spec], []))

    assert [wish.id for wish in found] == ["acme/base", "acme/lora"]
    assert found[1].ref == "a" * 40
    assert found[1].why == ("variant `one` of acme/base", "variant `two` of acme/base")


def _named(name: str, **base: str) -> ModelSpec:
    """A model whose tokenizer is in another repository."""
    source = Source(ModelId(base["repo"]), Revision(base["revision"]) if "revision" in base else None)
    return ModelSpec(id=ModelId(name), extract=ExtractHead("spans"), base=source)


def test_the_base_of_models_is_locked_with_them_once_and_without_its_weights() -> None:
    catalog = Catalog.of([_named("acme/a", repo="acme/base"), _named("acme/b", repo="acme/base")], [])
    found = wishes([], models=["acme/b", "acme/a"], bundles=[], catalog=catalog)

    assert [(wish.id, wish.weights) for wish in found] == [("acme/a", True), ("acme/b", True), ("acme/base", False)]
    assert (found[2].ref, found[2].why) == ("main", ("base of acme/a", "base of acme/b"))


def test_a_base_that_is_also_asked_for_itself_stays_whole() -> None:
    catalog = Catalog.of([_named("acme/a", repo="acme/base")], [])
    found = wishes([], models=["acme/a", "acme/base"], bundles=[], catalog=catalog)

    assert [(wish.id, wish.weights) for wish in found] == [("acme/a", True), ("acme/base", True)]
    assert found[1].why == ("--model", "base of acme/a")


def test_the_base_of_a_models_labels_is_locked_likewise() -> None:
    spec = ModelSpec(id=ModelId("acme/a"), extract=ExtractHead("spans"), labels_base=Source(ModelId("acme/of-labels")))
    found = wishes([], models=["acme/a"], bundles=[], catalog=Catalog.of([spec], []))

    assert [(wish.id, wish.weights) for wish in found] == [("acme/a", True), ("acme/of-labels", False)]
    assert found[1].why == ("labels encoder of acme/a",)


def test_one_base_at_two_commits_is_refused() -> None:
    pinned = _named("acme/b", repo="acme/base", revision="a" * 40)
    catalog = Catalog.of([_named("acme/a", repo="acme/base"), pinned], [])

    with pytest.raises(Misused, match="`acme/base` is asked for by base of acme/a as `acme/base` at main, and is base"):
        wishes([], models=["acme/a", "acme/b"], bundles=[], catalog=catalog)


def test_a_model_that_is_not_served_is_not_locked() -> None:
    with pytest.raises(Misused, match="`docling`, asked for by --model, is not served: it parses documents"):
        wishes([], models=["docling"], bundles=[], catalog=Catalog.shipped())


@pytest.mark.parametrize("values", [{}, {"workers": None}, {"workers": {"common": {"preloadModels": []}}}])
def test_asking_for_nothing_is_a_mistake(values: dict[str, object]) -> None:
    with pytest.raises(Misused, match="no model"):
        wishes([("values.yaml", values)], models=[], bundles=[], catalog=Catalog.shipped())


def test_a_list_that_is_no_list_is_named_with_its_file() -> None:
    values = {"workers": {"common": {"preloadModels": "org/a"}}}

    with pytest.raises(Misused, match=r"values\.yaml.*org/a"):
        wishes([("values.yaml", values)], models=[], bundles=[], catalog=Catalog.shipped())


def test_a_charts_folder_has_the_same_digest_each_time(tmp_path: Path, empty: BlobFolder) -> None:
    chart = tmp_path / "chart"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("name: tiny\nversion: 1.0.0\n")
    (chart / "values.yaml").write_text("{}\n")

    first = lock_chart(chart, empty)
    assert lock_chart(chart, empty) == first
    assert empty.size(first.digest) == first.size_bytes


# What is made when locking.


@pytest.fixture
def with_model(tmp_path: Path, fake: Fake) -> Path:
    """The repository has a sentencepiece model, large enough for the hub to keep it in LFS, and no tokenizer."""
    folder = tmp_path / "hub/org/tiny"
    more = [(f"piece{number}", -20.0, NORMAL) for number in range(50)]
    (folder / "spm.model").write_bytes(sentencepiece_model([*DEBERTA, *WORDS, *more], unk_id=3))
    (folder / "tokenizer_config.json").write_bytes(b'{"tokenizer_class": "DebertaV2Tokenizer"}')
    return folder


def test_a_sentencepiece_model_is_locked_with_the_tokenizer_made_of_it(
    with_model: Path, hub: Hub, empty: BlobFolder
) -> None:
    model = resolved(hub, empty)
    files = {file.path: file for file in model.files}
    want = tokenizer_json((with_model / "spm.model").read_bytes(), "DebertaV2Tokenizer", None)

    assert len(files["spm.model"].hub_id) == 64
    assert files["tokenizer.json"].derived_from == "spm.model"
    assert files["tokenizer.json"].digest == digest_of(want)
    assert empty.path(digest_of(want)).read_bytes() == want
    assert "tokenizer.json" not in model.absent
    assert decode_lock(encode_lock(made(model))).models == (model,)


def test_the_same_model_makes_the_same_lock(with_model: Path, hub: Hub, empty: BlobFolder) -> None:
    first = made(resolved(hub, empty))

    assert made(resolved(hub, empty, previous=first), first) is first


@pytest.mark.usefixtures("with_model")
def test_what_was_made_is_told(hub: Hub, empty: BlobFolder) -> None:
    found = all_resolved(hub, empty, TINY)

    assert "org/tiny: `tokenizer.json` is made from `spm.model`: the hub has none" in found.notes


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_nothing_is_made_where_workers_read_what_there_is(
    with_model: Path, hub: Hub, empty: BlobFolder, name: str
) -> None:
    (with_model / name).write_bytes(b"{}")

    assert all(file.derived_from is None for file in resolved(hub, empty).files)


def test_a_model_that_is_not_converted_is_told_with_those_that_are(
    with_model: Path, hub: Hub, empty: BlobFolder
) -> None:
    (with_model / "tokenizer_config.json").write_bytes(b'{"tokenizer_class": "AlbertTokenizer"}')
    found = all_resolved(hub, empty, TINY)

    note = next(note for note in found.notes if "spm.model" in note)
    assert "is not converted, and no worker reads it: supported are" in note
    assert "`spm.model` of DebertaV2Tokenizer" in note


def test_an_altered_model_is_not_converted(with_model: Path, hub: Hub, empty: BlobFolder) -> None:
    listed = hub.files(ModelId("org/tiny"), COMMIT)
    (with_model / "spm.model").write_bytes(sentencepiece_model(DEBERTA, unk_id=3) + bytes(2000))
    digests = Digests(hub.store(ModelId("org/tiny"), COMMIT), empty, None, say=print, wait=print)

    with pytest.raises(TrustError, match=r"`spm.model` is not what the hub lists"):
        digests.derived(listed)


@pytest.mark.usefixtures("with_model")
def test_what_was_made_and_is_gone_is_brought_by_locking_again(hub: Hub, empty: BlobFolder) -> None:
    """The hub cannot bring it."""
    model = resolved(hub, empty)
    digest = next(file.digest for file in model.files if file.derived_from is not None)
    empty.path(digest).unlink()

    with pytest.raises(Incomplete, match=r"`org/tiny tokenizer.json` of the lock are not in") as caught:
        missing(made(model), empty)
    assert "`sie-airgap lock --frozen`" in (caught.value.hint or "")
