"""Tokens: what opens a door and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_core.http import auth
from sie_core.http.respond import error_headers, new_request_id, retry_after
from sie_core.settings import Secret


def carrying(value: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", value.encode("latin-1"))]


def test_a_mode_with_a_typo_refuses_to_start() -> None:
    with pytest.raises(ValueError, match=r"`SIE_AUTH_MODE` is `tokens`, want one of `none`, `token`, `static`"):
        auth.configure("tokens", ["s"])


@pytest.mark.parametrize("tokens", [[], ["", "  "]])
def test_a_mode_without_tokens_refuses_to_start(tokens: list[str]) -> None:
    with pytest.raises(ValueError, match="no token is set"):
        auth.configure("token", tokens)


@pytest.mark.parametrize("token", ["to ken", "one\ntwo", "one\r\nX-Forged: 1", "schlüssel", "\x00"])
def test_token_that_no_header_can_carry_refuses_to_start_and_is_not_shown(token: str) -> None:
    for tokens, admin in (([token], None), (["right"], token)):
        with pytest.raises(ValueError, match="that no header can carry") as refused:
            auth.configure("none", tokens, admin_token=admin)

        assert token not in str(refused.value)


def test_tokens_are_one_and_several_without_spaces_or_line_ends() -> None:
    """A Secret made from a file ends with a line end."""
    assert auth.tokens_of(Secret("one\n"), Secret("two, three,,")) == ("one", "two", "three")
    assert auth.tokens_of(None, None) == ()


def test_any_of_the_tokens_opens_with_and_without_the_word_bearer() -> None:
    door = auth.configure("static", ["one", "two"])

    for value in ("Bearer one", "bearer two", "two", "Bearer  one "):
        door.check("/v1/models", carrying(value))


@pytest.mark.parametrize("headers", [[], carrying("Bearer three"), carrying("Bearer on"), carrying("Bearer onee")])
def test_no_token_or_another_is_401(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ApiError) as caught:
        auth.configure("token", ["one"]).check("/v1/models", headers)

    assert caught.value.kind.status == 401


def test_probes_are_open_and_operations_only_when_exempt() -> None:
    closed = auth.configure("token", ["one"])
    exempt = auth.configure("token", ["one"], exempt_operational=True)

    closed.check("/healthz", [])
    exempt.check("/metrics", [])
    with pytest.raises(ApiError):
        closed.check("/metrics", [])
    with pytest.raises(ApiError):
        exempt.check("/v1/models", [])


def test_admin_token_is_wanted_for_changes_and_is_no_ordinary_token() -> None:
    door = auth.configure("token", ["one"], admin_token="root")

    door.check_admin(carrying("Bearer root"))
    door.check_read(carrying("Bearer root"))
    with pytest.raises(ApiError) as changing:
        door.check_admin(carrying("Bearer one"))
    with pytest.raises(ApiError) as calling:
        door.check("/v1/encode/m", carrying("Bearer root"))
    assert (changing.value.kind.status, calling.value.kind.status) == (403, 401)


def test_changes_are_refused_where_tokens_are_set_and_no_admin_token() -> None:
    with pytest.raises(ApiError) as caught:
        auth.configure("token", ["one"]).check_admin(carrying("Bearer one"))

    assert caught.value.kind.status == 403


def test_tokens_never_show() -> None:
    assert "one" not in repr(auth.configure("token", ["one"], admin_token="one"))


@given(st.floats(min_value=0, max_value=1e6))
def test_retry_after_is_never_early(delay_s: float) -> None:
    assert delay_s <= int(retry_after(delay_s)) <= delay_s + 1


def test_an_error_says_its_code_and_when_to_come_back() -> None:
    headers = dict(error_headers(ApiError("QUEUE_FULL", "full", retry_after_s=1.2), request_id="r"))

    assert headers == {b"x-sie-error-code": b"QUEUE_FULL", b"retry-after": b"2", b"x-request-id": b"r"}


def test_401_says_how_to_be_let_in() -> None:
    """HTTP wants it of every 401, and clients that ask for a password look at it."""
    assert (b"www-authenticate", b"Bearer") in error_headers(ApiError("UNAUTHORIZED", "no token was sent"))


def test_request_ids_are_uuid_7() -> None:
    one = new_request_id()

    assert (len(one), one[14], one[19] in "89ab") == (36, "7", True)
