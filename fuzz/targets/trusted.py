"""What trust is read from: envelopes, statements, roots, the pinned file, keys."""

import base64
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from fuzz.target import Target, bare, checked, compact, indented, same
from sie_airgap.failures import Misused
from sie_airgap.trust import keys
from sie_airgap.trust.dsse import decode_envelope, encode_envelope, envelope, pae, signature
from sie_airgap.trust.judging import Sealed, check_root, signed_by
from sie_airgap.trust.pinned import Pinned, Taken, decode_pinned, encode_pinned
from sie_airgap.trust.root import ROOT_TYPE, Role, Root, decode_root, encode_root
from sie_airgap.trust.statement import PAYLOAD_TYPE, check_statement, statement
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import lock_digest
from sie_testing.carried import FILES, make_lock

_LOCK = make_lock(FILES)
_PASSPHRASE = b"correct horse"


@cache
def _key() -> keys.PrivateKey:
    return keys.new_key()


@cache
def _root() -> Root:
    public = _key().public_key()
    role = Role((keys.key_id(public),), 1)
    return Root(1, 1, {keys.key_id(public): keys.public_pem(public)}, role, role)


def _sealed(kind: str, payload: bytes) -> bytes:
    signed = signature(keys.key_id(_key().public_key()), keys.sign(_key(), pae(kind, payload)))
    return encode_envelope(envelope(kind, payload, [signed]))


def _envelopes() -> Iterator[bytes]:
    yield _sealed(PAYLOAD_TYPE, statement(_LOCK))


def _read_envelope(data: bytes) -> None:
    found = decode_envelope(data, where="the fuzzer")
    same(encode_envelope(decode_envelope(encode_envelope(found), where="again")), encode_envelope(found))
    signed_by(_root(), _LOCK, [Sealed("the fuzzer", found)], where="the fuzzer")


def _sealed_roots() -> Iterator[bytes]:
    yield _sealed(ROOT_TYPE, encode_root(_root()))


def _inside(data: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(data)["payload"]))


def _sealed_root(text: str) -> bytes:
    """Signed anew: only then is the payload looked at."""
    return _sealed(ROOT_TYPE, compact(text))


def _sealed_statement(text: str) -> bytes:
    return _sealed(PAYLOAD_TYPE, compact(text))


def _read_sealed_root(data: bytes) -> None:
    check_root(Sealed("the fuzzer", decode_envelope(data, where="the fuzzer")), None)


def _statements() -> Iterator[bytes]:
    yield statement(_LOCK)


def _read_statement(data: bytes) -> None:
    check_statement(data, _LOCK, where="the fuzzer")


def _roots() -> Iterator[bytes]:
    yield encode_root(_root())


def _read_root(data: bytes) -> None:
    root = decode_root(data, where="the fuzzer")
    same(data, encode_root(root))
    _ = root.public_keys("lock"), root.public_keys("root")


def _pinned() -> Iterator[bytes]:
    yield encode_pinned(Pinned(1, _root(), (Taken(1, lock_digest(_LOCK), ()), Taken(2, lock_digest(_LOCK), ("a",)))))


def _read_pinned(data: bytes) -> None:
    pinned = decode_pinned(data, where="trust.json")
    same(data, encode_pinned(pinned))
    _ = pinned.highest_serial


def _public_keys() -> Iterator[bytes]:
    yield keys.public_pem(_key().public_key()).encode()


def _read_public(data: bytes) -> None:
    keys.key_id(keys.read_public(data, where="the fuzzer"))


def _private_keys() -> Iterator[bytes]:
    yield keys.private_pem(_key(), _PASSPHRASE)


def _read_private(data: bytes) -> None:
    keys.read_private(data, _PASSPHRASE, where="the fuzzer")


TARGETS = (
    Target("envelope", _envelopes, checked(_read_envelope, TrustError), json.loads, compact),
    Target("sealed-statement", _envelopes, checked(_read_envelope, TrustError), _inside, _sealed_statement),
    Target("sealed-root", _sealed_roots, checked(_read_sealed_root, TrustError), _inside, _sealed_root),
    Target("statement", _statements, checked(_read_statement, TrustError), json.loads, bare),
    Target("root", _roots, checked(_read_root, TrustError), json.loads, compact),
    Target("pinned", _pinned, checked(_read_pinned, TrustError), json.loads, indented),
    Target("public-key", _public_keys, checked(_read_public, Misused)),
    Target("private-key", _private_keys, checked(_read_private, Misused)),
)
