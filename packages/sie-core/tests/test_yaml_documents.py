"""YAML of strangers: what it may not be, however it is read, and that nothing of it ends the process."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sie_core.yaml_documents import DEEPEST, document, documents, parsed

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
CHAIN = "- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 1000))

UNSOUND = {
    "lists in each other": ("[" * 200_000, "x.yaml is nested more than 200 deep"),
    "mappings in each other": ("{a: " * 200_000, "x.yaml is nested more than 200 deep"),
    "lists on one line": ("- " * 200_000, "x.yaml is nested more than 200 deep"),
    "keys that are lists": ("? " * 200_000, "x.yaml is nested more than 200 deep"),
    "aliases in each other": (CHAIN, "x.yaml is nested 1,001 deep with its aliases written out, want 200 at most"),
    "a value inside itself": ("a: &a [*a]", "x.yaml has a value inside itself"),
    "aliases that double": (LAUGHS, r"x.yaml is [\d,]+ values with its aliases written out, at most 1,000,000"),
    "a date that is none": ("a: 2026-13-99", "x.yaml is not YAML: month must be in 1..12"),
    "a number of many digits": ("a: " + "9" * 5000, "x.yaml is not YAML: Exceeds the limit"),
    "an object": ("!!python/object/apply:os.system [id]", "x.yaml is not YAML: could not determine a constructor"),
    "a key of lists": ("{[a]: b}", "x.yaml is not YAML"),
    "no UTF-8": (b"a: caf\xe9", "x.yaml is not YAML"),
    "half of a letter": (b"a: \xed\xa0\x80", "x.yaml is not YAML"),
    "zeros": (b"\0" * 64, "x.yaml is not YAML"),
    "an open quote": ("a: '", "x.yaml is not YAML"),
}


@pytest.mark.parametrize(("text", "why"), UNSOUND.values(), ids=UNSOUND)
def test_what_is_unsound_is_refused_by_name(text: str | bytes, why: str) -> None:
    """libyaml alone ends the process with the first four, and Python's own limit does not see it."""
    with pytest.raises(ValueError, match=why):
        documents(text, where="x.yaml")


def test_more_documents_than_one_are_told_where_one_is_wanted() -> None:
    assert documents("a: 1\n---\nb: 2\n", where="x.yaml") == [{"a": 1}, {"b": 2}]
    assert (document("", where="x.yaml"), document("a: 1", where="x.yaml")) == (None, {"a": 1})
    with pytest.raises(ValueError, match=r"x.yaml is not YAML of one document: it has 2"):
        document("a: 1\n---\nb: 2\n", where="x.yaml")


def test_as_deep_as_may_be_is_read() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert len(documents(text, where="x.yaml")) == 1
    with pytest.raises(ValueError, match="nested more than"):
        documents(f"[{text}]", where="x.yaml")


def test_who_has_a_bound_of_its_own_gets_aliases_as_they_are() -> None:
    ((found),) = parsed(LAUGHS, where="x.yaml")
    assert found["a0"] == ["x"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inside, max_size=4),
)


@given(values)
def test_what_is_sound_is_what_it_says(value: object) -> None:
    assert document(yaml.safe_dump(value), where="x.yaml") == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    try:
        documents(data, where="x.yaml")
    except ValueError as error:
        assert str(error).startswith("x.yaml ")
