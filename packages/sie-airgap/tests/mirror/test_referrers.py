"""Signatures and the like: found in every way they are kept, locked, and there before the image's tag is."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from sie_airgap.mirror.images import mirror_images, plan_images
from sie_airgap.oci.copy import copy_image, resolve_image
from sie_airgap.oci.image import Content
from sie_airgap.oci.layout import LayoutFolder
from sie_airgap.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, encode
from sie_airgap.oci.reference import parse_place, parse_reference
from sie_airgap.oci.referrers import cosign_tags, list_tag
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.contents import contents
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.lock import Lock, LockedImage, decode_lock, encode_lock
from sie_testing import registry as stand_in
from sie_testing.images import NAMES, write_images
from sie_testing.registry import serving_registry
from sie_testing.registry.docker import docker_registry_program, serving_docker_registry
from sie_testing.web import Answer, Request, serving

NAME = NAMES[0]
REPOSITORY = "sie/sie-server"
EMPTY = b"{}"

real = pytest.mark.skipif(
    docker_registry_program() is None, reason="docker-registry is not installed (Debian package `docker-registry`)"
)


@dataclass(frozen=True)
class Signed:
    """An image in a layout with a list of contents, that list's signature, and cosign's signature of the image."""

    layout: LayoutFolder
    image: Digest
    contents_list: Content
    its_signature: Content
    cosign: Content


def _about(layout: LayoutFolder, subject: Descriptor | None, kind: str, payload: bytes) -> Content:
    config = Descriptor("application/vnd.oci.empty.v1+json", layout.add_blob(EMPTY), len(EMPTY))
    layer = Descriptor(f"application/vnd.{kind}", layout.add_blob(payload), len(payload))
    data = encode(
        Manifest(config, (layer,), media_type=OCI_MANIFEST, artifact_type=f"application/vnd.{kind}", subject=subject)
    )
    layout.add_blob(data)
    return Content(OCI_MANIFEST, data, digest_of(data))


def _descriptor(content: Content) -> Descriptor:
    return Descriptor(content.media_type, content.digest, len(content.data))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    layout = write_images(tmp_path_factory.mktemp("images"), names=(NAME,))
    root = layout.manifest(layout.entries()[0].digest)
    listing = _about(layout, _descriptor(root), "spdx", b"what is in it")
    signature = _about(layout, _descriptor(listing), "notation", b"signed: the list")
    cosign = _about(layout, None, "simplesigning", b"signed: the image")
    layout.add_image("listing", listing)
    layout.add_image("its-signature", signature)
    layout.add_image(cosign_tags(root.digest)[2], cosign)
    return Signed(layout, root.digest, listing, signature, cosign)


@pytest.fixture
def locked(signed: Signed) -> LockedImage:
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{signed.layout.folder}")]) as sources:
        return resolve_image(NAME, sources.find(NAME), why=["the test"])


@pytest.fixture
def store(signed: Signed, locked: LockedImage, tmp_path: Path) -> BlobFolder:
    """What a snapshot brings: the lock's blobs and no others."""
    store = BlobFolder(tmp_path / "store")
    for blob in locked.blobs:
        with signed.layout.open(blob.digest) as stream:
            store.add(stream.read())
    return store


@pytest.fixture(params=["lists itself", "lists nothing", pytest.param("docker-registry", marks=real)])
def any_origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    there = stand_in.Registry(tmp_path / "any", referrers_api=request.param == "lists itself")
    served: AbstractContextManager[str] = serving_registry(there)
    if request.param == "docker-registry":
        served = serving_docker_registry(tmp_path / "docker")
    with served as origin:
        yield origin


def _mirror(image: LockedImage, store: BlobFolder, origin: str) -> bool:
    """Whether anything had to be done."""
    with Registry(parse_place(f"{origin}/sie")) as registry:
        plans = plan_images([image], store, registry)
        mirror_images([image], store, registry, plans, Silent())
    return not plans[0].is_done


def _kinds(signed: Signed) -> Mapping[Digest, str]:
    return {
        signed.contents_list.digest: "list",
        signed.its_signature.digest: "signature",
        signed.cosign.digest: "cosign",
    }


def test_a_lock_has_what_refers_to_an_image_and_to_that(signed: Signed, locked: LockedImage) -> None:
    kinds = _kinds(signed)
    found = {(kinds.get(one.subject, "image"), kinds[one.digest], one.tag) for one in locked.referrers}

    tag = cosign_tags(signed.image)[2]
    assert found == {("image", "list", None), ("list", "signature", None), ("image", "cosign", tag)}
    assert set(kinds) <= {blob.digest for blob in locked.blobs}
    lock = Lock(1, 1, None, (), (locked,), (), ())
    assert decode_lock(encode_lock(lock)) == lock
    assert set(kinds) <= {content.digest for content in contents(lock)}


def test_a_mirrored_image_has_its_signatures_and_is_locked_the_same_there(
    locked: LockedImage, store: BlobFolder, any_origin: str
) -> None:
    assert _mirror(locked, store, any_origin)

    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked={any_origin}/sie")]) as sources:
        assert resolve_image(NAME, sources.find(NAME), why=["the test"]) == locked
    assert not _mirror(locked, store, any_origin)


def test_signatures_are_there_before_the_images_tag_is(
    signed: Signed, locked: LockedImage, store: BlobFolder, tmp_path: Path
) -> None:
    """Whoever admits signed images alone must never see the tag without them."""
    there = stand_in.Registry(tmp_path / "registry", referrers_api=False)
    with serving_registry(there) as origin:
        _mirror(locked, store, origin)
    puts = [seen.path.rpartition("/")[2] for seen in there.seen if seen.method == "PUT" and "manifests" in seen.path]

    assert puts[-1] == "v0.3.1"
    assert {cosign_tags(signed.image)[2], list_tag(signed.image), list_tag(signed.contents_list.digest)} < set(puts)


def test_a_list_that_is_there_keeps_what_it_held(
    signed: Signed, locked: LockedImage, store: BlobFolder, tmp_path: Path
) -> None:
    other = Content(OCI_MANIFEST, signed.cosign.data, signed.cosign.digest)
    held = encode(Index((_descriptor(other),), media_type=OCI_INDEX))
    there = stand_in.Registry(tmp_path / "registry", referrers_api=False)
    with serving_registry(there) as origin, Registry(parse_place(origin)) as registry:
        target = parse_reference(f"{registry.place.host}/{REPOSITORY}:sig")
        with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{signed.layout.folder}")]) as sources:
            copy_image(sources.find(NAME), registry, target, advance=lambda _: None)
        registry.push_manifest(REPOSITORY, list_tag(signed.image), Content(OCI_INDEX, held, digest_of(held)))
        _mirror(locked, store, origin)

        listed = [entry.digest for entry in registry.listed(REPOSITORY, signed.image)]
        assert listed == [other.digest, signed.contents_list.digest]


def test_a_registry_that_answers_a_page_where_a_list_would_be_has_none(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Answer(200 if "referrers" in request.path else 404, {"Content-Type": "text/html"}, b"<html>")

    with serving(answer) as origin, Registry(parse_place(origin)) as registry:
        assert registry.listed("a", digest_of(b"x")) == ()


def test_a_signature_that_came_later_is_pushed_alone(
    signed: Signed, locked: LockedImage, store: BlobFolder, any_origin: str
) -> None:
    _mirror(msgspec.structs.replace(locked, referrers=()), store, any_origin)
    with Registry(parse_place(f"{any_origin}/sie")) as registry:
        [plan] = plan_images([locked], store, registry)

    assert not plan.moves_tag
    assert {content.digest for content in plan.manifests} == set(_kinds(signed))
    assert _mirror(locked, store, any_origin)
    assert not _mirror(locked, store, any_origin)
