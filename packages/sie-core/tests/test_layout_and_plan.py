"""Where files lie, and what a plan says about them."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.plan import Conflict, plan
from sie_core.ids import ModelId, Revision, cache_folder

REVISION = Revision("5617a9f61b028005a4858fdac845db406aefb181")
MODEL = ModelId("BAAI/bge-m3")

segments = st.text(alphabet="abcXYZ019_.", min_size=1, max_size=8).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=3).map("/".join)
listings = st.dictionaries(paths, st.integers(min_value=0, max_value=3), max_size=8)

# How long an example takes says how busy the machine is.
untimed = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def manifest_of(sizes: dict[str, int]) -> Manifest:
    files = (FileEntry(path=path, digest=digest_of(path.encode()), size_bytes=sizes[path]) for path in sorted(sizes))
    return Manifest(repo=MODEL, revision=REVISION, files=tuple(files))


@untimed
@given(listings, listings)
def test_carrying_out_a_plan_leaves_nothing_to_do(wanted: dict[str, int], there: dict[str, int]) -> None:
    manifest = manifest_of(wanted)
    first = plan(manifest, there)
    after = there | {entry.path: entry.size_bytes for entry in first.copies}

    assert plan(manifest, after).is_done
    assert plan(manifest, after).strays == first.strays


@untimed
@given(listings, listings)
def test_a_plan_puts_every_file_in_one_part(wanted: dict[str, int], there: dict[str, int]) -> None:
    result = plan(manifest_of(wanted), there)
    copied = {entry.path for entry in result.copies}
    present = {entry.path for entry in result.present}

    assert copied | present == set(wanted)
    assert not copied & present
    assert {conflict.path for conflict in result.conflicts} == copied & set(there)
    assert set(result.strays) == set(there) - set(wanted)
    assert result.copy_bytes == sum(wanted[path] for path in copied)


def test_a_truncated_file_is_a_conflict_and_is_copied() -> None:
    result = plan(manifest_of({"model.safetensors": 9}), {"model.safetensors": 5})

    assert result.conflicts == (Conflict(path="model.safetensors", want_bytes=9, have_bytes=5),)
    assert [entry.path for entry in result.copies] == ["model.safetensors"]


@untimed
@given(paths)
def test_every_name_lies_in_the_folder_of_its_model(path: str) -> None:
    names = [
        hf_layout.snapshot_file(MODEL, REVISION, path),
        hf_layout.no_exist_file(MODEL, REVISION, path),
        hf_layout.manifest_file(MODEL, REVISION),
        hf_layout.tree_file(MODEL, REVISION),
        hf_layout.ref_file(MODEL),
    ]

    assert all(name.startswith(cache_folder(MODEL) + "/") for name in names)
    assert len(set(names)) == len(names)
    assert {hf_layout.model_of(name) for name in names} == {MODEL}


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/./b", "", "a\\b"])
def test_a_path_out_of_the_snapshot_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a relative path"):
        hf_layout.snapshot_file(MODEL, REVISION, path)


@pytest.mark.parametrize("name", [".sie/current", "README.md", "models--", "models--a--..--b/refs/main"])
def test_a_file_of_no_model_has_no_model(name: str) -> None:
    assert hf_layout.model_of(name) is None


def test_a_ref_is_exactly_forty_bytes() -> None:
    assert hf_layout.ref_bytes(REVISION) == REVISION.encode()
    assert len(hf_layout.ref_bytes(REVISION)) == 40


@untimed
@given(listings)
def test_the_tree_listing_names_the_carried_files_and_no_others(sizes: dict[str, int]) -> None:
    tree = json.loads(hf_layout.tree_json(manifest_of(sizes)))

    assert tree["format_version"] == 1
    assert {path: info["size"] for path, info in tree["files"].items()} == sizes


def test_a_git_blob_id_is_what_git_says() -> None:
    assert hf_layout.git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
