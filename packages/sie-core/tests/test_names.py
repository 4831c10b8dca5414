import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_core.ids import cache_folder, nearest, parse_model_id, parse_revision
from sie_core.wire import envelope

KNOWN = ["BAAI/bge-m3", "intfloat/e5-base-v2", "sentence-transformers/all-MiniLM-L6-v2"]


@pytest.mark.parametrize("text", ["BAAI/bge-m3", "gpt2", "a/b/c", "Qwen/Qwen3-0.6B"])
def test_model_ids_are_taken(text: str):
    assert parse_model_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "/", "a/", "../a", "a/..", "a//b", "a b", "a\\b", ".a", "x" * 257, "a/b\n", "a--b/c"]
)
def test_what_cannot_be_a_model_id_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a model id"):
        parse_model_id(text)


def test_branch_cannot_pass_for_a_commit():
    with pytest.raises(ValueError, match="`main` is not a commit"):
        parse_revision("main")


def test_cache_folder_is_the_hubs():
    assert cache_folder(parse_model_id("BAAI/bge-m3")) == "models--BAAI--bge-m3"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("BAAI/bge-m4", "BAAI/bge-m3"), ("all-minilm-l6-v2", KNOWN[2]), ("intfloat/e5-base", KNOWN[1])],
)
def test_nearest_name_is_what_a_person_meant(typed: str, meant: str):
    assert nearest(typed, KNOWN)[0] == meant


def test_nothing_is_near_when_nothing_is_alike():
    assert nearest("zzzzzzzz", KNOWN) == []


def test_envelope_reads_path_and_headers():
    call = envelope.read(
        "/v1/encode/default:/BAAI%2Fbge-m3",
        [(b"x-sie-machine-profile", b"eu/l4"), (b"x-sie-timeout-ms", b"1500"), (b"accept", b"application/json")],
    )

    assert call is not None
    assert (call.verb, call.model, call.bundle) == ("encode", "BAAI/bge-m3", "default")
    assert (call.pool, call.machine_profile, call.timeout_ms) == ("eu", "l4", 1500)


def test_pool_header_comes_before_the_pool_in_the_profile():
    call = envelope.read("/v1/encode/a/b", [(b"x-sie-machine-profile", b"eu/l4"), (b"x-sie-pool", b"us")])

    assert call is not None
    assert call.pool == "us"


def test_model_named_in_a_body_is_read_as_one_in_a_path():
    headers = [(b"x-sie-machine-profile", b"eu/l4")]
    call = envelope.named("/v1/rerank", "default:/BAAI/bge-m3", headers)

    assert call == envelope.read("/v1/score/default:/BAAI/bge-m3", headers)


@pytest.mark.parametrize("model", ["", "../etc", "a b", "two words:/a/b"])
def test_model_named_in_a_body_that_is_no_id_is_refused_there(model: str):
    with pytest.raises(ApiError, match="in the body's `model`"):
        envelope.named("/v1/embeddings", model, [])


def test_other_paths_are_no_calls():
    assert envelope.read("/v1/models/a/b", []) is None


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/encode/", []),
        ("/v1/encode/../etc", []),
        ("/v1/encode/a/b", [(b"x-sie-timeout-ms", b"soon")]),
        ("/v1/encode/a/b", [(b"x-sie-timeout-ms", b"-1")]),
        ("/v1/encode/a/b", [(b"x-sie-machine-profile", b"L 4")]),
    ],
)
def test_envelope_that_cannot_be_meant_is_refused(path: str, headers: list[tuple[bytes, bytes]]):
    with pytest.raises(ApiError) as refused:
        envelope.read(path, headers)

    assert refused.value.code == "INVALID_INPUT"


@given(st.text(max_size=60), st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=4))
def test_no_path_or_header_raises_anything_but_an_api_error(path: str, headers: list[tuple[bytes, bytes]]):
    try:
        envelope.read("/v1/encode/" + path, headers)
    except ApiError as error:
        assert error.code == "INVALID_INPUT"


def test_two_models_never_share_a_folder():
    """`a--b/c` and `a/b--c` would; hubs know neither."""
    for text in ("a--b/c", "a/b--c"):
        with pytest.raises(ValueError, match="single `-`"):
            parse_model_id(text)


def test_name_longer_than_any_is_near_nothing():
    """Comparing takes as long as the name, and callers choose it: 60 KB in a path took seconds of the loop."""
    assert nearest("BAAI/bge-m3" * 100, KNOWN) == []
