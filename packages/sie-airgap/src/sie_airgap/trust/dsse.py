"""DSSE envelopes: a payload, its type, and signatures over both.

Follows "DSSE: Dead Simple Signing Envelope", version 1.0.2 (secure-systems-lab/dsse, envelope.md and protocol.md):
what is signed is `pae(type, payload)`, standard or URL-safe base64 is read, and keys of the JSON that are not known are
left alone, since nothing signs them.
"""

import base64
import binascii
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.manifest import canonical_json

MOST_BYTES = 1 << 20
"""No envelope is longer: what is signed names a lock or holds a few keys."""

_MOST_SIGNATURES = 64


class Signature(Struct, frozen=True, order=True):
    """`keyid`: of the key, as `keys.key_id` makes it. `sig`: base64 of the signature."""

    keyid: str
    sig: str

    @property
    def raw(self) -> bytes:
        """Raises `ValueError` where it is not base64."""
        return _from_base64(self.sig)


class Envelope(Struct, frozen=True, rename={"payload_type": "payloadType", "encoded": "payload"}):
    """What is said, as which type of document, and by whom. `encoded`: base64 of the payload."""

    payload_type: str
    encoded: str
    signatures: tuple[Signature, ...]

    @property
    def payload(self) -> bytes:
        return _from_base64(self.encoded)


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: both parts with their lengths, so that neither can be taken for the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def envelope(payload_type: str, payload: bytes, signatures: Iterable[Signature] = ()) -> Envelope:
    """An envelope with each key's signature once, in order of their names."""
    by_key = {signature.keyid: signature for signature in signatures}
    return Envelope(payload_type, base64.b64encode(payload).decode(), tuple(sorted(by_key.values())))


def signature(keyid: str, raw: bytes) -> Signature:
    return Signature(keyid, base64.b64encode(raw).decode())


def encode_envelope(value: Envelope) -> bytes:
    return canonical_json(value)


def decode_envelope(data: bytes, *, where: str) -> Envelope:
    """Raises `TrustError` for bytes that are no envelope."""

    def refused(have: str) -> TrustError:
        return TrustError("this is not a DSSE envelope", where=where, want="an envelope of `sign`", have=have)

    if len(data) > MOST_BYTES:
        raise refused(f"{len(data):,} bytes; {MOST_BYTES:,} are the most")
    try:
        found = msgspec.json.decode(data, type=Envelope)
        _from_base64(found.encoded)
        for one in found.signatures:
            _from_base64(one.sig)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise refused(str(error)) from error
    if not found.signatures:
        raise refused("no signature")
    if len(found.signatures) > _MOST_SIGNATURES:
        raise refused(f"{len(found.signatures)} signatures; {_MOST_SIGNATURES} are the most")
    return found


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from error
