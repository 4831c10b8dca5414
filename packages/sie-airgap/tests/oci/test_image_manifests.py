"""Manifests from outside: what is read, what is refused, in which order an image's parts go."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.oci.image import Content, read_image
from sie_airgap.oci.manifest import (
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    children,
    encode,
    media_type_of,
    parse,
)
from sie_core.artifacts.digest import Digest, digest_of

LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(b"layer"), 5)
CONFIG = Descriptor("application/vnd.oci.image.config.v1+json", digest_of(b"{}"), 2)


def _content(read: Index | Manifest) -> Content:
    data = encode(read)
    return Content(OCI_INDEX if isinstance(read, Index) else OCI_MANIFEST, data, digest_of(data))


def _descriptor(content: Content, platform: Platform | None = None) -> Descriptor:
    return Descriptor(content.media_type, content.digest, len(content.data), platform)


def test_every_child_goes_before_its_parents_and_the_root_last() -> None:
    amd, arm = (_content(Manifest(CONFIG, (LAYER,), annotations={"for": name})) for name in ("amd64", "arm64"))
    inner = _content(Index((_descriptor(arm, Platform("arm64", "linux", "v8")),)))
    attestation = _content(Manifest(CONFIG, (), annotations={"for": "attestation"}))
    entries = (
        _descriptor(amd, Platform("amd64", "linux")),
        _descriptor(inner),
        _descriptor(attestation, Platform("unknown", "unknown")),
    )
    root = _content(Index(entries))
    known = {content.digest: content for content in (amd, arm, inner, attestation)}
    image = read_image(root, known.__getitem__, where="here")

    assert image.manifests == (amd, arm, inner, attestation, root)
    assert [blob.digest for blob in image.blobs] == sorted({LAYER.digest, CONFIG.digest})
    assert image.platforms == {"linux/amd64": amd.digest, "linux/arm64/v8": arm.digest}


def test_indexes_without_end_are_refused() -> None:
    content = _content(Manifest(CONFIG, (LAYER,)))
    known: Mapping[Digest, Content] = {}
    for _ in range(6):
        known = {**known, content.digest: content}
        content = _content(Index((_descriptor(content),)))

    with pytest.raises(ValueError, match="levels at most"):
        read_image(content, known.__getitem__, where="here")


@pytest.mark.parametrize(
    ("data", "media_type", "said"),
    [
        (b"nonsense", OCI_MANIFEST, "not a manifest"),
        (b"{}", OCI_MANIFEST, "not a manifest"),
        (b'{"manifests": [{"mediaType": "x", "digest": "sha256:1", "size": 1}]}', OCI_INDEX, "is not a digest"),
        (b'{"config":{"mediaType":"x","digest":"%b","size":-1},"layers":[]}', OCI_MANIFEST, "negative size"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "has no digests of its own"),
        (b" " * (MAX_MANIFEST_BYTES + 1), OCI_MANIFEST, "bytes at most"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_place(data: bytes, media_type: str, said: str) -> None:
    data = data.replace(b"%b", LAYER.digest.encode())

    with pytest.raises(ValueError, match=f"here: .*{said}|{said}"):
        parse(data, media_type=media_type, where="here")


@given(st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 1 << 50)), max_size=20))
def test_a_manifest_that_is_written_is_read_back(layers: list[tuple[bytes, int]]) -> None:
    manifest = Manifest(CONFIG, tuple(Descriptor("x/y", digest_of(name), size) for name, size in layers))

    assert parse(encode(manifest), media_type="", where="here") == manifest
    assert len(children(manifest)) == len(layers) + 1


def test_a_manifest_without_media_type_is_known_by_what_it_has() -> None:
    assert media_type_of(b'{"schemaVersion":2,"manifests":[]}') == OCI_INDEX
    assert media_type_of(b'{"schemaVersion":2,"layers":[]}') == OCI_MANIFEST
