"""A root: the keys that count, what for, and how many of them are needed.

It is signed by its own keys; the next one by those of the one before it, too. Its digest is read aloud
once, when the far side pins it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from sie_airgap.failures import Misused
from sie_airgap.trust.keys import PublicKey, key_id, read_public
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Violation
from sie_core.artifacts.manifest import canonical_json

ROOT_VERSION = 1
ROOT_TYPE = "application/vnd.sie.trust-root.v1+json"
"""The payload type of a root's envelope."""

RoleName = Literal["lock", "root"]


class Role(Struct, frozen=True, forbid_unknown_fields=True):
    """`keys`: ids, sorted. `threshold`: how many of them have to sign."""

    keys: tuple[str, ...]
    threshold: int


class Root(Struct, frozen=True, forbid_unknown_fields=True):
    """Attributes:
    version: of this format.
    number: counts up from 1 with each root.
    keys: id to public key in PEM, for all that a role names.
    lock: who may say which lock is meant.
    root: who may say which root comes next.
    """

    version: int
    number: int
    keys: Mapping[str, str]
    lock: Role
    root: Role

    def role(self, name: RoleName) -> Role:
        return self.lock if name == "lock" else self.root

    def public_keys(self, name: RoleName) -> dict[str, PublicKey]:
        return {keyid: read_public(self.keys[keyid].encode(), where=keyid) for keyid in self.role(name).keys}


def encode_root(root: Root) -> bytes:
    """Its only form. Raises `ValueError` for one that `decode_root` would refuse."""
    if broken := list(violations(root)):
        raise ValueError(f"{broken[0].where}: want {broken[0].want}, have {broken[0].have}")
    return canonical_json(root)


def root_digest(root: Root) -> Digest:
    return digest_of(encode_root(root))


def decode_root(data: bytes, *, where: str) -> Root:
    """Raises `TrustError` naming the first thing that no root says."""
    try:
        root = msgspec.json.decode(data, type=Root)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(where, f"a root of version {ROOT_VERSION}", str(error)) from error
    for broken in violations(root):
        raise _refused(f"{where}: {broken.where}", broken.want, broken.have)
    if canonical_json(root) != data:
        raise _refused(where, "the form that `trust root` writes", "the same in another form")
    return root


def _refused(where: str, want: str, have: str) -> TrustError:
    return TrustError("this is not a trust root", where=where, want=want, have=have)


def violations(root: Root) -> Iterator[Violation]:
    """All that the types cannot say."""
    if root.version != ROOT_VERSION:
        yield Violation("version", str(ROOT_VERSION), str(root.version))
    if root.number < 1:
        yield Violation("number", "1 or more", str(root.number))
    for keyid, pem in root.keys.items():
        yield from _key(keyid, pem)
    for name, role in (("lock", root.lock), ("root", root.root)):
        if list(role.keys) != sorted(set(role.keys)):
            yield Violation(f"{name}.keys", "sorted, each once", ", ".join(role.keys))
        if not 1 <= role.threshold <= len(role.keys):
            yield Violation(f"{name}.threshold", f"1 to the {len(role.keys)} keys of the role", str(role.threshold))
        for keyid in role.keys:
            if keyid not in root.keys:
                yield Violation(f"{name}.keys", "ids that are in keys", keyid)
    for keyid in sorted(set(root.keys) - {*root.lock.keys, *root.root.keys}):
        yield Violation("keys", "none that no role names", keyid)


def _key(keyid: str, pem: str) -> Iterator[Violation]:
    try:
        have = key_id(read_public(pem.encode(), where=f"keys[{keyid[:16]}]"))
    except Misused as error:
        yield Violation(f"keys[{keyid[:16]}]", "a public key", error.message)
        return
    if have != keyid:
        yield Violation("keys", f"under its own id, {have}", keyid)
