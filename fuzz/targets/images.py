"""What images are read from: manifests, layouts, and tars of `docker save`."""

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from fuzz.target import Target, bare, checked, same
from fuzz.targets.volumes import MEMORY
from sie_airgap.oci.copy import resolve_image
from sie_airgap.oci.image import Content, platform_of_config, read_image
from sie_airgap.oci.layout import REF_NAME, Layout
from sie_airgap.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, Platform, encode, parse
from sie_airgap.oci.reference import parse_reference
from sie_airgap.oci.referrers import described, listed_referrers, with_entries
from sie_airgap.oci.saved import SavedImage, diff_ids, is_saved, parse_saved
from sie_airgap.oci.sources import LayoutImage
from sie_airgap.oci.tar import Tar
from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.errors import NotThere, TrustError

NAME = "ghcr.io/superlinked/sie-server:v0.3.1"
_LAYER = b"layer" * 50
_CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(_LAYER)]}}
).encode()


def _manifest() -> bytes:
    config = Descriptor("application/vnd.oci.image.config.v1+json", digest_of(_CONFIG), len(_CONFIG))
    layer = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(_LAYER), len(_LAYER))
    return encode(Manifest(config=config, layers=(layer,), media_type=OCI_MANIFEST))


def _index() -> bytes:
    one = _manifest()
    entry = Descriptor(
        OCI_MANIFEST, digest_of(one), len(one), Platform("amd64", "linux", "v1"), annotations={REF_NAME: NAME}
    )
    return encode(Index(manifests=(entry,), media_type=OCI_INDEX, annotations={"a": "b"}, subject=entry))


def _manifests() -> Iterator[bytes]:
    yield _manifest()
    yield _index()


def _read_manifest(data: bytes) -> None:
    _ = listed_referrers(data), platform_of_config(data)
    read = parse(data, media_type="", where="the fuzzer")
    same(encode(parse(encode(read), media_type=read.media_type, where="again")), encode(read))
    root = Content(read.media_type or OCI_MANIFEST, data, digest_of(data))
    with_entries((), [described(root, where="the fuzzer")])
    read_image(root, lambda digest: Content(OCI_MANIFEST, _manifest(), digest), where="the fuzzer")


def _configs() -> Iterator[bytes]:
    yield _CONFIG


def _read_config(data: bytes) -> None:
    platform = platform_of_config(data)
    assert platform is None or isinstance(str(platform), str)
    diff_ids(data, where="the fuzzer")


class _Files:
    """A layout whose index is what is tried."""

    where = "the fuzzer"

    def __init__(self, index: bytes) -> None:
        blobs = (_manifest(), _CONFIG, _LAYER)
        self._files = {"index.json": index, **{f"blobs/sha256/{hex_of(digest_of(one))}": one for one in blobs}}

    def open(self, name: str, /, *, start: int = 0) -> BinaryIO:
        if name not in self._files:
            raise FileNotFoundError(name)
        return io.BytesIO(self._files[name][start:])


def _layouts() -> Iterator[bytes]:
    yield _index()


def _read_layout(data: bytes) -> None:
    source = LayoutImage(Layout(_Files(data)), parse_reference(NAME))
    resolve_image(NAME, source, why=["the fuzzer"])


def _tar(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return made.getvalue()


def _saved_json() -> bytes:
    return json.dumps([{"Config": "c.json", "RepoTags": [NAME], "Layers": ["b/layer.tar"]}]).encode()


def _tars() -> Iterator[bytes]:
    files = {"manifest.json": _saved_json(), "c.json": _CONFIG, "a/layer.tar": _LAYER}
    yield _tar(files, {"b/layer.tar": "../a/layer.tar"})
    blobs = {f"blobs/sha256/{hex_of(digest_of(one))}": one for one in (_manifest(), _CONFIG, _LAYER)}
    yield _tar({"index.json": _index(), **blobs}, {})


def _read_tar(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name) / "image.tar"
        path.write_bytes(data)
        tar, reference = Tar(path), parse_reference(NAME)
        source = SavedImage(tar, reference) if is_saved(tar) else LayoutImage(Layout(tar), reference)
        for blob in resolve_image(NAME, source, why=["the fuzzer"]).blobs:
            _opened(source, blob.digest)


def _opened(source: SavedImage | LayoutImage, digest: Digest) -> None:
    try:
        with closing(source.open(digest)) as stream:
            stream.read()
    except NotThere:
        source.manifest(digest)


def _saved() -> Iterator[bytes]:
    yield _saved_json()


def _read_saved(data: bytes) -> None:
    parse_saved(data, where="the fuzzer")


def _references() -> Iterator[bytes]:
    yield NAME.encode()
    yield f"localhost:5000/a/b_c@{digest_of(b'')}".encode()


def _read_reference(data: bytes) -> None:
    parsed = parse_reference(data.decode("utf-8", "replace"))
    assert parse_reference(str(parsed)) == parsed


_REFUSED = (ValueError, NotThere, TrustError)
TARGETS = (
    Target("oci-manifest", _manifests, checked(_read_manifest, ValueError), json.loads, bare),
    Target("oci-config", _configs, checked(_read_config, ValueError), json.loads, bare),
    Target("oci-layout", _layouts, checked(_read_layout, *_REFUSED), json.loads, bare),
    Target("saved-tar", _tars, checked(_read_tar, *_REFUSED), most_bytes=1 << 15),
    Target("saved-manifest", _saved, checked(_read_saved, ValueError), json.loads, bare),
    Target("image-name", _references, checked(_read_reference, ValueError), most_bytes=512),
)
