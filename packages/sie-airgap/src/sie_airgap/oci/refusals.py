"""What a registry's refusal means, and the error that it becomes. Pure."""

import re

from sie_airgap.oci.reference import Place
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, Unreachable

NO_REGISTRY = "what answers there may be no registry: is the address right?"
_BODY_SHOWN = 300


class Refused(TransferError):
    """The registry answered that it will not, for a reason that trying again does not change."""

    transient = False


class TooLarge(Refused):
    """The body is longer than something on the way lets through (413)."""


def refusal(
    status: int, *, asked: str, body: bytes, place: Place, scope: str, retry_after: str | None = None
) -> TransferError:
    """The error that a status stands for.

    Args:
        asked: method and URL, without what is secret in it.
        scope: what the request needed: `repository:NAME:pull,push`.
        retry_after: the header of that name. Only seconds are understood, as registries send them.
    """
    said = _told(body)
    message = f"{asked}: {status} {said}".rstrip()
    if status in (401, 403):
        return NoPermission(f"{_denied(status, scope)} at {place.host}\n  {message}", hint=_who(status, place, scope))
    if status == 404:
        return NotThere(message)
    if status == 413:
        return TooLarge(
            message,
            hint="something before the registry limits the size of a body; raise its limit "
            "(nginx: `client_max_body_size 0`)",
        )
    if status == 429 or status >= 500:
        error = Unreachable(message)
        error.retry_after_s = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
        return error
    if status == 400 and place.origin.startswith("http:"):
        return Refused(message, hint=f"a server that wants TLS answers so; is it `https://{place.host}`?")
    return Refused(message)


def _told(body: bytes) -> str:
    """What a body says in one line: of a page for people its title."""
    text = body[:_BODY_SHOWN].decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = title[1] if title is not None else ""
    return " ".join(text.split())


def _denied(status: int, scope: str) -> str:
    repository, actions = parts_of(scope)
    may = "push to" if "push" in actions else "pull from"
    if status == 401:
        return f"we are not known, or the password is wrong: we may not {may} `{repository}`"
    return f"we may not {may} `{repository}` (scope `{scope}`)"


def _who(status: int, place: Place, scope: str) -> str:
    if status == 401:
        return login_hint(place)
    repository, actions = parts_of(scope)
    return f"give the login for `{place.host}` the right to {actions.replace(',', ' and ')} on `{repository}`"


def parts_of(scope: str) -> tuple[str, str]:
    """The repository and the actions of a scope's first part."""
    repository, _, actions = scope.split(" ")[0].removeprefix("repository:").rpartition(":")
    return repository, actions


def login_hint(place: Place) -> str:
    return f"log in with an engine that writes `auths` for `{place.host}` into docker's config.json (`DOCKER_CONFIG`)"


def no_answer(where: str, error: Exception, place: Place | None = None) -> Unreachable:
    """A connection that failed; with what to look at when it failed because of who answered."""
    said = str(error) or type(error).__name__
    failed = Unreachable(f"{where}: {said}", hint=_look_at(said, place))
    failed.transient = not (_about_trust(said) or _no_tls(said))
    return failed


def _about_trust(said: str) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in said or "certificate verify failed" in said


def _no_tls(said: str) -> bool:
    return "WRONG_VERSION_NUMBER" in said.upper().replace(" ", "_")


def _look_at(said: str, place: Place | None) -> str | None:
    if _about_trust(said):
        return (
            "`SSL_CERT_FILE` names the file of a private certificate authority, beside the system's own trust store "
            "(`update-ca-certificates`)"
        )
    if place is None:
        return None
    if _no_tls(said):
        return f"what answers speaks no TLS; is it `http://{place.host}`?"
    return f"is `{place.origin}` right, scheme included?"
