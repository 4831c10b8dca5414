"""Images in tars: what `docker save`, `podman save` and skopeo write, and what cannot be one."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.oci.copy import copy_image, resolve_image
from sie_airgap.oci.layout import LayoutFolder
from sie_airgap.oci.manifest import Manifest, parse
from sie_airgap.oci.reference import parse_place, parse_reference
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.saved import diff_ids, parse_saved
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.oci.tar import Tar
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import LockedImage
from sie_testing import registry as stand_in
from sie_testing.images import root_digests, write_images
from sie_testing.registry import serving_registry

NAME = "ghcr.io/superlinked/sie-server:v0.3.1"
LAYERS = (b"first layer" * 100, b"second layer" * 100)

has_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (Debian package)")


def _tar(path: Path, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def _config(layers: tuple[bytes, ...] = LAYERS) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(x) for x in layers]},
        }
    ).encode()


def _saved(path: Path, *, tags: list[str] | None, **more: bytes) -> Path:
    """The form before version 25."""
    config = _config()
    manifest = [{"Config": "c.json", "RepoTags": tags, "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "c.json": config}
    files |= {"a/layer.tar": LAYERS[0], "b/layer.tar": LAYERS[1]}
    return _tar(path, {**files, **{name.replace("_", "."): data for name, data in more.items()}})


def _resolved(path: Path, name: str = NAME) -> LockedImage:
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=tar:{path}")]) as sources:
        return resolve_image(name, sources.find(name), why=["the test"])


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> LayoutFolder:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("tags", [[NAME], ["sie-server:v0.3.1"], ["other/thing:v2", "mine.example/sie-server:v0.3.1"]])
def test_an_old_tars_image_is_found_by_its_name_and_always_the_same(tmp_path: Path, tags: list[str]) -> None:
    image = _resolved(_saved(tmp_path / "x.tar", tags=tags))

    assert image == _resolved(_saved(tmp_path / "y.tar", tags=[NAME]))
    assert list(image.platforms) == ["linux/amd64"]
    held = {blob.digest for blob in image.blobs}
    assert held == {image.digest, digest_of(_config()), *map(digest_of, LAYERS)}


def test_an_old_tars_image_is_copied_whole(tmp_path: Path) -> None:
    path = _saved(tmp_path / "x.tar", tags=[NAME])
    there = stand_in.Registry(tmp_path / "registry")
    with serving_registry(there) as origin, Registry(parse_place(origin)) as registry:
        with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=tar:{path}")]) as sources:
            target = parse_reference(f"{registry.place.host}/sie-server:v1")
            copy_image(sources.find(NAME), registry, target, advance=lambda _: None)
        with registry.open_blob("sie-server", digest_of(LAYERS[1])) as stream:
            assert stream.read() == LAYERS[1]


def test_a_digest_of_a_registry_cannot_come_from_an_old_tar_and_why_is_told(tmp_path: Path) -> None:
    path = _saved(tmp_path / "x.tar", tags=[NAME])
    wanted = f"{NAME}@sha256:{'a' * 64}"

    with pytest.raises(TrustError, match=f"(?s)cannot come from here.*want  sha256:{'a' * 64}") as refused:
        _resolved(path, wanted)
    assert refused.value.hint is not None
    assert "layers unpacked" in refused.value.hint
    assert _resolved(path, f"{NAME}@{_resolved(path).digest}").digest == _resolved(path).digest


def test_a_lock_of_a_registry_cannot_be_fetched_from_an_old_tar_and_why_is_told(tmp_path: Path) -> None:
    path = _saved(tmp_path / "x.tar", tags=[NAME])
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=tar:{path}")]) as sources:
        source = sources.find(NAME)
        for ask in (source.manifest, source.open):
            with pytest.raises(NotThere) as refused:
                ask(digest_of(b"elsewhere"))

            assert refused.value.hint is not None
            assert "skopeo copy" in refused.value.hint


def test_packed_layers_are_carried_as_they_are(tmp_path: Path) -> None:
    """As crane and Bazel write them."""
    packed = tuple(gzip.compress(layer, mtime=0) for layer in LAYERS)
    manifest = [{"Config": "c", "RepoTags": [NAME], "Layers": ["0.tar.gz", "1.tar.gz"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "c": _config()}
    path = _tar(tmp_path / "x.tar", {**files, "0.tar.gz": packed[0], "1.tar.gz": packed[1]})
    image = _resolved(path)

    kinds = {blob.digest: blob.media_type for blob in image.blobs}
    assert all(kinds[digest_of(layer)].endswith("+gzip") for layer in packed)


def test_a_layer_that_stands_twice_is_a_link_and_is_seen_through(tmp_path: Path) -> None:
    manifest = [{"Config": "c", "RepoTags": [NAME], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "c": _config((LAYERS[0], LAYERS[0]))}
    path = _tar(tmp_path / "x.tar", {**files, "a/layer.tar": LAYERS[0]}, links={"b/layer.tar": "../a/layer.tar"})

    assert {blob.digest for blob in _resolved(path).blobs} >= {digest_of(LAYERS[0])}


def test_a_newer_tar_has_the_digests_of_the_engine(tmp_path: Path, layout: LayoutFolder) -> None:
    """Docker since version 25: a layout, with an old `manifest.json` beside it that is not looked at."""
    files = {
        str(path.relative_to(layout.folder)): path.read_bytes() for path in layout.folder.rglob("*") if path.is_file()
    }
    path = _tar(tmp_path / "x.tar", {**files, "manifest.json": b"[]"})
    image = _resolved(path)

    assert image.digest == root_digests(layout)[NAME]
    assert list(image.platforms) == ["linux/amd64", "linux/arm64"]


@has_skopeo
def test_what_skopeo_writes_is_read_in_both_forms(tmp_path: Path, layout: LayoutFolder) -> None:
    def written(form: str, *options: str) -> Path:
        path = tmp_path / f"{form}.tar"
        command = ["skopeo", "copy", *options, f"oci:{layout.folder}:{NAME}", f"{form}:{path}:{NAME}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return path

    old = _resolved(written("docker-archive"))
    assert list(old.platforms) == ["linux/amd64"]
    new = _resolved(written("oci-archive", "--all", "--preserve-digests"))
    assert new.digest == root_digests(layout)[NAME]
    amd64 = layout.manifest(new.platforms["linux/amd64"])
    inside = parse(amd64.data, media_type=amd64.media_type, where="layout")
    assert isinstance(inside, Manifest)
    layers = {layer.digest for layer in inside.layers}  # these are not packed, so they are the same in both
    assert layers <= {blob.digest for blob in old.blobs}


def test_an_image_that_a_tar_has_not_is_told_with_those_that_it_has(tmp_path: Path) -> None:
    path = _saved(tmp_path / "x.tar", tags=["busybox:1"])
    with pytest.raises(NotThere) as refused:
        _resolved(path)

    assert refused.value.hint == "it holds busybox:1"
    with pytest.raises(NotThere, match="there is no"):
        _resolved(tmp_path / "missing.tar")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2600])


def _pack(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def _twice(path: Path) -> None:
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("c.json"))


def _device(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.type = tarfile.CHRTYPE
        tar.addfile(member)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "cut short|not a tar"),
        (_pack, "(?s)not a plain tar.*compressed"),
        (_twice, "stands twice"),
        (_device, "has no file `manifest.json`"),
        (lambda path: path.write_bytes(b"x" * 2000), "not a tar"),
    ],
)
def test_a_tar_that_is_spoilt_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    path = _saved(tmp_path / "x.tar", tags=[NAME])
    spoil(path)

    with pytest.raises((TrustError, NotThere), match=said):
        _resolved(path)


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[1]",
        b"[" * 100_000,
        b'[{"Config": "c.json", "Layers": ["../../../etc/passwd", "b/layer.tar"]}]',
        b'[{"Config": "c.json", "Layers": ["a/layer.tar"], "RepoTags": ["%s"]}]' % NAME.encode(),
        b'[{"Config": "b/layer.tar", "Layers": [], "RepoTags": ["%s"]}]' % NAME.encode(),
    ],
)
def test_a_manifest_json_that_lies_is_refused(tmp_path: Path, manifest: bytes) -> None:
    files = {"manifest.json": manifest, "c.json": _config(), "a/layer.tar": LAYERS[0], "b/layer.tar": LAYERS[1]}

    with pytest.raises((ValueError, NotThere)):
        _resolved(_tar(tmp_path / "x.tar", files))


def test_names_lead_nowhere_but_to_members(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar", {"../../etc/passwd": b"ours"}, links={"link": "/etc/passwd", "up": "../../x"})
    tar = Tar(path)

    for name in ("link", "up", "/etc/passwd"):
        with pytest.raises(FileNotFoundError):
            tar.open(name)
    with tar.open("../../etc/passwd") as stream:
        assert stream.read() == b"ours"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_stands_in_for_manifest_json_is_read_or_refused(data: bytes) -> None:
    for read in (parse_saved, diff_ids):
        try:
            read(data, where="here")
        except ValueError as error:
            assert "here" in str(error)


MADE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("made", MADE)
def test_what_is_no_file_is_not_opened_as_a_tar(tmp_path: Path, made: str) -> None:
    MADE[made](tmp_path / "x.tar")

    with pytest.raises(TrustError, match=r"x\.tar[^$]*a folder, a device or a pipe") as caught:
        Tar(tmp_path / "x.tar")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("made", ["pipe", "folder"])
@pytest.mark.parametrize("name", ["index.json", "blob"])
def test_what_is_no_file_of_a_layout_is_not_opened(tmp_path: Path, name: str, made: str) -> None:
    layout = LayoutFolder(tmp_path / "layout")
    digest = layout.add_blob(b"x")
    path = layout.folder / (name if name != "blob" else f"blobs/sha256/{digest[7:]}")
    path.unlink(missing_ok=True)
    MADE[made](path)

    with pytest.raises(TrustError, match=rf"{path.name}[^$]*a folder, a device or a pipe") as caught:
        _ = layout.entries() if name != "blob" else layout.open(digest)
    assert caught.value.exit_code == 3


def test_a_link_that_leads_out_of_a_layout_is_named_and_one_inside_is_followed(tmp_path: Path) -> None:
    layout = LayoutFolder(tmp_path / "layout")
    (tmp_path / "outside").write_bytes(b"x")
    digest = layout.add_blob(b"x")
    path = layout.folder / f"blobs/sha256/{digest[7:]}"
    path.rename(layout.folder / "kept")
    path.symlink_to(layout.folder / "kept")
    with layout.open(digest) as stream:
        assert stream.read() == b"x"

    path.unlink()
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(TrustError, match=rf"{path.name}[^$]*a link to {tmp_path}/outside"):
        layout.open(digest)
