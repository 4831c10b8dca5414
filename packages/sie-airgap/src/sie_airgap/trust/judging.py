"""Whether enough of the right keys have signed: a lock, or the root that comes next."""

from collections.abc import Sequence
from dataclasses import dataclass

from sie_airgap.trust.dsse import Envelope, pae
from sie_airgap.trust.keys import is_signed
from sie_airgap.trust.root import ROOT_TYPE, RoleName, Root, decode_root, encode_root
from sie_airgap.trust.statement import PAYLOAD_TYPE, check_statement
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock


@dataclass(frozen=True)
class Signers:
    """Who signed. `good`: ids of the role's keys that did. `bad`: why every other signature does not count."""

    good: tuple[str, ...]
    bad: tuple[str, ...]


@dataclass(frozen=True)
class Sealed:
    """An envelope, and where it was read."""

    where: str
    envelope: Envelope


def signers(root: Root, name: RoleName, envelope: Envelope) -> Signers:
    """Each key counts once, however often it signed."""
    known, signed = root.public_keys(name), pae(envelope.payload_type, envelope.payload)
    good, bad = set(), []
    for one in envelope.signatures:
        if one.keyid not in known:
            bad.append(f"key {one.keyid[:16]}… is not one of the role `{name}` of root {root.number}")
        elif not is_signed(known[one.keyid], one.raw, signed):
            bad.append(f"the signature of key {one.keyid[:16]}… is not over this")
        else:
            good.add(one.keyid)
    return Signers(tuple(sorted(good)), tuple(bad))


def signed_by(root: Root, lock: Lock, sealed: Sequence[Sealed], *, where: str) -> tuple[str, ...]:
    """The keys that signed a lock, when they are as many as the root wants.

    Args:
        sealed: every envelope that came with the lock; each is held against it by itself.
        where: what the lock was read from.

    Raises:
        TrustError: too few; all that does not count is told with its reason.
    """
    good: set[str] = set()
    reasons = []
    for one in sealed:
        if one.envelope.payload_type != PAYLOAD_TYPE:
            reasons.append(f"{one.where}: it is of the type `{one.envelope.payload_type[:80]}`, not `{PAYLOAD_TYPE}`")
            continue
        try:
            check_statement(one.envelope.payload, lock, where=one.where)
        except TrustError as error:
            reasons.append(f"{one.where}: {error.message}: want {error.want}, have {error.have}")
            continue
        found = signers(root, "lock", one.envelope)
        good |= set(found.good)
        reasons += [f"{one.where}: {reason}" for reason in found.bad]
    if len(good) >= root.lock.threshold:
        return tuple(sorted(good))
    raise TrustError(
        "the lock is not signed as the pinned root wants it" if sealed else "the lock is not signed",
        where=where,
        want=f"{root.lock.threshold} of the {len(root.lock.keys)} keys of root {root.number}: "
        + ", ".join(f"{keyid[:16]}…" for keyid in root.lock.keys),
        have="; ".join([f"{len(good)} of them", *reasons]),
        hint="`sie-airgap sign` on the connected side adds a signature; nothing has to be packed again for it",
    )


def check_root(sealed: Sealed, pinned: Root | None) -> Root:
    """The root in an envelope, when it may be pinned: first of all, or after `pinned`.

    Raises:
        TrustError: it is not signed by its own keys or those of the pinned one, or is not the next.
    """
    if sealed.envelope.payload_type != ROOT_TYPE:
        raise TrustError(
            "this is not a trust root", where=sealed.where, want=ROOT_TYPE, have=sealed.envelope.payload_type[:80]
        )
    root = decode_root(sealed.envelope.payload, where=sealed.where)
    if pinned is not None and root.number != pinned.number + 1:
        raise TrustError(
            "a root follows the one before it" if root.number > pinned.number else "the pinned root is newer",
            where=sealed.where,
            want=f"number {pinned.number + 1}",
            have=f"number {root.number}, {digest_of(encode_root(root))}",
            hint=f"pin those between first, from number {pinned.number + 1}" if root.number > pinned.number else None,
        )
    for judge in (root,) if pinned is None else (pinned, root):
        _enough(judge, sealed, own=judge is root)
    return root


def _enough(judge: Root, sealed: Sealed, *, own: bool) -> None:
    found = signers(judge, "root", sealed.envelope)
    if len(found.good) >= judge.root.threshold:
        return
    whose = "its own" if own else "the pinned root's"
    raise TrustError(
        f"the root is not signed by enough of {whose} keys",
        where=sealed.where,
        want=f"{judge.root.threshold} of " + ", ".join(f"{keyid[:16]}…" for keyid in judge.root.keys),
        have="; ".join([f"{len(found.good)} of them", *found.bad]),
        hint="`sie-airgap sign` with each key adds its signature",
    )
