"""Signatures, roots and `trust.json` as files."""

from pathlib import Path

from sie_airgap.failures import Incomplete
from sie_airgap.store.blobs import SIGNATURES_NAME, Blobs, read_plain, told_os_errors, write_atomically
from sie_airgap.trust import pinned as pins
from sie_airgap.trust.dsse import Envelope, Signature, decode_envelope, encode_envelope, envelope
from sie_airgap.trust.judging import Sealed
from sie_airgap.trust.pinned import Pinned
from sie_core.artifacts.lock import Lock, lock_digest, signatures_file
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read


def read_pinned(path: Path) -> Pinned | None:
    """`trust.json`; None where nothing is pinned. Raises `TrustError` for one that cannot be read."""
    try:
        data = read_plain(path)
    except FileNotFoundError:
        return None
    return pins.decode_pinned(data, where=str(path))


def write_pinned(path: Path, pinned: Pinned) -> None:
    data = pins.encode_pinned(pinned)
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def read_envelope(path: Path) -> Sealed:
    """Raises `Incomplete` where there is no such file, and `TrustError` where it is no envelope."""
    try:
        data = read_plain(path)
    except FileNotFoundError as error:
        raise Incomplete(f"there is nothing at {path}") from error
    return Sealed(str(path), decode_envelope(data, where=str(path)))


def with_signature(path: Path, payload_type: str, payload: bytes, added: Signature) -> Envelope:
    """What the envelope in a file is with one signature more.

    A signature of the same key is replaced. An envelope over something else (an older lock's, say) gives way.
    """
    others: tuple[Signature, ...] = ()
    if path.exists():
        have = read_envelope(path).envelope
        if (have.payload_type, have.payload) == (payload_type, payload):
            others = have.signatures
    return envelope(payload_type, payload, [*others, added])


def add_signature(path: Path, payload_type: str, payload: bytes, added: Signature) -> Envelope:
    """Writes it into the file, which is made where there is none; what it is now."""
    made = with_signature(path, payload_type, payload, added)
    with told_os_errors(path):
        write_atomically(path, encode_envelope(made))
    return made


def sealed_in(blobs: Blobs) -> list[Sealed]:
    """Every envelope that came with a store or an archive: on its volumes, and beside them."""
    found = blobs.named_everywhere(SIGNATURES_NAME)
    return [Sealed(where, decode_envelope(data, where=where)) for where, data in found]


def merged(sealed: list[Sealed]) -> bytes | None:
    """The envelopes over the same payload as one; None for none."""
    if not sealed:
        return None
    first = sealed[0].envelope
    same = [
        one.envelope
        for one in sealed
        if (one.envelope.payload_type, one.envelope.payload) == (first.payload_type, first.payload)
    ]
    signatures = [signature for one in same for signature in one.signatures]
    return encode_envelope(envelope(first.payload_type, first.payload, signatures))


def sealed_in_bucket(store: Store, lock: Lock) -> list[Sealed]:
    """The envelope that was mirrored with a lock, if one was."""
    name = signatures_file(lock_digest(lock))
    data = read(store, name)
    where = f"{store.url.rstrip('/')}/{name}"
    return [] if data is None else [Sealed(where, decode_envelope(data, where=where))]
