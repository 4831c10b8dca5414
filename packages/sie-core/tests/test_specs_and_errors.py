from pathlib import Path

import pytest

import sie_core
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.manifest import FileEntry, Manifest, decode_manifest, encode_manifest
from sie_core.catalog.reading import parse_spec
from sie_core.catalog.spec import dump_spec, spec_name_matches
from sie_core.errors import KINDS, ApiError
from sie_core.ids import ModelId, Revision

SHIPPED = sorted((Path(sie_core.__file__).parent / "specs" / "models").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_spec_reads_and_is_named_after_its_model(path: Path):
    spec = parse_spec(path.read_text(), where=path.name)

    assert spec_name_matches(path.name, spec)
    assert parse_spec(dump_spec(spec), where="dumped") == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: a/b\ndence: {}\n", "unknown key `dence`; did you mean `dense`"),
        ("id: a/b\ndense: {pool: cls}\n", "unknown field `pool`"),
        ("id: a/b\ndense: {pooling: max}\n", "Invalid enum value 'max'"),
        ("id: a/b\n", "at least one of `dense`"),
        ("id: ../b\ndense: {}\n", "is not a model id"),
        ("id: a/b\ndense: {}\nsource: {repo: a/b, revision: main}\n", "`main` is not a commit"),
        ("id: a/b\ndense: {}\nquery: 'search: '\n", "no `{text}`"),
        ("id: a/b\ndense: {dim: 0}\n", "`dense.dim` is 0"),
        ("id: a/b\nextract: {head: spans}\nbase: {repo: a/b, revision: main}\n", "`main` is not a commit"),
        ("id: a/b\ndense: {}\nbase: {repo: a/c}\n", "`base` is for the head `spans`"),
        ("- a\n", "want a mapping"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_spec_that_cannot_be_meant_is_refused_by_name(text: str, said: str):
    with pytest.raises(ValueError, match=r"my\.yaml") as refused:
        parse_spec(text, where="my.yaml")

    assert said in str(refused.value)


def test_error_body_has_the_same_under_detail_and_error():
    body = ApiError("MODEL_NOT_FOUND", "no model `x`", hint="did you mean `y`?", extra={"known": ["y"]}).body()

    assert body["detail"] == body["error"]
    assert body["detail"] == {
        "code": "MODEL_NOT_FOUND",
        "message": "no model `x`",
        "hint": "did you mean `y`?",
        "known": ["y"],
    }


def test_code_that_is_not_in_the_table_cannot_be_raised():
    with pytest.raises(KeyError, match="`OOPS`"):
        ApiError("OOPS", "x")


def test_only_errors_that_pass_name_a_delay():
    assert {kind.code for kind in KINDS.values() if kind.retry_after_s is not None} == {
        kind.code for kind in KINDS.values() if kind.passes
    }


def manifest(*paths: str) -> Manifest:
    files = tuple(FileEntry(path=path, digest=digest_of(b""), size_bytes=0) for path in paths)
    return Manifest(repo=ModelId("a/b"), revision=Revision("0" * 40), files=files)


def test_manifest_is_the_same_bytes_each_time():
    assert encode_manifest(decode_manifest(encode_manifest(manifest("a", "b/c")))) == encode_manifest(
        manifest("a", "b/c")
    )


@pytest.mark.parametrize("paths", [("b", "a"), ("a", "a"), ("../a",), ("/a",), ("a//b",), ("",), ("a\\b",)])
def test_manifest_with_paths_that_cannot_be_is_refused(paths: tuple[str, ...]):
    with pytest.raises(ValueError, match=r"."):
        decode_manifest(encode_manifest(manifest(*paths)))
