"""A lock that is there stays: only what is new, and what was named, is asked of anybody."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sie_airgap.charts.inventory import ImageUse
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.locking.building import assemble, check_given, standing_images
from sie_airgap.locking.resolving import MOST_PARTS, Resolved, bring_derived, resolve_models
from sie_airgap.locking.wishes import Wish, standing, wishes
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NoPermission, Unreachable
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage, LockedModel, decode_lock, encode_lock
from sie_core.artifacts.stores.hub import Hub
from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import ExtractHead, ModelSpec, Source
from sie_core.ids import ModelId, Revision
from sie_testing.hub import Fault, FaultKind, serving_hub
from sie_testing.hub import Hub as Fake
from sie_testing.tiny_spm import DEBERTA, NORMAL, WORDS, sentencepiece_model

WEIGHTS = bytes(range(256)) * 10


class Repositories:
    """Folders that a fake hub serves; the commit of each follows from its files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, repo: str, **files: object) -> None:
        """`config={…}` is config.json; weights are there by themselves."""
        folder = self.root / repo
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(WEIGHTS + repo.encode())
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    made = Repositories(tmp_path / "hub")
    for repo in ("org/a", "org/b", "org/c"):
        made.write(repo, config={"of": repo})
    return made


@pytest.fixture
def fake(repositories: Repositories) -> Fake:
    return Fake(repositories.root, lfs_above_bytes=1000)


@pytest.fixture
def hub(fake: Fake) -> Iterator[Hub]:
    with serving_hub(fake) as endpoint:
        yield Hub(endpoint)


@pytest.fixture
def empty(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "store")


def wish(name: str, *why: str, ref: str = "main", weights: bool = True) -> Wish:
    return Wish(ModelId(name), ModelId(name), ref, why or ("--model",), weights)


def resolved(hub: Hub | None, store: BlobFolder, *wanted: Wish, stays: Lock | None = None) -> Resolved:
    return resolve_models(
        wanted,
        hub,
        store,
        previous=stays,
        standing=stays,
        known=["org/a", "org/tiny"],
        progress=Silent(),
        wait=lambda seconds: None,
    )


def locked(hub: Hub | None, store: BlobFolder, *wanted: Wish, stays: Lock | None = None) -> Lock:
    models = resolved(hub, store, *wanted, stays=stays).models
    return assemble(stays, models=models, images=[], charts=[], wheels=[])


def commits(lock: Lock) -> dict[str, str]:
    return {model.id: model.revision for model in lock.models}


# What stays.


def test_a_locked_model_stays_at_its_commit_and_nobody_is_asked(
    repositories: Repositories, fake: Fake, hub: Hub, empty: BlobFolder
) -> None:
    first = locked(hub, empty, wish("org/a"))
    repositories.write("org/a", config={"moved": True})
    fake.seen.clear()

    assert locked(hub, empty, wish("org/a"), stays=first) is first
    assert not fake.seen


def test_what_is_new_is_resolved_and_what_is_no_longer_asked_for_goes(
    repositories: Repositories, hub: Hub, empty: BlobFolder
) -> None:
    first = locked(hub, empty, wish("org/a"), wish("org/b"))
    for repo in ("org/a", "org/b"):
        repositories.write(repo, config={"moved": True})
    second = locked(hub, empty, wish("org/a"), wish("org/c"), stays=first)

    assert [model.id for model in second.models] == ["org/a", "org/c"]
    assert commits(second)["org/a"] == commits(first)["org/a"]
    assert second.serial == 2


def test_only_what_is_named_moves(repositories: Repositories, hub: Hub, empty: BlobFolder) -> None:
    first = locked(hub, empty, wish("org/a"), wish("org/b"))
    for repo in ("org/a", "org/b"):
        repositories.write(repo, config={"moved": True})
    second = locked(hub, empty, wish("org/a"), wish("org/b"), stays=standing(first, update=["org/b"]))

    assert commits(second)["org/a"] == commits(first)["org/a"]
    assert commits(second)["org/b"] != commits(first)["org/b"]


def test_another_ref_or_repository_is_not_what_stands(hub: Hub, empty: BlobFolder) -> None:
    """A spec's pin, for example: the lock has the branch."""
    first = locked(hub, empty, wish("org/a"))
    pinned = wish("org/a", ref=commits(first)["org/a"])
    renamed = replace(wish("org/a"), repo=ModelId("org/b"))

    assert locked(hub, empty, pinned, stays=first).models[0].ref == commits(first)["org/a"]
    assert locked(hub, empty, renamed, stays=first).models[0].repo == "org/b"


def test_who_asks_is_written_anew(hub: Hub, empty: BlobFolder) -> None:
    first = locked(hub, empty, wish("org/a"))

    assert locked(hub, empty, wish("org/a", "bundle x"), stays=first).models[0].why == ("bundle x",)


def test_of_what_becomes_only_a_base_the_weights_go_and_come_back_at_the_same_commit(
    hub: Hub, empty: BlobFolder
) -> None:
    whole = locked(hub, empty, wish("org/a"))
    part = locked(hub, empty, wish("org/a", "base of org/b", weights=False), stays=whole)
    again = locked(hub, empty, wish("org/a", "--model", "base of org/b"), stays=part)

    assert [file.path for file in part.models[0].files] == ["config.json"]
    assert again.models[0].files == whole.models[0].files
    assert commits(again) == commits(part) == commits(whole)


def test_a_name_that_the_lock_does_not_have_cannot_be_updated(hub: Hub, empty: BlobFolder) -> None:
    with pytest.raises(Misused, match="no model or image `org/aa`") as caught:
        standing(locked(hub, empty, wish("org/a")), update=["org/aa"])
    assert caught.value.hint == "did you mean `org/a`?"


def test_without_models_named_they_are_those_of_the_lock(hub: Hub, empty: BlobFolder) -> None:
    lock = locked(hub, empty, wish("org/a", "preloadModels of v.yaml", "bundle x"), wish("org/b", "base of org/a"))
    found = wishes([], models=[], bundles=[], catalog=Catalog.of([], []), locked=lock)

    assert [(one.id, one.why) for one in found] == [("org/a", ("preloadModels of v.yaml", "bundle x"))]


def test_with_a_values_file_they_are_what_it_says(hub: Hub, empty: BlobFolder) -> None:
    lock = locked(hub, empty, wish("org/a"))

    with pytest.raises(Misused, match="no model is asked for"):
        wishes([("values.yaml", {})], models=[], bundles=[], catalog=Catalog.of([], []), locked=lock)


# Nobody is asked.


def test_offline_a_locked_model_needs_neither_hub_nor_store(hub: Hub, empty: BlobFolder, tmp_path: Path) -> None:
    first = decode_lock(encode_lock(locked(hub, empty, wish("org/a"))))

    assert locked(None, BlobFolder(tmp_path / "nothing"), wish("org/a"), stays=first) is first


def test_offline_what_the_lock_does_not_have_is_named_with_who_asked(hub: Hub, empty: BlobFolder) -> None:
    first = locked(hub, empty, wish("org/a"))

    with pytest.raises(Incomplete, match=r"`org/b`, asked for by bundle x, .* `--offline` asks nobody"):
        resolved(None, empty, wish("org/a"), wish("org/b", "bundle x"), stays=first)


# The whole closure.


def adapter(base: object) -> dict[str, object]:
    return {"adapter_config": {"base_model_name_or_path": base}}


def test_a_lora_that_is_asked_for_brings_its_model_whole(
    repositories: Repositories, hub: Hub, empty: BlobFolder
) -> None:
    repositories.write("org/lora", **adapter("org/a"))
    lock = locked(hub, empty, wish("org/lora"))

    assert [(model.id, model.why) for model in lock.models] == [
        ("org/a", ("adapted by org/lora",)),
        ("org/lora", ("--model",)),
    ]
    assert [model.is_part for model in lock.models] == [False, True]
    assert "model.safetensors" in {file.path for file in lock.models[0].files}


def test_what_files_named_stays_with_the_model_that_names_it(
    repositories: Repositories, fake: Fake, hub: Hub, empty: BlobFolder
) -> None:
    repositories.write("org/lora", **adapter("org/a"))
    first = locked(hub, empty, wish("org/lora"))
    repositories.write("org/a", config={"moved": True})
    fake.seen.clear()

    assert locked(hub, empty, wish("org/lora"), stays=first) is first
    assert not fake.seen
    assert [model.id for model in locked(hub, empty, wish("org/b"), stays=first).models] == ["org/b"]


def test_a_variants_lora_for_another_model_is_told_and_brings_nothing(
    repositories: Repositories, hub: Hub, empty: BlobFolder
) -> None:
    repositories.write("org/lora", **adapter("org/c"))
    found = resolved(hub, empty, wish("org/a"), wish("org/lora", "variant `x` of org/a"))

    assert [model.id for model in found.models] == ["org/a", "org/lora"]
    (note,) = [note for note in found.notes if "LoRA" in note]
    assert "`base_model_name_or_path` in `adapter_config.json` is `org/c`, and it is a LoRA of org/a" in note


def test_a_gliner_brings_its_base_and_its_labels_encoder_without_their_weights(
    repositories: Repositories, hub: Hub, empty: BlobFolder
) -> None:
    repositories.write("org/gliner", gliner_config={"model_name": "org/a", "labels_encoder": "org/b"})
    lock = locked(hub, empty, wish("org/gliner"))

    assert {model.id: model.why for model in lock.models} == {
        "org/a": ("base of org/gliner",),
        "org/b": ("labels encoder of org/gliner",),
        "org/gliner": ("--model",),
    }
    assert [file.path for model in lock.models[:2] for file in model.files] == ["config.json", "config.json"]
    assert [model.is_part for model in lock.models] == [True, True, False]


def test_where_a_spec_says_the_base_its_commit_is_the_one(
    repositories: Repositories, hub: Hub, empty: BlobFolder
) -> None:
    repositories.write("org/gliner", gliner_config={"model_name": "/home/me/base"})
    pinned = commits(locked(hub, empty, wish("org/a")))["org/a"]
    source = Source(ModelId("org/a"), Revision(pinned))
    catalog = Catalog.of([ModelSpec(id=ModelId("org/gliner"), extract=ExtractHead("spans"), base=source)], [])
    lock = locked(hub, empty, *wishes([], models=["org/gliner"], bundles=[], catalog=catalog))

    assert [(model.id, model.ref) for model in lock.models] == [("org/a", pinned), ("org/gliner", "main")]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            adapter("../somewhere"),
            "`base_model_name_or_path` in `adapter_config.json` is `../somewhere`, which",
        ),
        (adapter(None), "`base_model_name_or_path` in `adapter_config.json` is ``, which is none"),
        (
            {"gliner_config": {"model_name": "/home/me/base"}},
            "`model_name` in `gliner_config.json` is `/home/me/base`, which is none",
        ),
        ({"gliner_config": []}, "`gliner_config.json` cannot be read"),
    ],
)
def test_a_closure_that_cannot_be_followed_is_refused_by_name(
    repositories: Repositories, hub: Hub, empty: BlobFolder, files: dict[str, object], says: str
) -> None:
    repositories.write("org/part", **files)

    with pytest.raises(Incomplete, match="`org/part`") as caught:
        resolved(hub, empty, wish("org/part"))
    assert says in caught.value.message


def test_a_part_that_the_hub_does_not_have_is_told_with_who_needs_it(
    repositories: Repositories, hub: Hub, empty: BlobFolder
) -> None:
    repositories.write("org/lora", **adapter("org/gone"))

    with pytest.raises(Exception, match="org/gone") as caught:
        resolved(hub, empty, wish("org/lora"))
    assert "`org/gone` is asked for by adapted by org/lora" in caught.value.hint  # type: ignore[attr-defined]


def test_a_chain_without_end_is_cut_off(repositories: Repositories, hub: Hub, empty: BlobFolder) -> None:
    for number in range(MOST_PARTS + 2):
        repositories.write(f"org/lora-{number}", **adapter(f"org/lora-{number + 1}"))

    with pytest.raises(Incomplete, match=f"more than {MOST_PARTS} other repositories"):
        resolved(hub, empty, wish("org/lora-0"))


def test_code_that_a_repository_names_is_in_the_lock(repositories: Repositories, hub: Hub, empty: BlobFolder) -> None:
    repositories.write("org/a", config={"auto_map": {"AutoModel": "org/code--modeling.Model"}})

    (model,) = locked(hub, empty, wish("org/a")).models
    assert model.remote_code == ("config.json: auto_map.AutoModel = org/code--modeling.Model",)


# What the hub says no to.


def test_a_hub_that_does_not_answer_says_what_to_look_at(fake: Fake, hub: Hub, empty: BlobFolder) -> None:
    fake.set_faults(Fault(FaultKind.STATUS, status=503))

    with pytest.raises(Unreachable) as caught:
        resolved(hub, empty, wish("org/a"))
    assert "HF_ENDPOINT" in (caught.value.hint or "")
    assert "--offline" in (caught.value.hint or "")


def test_a_gated_file_names_the_page_and_who_asked(fake: Fake, hub: Hub, empty: BlobFolder) -> None:
    """The Hub lists a gated repository to everybody, and hands out none of its files."""
    fake.set_faults(Fault(FaultKind.GATED, match="*/resolve/*"))

    with pytest.raises(NoPermission) as caught:
        resolved(hub, empty, wish("org/a", "bundle x"))
    assert f"{hub.endpoint}/org/a" in (caught.value.hint or "")
    assert "asked for by bundle x" in (caught.value.hint or "")


# What only locking brings.


@pytest.fixture
def with_made(repositories: Repositories, hub: Hub, empty: BlobFolder) -> LockedModel:
    """A model with a tokenizer that was made when locking."""
    folder = repositories.root / "org/a"
    more = [(f"piece{number}", -20.0, NORMAL) for number in range(50)]
    (folder / "spm.model").write_bytes(sentencepiece_model([*DEBERTA, *WORDS, *more], unk_id=3))
    (folder / "tokenizer_config.json").write_bytes(b'{"tokenizer_class": "DebertaV2Tokenizer"}')
    return locked(hub, empty, wish("org/a")).models[0]


def test_what_was_made_is_brought_to_an_empty_store(with_made: LockedModel, hub: Hub, tmp_path: Path) -> None:
    other = BlobFolder(tmp_path / "other")
    bring_derived(with_made, hub, other, progress=Silent())
    (made,) = [file for file in with_made.files if file.derived_from]

    assert other.size(made.digest) == made.size_bytes


def test_what_would_be_made_otherwise_is_drift(with_made: LockedModel, hub: Hub, tmp_path: Path) -> None:
    wrong = digest_of(b"made by another version")
    files = tuple(
        msgspec.structs.replace(file, digest=wrong) if file.derived_from else file for file in with_made.files
    )

    with pytest.raises(Drift, match=r"`tokenizer.json` of `org/a` is made from `spm.model`") as caught:
        bring_derived(
            msgspec.structs.replace(with_made, files=files), hub, BlobFolder(tmp_path / "other"), progress=Silent()
        )
    assert wrong in caught.value.message
    assert "--update org/a" in (caught.value.hint or "")


def test_a_chart_or_wheel_that_is_not_the_locked_one_is_named_with_both_digests(lock: Lock) -> None:
    (chart,) = lock.charts
    other = msgspec.structs.replace(chart, digest=digest_of(b"other"))

    check_given(lock, charts=[chart], wheels=None)
    with pytest.raises(Drift) as caught:
        check_given(lock, charts=[other], wheels=[])
    assert chart.digest in caught.value.message
    assert other.digest in caught.value.message
    assert lock.wheels[0].file in caught.value.message


def test_an_image_stays_with_its_digest_and_gets_its_reasons_anew() -> None:
    blob = LockedBlob(digest_of(b"m"), 1, "x")
    image = LockedImage("r.example/a:v1", blob.digest, "x", {"linux/amd64": blob.digest}, (blob,), (), ("old",))
    lock = Lock(1, 1, None, (), (image,), (), ())
    uses = [ImageUse("r.example/a:v1", ("new",)), ImageUse("r.example/b:v1", ("new",))]

    stay, asked = standing_images(uses, lock)
    assert [(one.digest, one.why) for one in stay] == [(image.digest, ("new",))]
    assert asked == uses[1:]
    assert standing_images(uses, standing(lock, update=["r.example/a:v1"])) == ([], uses)
    assert standing_images(uses, None) == ([], uses)
