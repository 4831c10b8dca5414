"""What is signed of a lock: an in-toto statement that names it by its digest.

Follows the in-toto Attestation Framework 1.1, Statement v1: unknown keys of the statement are left alone, as it asks;
the predicate is ours, and closed.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, encode_lock
from sie_core.artifacts.manifest import canonical_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:sie:airgap-lock:v1"
_SUBJECT = "airgap.lock"


class Subject(Struct, frozen=True):
    name: str
    digest: Mapping[str, str]


class Named(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a lock, for whoever reads the statement without having it. `previous`: the digest of the one before."""

    serial: int
    previous: Digest | None


class Statement(Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: Any


def statement(lock: Lock) -> bytes:
    """The payload to be signed for a lock: always the same bytes."""
    subject = Subject(_SUBJECT, {"sha256": hex_of(digest_of(encode_lock(lock)))})
    named = Named(lock.serial, lock.previous)
    return canonical_json(Statement(STATEMENT_TYPE, (subject,), PREDICATE_TYPE, named))


def check_statement(payload: bytes, lock: Lock, *, where: str) -> None:
    """Raises `TrustError` where a payload says anything else than which lock this is."""
    try:
        found = msgspec.json.decode(payload, type=Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(where, "an in-toto statement", str(error)) from error
    for what, want, have in (
        ("_type", STATEMENT_TYPE, found.type),
        ("predicateType", PREDICATE_TYPE, found.predicate_type),
    ):
        if want != have:
            raise _refused(f"{where}: {what}", want, have)
    want_digest = hex_of(digest_of(encode_lock(lock)))
    if [subject.digest.get("sha256") for subject in found.subject] != [want_digest]:
        have = ", ".join(f"{subject.name} {subject.digest.get('sha256')}" for subject in found.subject) or "nothing"
        raise TrustError("the signature is for another lock", where=where, want=f"{_SUBJECT} {want_digest}", have=have)
    try:
        named = msgspec.convert(found.predicate, Named)
    except msgspec.MsgspecError as error:
        raise _refused(f"{where}: predicate", "serial and previous", str(error)) from error
    if named != Named(lock.serial, lock.previous):
        raise _refused(f"{where}: predicate", f"serial {lock.serial}, previous {lock.previous}", str(named))


def _refused(where: str, want: str, have: str) -> TrustError:
    return TrustError("what is signed says nothing of a lock", where=where, want=want, have=have)
