"""What a bucket says of models: manifests, trees, refs, notes, and listings that somebody else has filled."""

import json
from collections.abc import Iterator

from fuzz.target import Target, bare, checked, compact, same
from sie_airgap.locking.closure import parts
from sie_core.artifacts import handfilled
from sie_core.artifacts.hf_layout import tree_json
from sie_core.artifacts.manifest import decode_manifest, encode_manifest
from sie_core.artifacts.store import Stat
from sie_core.ids import ModelId
from sie_testing.carried import FILES, REVISION, make_lock

_REPO = ModelId("org/small")
_MANIFEST = make_lock(FILES).models[1].manifest


def _manifests() -> Iterator[bytes]:
    yield encode_manifest(_MANIFEST)


def _read_manifest(data: bytes) -> None:
    manifest = decode_manifest(data)
    same(encode_manifest(decode_manifest(encode_manifest(manifest))), encode_manifest(manifest))
    tree_json(manifest)


def _trees() -> Iterator[bytes]:
    yield tree_json(_MANIFEST)


def _read_tree(data: bytes) -> None:
    tree = handfilled.read_tree(data)
    names = [f"models--org--small/blobs/{entry.hub_id}" for entry in tree.values()]
    listing = [Stat(name=name, size_bytes=1) for name in names]
    found = handfilled.pieces_of_cache(_REPO, REVISION, listing, tree)
    handfilled.lacking(found, {}, {}, {})
    if not tree:
        raise ValueError("no tree: passed over, as it is only a help")


def _listings() -> Iterator[bytes]:
    folder = f"models--org--small/snapshots/{REVISION}"
    yield "\n".join((f"{folder}/config.json", f"{folder}/sub/vocab.txt", "models--org--small/refs/main")).encode()
    yield b"org/small/config.json\norg/small/.cache/huggingface/download/config.json.metadata"


def _read_listing(data: bytes) -> None:
    listing = [Stat(name=name, size_bytes=len(name)) for name in data.decode("utf-8", "replace").split("\n")]
    noted = {stat.name: note for stat in listing if (note := handfilled.read_noted(f"{REVISION}\nx\n".encode()))}
    for found in (
        handfilled.pieces_of_cache(_REPO, REVISION, listing, {}),
        handfilled.pieces_of_folder(_REPO, listing, noted, {}),
    ):
        if found is not None:
            handfilled.lacking(found, {}, {}, {})
            assert not any(".." in piece.path.split("/") or piece.path.startswith("/") for piece in found.files)


def _noted() -> Iterator[bytes]:
    yield f"{REVISION}\n{'0' * 40}\n1234.5\n".encode()


def _read_noted(data: bytes) -> None:
    if handfilled.read_noted(data) is None:
        raise ValueError("no note: passed over")


def _headers() -> Iterator[bytes]:
    yield b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'


def _read_header(data: bytes) -> None:
    assert handfilled.whole_bytes(data) >= 8


def _weight_indexes() -> Iterator[bytes]:
    yield b'{"metadata":{"total_size":1},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"b.safetensors"}}'


def _read_weight_index(data: bytes) -> None:
    handfilled.parts_of(data)


def _adapters() -> Iterator[bytes]:
    yield b'{"base_model_name_or_path":"org/base","revision":"main","peft_type":"LORA","auto_map":{"AutoModel":"x.Y"}}'


def _read_adapter(data: bytes) -> None:
    for name in ("adapter_config.json", "gliner_config.json", "modules.json", "config.json"):
        _ = [part.repo for part in parts({name: data}, [name])]


TARGETS = (
    Target("manifest", _manifests, checked(_read_manifest, ValueError), json.loads, compact),
    Target("tree", _trees, checked(_read_tree, ValueError), json.loads, compact),
    Target("listing", _listings, checked(_read_listing, ValueError)),
    Target("hub-note", _noted, checked(_read_noted, ValueError)),
    Target("weights-header", _headers, checked(_read_header, ValueError), json.loads, bare),
    Target("weights-index", _weight_indexes, checked(_read_weight_index, ValueError), json.loads, bare),
    Target("configs", _adapters, checked(_read_adapter, ValueError), json.loads, bare),
)
