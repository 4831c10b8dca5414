"""What comes from outside is read or refused by name, however it was altered; `make fuzz` does the same for longer."""

from random import Random

import pytest
from fuzz.mutation import altered
from fuzz.target import Refused, Target, checked, refusing
from fuzz.targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_core.wire.codec import Format, decode_as, unknown_keys
from sie_core.wire.messages import EncodeRequest

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
SURROGATE, DEEP = b"\xed\xa0\x80", b"[" * 3000


@each_target
def test_what_our_own_code_writes_is_taken(target: Target) -> None:
    assert [target.check(seed) for seed in target.seeds()] == [True] * len(list(target.seeds()))


@each_target
@settings(max_examples=25)
@given(number=st.integers(0, 1 << 32))
def test_whatever_was_altered_is_read_or_refused_by_name(target: Target, number: int) -> None:
    chance = Random(number)  # noqa: S311 - the same number is to give the same bytes
    target.check(altered(chance.choice(list(target.seeds())), target, chance))


FOUND = {
    "golden": b'{"also":' + DEEP,
    "recipe": b"SIE-RECIPE-1\n" + (3019).to_bytes(8, "little") + b'{"steps":[{"also":' + DEEP + b"]",
    "oci-manifest": b'{"also":' + DEEP,
    "oci-config": b'{"architecture":"' + SURROGATE + b'"}',
    "oci-layout": b'{"also":' + DEEP,
    "envelope": b'{"also":' + DEEP,
    "statement": b'{"predicate":' + DEEP,
    "sentencepiece": b"\n\x08\n\x01\xff\x15\0\0\0\0",
    "tokenizer-settings": b'{"also":' + DEEP,
    "tokenizer-config": b'{"also":' + DEEP,
    "manifest": b'{"' + SURROGATE + b'":1}',
    "tree": b'{"also":' + DEEP,
    "weights-header": b'{"a":{"data_offsets":[0,-9000]}}',
    "weights-index": b'{"also":' + DEEP,
    "configs": b'{"' + SURROGATE + b'":1}',
    "array": b"\x82\xc4\x02nd\xc3\xc4\x01\xa9\x01",
}


@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_once_found_is_refused(name: str) -> None:
    assert TARGETS[name].check(FOUND[name]) is False


@pytest.mark.parametrize("value", [b'"' + SURROGATE + b'"', b"9" * 5000])
def test_a_key_of_a_call_that_nobody_knows_and_nobody_can_read_is_the_callers_mistake(value: bytes) -> None:
    body = b'{"items":[{"text":"x"}],"also":' + value + b"}"
    decode_as(body, Format.JSON, EncodeRequest)

    with pytest.raises(ApiError, match="has no value"):
        unknown_keys(body, Format.JSON, EncodeRequest)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError("deep"), ValueError(""), UnicodeDecodeError("a", b"", 0, 1, "b")]
)
def test_an_error_that_nobody_wrote_down_is_a_finding(error: Exception) -> None:
    def read(data: bytes) -> None:
        raise error

    with pytest.raises((KeyError, RecursionError, AssertionError, UnicodeDecodeError)):
        checked(read, ValueError)(b"")


def test_a_refusal_that_says_why_is_none() -> None:
    with pytest.raises(Refused, match="cut short"), refusing(ValueError):
        raise ValueError("cut short")
