"""Keys: ECDSA over P-256 with SHA-256, in PEM; the private ones under a passphrase.

`openssl dgst -sha256 -verify KEY.pub` checks what these sign. Other kinds of keys are refused by name.
"""

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from sie_airgap.failures import Misused

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey
_WANTED = "an ECDSA key over P-256, as `sie-airgap trust key` makes them"


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: PrivateKey, passphrase: bytes) -> bytes:
    """PKCS#8, encrypted. Raises `ValueError` for an empty passphrase."""
    if not passphrase:
        raise ValueError("the passphrase is empty")
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )


def public_pem(key: PublicKey) -> str:
    """SubjectPublicKeyInfo."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, kind).decode("ascii")


def key_id(key: PublicKey) -> str:
    """The sha256 of the key in DER: 64 hex digits that name it wherever it is written down."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, kind)).hexdigest()


def read_private(data: bytes, passphrase: bytes, *, where: str) -> PrivateKey:
    """Raises `Misused` for what is no such key, has no passphrase, or another one."""
    if b"PUBLIC KEY-----" in data:
        raise Misused(f"{where} is a public key", hint="sign with the `.pem` beside it")
    try:
        key: PrivateKeyTypes = serialization.load_pem_private_key(data, passphrase)
    except TypeError as error:  # a passphrase for a key without one
        raise Misused(
            f"{where} is not under a passphrase", hint=f"whoever has the file could sign with it; {_make()}"
        ) from error
    except ValueError as error:
        if b"PRIVATE KEY-----" in data:
            raise Misused(f"{where} does not open with this passphrase") from error
        raise Misused(f"{where} is not a private key in PEM: {_first_line(error)}", hint=_make()) from error
    except UnsupportedAlgorithm as error:
        raise Misused(f"{where} is of a kind that is not known: {error}", hint=_make()) from error
    if not isinstance(key, PrivateKey):
        raise Misused(f"{where} is {_kind(key)}; want {_WANTED}")
    _check_curve(key.curve, where)
    return key


def read_public(data: bytes, *, where: str) -> PublicKey:
    """Raises `Misused` for what is no such key."""
    if b"PRIVATE KEY-----" in data:
        raise Misused(f"{where} is a private key, which nobody else may have", hint="name the `.pub` beside it")
    try:
        key: PublicKeyTypes = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Misused(f"{where} is not a public key in PEM: {_first_line(error)}", hint=_make()) from error
    if not isinstance(key, PublicKey):
        raise Misused(f"{where} is {_kind(key)}; want {_WANTED}")
    _check_curve(key.curve, where)
    return key


def sign(key: PrivateKey, data: bytes) -> bytes:
    """In ASN.1 DER, as OpenSSL writes and reads them."""
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def is_signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _check_curve(curve: ec.EllipticCurve, where: str) -> None:
    if not isinstance(curve, ec.SECP256R1):
        raise Misused(f"{where} is an ECDSA key over {curve.name}; want {_WANTED}")


def _kind(key: object) -> str:
    name = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return f"a key of the kind {name}"


def _make() -> str:
    return "`sie-airgap trust key NAME` makes a pair"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
