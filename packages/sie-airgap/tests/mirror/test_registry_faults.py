"""What registries do wrong, and manifests that lie: each named for what it is, with its exit code."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.oci.copy import Copier, copy_image, plan_image, read_whole, resolve_image
from sie_airgap.oci.image import Content, read_image
from sie_airgap.oci.layout import LayoutFolder
from sie_airgap.oci.manifest import (
    MAX_CHILDREN,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    children,
    encode,
    parse,
)
from sie_airgap.oci.reference import Reference, parse_place, parse_reference
from sie_airgap.oci.referrers import listed_referrers
from sie_airgap.oci.refusals import Refused
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NoPermission, TransferError, TrustError, Unreachable
from sie_testing import registry as stand_in
from sie_testing.faults import Fault, FaultKind
from sie_testing.images import NAMES, write_images
from sie_testing.registry import Access, serving_registry
from sie_testing.tcp_faults import TcpFault, proxy

NAME = NAMES[0]
LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(b"layer"), 5)
CONFIG = Descriptor("application/vnd.oci.image.config.v1+json", digest_of(b"{}"), 2)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutFolder:
    return write_images(tmp_path_factory.mktemp("images"), names=(NAME,), padding_bytes=2 << 20)


@pytest.fixture
def sources(layout: LayoutFolder) -> Iterator[ImageSources]:
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout.folder}")]) as sources:
        yield sources


@pytest.fixture
def there(tmp_path: Path) -> stand_in.Registry:
    return stand_in.Registry(tmp_path / "registry")


@pytest.fixture
def origin(there: stand_in.Registry) -> Iterator[str]:
    with serving_registry(there) as origin:
        yield origin


def _target(registry: Registry) -> Reference:
    return parse_reference(f"{registry.place.host}/sie/sie-server:v1")


@pytest.mark.parametrize("with_tokens", [False, True], ids=["password", "tokens"])
def test_who_may_not_push_is_told_the_repository_and_the_scope(
    tmp_path: Path, sources: ImageSources, with_tokens: bool
) -> None:
    there = stand_in.Registry(tmp_path / "guarded", access=Access(read_only=True, with_tokens=with_tokens))
    with (
        serving_registry(there) as origin,
        Registry(parse_place(origin)) as registry,
        pytest.raises(NoPermission, match="push to `sie/sie-server`") as refused,
    ):
        copy_image(sources.find(NAME), registry, _target(registry), advance=lambda _: None)

    if not with_tokens:
        assert "scope `repository:sie/sie-server:pull,push`" in refused.value.message
        assert "pull and push on `sie/sie-server`" in str(refused.value.hint)


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_says_when_to_come_back_is_waited_for_so_long(
    there: stand_in.Registry, origin: str, sources: ImageSources, status: int
) -> None:
    busy = Fault(FaultKind.STATUS, match="*/manifests/*", methods=("PUT",), status=status, retry_after_s=7, times=1)
    there.set_faults(busy)
    waited: list[float] = []
    with Registry(parse_place(origin)) as registry:
        copy_image(sources.find(NAME), registry, _target(registry), advance=lambda _: None, wait=waited.append)

        assert registry.manifest_digest("sie/sie-server", "v1") is not None
    assert waited == [7.0]


def test_a_connection_that_is_reset_in_the_middle_of_a_layer_is_made_again(
    origin: str, sources: ImageSources, layout: LayoutFolder
) -> None:
    moved, waited = [0], list[float]()

    def advance(size_bytes: int) -> None:
        moved[0] += size_bytes

    with proxy(origin) as between, Registry(parse_place(between.endpoint)) as registry:
        whole = read_whole(sources.find(NAME), name=NAME)
        plan = plan_image(whole, registry, _target(registry))
        between.arm(TcpFault("reset", after_bytes=50))
        Copier(registry, advance=advance, wait=waited.append).copy(plan, sources.find(NAME))

        assert plan_image(whole, registry, _target(registry)).is_done
    assert (moved[0], bool(waited)) == (plan.size_bytes, True)


def test_a_layer_that_is_cut_short_while_it_is_read_never_arrives_elsewhere(
    there: stand_in.Registry, origin: str, sources: ImageSources, tmp_path: Path
) -> None:
    with Registry(parse_place(origin)) as registry:
        target = _target(registry)
        copy_image(sources.find(NAME), registry, target, advance=lambda _: None)
    there.set_faults(Fault(FaultKind.TRUNCATE, match="*/blobs/*", after_bytes=100_000))
    second = stand_in.Registry(tmp_path / "second")
    with serving_registry(second) as far, Registry(parse_place(far)) as registry, ImageSources() as near:
        source = near.find(f"{parse_place(origin).host}/sie/sie-server:v1")
        with pytest.raises((Unreachable, TrustError)):
            copy_image(source, registry, _target(registry), advance=lambda _: None, wait=lambda _: None)

        assert registry.manifest_digest("sie/sie-server", "v1") is None


def test_a_manifest_under_a_wrong_media_type_is_refused_by_it(
    there: stand_in.Registry, origin: str, sources: ImageSources
) -> None:
    with Registry(parse_place(origin)) as registry:
        copy_image(sources.find(NAME), registry, _target(registry), advance=lambda _: None)
    there.manifest_type = "text/plain"
    with ImageSources() as near:
        source = near.find(f"{parse_place(origin).host}/sie/sie-server:v1")
        with pytest.raises(ValueError, match="`text/plain` is neither a manifest nor an index"):
            resolve_image(NAME, source, why=[])
    there.manifest_type = OCI_MANIFEST
    with ImageSources() as near:
        source = near.find(f"{parse_place(origin).host}/sie/sie-server:v1")
        with pytest.raises(ValueError, match=r"not a manifest|calls itself"):
            resolve_image(NAME, source, why=[])


def test_a_manifest_that_does_not_end_is_refused(there: stand_in.Registry, origin: str) -> None:
    data = b'{"schemaVersion":2,"manifests":[],"annotations":{"x":"' + b"x" * MAX_MANIFEST_BYTES + b'"}}'
    with Registry(parse_place(origin)) as registry:
        with pytest.raises(TransferError, match="413"):
            registry.push_manifest("a", "v1", Content(OCI_INDEX, data, digest_of(data)))
        small = encode(Index((), media_type=OCI_INDEX))
        registry.push_manifest("a", "v1", Content(OCI_INDEX, small, digest_of(small)))
        there.blob_path(digest_of(small)).write_bytes(data)

        with pytest.raises(Refused, match="4,194,304 bytes at most"):
            registry.manifest("a", "v1")


def test_a_blob_of_another_length_at_the_registry_is_told(
    there: stand_in.Registry, origin: str, sources: ImageSources
) -> None:
    with Registry(parse_place(origin)) as registry:
        plan = copy_image(sources.find(NAME), registry, _target(registry), advance=lambda _: None)
        blob = plan.image.blobs[0]
        there.blob_path(blob.digest).write_bytes(b"short")

        with pytest.raises(TrustError, match=f"(?s)another length.*want  {blob.digest}"):
            plan_image(read_whole(sources.find(NAME), name=NAME), registry, _target(registry))


def _json(**more: object) -> bytes:
    base = {"schemaVersion": 2, "config": _plain(CONFIG), "layers": [_plain(LAYER)]}
    return json.dumps({**base, **more}).encode()


def _plain(one: Descriptor, **more: object) -> dict[str, object]:
    return {"mediaType": one.media_type, "digest": one.digest, "size": one.size, **more}


@pytest.mark.parametrize(
    ("data", "media_type", "said"),
    [
        (b"{}", "application/vnd.docker.distribution.manifest.v1+json", "no digests of its own"),
        (_json(schemaVersion=1), OCI_MANIFEST, "schema 1"),
        (_json(mediaType=OCI_INDEX), OCI_MANIFEST, "calls itself"),
        (_json(layers=[_plain(LAYER, urls=["https://elsewhere.example/x"])]), OCI_MANIFEST, "elsewhere.example/x"),
        (
            _json(layers=[{**_plain(LAYER), "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]),
            OCI_MANIFEST,
            "foreign layer",
        ),
        (_json(layers=[_plain(LAYER, size=-1)]), OCI_MANIFEST, "negative size"),
        (_json(layers=[_plain(LAYER, size=1 << 70)]), OCI_MANIFEST, "size that nothing has"),
        (_json(layers=[_plain(LAYER)] * (MAX_CHILDREN + 1)), OCI_MANIFEST, "children at most"),
        (_json(config=[]), OCI_MANIFEST, "not a manifest"),
        (b'{"manifests":' + b"[" * 100_000, OCI_INDEX, "not a manifest"),
        (b'{"layers":"\xff"}', OCI_MANIFEST, "not a manifest"),
    ],
)
def test_a_manifest_that_cannot_be_carried_is_refused_with_its_place(data: bytes, media_type: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"here: .*{said}"):
        parse(data, media_type=media_type, where="here")


def _content(read: Index | Manifest) -> Content:
    data = encode(read)
    return Content(OCI_INDEX if isinstance(read, Index) else OCI_MANIFEST, data, digest_of(data))


def test_sizes_that_lie_are_found() -> None:
    child = _content(Manifest(CONFIG, (LAYER,)))
    root = _content(Index((Descriptor(OCI_MANIFEST, child.digest, len(child.data) + 1),)))
    with pytest.raises(ValueError, match="is said to have"):
        read_image(root, {child.digest: child}.__getitem__, where="here")

    twice = _content(Manifest(CONFIG, (LAYER, Descriptor(LAYER.media_type, LAYER.digest, 6))))
    with pytest.raises(ValueError, match="has two lengths: 5 and 6"):
        read_image(twice, lambda _: twice, where="here")


def test_an_index_that_holds_itself_ends() -> None:
    """It cannot be by digest; a source that lies about one can make it look so."""
    digest = digest_of(b"itself")
    root = Content(OCI_INDEX, encode(Index((Descriptor(OCI_INDEX, digest, 0),))), digest)
    length = len(root.data)
    same = Content(OCI_INDEX, encode(Index((Descriptor(OCI_INDEX, digest, length),))), digest)

    with pytest.raises(ValueError, match="here: "):
        read_image(same, lambda _: same, where="here")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
descriptors = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([OCI_MANIFEST, OCI_INDEX, "x/y"]) | json_values,
        "digest": st.just(LAYER.digest) | st.text(max_size=80) | json_values,
        "size": st.integers(-5, 10) | json_values,
        "urls": st.lists(st.text(max_size=5), max_size=2) | json_values,
        "platform": json_values,
    },
)
manifests = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.sampled_from([1, 2]) | json_values,
        "mediaType": st.sampled_from([OCI_MANIFEST, OCI_INDEX]) | json_values,
        "config": descriptors | json_values,
        "layers": st.lists(descriptors, max_size=3) | json_values,
        "manifests": st.lists(descriptors, max_size=3) | json_values,
        "subject": descriptors | json_values,
    },
)


written = manifests.map(json.dumps).map(str.encode) | st.binary(max_size=100)


@given(written, st.sampled_from(["", OCI_INDEX, OCI_MANIFEST]))
def test_whatever_comes_is_a_manifest_or_refused_with_its_place(data: bytes, media_type: str) -> None:
    try:
        read = parse(data, media_type=media_type, where="here")
    except ValueError as error:
        assert "here" in str(error)
    else:
        assert all(child.size >= 0 and not child.urls for child in children(read))


@given(written)
def test_whatever_a_registry_lists_is_a_list_or_none(data: bytes) -> None:
    listed = listed_referrers(data)

    assert listed is None or all(isinstance(one.digest, str) for one in listed)


@given(st.dictionaries(st.sampled_from([digest_of(bytes([n])) for n in range(4)]), manifests, max_size=4), manifests)
def test_whatever_a_source_gives_is_an_image_or_refused(held: dict[Digest, object], root: object) -> None:
    known = {digest: Content("", json.dumps(value).encode(), digest) for digest, value in held.items()}
    data = json.dumps(root).encode()

    def fetch(digest: Digest) -> Content:
        return known.get(digest, Content("", b"{}", digest))

    try:
        image = read_image(Content("", data, digest_of(data)), fetch, where="here")
    except ValueError as error:
        assert "here" in str(error)
    else:
        assert image.root.data == data
