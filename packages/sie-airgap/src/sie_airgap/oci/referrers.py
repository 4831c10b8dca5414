"""What refers to an image: signatures, attestations, lists of contents. Pure.

Three ways are in use, and all are carried. A manifest may name its `subject`, and a registry of OCI 1.1 lists it
at `/referrers/DIGEST`; where a registry does not, clients keep that list as an index under the tag `sha256-HEX`.
cosign tags what it makes with `sha256-HEX.sig`, `.att` and `.sbom`, and names no subject.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sie_airgap.oci.image import Content
from sie_airgap.oci.manifest import OCI_INDEX, Descriptor, Index, encode, parse
from sie_core.artifacts.digest import Digest, digest_of, hex_of, parse_digest

COSIGN_KINDS = ("att", "sbom", "sig")


@dataclass(frozen=True, order=True)
class Referring:
    """One manifest that refers to another. `tag` is cosign's, where it is found by one."""

    subject: Digest
    digest: Digest
    tag: str | None = None


def list_tag(subject: Digest) -> str:
    """Where the list of referrers lies in a registry that keeps none itself."""
    return f"sha256-{hex_of(subject)}"


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    return tuple(f"{list_tag(subject)}.{kind}" for kind in COSIGN_KINDS)


def listed_referrers(data: bytes) -> tuple[Descriptor, ...] | None:
    """The entries of a list of referrers; None for what is no index (a web page, where there is no such route)."""
    try:
        entries = msgspec.json.decode(data, type=Index).manifests
        for entry in entries:
            parse_digest(entry.digest)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return entries


def described(content: Content, *, where: str) -> Descriptor:
    """How a list of referrers names a manifest. Raises `ValueError` for what is none."""
    read = parse(content.data, media_type=content.media_type, where=where)
    kind = read.artifact_type or ("" if isinstance(read, Index) else read.config.media_type)
    return Descriptor(
        content.media_type, content.digest, len(content.data), annotations=read.annotations, artifact_type=kind
    )


def with_entries(known: Iterable[Descriptor], more: Iterable[Descriptor]) -> Content:
    """The list that holds both, what it held first, each once."""
    entries = {entry.digest: entry for entry in [*known, *more]}
    data = encode(Index(manifests=tuple(entries.values()), media_type=OCI_INDEX))
    return Content(OCI_INDEX, data, digest_of(data))
