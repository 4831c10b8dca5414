"""Images from a layout or a registry, through a lock and a store, into a registry: the stand-in and the real one."""

import base64
import contextlib
import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from sie_airgap.failures import Misused
from sie_airgap.mirror.images import mirror_images, plan_images, targets
from sie_airgap.oci.auth import NOBODY, Logins, parse_logins
from sie_airgap.oci.copy import copy_image, resolve_image
from sie_airgap.oci.layout import LayoutFolder
from sie_airgap.oci.reference import parse_place, parse_reference
from sie_airgap.oci.refusals import Refused
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sessions import Sessions
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.oci.uploads import Upload, Uploader
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError, Unreachable
from sie_core.artifacts.lock import LockedBlob, LockedImage
from sie_testing import registry as stand_in
from sie_testing.faults import Fault, FaultKind
from sie_testing.images import NAMES, root_digests, write_images
from sie_testing.registry import Access, serving_registry
from sie_testing.registry.docker import docker_registry_program, serving_docker_registry
from sie_testing.web import Answer, Request, serving

real = pytest.mark.skipif(
    docker_registry_program() is None, reason="docker-registry is not installed (Debian package `docker-registry`)"
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutFolder:
    return write_images(tmp_path_factory.mktemp("images"), padding_bytes=3 << 20)


@pytest.fixture(scope="module")
def images(layout: LayoutFolder) -> list[LockedImage]:
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout.folder}")]) as sources:
        return [resolve_image(name, sources.find(name), why=["the test"]) for name in sorted(NAMES)]


@pytest.fixture
def sources(layout: LayoutFolder) -> Iterator[ImageSources]:
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout.folder}")]) as sources:
        yield sources


@pytest.fixture
def store(layout: LayoutFolder, tmp_path: Path) -> BlobFolder:
    """A store that holds what a snapshot would have fetched: the layout's blobs, by digest."""
    shutil.copytree(layout.folder / "blobs", tmp_path / "store" / "blobs")
    return BlobFolder(tmp_path / "store")


@pytest.fixture
def there(tmp_path: Path) -> stand_in.Registry:
    return stand_in.Registry(tmp_path / "registry")


@pytest.fixture
def origin(there: stand_in.Registry) -> Iterator[str]:
    with serving_registry(there) as origin:
        yield origin


@pytest.fixture(params=["stand-in", pytest.param("docker-registry", marks=real)])
def any_origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    served: AbstractContextManager[str] = serving_docker_registry(tmp_path / "docker")
    if request.param == "stand-in":
        served = serving_registry(stand_in.Registry(tmp_path / "any"))
    with served as origin:
        yield origin


def _mirror(images: list[LockedImage], store: BlobFolder, origin: str, *, logins: Logins = NOBODY) -> int:
    """Bytes of blobs that the plans had to move."""
    with Registry(parse_place(f"{origin}/sie"), logins=logins) as registry:
        plans = plan_images(images, store, registry)
        mirror_images(images, store, registry, plans, Silent())
    return sum(plan.size_bytes for plan in plans)


def test_a_lock_says_everything_that_an_image_consists_of(images: list[LockedImage], layout: LayoutFolder) -> None:
    held = {path.name for path in (layout.folder / "blobs" / "sha256").iterdir()}

    assert [image.reference for image in images] == sorted(NAMES)
    assert {image.reference: image.digest for image in images} == root_digests(layout)
    assert all(list(image.platforms) == ["linux/amd64", "linux/arm64"] for image in images)
    assert {hex_of(blob.digest) for image in images for blob in image.blobs} == held


def test_mirrored_images_are_the_locked_ones_with_every_platform(
    images: list[LockedImage], store: BlobFolder, any_origin: str
) -> None:
    _mirror(images, store, any_origin)

    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked={any_origin}/sie")]) as sources:
        for image in images:
            assert resolve_image(image.reference, sources.find(image.reference), why=["the test"]) == image


def test_mirroring_twice_pushes_nothing_the_second_time(
    images: list[LockedImage], store: BlobFolder, there: stand_in.Registry, origin: str
) -> None:
    first = _mirror(images, store, origin)
    there.seen.clear()
    second = _mirror(images, store, origin)

    assert (first > 18 << 20, second) == (True, 0)
    assert {seen.method for seen in there.seen} == {"HEAD"}


def test_layers_that_images_share_are_uploaded_once_and_mounted(
    images: list[LockedImage], store: BlobFolder, there: stand_in.Registry, origin: str
) -> None:
    _mirror(images, store, origin)
    uploads = [seen for seen in there.seen if (seen.method, seen.status) == ("PUT", 201) and "/uploads/" in seen.path]
    mounts = [seen for seen in there.seen if (seen.method, seen.status) == ("POST", 201)]

    leaves = [blob for image in images for blob in image.blobs if "manifest" not in blob.media_type]
    leaves = [blob for blob in leaves if "index" not in blob.media_type]
    assert len(uploads) == len({blob.digest for blob in leaves})
    assert len(mounts) == len(leaves) - len(uploads) == 4


def test_tags_come_last_and_after_every_child(
    images: list[LockedImage], store: BlobFolder, there: stand_in.Registry, origin: str
) -> None:
    _mirror(images[:1], store, origin)
    puts = [seen.path.rpartition("/")[2] for seen in there.seen if seen.method == "PUT" and "manifests" in seen.path]

    assert puts[-2:] == [images[0].digest, "v0.3.1"]
    assert set(puts[:-2]) == set(images[0].platforms.values())


def test_a_plan_says_what_is_missing_and_changes_nothing(
    images: list[LockedImage], store: BlobFolder, there: stand_in.Registry, origin: str
) -> None:
    with Registry(parse_place(f"{origin}/sie")) as registry:
        plan = plan_images(images, store, registry)[0]

    assert (plan.is_done, plan.tag_now, len(plan.manifests)) == (False, None, 3)
    assert {seen.method for seen in there.seen} == {"HEAD"}


def test_a_moved_tag_is_put_back_without_moving_a_byte(
    images: list[LockedImage], store: BlobFolder, origin: str
) -> None:
    _mirror(images, store, origin)
    with Registry(parse_place(f"{origin}/sie")) as registry:
        other = next(iter(images[0].platforms.values()))
        registry.push_manifest("sie/sie-config", "v0.3.1", registry.manifest("sie/sie-config", other))
        plan = plan_images(images, store, registry)[0]

    assert (plan.tag_now, plan.size_bytes, plan.moves_tag) == (other, 0, True)
    assert _mirror(images, store, origin) == 0
    with Registry(parse_place(f"{origin}/sie")) as registry:
        assert registry.manifest_digest("sie/sie-config", "v0.3.1") == images[0].digest


def test_one_image_is_copied_from_registry_to_registry(
    layout: LayoutFolder, sources: ImageSources, origin: str, any_origin: str
) -> None:
    name = NAMES[0]
    with Registry(parse_place(origin)) as first:
        copy_image(sources.find(name), first, parse_reference(f"{first.place.host}/a/b:v1"), advance=lambda _: None)
    with ImageSources() as by_name, Registry(parse_place(any_origin)) as second:
        near = by_name.find(f"{parse_place(origin).host}/a/b:v1")
        copy_image(near, second, parse_reference(f"{second.place.host}/c:v1"), advance=lambda _: None)

        assert second.manifest_digest("c", "v1") == root_digests(layout)[name]


MIRROR = r"""
import os
import sys
import threading
from pathlib import Path
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.mirror.images import mirror_images, plan_images
from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.uploads import Upload, Uploader
from sie_airgap.progress import Silent
from sie_core.artifacts.lock import LockedBlob, LockedImage
import msgspec

class Stopping(Silent):
    moved = 0
    def advance(self, size_bytes):
        self.moved += size_bytes
        if self.moved >= int(sys.argv[3]):
            os.write(1, b"moved\n")
            sys.stdin.read()

images = msgspec.json.decode(Path(sys.argv[4]).read_bytes(), type=list[LockedImage])
store = BlobFolder(Path(sys.argv[1]))
with Registry(parse_place(sys.argv[2])) as registry:
    plans = plan_images(images, store, registry)
    mirror_images(images, store, registry, plans, Stopping())
"""


@pytest.mark.parametrize("moved_bytes", [1 << 20, 10 << 20])
def test_killed_in_the_middle_it_goes_on_and_nothing_half_was_ever_to_be_seen(
    images: list[LockedImage], store: BlobFolder, any_origin: str, tmp_path: Path, moved_bytes: int
) -> None:
    (tmp_path / "images.json").write_bytes(msgspec.json.encode(images))
    arguments = [str(store.root), f"{any_origin}/sie", str(moved_bytes), str(tmp_path / "images.json")]
    command = [sys.executable, "-c", MIRROR, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"moved\n"
        process.kill()

    with Registry(parse_place(f"{any_origin}/sie")) as registry:
        for image, target in zip(images, targets(images, registry.place).values(), strict=True):
            tagged = registry.manifest_digest(target.repository, target.asked)
            assert tagged in (None, image.digest)
    whole = sum(blob.size_bytes for blob in {blob.digest: blob for image in images for blob in image.blobs}.values())
    again = _mirror(images, store, any_origin)
    assert again <= whole - moved_bytes + 3 * (3 << 20) + (64 << 10)
    assert _mirror(images, store, any_origin) == 0


def test_a_blob_that_was_altered_is_named_and_never_arrives(
    images: list[LockedImage], store: BlobFolder, any_origin: str
) -> None:
    layer = next(blob for blob in images[0].blobs if blob.size_bytes > 3 << 20)
    path = store.path(layer.digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(TrustError, match=f"(?s)not what was locked.*want  {layer.digest}"):
        _mirror(images, store, any_origin)
    with Registry(parse_place(f"{any_origin}/sie")) as registry:
        assert registry.blob_size("sie/sie-config", layer.digest) is None
        assert registry.manifest_digest("sie/sie-config", "v0.3.1") is None


def test_a_manifest_that_was_altered_is_named_before_anything_is_pushed(
    images: list[LockedImage], store: BlobFolder, there: stand_in.Registry, origin: str
) -> None:
    path = store.path(images[0].digest)
    path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(TrustError, match=r"a manifest of image `ghcr\.io/superlinked/sie-config:v0\.3\.1`"):
        _mirror(images, store, origin)
    assert not there.seen


def test_a_blob_that_is_missing_is_named(images: list[LockedImage], store: BlobFolder, origin: str) -> None:
    layer = next(blob for blob in images[0].blobs if blob.size_bytes > 3 << 20)
    store.path(layer.digest).unlink()

    with pytest.raises(NotThere, match=layer.digest):
        _mirror(images, store, origin)


def test_a_registry_that_stumbles_is_tried_again(sources: ImageSources, there: stand_in.Registry, origin: str) -> None:
    there.set_faults(Fault(FaultKind.STATUS, match="*/uploads/*", methods=("PUT",), status=503, times=2))
    moved = [0]
    waited: list[float] = []
    with Registry(parse_place(origin)) as registry:
        target = parse_reference(f"{registry.place.host}/a:v1")

        def advance(size_bytes: int) -> None:
            moved[0] += size_bytes

        plan = copy_image(sources.find(NAMES[0]), registry, target, advance=advance, wait=waited.append)

    assert waited in ([1.0, 1.0], [1.0, 2.0])
    assert moved[0] == plan.size_bytes


def test_a_registry_that_stays_down_is_unreachable_with_its_answer(there: stand_in.Registry, origin: str) -> None:
    there.set_faults(Fault(FaultKind.STATUS, match="/v2/*", status=502))
    with Registry(parse_place(origin)) as registry, pytest.raises(Unreachable, match="502"):
        registry.manifest_digest("a", "v1")


def test_nobody_listening_is_unreachable_with_the_address(there: stand_in.Registry) -> None:
    with serving_registry(there) as origin:
        pass

    with Registry(parse_place(origin)) as registry, pytest.raises(Unreachable, match=origin):
        registry.manifest_digest("a", "v1")


def _no_registry(request: Request) -> Answer:
    """A web server that answers everything."""
    digest = {"Docker-Content-Digest": "none"} if "/manifests/" in request.path else {}
    return Answer(202 if request.method == "POST" else 200, digest)


def test_a_web_server_that_is_no_registry_is_refused_as_such(tmp_path: Path) -> None:
    with serving(_no_registry) as origin, Registry(parse_place(origin)) as registry:
        with pytest.raises(Refused, match="is not a digest") as refused:
            registry.manifest_digest("a", "v1")
        uploader = Uploader(registry, sessions=Sessions(), say=print, stop=threading.Event())
        upload = Upload("a", LockedBlob(digest_of(b"x"), 1, "x/y"), lambda _: io.BytesIO(b"x"))
        with pytest.raises(Refused, match="without `Location`"):
            uploader.push(upload, advance=print)

    assert refused.value.hint is not None
    assert "no registry" in refused.value.hint


def test_what_lets_a_reader_in_elsewhere_is_not_told() -> None:
    """Registries send readers to a bucket with a signature in the query; a refusal there ends up in logs."""

    def answer(request: Request) -> Answer:
        if request.path == "/elsewhere":
            return Answer(403, body=b"expired")
        return Answer(307, {"Location": "/elsewhere?X-Amz-Signature=s3cret"})

    with (
        serving(answer) as origin,
        Registry(parse_place(origin)) as registry,
        pytest.raises(NoPermission) as refused,
    ):
        registry.open_blob("a", digest_of(b"x"))

    assert "/elsewhere: 403 expired" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_token_service_that_cannot_be_is_refused_as_such() -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens:many/"'}
    with (
        serving(lambda request: Answer(401, challenge)) as origin,
        Registry(parse_place(origin)) as registry,
        pytest.raises(NoPermission, match=r"sends us for a token to `http://tokens:many/`"),
    ):
        registry.blob_size("a", digest_of(b"x"))


def _logins(origin: str, password: str) -> Logins:
    auth = base64.b64encode(f"tester:{password}".encode()).decode()
    return parse_logins(json.dumps({"auths": {origin.partition("//")[2]: {"auth": auth}}}).encode(), where="test")


@contextlib.contextmanager
def _guarded(kind: str, root: Path) -> Iterator[str]:
    access = Access("tester", "secret", with_tokens=kind == "token")
    served: AbstractContextManager[str] = serving_registry(stand_in.Registry(root, access=access))
    if kind == "docker-registry":
        served = serving_docker_registry(root, with_password=True)
    with served as origin:
        yield origin


@pytest.mark.parametrize("kind", ["basic", "token", pytest.param("docker-registry", marks=real)])
def test_a_login_of_the_docker_configuration_opens_the_registry(
    kind: str, images: list[LockedImage], store: BlobFolder, tmp_path: Path
) -> None:
    with _guarded(kind, tmp_path / "guarded") as origin:
        for logins in (NOBODY, _logins(origin, "wrong")):
            with pytest.raises(NoPermission) as refused:
                _mirror(images, store, origin, logins=logins)
            assert refused.value.hint is not None
            assert "DOCKER_CONFIG" in refused.value.hint
        right = _logins(origin, "secret")

        assert _mirror(images, store, origin, logins=right) > 0
        assert _mirror(images, store, origin, logins=right) == 0


def test_a_login_that_may_not_push_is_told_so(images: list[LockedImage], store: BlobFolder, tmp_path: Path) -> None:
    there = stand_in.Registry(tmp_path / "guarded", access=Access("tester", "secret", read_only=True))
    with serving_registry(there) as origin, pytest.raises(NoPermission, match="403"):
        _mirror(images, store, origin, logins=_logins(origin, "secret"))


def test_a_manifest_that_changed_on_the_way_is_refused(
    layout: LayoutFolder, sources: ImageSources, origin: str, there: stand_in.Registry
) -> None:
    digest = root_digests(layout)[NAMES[0]]
    with Registry(parse_place(origin)) as registry:
        target = parse_reference(f"{registry.place.host}/a:v1")
        copy_image(sources.find(NAMES[0]), registry, target, advance=lambda _: None)
        blob = there.blob_path(digest)
        blob.write_bytes(blob.read_bytes().replace(b"amd64", b"amd65"))

        with pytest.raises(TrustError, match=digest):
            registry.manifest("a", "v1")


def test_a_blob_is_read_from_where_it_was_left(layout: LayoutFolder, sources: ImageSources, any_origin: str) -> None:
    with Registry(parse_place(any_origin)) as registry:
        target = parse_reference(f"{registry.place.host}/a:v1")
        plan = copy_image(sources.find(NAMES[0]), registry, target, advance=lambda _: None)
        largest = max(plan.image.blobs, key=lambda blob: blob.size_bytes)
        with contextlib.closing(registry.open_blob("a", largest.digest, start=1000)) as stream:
            rest = stream.read()

    assert rest == (layout.folder / "blobs" / "sha256" / hex_of(largest.digest)).read_bytes()[1000:]


def test_two_images_that_would_get_one_name_are_refused(images: list[LockedImage]) -> None:
    twin = msgspec.structs.replace(images[0], reference="quay.io/other/sie-config:v0.3.1", digest=images[1].digest)
    with pytest.raises(Misused, match="would both be called"):
        targets([images[0], twin], parse_place("reg.example/sie"))


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "a" * 32])
def test_a_layouts_index_cannot_name_files_outside_of_it(layout: LayoutFolder, tmp_path: Path, digest: str) -> None:
    index, known = (layout.folder / "index.json").read_bytes(), layout.entries()[0].digest
    (tmp_path / "index.json").write_bytes(index.replace(known.encode(), digest.encode()))

    with pytest.raises(NotThere, match="is not an index"):
        LayoutFolder(tmp_path).entries()


def test_a_layout_says_which_names_it_holds(layout: LayoutFolder) -> None:
    with pytest.raises(NotThere) as raised:
        LayoutFolder(layout.folder).find(parse_reference("ghcr.io/superlinked/sie-server:v9"))

    assert raised.value.hint is not None
    assert NAMES[0] in raised.value.hint
