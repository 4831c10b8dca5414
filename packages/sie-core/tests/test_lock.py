"""The lock's codec: one form, one digest, and every violation named."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.lock import (
    Lock,
    LockedBlob,
    LockedChart,
    LockedFile,
    LockedImage,
    LockedModel,
    LockedReferrer,
    LockedWheel,
    LockInvalid,
    decode_lock,
    encode_lock,
    lock_digest,
    part_of,
)
from sie_core.artifacts.manifest import is_plain
from sie_core.ids import ModelId, Revision

digests = st.binary(min_size=1, max_size=8).map(digest_of)
sizes = st.integers(0, 2**40)
names = st.from_regex(r"[a-z0-9]([._-]?[a-z0-9]){0,4}", fullmatch=True)
sha1s = st.binary(min_size=20, max_size=20).map(bytes.hex)
texts = st.text(max_size=9).filter(is_plain)


@st.composite
def locked_files(draw: st.DrawFn, path: str) -> LockedFile:
    digest = draw(digests)
    hub_id = draw(sha1s | st.just(digest.removeprefix("sha256:")))
    return LockedFile(path=path, digest=digest, size_bytes=draw(sizes), hub_id=hub_id)


@st.composite
def models(draw: st.DrawFn, model: str) -> LockedModel:
    paths = sorted(draw(st.sets(names, min_size=1, max_size=4)))
    return LockedModel(
        id=ModelId(model),
        repo=ModelId(model),
        ref=draw(texts),
        revision=Revision(draw(sha1s)),
        license=draw(st.none() | texts),
        gated=draw(st.booleans()),
        why=tuple(draw(st.lists(texts, max_size=2))),
        files=tuple(draw(locked_files(path)) for path in paths),
        absent=tuple(sorted(f"no/{name}" for name in draw(st.sets(names, max_size=2)))),
        remote_code=tuple(sorted(draw(st.sets(texts, max_size=2)))),
    )


def _sig(subject: Digest) -> str:
    return f"sha256-{hex_of(subject)}.sig"


@st.composite
def images(draw: st.DrawFn, reference: str) -> LockedImage:
    blobs = sorted(draw(st.sets(digests, min_size=1, max_size=4)))
    return LockedImage(
        reference=reference,
        digest=blobs[0],
        media_type="application/vnd.oci.image.index.v1+json",
        platforms={"linux/amd64": blobs[-1]},
        blobs=tuple(LockedBlob(digest=blob, size_bytes=draw(sizes), media_type="x/y") for blob in blobs),
        referrers=tuple(
            LockedReferrer(blobs[0], blob, draw(st.text(max_size=5)), draw(st.sampled_from([None, _sig(blobs[0])])))
            for blob in blobs[1:]
        ),
        why=(),
    )


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    return Lock(
        version=1,
        serial=draw(st.integers(1, 9)),
        previous=draw(st.none() | digests),
        models=tuple(draw(models(f"org/{name}")) for name in sorted(draw(st.sets(names, max_size=3)))),
        images=tuple(draw(images(name)) for name in sorted(draw(st.sets(names, max_size=2)))),
        charts=tuple(
            LockedChart(name="c", version="1", file=name, digest=draw(digests), size_bytes=draw(sizes))
            for name in sorted(draw(st.sets(names, max_size=2)))
        ),
        wheels=tuple(
            LockedWheel(file=name, digest=draw(digests), size_bytes=draw(sizes))
            for name in sorted(draw(st.sets(names, max_size=2)))
        ),
    )


def small_lock() -> Lock:
    digest = digest_of(b"weights")
    files = (
        LockedFile(path="config.json", digest=digest_of(b"{}"), size_bytes=2, hub_id="ab" * 20),
        LockedFile(path="model.safetensors", digest=digest, size_bytes=7, hub_id=digest.removeprefix("sha256:")),
    )
    model = LockedModel(
        id=ModelId("org/tiny"),
        repo=ModelId("org/tiny"),
        ref="main",
        revision=Revision("12" * 20),
        license="mit",
        gated=False,
        why=("--model",),
        files=files,
        absent=("adapter_config.json",),
    )
    return Lock(version=1, serial=1, previous=None, models=(model,), images=(), charts=(), wheels=())


def with_derived(**changes: object) -> Lock:
    """A lock whose one model has a file that was made when locking."""
    digest = digest_of(b"{}\n")
    made = LockedFile("tokenizer.json", digest, 3, digest.removeprefix("sha256:"), "model.safetensors")
    lock = small_lock()
    files = (*lock.models[0].files, msgspec.structs.replace(made, **changes))
    model = msgspec.structs.replace(lock.models[0], files=files)
    return msgspec.structs.replace(lock, models=(model,))


def test_a_file_made_when_locking_names_what_it_was_made_from() -> None:
    assert decode_lock(encode_lock(with_derived())) == with_derived()
    assert b"derived_from" not in encode_lock(small_lock())


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"derived_from": "spm.model"}, "derived_from: want a path in files that the hub has, have spm.model"),
        ({"derived_from": "tokenizer.json"}, "derived_from"),
        ({"hub_id": "ab" * 20}, "hub_id: want .* the hub does not have it"),
    ],
)
def test_a_file_made_of_nothing_is_refused(changes: dict[str, object], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        encode_lock(with_derived(**changes))


def refusal(data: bytes) -> LockInvalid:
    with pytest.raises(LockInvalid) as caught:
        decode_lock(data)
    return caught.value


@given(locks())
def test_a_lock_comes_back_as_it_was(lock: Lock) -> None:
    assert decode_lock(encode_lock(lock)) == lock
    assert lock_digest(lock) == digest_of(encode_lock(lock))


@given(locks(), st.data())
def test_no_edit_of_one_byte_goes_unnoticed(lock: Lock, data: st.DataObject) -> None:
    """Either it is refused, or its digest is another; what is accepted is always in the one form."""
    written = bytearray(encode_lock(lock))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    try:
        edited = decode_lock(bytes(written))
    except LockInvalid:
        return

    assert encode_lock(edited) == bytes(written)
    assert lock_digest(edited) != lock_digest(lock)


def test_another_layout_of_the_same_values_is_refused_with_the_line() -> None:
    compact = msgspec.json.encode(small_lock(), order="sorted")

    assert "line 1" in str(refusal(compact))


def test_a_missing_last_newline_is_refused() -> None:
    assert "length" in str(refusal(encode_lock(small_lock()).rstrip(b"\n")))


def test_keys_in_another_order_are_refused() -> None:
    lines = encode_lock(small_lock()).split(b"\n")
    lines[1], lines[2] = lines[2], lines[1]

    assert "line 2" in str(refusal(b"\n".join(lines)))


def test_an_unknown_key_is_refused_by_name() -> None:
    edited = encode_lock(small_lock()).replace(b'"charts"', b'"carts"')

    assert "carts" in str(refusal(edited))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (b"2", "of a version that is not known here"),
        (b"99999999999999999999", "of a version that is not known here"),
        (b"0", "not as it was written"),
        (b"-1", "not as it was written"),
        (b'"1"', "Expected `int`, got `str`"),
        (b"1.5", "Expected `int`, got `float`"),
    ],
)
def test_a_lock_of_another_version_is_refused_by_it_whatever_else_it_holds(version: bytes, message: str) -> None:
    edited = encode_lock(small_lock()).replace(b'"version": 1', b'"version": ' + version + b', "bills": {}')

    assert message in str(refusal(edited))


def test_a_lock_from_the_future_says_how_it_is_read() -> None:
    told = refusal(encode_lock(small_lock()).replace(b'"version": 1', b'"version": 2'))

    assert (told.want, told.have) == ("1: what this program reads", "2")
    assert "the sie-airgap that wrote it" in (told.hint or "")


@pytest.mark.parametrize(
    ("data", "have"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b"global:\n  image:\n    registry: x\n", r"it begins with b'global:\n"),
        (b"\x1f\x8b\x08\xff", r"it begins with b'\x1f\x8b\x08"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"schemaVersion": 2}', "missing required field `version`"),
        (encode_lock(small_lock())[:300], "truncated"),
    ],
)
def test_what_is_no_lock_is_told_as_what_it_is(data: bytes, have: str) -> None:
    told = refusal(data)

    assert "this is no lock" in str(told)
    assert have in (told.have or "")
    assert "`airgap.lock`" in (told.hint or "")


@given(st.binary(max_size=60) | st.sampled_from([b"[", b'{"version":1,"x":', b'{"a":']).map(lambda b: b * 30_000))
def test_bytes_that_are_no_lock_are_refused_as_such(data: bytes) -> None:
    refusal(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(locks(), st.data())
def test_a_value_of_another_kind_anywhere_is_refused(lock: Lock, data: st.DataObject) -> None:
    """Somewhere in the tree one value is replaced, one key added or taken away; what passes is in the one form."""
    node = tree = msgspec.json.decode(encode_lock(lock))
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        below = node[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            break
        node = below
    edit = data.draw(st.sampled_from(["replace", "add", "remove"]))
    if edit == "replace":
        node[key] = data.draw(json_values)
    elif edit == "remove":
        del node[key]
    elif isinstance(node, dict):
        node[data.draw(st.text(max_size=5))] = data.draw(json_values)
    else:
        node.append(data.draw(json_values))
    edited = msgspec.json.format(msgspec.json.encode(tree, order="sorted"), indent=2) + b"\n"
    try:
        assert encode_lock(decode_lock(edited)) == edited
    except LockInvalid as error:
        assert error.violations


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x9b1m", "\u202e", "x" * 2001])
def test_text_that_would_move_a_terminals_cursor_is_refused(text: str) -> None:
    """Licences and refs are written by strangers."""
    for change in ({"license": text}, {"ref": text}, {"why": (text,)}, {"remote_code": (text,)}):
        model = msgspec.structs.replace(small_lock().models[0], **change)
        with pytest.raises(ValueError, match="characters at most") as caught:
            encode_lock(msgspec.structs.replace(small_lock(), models=(model,)))
        assert text not in str(caught.value)


def test_a_path_that_would_move_a_terminals_cursor_is_refused() -> None:
    model = small_lock().models[0]
    bad = msgspec.structs.replace(model, files=(msgspec.structs.replace(model.files[0], path="a\x1b[2Jb"),))

    with pytest.raises(ValueError, match=r"a\\x1b\[2Jb.* control characters"):
        encode_lock(msgspec.structs.replace(small_lock(), models=(bad,)))


def test_code_that_a_repository_names_stands_only_where_there_is_some() -> None:
    named = msgspec.structs.replace(small_lock().models[0], remote_code=("config.json: auto_map.AutoModel = m.M",))
    lock = msgspec.structs.replace(small_lock(), models=(named,))

    assert decode_lock(encode_lock(lock)) == lock
    assert b"remote_code" not in encode_lock(small_lock())


def test_an_edited_digest_is_refused_with_both_values() -> None:
    """An LFS file's digest stands twice: as we measured it and as the hub names it."""
    right, wrong = digest_of(b"weights"), "sha256:" + "0" * 64
    edited = encode_lock(small_lock()).replace(b'"' + right.encode() + b'"', b'"' + wrong.encode() + b'"')

    told = str(refusal(edited))
    assert right in told
    assert wrong in told
    assert "model.safetensors" in told


def test_every_violation_is_named_not_the_first_only() -> None:
    edited = encode_lock(small_lock()).replace(b'"serial": 1', b'"serial": 0').replace(b'"main"', b'"m"')
    edited = edited.replace(b"1212121212121212121212121212121212121212", b"main")

    wheres = [violation.where for violation in refusal(edited).violations]
    assert "serial" in wheres
    assert "models[org/tiny].revision" in wheres


def test_a_lock_that_would_be_refused_is_never_written() -> None:
    unsorted = msgspec.structs.replace(small_lock(), wheels=(wheel("b"), wheel("a")))

    with pytest.raises(ValueError, match="wheels"):
        encode_lock(unsorted)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../b", "a\\b", ""])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    model = small_lock().models[0]
    bad = msgspec.structs.replace(model, files=(msgspec.structs.replace(model.files[0], path=path),))

    with pytest.raises(ValueError, match="path"):
        encode_lock(msgspec.structs.replace(small_lock(), models=(bad,)))


def wheel(name: str) -> LockedWheel:
    return LockedWheel(file=name, digest=Digest("sha256:" + "a" * 64), size_bytes=1)


@pytest.mark.parametrize(
    ("why", "is_part"),
    [
        (("base of a/b", "base of a/c"), True),
        (("base of a/b", "labels encoder of a/b"), True),
        (("base of a/b", "--model"), False),
        (("adapted by a/b",), False),
        (("--model",), False),
        ((), False),
    ],
)
def test_what_is_only_somebodys_base_is_called_by_nobody(why: tuple[str, ...], is_part: bool) -> None:
    (model,) = small_lock().models

    assert msgspec.structs.replace(model, why=why).is_part is is_part


@pytest.mark.parametrize(
    ("reason", "whole"),
    [
        ("base of a/b", "a/b"),
        ("labels encoder of a/b", "a/b"),
        ("adapted by a/b", "a/b"),
        ("variant `x y` of a/b", "a/b"),
        ("--model", None),
        ("bundle of a/b", None),
        ("preloadModels of values.yaml", None),
    ],
)
def test_a_reason_says_whose_part_something_is(reason: str, whole: str | None) -> None:
    assert part_of(reason) == whole
