"""`verify oci://…`: what a registry has otherwise than locked, all of it, each with both values."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from sie_airgap.charts.package import pack
from sie_airgap.mirror.images import chart_artifact, mirror_chart, mirror_images, plan_chart, plan_images
from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_airgap.verifying.registry import verify_registry
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError, Unreachable
from sie_core.artifacts.lock import Lock, LockedChart, lock_digest
from sie_testing import registry as stand_in
from sie_testing.carried import Run
from sie_testing.faults import Fault, FaultKind
from sie_testing.mirrored import Mirrored, mirrored_images
from sie_testing.registry import serving_registry
from sie_testing.registry.docker import docker_registry_program, serving_docker_registry

real = pytest.mark.skipif(
    docker_registry_program() is None, reason="docker-registry is not installed (Debian package `docker-registry`)"
)


@pytest.fixture
def there(tmp_path: Path) -> stand_in.Registry:
    return stand_in.Registry(tmp_path / "registry")


@pytest.fixture(params=["stand-in", pytest.param("docker-registry", marks=real)])
def mirrored(request: pytest.FixtureRequest, tmp_path: Path, there: stand_in.Registry) -> Iterator[Mirrored]:
    served: AbstractContextManager[str] = serving_docker_registry(tmp_path / "registry")
    if request.param == "stand-in":
        served = serving_registry(there)
    with served as origin:
        yield mirrored_images(tmp_path, origin)


@pytest.fixture
def on_stand_in(tmp_path: Path, there: stand_in.Registry) -> Iterator[Mirrored]:
    with serving_registry(there) as origin:
        yield mirrored_images(tmp_path, origin)


def _found(mirrored: Mirrored, *, deep: bool = False) -> list[str]:
    with Registry(parse_place(mirrored.url)) as registry:
        return [str(one) for one in verify_registry(mirrored.lock, registry, deep=deep, progress=Silent())]


def test_what_was_mirrored_is_what_was_locked_to_the_last_byte(mirrored: Mirrored, airgap: Run) -> None:
    words = ["verify", mirrored.url, "--lock", mirrored.lock_path]
    code, out, err = airgap(*words)
    assert code == 0, err
    assert out.endswith("2 images as locked, every layer there with its length; `--deep` reads their bytes, too\n")

    code, out, err = airgap(*words, "--deep", "--output", "json")
    assert code == 0, err
    assert json.loads(out) == {"verified": [mirrored.url], "findings": 0, "lock": lock_digest(mirrored.lock)}


def test_nothing_is_written_and_no_right_to_push_is_asked_for(
    on_stand_in: Mirrored, there: stand_in.Registry, airgap: Run
) -> None:
    there.seen.clear()
    assert airgap("verify", on_stand_in.url, "--lock", on_stand_in.lock_path, "--deep")[0] == 0

    assert {seen.method for seen in there.seen} == {"GET", "HEAD"}


def test_a_layer_altered_on_the_registrys_disk_shows_when_it_is_read(mirrored: Mirrored) -> None:
    path = mirrored.path(mirrored.blob())
    data = bytearray(path.read_bytes())
    data[-600] ^= 1
    path.write_bytes(data)

    assert _found(mirrored) == []
    found = _found(mirrored, deep=True)
    assert found
    assert all(mirrored.blob().digest in one and digest_of(bytes(data)) in one for one in found)


def test_a_layer_cut_short_on_the_registrys_disk_shows_by_its_length(mirrored: Mirrored) -> None:
    blob = mirrored.blob()
    path = mirrored.path(blob)
    path.write_bytes(path.read_bytes()[:-100])

    found = _found(mirrored)
    assert found
    assert f"want  {blob.digest}  {blob.size_bytes:,} bytes\n  have  {blob.size_bytes - 100:,} bytes" in found[0]


def test_everything_that_is_wrong_is_told_with_both_values(
    on_stand_in: Mirrored, there: stand_in.Registry, airgap: Run
) -> None:
    """A tag that was moved, a layer that is gone from one image and an altered manifest of the other."""
    first, second = on_stand_in.lock.images
    other = next(iter(first.platforms.values()))
    with Registry(parse_place(on_stand_in.url)) as registry:
        registry.push_manifest("sie/sie-gateway", "v0.3.1", registry.manifest("sie/sie-gateway", other))
    gone = on_stand_in.blob()
    there.set_faults(Fault(FaultKind.STATUS, match=f"/v2/sie/sie-gateway/blobs/{gone.digest}", status=404))
    altered = next(iter(second.platforms.values()))
    manifest = there.blob_path(altered)
    manifest.write_bytes(manifest.read_bytes().replace(b'"size":', b'"sizf":'))

    code, _, err = airgap("verify", on_stand_in.url, "--lock", on_stand_in.lock_path)
    assert code == 3
    assert f"want  {first.digest}\n  have  {other}" in err
    assert f"layer of image `{first.reference}` is not in {on_stand_in.origin}/sie/sie-gateway" in err
    assert f"want  {gone.digest}\n  have  nothing" in err
    assert f"want  {altered}\n  have  sha256:" in err
    assert "3 things are wrong" in err


def test_a_registry_that_fails_over_one_blob_is_asked_for_the_others(
    on_stand_in: Mirrored, there: stand_in.Registry
) -> None:
    failing, gone = on_stand_in.blob(0), on_stand_in.blob(1)
    there.set_faults(
        Fault(FaultKind.STATUS, match=f"/v2/sie/sie-gateway/blobs/{failing.digest}", status=503),
        Fault(FaultKind.STATUS, match=f"/v2/sie/sie-gateway/blobs/{gone.digest}", status=404),
    )

    with Registry(parse_place(on_stand_in.url)) as registry:
        found = verify_registry(on_stand_in.lock, registry, progress=Silent(), wait=lambda _: None)
    assert sorted(type(one).__name__ for one in found) == ["NotThere", "Unreachable"]
    assert next(one for one in found if isinstance(one, NotThere)).message.endswith(
        f"want  {gone.digest}\n  have  nothing"
    )


def test_nobody_there_is_said_once(on_stand_in: Mirrored, there: stand_in.Registry, tmp_path: Path) -> None:
    with serving_registry(there) as origin:
        pass

    with Registry(parse_place(f"{origin}/sie")) as registry:
        (found,) = verify_registry(on_stand_in.lock, registry, progress=Silent(), wait=lambda _: None)
    assert isinstance(found, Unreachable)
    assert origin in found.message


def test_images_under_their_full_names_are_looked_for_there(on_stand_in: Mirrored, airgap: Run) -> None:
    words = ["verify", on_stand_in.url, "--lock", on_stand_in.lock_path, "--full-names"]
    assert airgap(*words)[0] == 4

    images, store = on_stand_in.lock.images, BlobFolder(on_stand_in.lock_path.with_name("images"))
    with Registry(parse_place(on_stand_in.url)) as registry:
        plans = plan_images(images, store, registry, full_names=True)
        mirror_images(images, store, registry, plans, Silent())
    code, _, err = airgap(*words)
    assert code == 0, err


def test_a_chart_that_is_there_is_the_locked_one_or_a_finding(on_stand_in: Mirrored) -> None:
    tgz = pack(Path(__file__).parents[4] / "charts" / "sie-cluster")
    artifact = chart_artifact(tgz)
    chart = LockedChart(artifact.name, artifact.version, f"{artifact.name}.tgz", digest_of(tgz), len(tgz))
    lock = msgspec.structs.replace(on_stand_in.lock, images=(), charts=(chart,))
    with Registry(parse_place(on_stand_in.url)) as registry:
        assert verify_registry(lock, registry, progress=Silent()) == []  # it may lie in a folder

        mirror_chart(artifact, registry, plan_chart(artifact, registry), Silent())
        assert verify_registry(lock, registry, progress=Silent()) == []

        image = registry.manifest("sie/sie-gateway", next(iter(on_stand_in.lock.images[0].platforms.values())))
        repository = f"sie/{artifact.name}"
        for blob in on_stand_in.lock.images[0].blobs:
            if "manifest" not in blob.media_type and "index" not in blob.media_type:
                registry.mount(repository, blob.digest, source="sie/sie-gateway")
        registry.push_manifest(repository, artifact.version, image)
        (found,) = verify_registry(lock, registry, progress=Silent())
    assert isinstance(found, TrustError)
    assert found.want == chart.digest


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verify", "oci://127.0.0.1:1/sie"], "keeps no lock: name one with `--lock`"),
        (["verify", "oci://127.0.0.1:1/Sie", "--lock", "airgap.lock"], "cannot begin a repository's name"),
        (["verify", "oci://a/b", "--lock", "airgap.lock", "--from", "media"], "--lock and --from name two locks"),
        (["verify", "s3://bucket/", "--from", "media"], "--from is for a registry or a worker"),
        (["verify", "media", "--full-names"], "--full-names is for a registry"),
        (["verify", "oci://a/b", "oci://c/d", "--lock", "airgap.lock"], "one URL at a time, 2 things are named"),
        (["verify", "oci://a/b", "--write-manifest", "--lock", "airgap.lock"], "--write-manifest is for one bucket"),
    ],
)
def test_mistakes_about_registries_are_said(airgap: Run, tmp_path: Path, words: list[str], says: str) -> None:
    lock = Lock(version=1, serial=1, previous=None, models=(), images=(), charts=(), wheels=())
    write_lock(tmp_path / "airgap.lock", lock)

    code, _, err = airgap(*words)
    assert code == 2
    assert says in err


def test_status_looks_at_the_tags_now_and_says_when_the_rest_was_checked(
    on_stand_in: Mirrored, there: stand_in.Registry, airgap: Run
) -> None:
    def asked() -> tuple[int, str, str, str]:
        code, out, _ = airgap("status", "--lock", on_stand_in.lock_path, "--output", "json")
        said = json.loads(out)
        (place,) = said["levels"][3]["places"]
        return code, said["highest"], place["state"], place["seen"]

    assert airgap("verify", on_stand_in.url, "--lock", on_stand_in.lock_path)[0] == 0
    assert asked() == (0, "L3", "held", "the tags name it now")

    image = on_stand_in.lock.images[0]
    with Registry(parse_place(on_stand_in.url)) as registry:
        other = registry.manifest("sie/sie-gateway", next(iter(image.platforms.values())))
        registry.push_manifest("sie/sie-gateway", "v0.3.1", other)
    assert asked() == (3, "L0", "fails", f"the tag of image `{image.reference}` names something else")

    there.set_faults(Fault(FaultKind.STATUS, status=503))
    assert asked()[:3] == (5, "L0", "away")
