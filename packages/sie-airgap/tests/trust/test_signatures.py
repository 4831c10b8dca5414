"""Who may say which lock is meant: envelopes, thresholds, roots that follow each other, serials that count up."""

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.failures import Misused
from sie_airgap.trust import keys
from sie_airgap.trust.dsse import Envelope, Signature, decode_envelope, encode_envelope, envelope, pae, signature
from sie_airgap.trust.judging import Sealed, check_root, signed_by, signers
from sie_airgap.trust.pinned import Pinned, aloud, check_not_older, decode_pinned, encode_pinned, pin, take
from sie_airgap.trust.root import ROOT_TYPE, Role, Root, decode_root, encode_root, root_digest
from sie_airgap.trust.statement import PAYLOAD_TYPE, statement
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, lock_digest
from sie_testing.carried import FILES, make_lock


@dataclass(frozen=True)
class Signer:
    key: keys.PrivateKey

    @property
    def id(self) -> str:
        return keys.key_id(self.key.public_key())

    @property
    def pem(self) -> str:
        return keys.public_pem(self.key.public_key())

    def over(self, kind: str, payload: bytes) -> Signature:
        return signature(self.id, keys.sign(self.key, pae(kind, payload)))


ALICE, BOB, CAROL, MALLORY = (Signer(keys.new_key()) for _ in range(4))


def role(*who: Signer, threshold: int = 1) -> Role:
    return Role(tuple(sorted(one.id for one in who)), threshold)


def root_of(*, lock: Role, root: Role, number: int = 1) -> Root:
    named = {*lock.keys, *root.keys}
    pems = {one.id: one.pem for one in (ALICE, BOB, CAROL, MALLORY) if one.id in named}
    return Root(version=1, number=number, keys=pems, lock=lock, root=root)


def sealed(kind: str, payload: bytes, *who: Signer) -> Sealed:
    return Sealed("a.dsse", envelope(kind, payload, [one.over(kind, payload) for one in who]))


def sealed_lock(lock: Lock, *who: Signer) -> Sealed:
    return sealed(PAYLOAD_TYPE, statement(lock), *who)


def sealed_root(root: Root, *who: Signer) -> Sealed:
    return sealed(ROOT_TYPE, encode_root(root), *who)


FIRST = root_of(lock=role(ALICE, BOB, CAROL, threshold=2), root=role(CAROL))


def test_what_is_signed_is_what_the_specification_says() -> None:
    """The example of protocol.md of DSSE 1.0."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_openssl_agrees(tmp_path: Path, lock: Lock) -> None:
    """Whoever has nothing of ours can check a signature with what every machine has."""
    made = sealed_lock(lock, ALICE).envelope
    (tmp_path / "alice.pub").write_text(ALICE.pem)
    (tmp_path / "signed").write_bytes(pae(made.payload_type, made.payload))
    (tmp_path / "signature").write_bytes(made.signatures[0].raw)

    command = ["openssl", "dgst", "-sha256", "-verify", "alice.pub", "-signature", "signature", "signed"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (tmp_path / "signed").write_bytes(pae(made.payload_type, made.payload + b" "))
    other = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (0, "Verified OK\n")
    assert other.returncode == 1


def test_the_statement_names_the_lock_as_in_toto_wants_it(lock: Lock) -> None:
    assert json.loads(statement(lock)) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "airgap.lock", "digest": {"sha256": lock_digest(lock).removeprefix("sha256:")}}],
        "predicateType": "urn:sie:airgap-lock:v1",
        "predicate": {"serial": 1, "previous": None},
    }


def test_as_many_keys_as_the_root_wants_sign_together_or_one_by_one(lock: Lock) -> None:
    together = signed_by(FIRST, lock, [sealed_lock(lock, ALICE, BOB)], where="media")
    apart = signed_by(FIRST, lock, [sealed_lock(lock, ALICE), sealed_lock(lock, BOB)], where="media")

    assert together == apart == tuple(sorted([ALICE.id, BOB.id]))


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ([], "the lock is not signed"),
        ([[ALICE]], "1 of them"),
        ([[ALICE], [ALICE]], "1 of them"),
        ([[ALICE, MALLORY]], "is not one of the role `lock` of root 1"),
    ],
    ids=["nobody", "one of two", "one of two, twice", "a stranger"],
)
def test_too_few_are_refused(lock: Lock, who: list[list[Signer]], told: str) -> None:
    with pytest.raises(TrustError, match="2 of the 3 keys of root 1") as refused:
        signed_by(FIRST, lock, [sealed_lock(lock, *some) for some in who], where="media")

    assert told in str(refused.value)
    assert refused.value.hint is not None
    assert "sie-airgap sign" in refused.value.hint


def test_a_signature_of_another_lock_or_another_kind_does_not_count(lock: Lock) -> None:
    later = make_lock(FILES, serial=2)
    of_another = sealed_lock(later, ALICE, BOB)
    as_root = sealed(ROOT_TYPE, statement(lock), ALICE, BOB)
    true = sealed_lock(lock, ALICE, BOB).envelope
    moved = Sealed("b.dsse", envelope(PAYLOAD_TYPE, statement(later), true.signatures))

    with pytest.raises(TrustError) as refused:
        signed_by(FIRST, lock, [of_another, as_root, moved], where="media")
    with pytest.raises(TrustError, match="is not over this"):
        signed_by(FIRST, later, [moved], where="media")

    assert "for another lock" in refused.value.have
    assert ROOT_TYPE in refused.value.have
    assert "0 of them" in refused.value.have


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_is_taken(at: int, bit: int) -> None:
    """Wherever it falls in the payload or in the signature."""
    lock = make_lock(FILES)
    true = sealed_lock(lock, ALICE, BOB).envelope
    raw = bytearray(true.payload + true.signatures[0].raw)
    raw[at % len(raw)] ^= 1 << bit
    payload, first = bytes(raw[: len(true.payload)]), bytes(raw[len(true.payload) :])
    altered = envelope(PAYLOAD_TYPE, payload, [signature(true.signatures[0].keyid, first), true.signatures[1]])

    with pytest.raises(TrustError):
        signed_by(FIRST, lock, [Sealed("a.dsse", altered)], where="media")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_envelope_are_refused_as_such(data: bytes) -> None:
    with pytest.raises(TrustError, match="not a DSSE envelope"):
        decode_envelope(data, where="x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig", "x"]), below)
        ),
        max_leaves=12,
    )
)
def test_json_is_an_envelope_or_refused(value: Any) -> None:
    try:
        found = decode_envelope(msgspec.json.encode(value), where="x")
    except TrustError:
        return
    assert decode_envelope(encode_envelope(found), where="x") == found


def test_both_kinds_of_base64_are_read_and_keys_that_nobody_knows_are_left_alone(lock: Lock) -> None:
    true = sealed_lock(lock, ALICE).envelope
    written = json.loads(encode_envelope(true)) | {"later": 1}
    for one in written["signatures"]:
        one["sig"] = base64.urlsafe_b64encode(true.signatures[0].raw).decode()

    found = decode_envelope(json.dumps(written).encode(), where="x")

    assert (found.payload, found.signatures[0].raw) == (true.payload, true.signatures[0].raw)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{" + b" " * (1 << 20), "the most"),
        (b'{"payload":"","payloadType":"a","signatures":[]}', "no signature"),
        (b'{"payload":"","payloadType":"a","signatures":[' + b",".join([b'{"keyid":"a","sig":""}'] * 65) + b"]}", "65"),
        (b'{"payload":"!","payloadType":"a","signatures":[{"keyid":"a","sig":""}]}', "not base64"),
    ],
)
def test_an_envelope_out_of_bounds_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(TrustError, match=told):
        decode_envelope(data, where="x")


def test_a_root_is_followed_by_the_one_that_old_and_new_keys_signed() -> None:
    second = root_of(lock=role(BOB), root=role(BOB), number=2)

    assert check_root(sealed_root(FIRST, CAROL), None) == FIRST
    assert check_root(sealed_root(second, CAROL, BOB), FIRST) == second


@pytest.mark.parametrize(
    ("number", "who", "told"),
    [
        (2, [BOB], "the pinned root's keys"),
        (2, [CAROL], "its own keys"),
        (2, [MALLORY], "the pinned root's keys"),
        (3, [CAROL, BOB], "a root follows the one before it"),
        (1, [CAROL, BOB], "the pinned root is newer"),
    ],
)
def test_any_other_root_is_refused(number: int, who: list[Signer], told: str) -> None:
    other = root_of(lock=role(BOB), root=role(BOB), number=number)

    with pytest.raises(TrustError, match=told):
        check_root(sealed_root(other, *who), FIRST)


def test_the_first_root_is_signed_by_itself() -> None:
    with pytest.raises(TrustError, match="its own keys"):
        check_root(sealed_root(FIRST, ALICE), None)
    with pytest.raises(TrustError, match="not a trust root"):
        check_root(sealed_lock(make_lock(FILES), CAROL), None)


def broken(**change: Any) -> bytes:
    return encode_bytes(msgspec.to_builtins(FIRST) | change)


def encode_bytes(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted") + b"\n"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (broken(version=2), "version"),
        (broken(number=0), "number"),
        (broken(extra=1), "extra"),
        (broken(lock={"keys": [ALICE.id], "threshold": 2}), "threshold"),
        (broken(lock={"keys": [ALICE.id], "threshold": 0}), "threshold"),
        (broken(lock={"keys": [ALICE.id, ALICE.id], "threshold": 1}), "each once"),
        (broken(lock={"keys": [MALLORY.id], "threshold": 1}), "ids that are in keys"),
        (broken(keys={ALICE.id: BOB.pem}), "under its own id"),
        (broken(keys={ALICE.id: "not a key"}), "a public key"),
        (encode_root(FIRST).rstrip(), "another form"),
        (b"[]", "a root of version 1"),
    ],
)
def test_a_root_that_cannot_be_is_refused_by_what_is_wrong(data: bytes, told: str) -> None:
    with pytest.raises(TrustError, match="not a trust root") as refused:
        decode_root(data, where="root.json")

    assert told in str(refused.value)


def test_a_key_of_another_role_does_not_sign_locks(lock: Lock) -> None:
    apart = root_of(lock=role(ALICE), root=role(CAROL))

    assert signers(apart, "lock", sealed_lock(lock, CAROL).envelope).good == ()


def pem(key: Any, *, private: bool, passphrase: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    if private:
        made: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        return made
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, spki)
    return public


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ec.generate_private_key(ec.SECP384R1()), "secp384r1"),
    ],
    ids=["rsa", "ed25519", "p384"],
)
def test_keys_of_other_kinds_are_refused_by_name(key: Any, kind: str) -> None:
    with pytest.raises(Misused, match=kind):
        keys.read_private(pem(key, private=True, passphrase=b"x"), b"x", where="k.pem")
    with pytest.raises(Misused, match=kind):
        keys.read_public(pem(key, private=False), where="k.pub")


@pytest.mark.parametrize(
    ("data", "passphrase", "told"),
    [
        (pem(ALICE.key, private=False), b"x", "is a public key"),
        (pem(ALICE.key, private=True), b"x", "not under a passphrase"),
        (pem(ALICE.key, private=True, passphrase=b"y"), b"x", "does not open"),
        (b"what", b"x", "not a private key"),
    ],
)
def test_a_private_key_that_cannot_be_used_says_why(data: bytes, passphrase: bytes, told: str) -> None:
    with pytest.raises(Misused, match=told):
        keys.read_private(data, passphrase, where="k.pem")


def test_a_private_key_is_not_given_away_as_a_public_one() -> None:
    with pytest.raises(Misused, match="nobody else may have"):
        keys.read_public(pem(ALICE.key, private=True), where="k")


def test_a_key_comes_back_from_under_its_passphrase() -> None:
    data = keys.private_pem(ALICE.key, b"secret")

    assert keys.key_id(keys.read_private(data, b"secret", where="k").public_key()) == ALICE.id
    with pytest.raises(ValueError, match="empty"):
        keys.private_pem(ALICE.key, b"")


def test_serials_count_up_whatever_order_media_come_in() -> None:
    locks = {serial: make_lock(FILES, serial=serial) for serial in (1, 2, 3)}
    pinned = take(take(pin(FIRST, None), locks[1], (ALICE.id,)), locks[3], ())

    check_not_older(pinned, locks[3], where="media")
    with pytest.raises(TrustError, match="older") as older:
        check_not_older(pinned, locks[2], where="media")
    with pytest.raises(TrustError, match="two locks have the number 3"):
        check_not_older(pinned, make_lock({}, serial=3), where="media")

    assert pinned.highest_serial == 3
    assert take(pinned, locks[3], (ALICE.id,)) == pinned
    assert older.value.hint is not None
    assert "rollback --to" in older.value.hint


def test_what_is_pinned_comes_back_and_nothing_else_does() -> None:
    pinned = take(pin(FIRST, None), make_lock(FILES), (ALICE.id,))
    data = encode_pinned(pinned)

    assert decode_pinned(data, where="x") == pinned
    for bad in (data.replace(b'"version": 1', b'"version": 2', 1), data[:-1], b"", data.replace(b"taken", b"token")):
        with pytest.raises(TrustError, match="pinned trust cannot be read"):
            decode_pinned(bad, where="trust.json")


@given(at=st.integers(0, 100_000), byte=st.integers(0, 255))
def test_an_edited_trust_file_is_read_as_what_it_says_or_refused(at: int, byte: int) -> None:
    data = bytearray(encode_pinned(take(pin(FIRST, None), make_lock(FILES), (ALICE.id,))))
    data[at % len(data)] = byte
    try:
        found = decode_pinned(bytes(data), where="x")
    except TrustError:
        return
    assert isinstance(found, Pinned)
    assert encode_pinned(found) == bytes(data)


def test_a_digest_is_read_aloud_in_groups() -> None:
    digest = root_digest(FIRST)

    assert aloud(digest).replace(" ", "").replace("\n", "") == digest.removeprefix("sha256:")
    assert {len(group) for group in aloud(digest).split()} == {4}


def test_an_envelope_has_each_key_once_and_in_order(lock: Lock) -> None:
    twice = [ALICE.over(PAYLOAD_TYPE, statement(lock)), BOB.over(PAYLOAD_TYPE, statement(lock))] * 2
    made: Envelope = envelope(PAYLOAD_TYPE, statement(lock), twice)

    assert [one.keyid for one in made.signatures] == sorted([ALICE.id, BOB.id])
