"""What changed between two locks: nothing is left out, and it reads as one would tell it."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.reviewing.diff import difference, lines, weight
from sie_airgap.store.blobs import write_lock
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import (
    Lock,
    LockedBlob,
    LockedChart,
    LockedImage,
    LockedModel,
    LockedReferrer,
    LockedWheel,
    lock_digest,
)
from sie_core.ids import ModelId, Revision
from sie_testing.carried import Run, locked_model, make_lock

datas = st.sampled_from([b"one", b"two", b"three"])
whys = st.sampled_from([("--model",), ("bundle x", "base of org/a")])


@st.composite
def models(draw: st.DrawFn, name: str) -> LockedModel:
    held = draw(st.dictionaries(st.sampled_from(["config.json", "model.safetensors", "x/y.txt"]), datas, min_size=1))
    return msgspec.structs.replace(
        locked_model(name, held),
        repo=ModelId(draw(st.sampled_from([name, "org/other"]))),
        ref=draw(st.sampled_from(["main", "v1"])),
        revision=Revision(draw(st.sampled_from(["ab" * 20, "cd" * 20]))),
        license=draw(st.sampled_from([None, "mit"])),
        gated=draw(st.booleans()),
        why=draw(whys),
        remote_code=draw(st.sampled_from([(), ("config.json: auto_map.A = m.A",)])),
    )


@st.composite
def images(draw: st.DrawFn, name: str) -> LockedImage:
    digest, other = digest_of(draw(datas)), digest_of(b"signature")
    kind = draw(st.sampled_from(["x/y", "x/z"]))
    blobs = tuple(sorted([LockedBlob(digest, 3, kind), LockedBlob(other, 9, "x/y")]))
    referrers = (LockedReferrer(digest, other, "sig", None),) if draw(st.booleans()) else ()
    platforms = {draw(st.sampled_from(["linux/amd64", "linux/arm64"])): digest}
    return LockedImage(name, digest, kind, platforms, blobs, referrers, draw(whys))


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    wheel, chart = draw(datas), draw(datas)
    return Lock(
        version=1,
        serial=1,
        previous=None,
        models=tuple(draw(models(name)) for name in sorted(draw(st.sets(st.sampled_from(["org/a", "org/b"]))))),
        images=tuple(draw(images(name)) for name in sorted(draw(st.sets(st.sampled_from(["r.io/a:1", "r.io/b:1"]))))),
        charts=(LockedChart("c", draw(st.sampled_from(["1", "2"])), "c.tgz", digest_of(chart), len(chart)),),
        wheels=(LockedWheel("w.whl", digest_of(wheel), len(wheel)),),
    )


@given(locks(), locks())
def test_two_locks_that_differ_have_a_difference_and_others_none(one: Lock, other: Lock) -> None:
    assert (difference(one, other) == ()) == (one == other)


@given(locks(), locks())
def test_looked_at_from_the_other_side_everything_is_turned_round(one: Lock, other: Lock) -> None:
    turned = {"+": "-", "-": "+", "~": "~"}
    there = [(change.sign, change.kind, change.name, change.field, change.before) for change in difference(one, other)]
    back = [(change.sign, change.kind, change.name, change.field, change.after) for change in difference(other, one)]

    assert there == [(turned[sign], *rest) for sign, *rest in back]


@given(locks(), locks())
def test_what_is_told_is_one_line_a_change_and_its_owner(one: Lock, other: Lock) -> None:
    changes = difference(one, other)
    told = list(lines(changes))

    assert len([line for line in told if line[0] != " "]) + len([line for line in told if line[0] == " "]) == len(told)
    assert {change.line for change in changes} <= set(told)
    assert all(told[at - 1] for at, line in enumerate(told) if line.startswith(" "))
    assert not told or not told[0].startswith(" ")


@given(locks(), locks())
def test_what_is_carried_anew_is_what_the_old_one_lacks(one: Lock, other: Lock) -> None:
    heavy = weight(one, other)

    assert 0 <= heavy.anew_bytes <= heavy.size_bytes
    assert weight(other, other).anew_bytes == 0
    assert weight(None, other).anew_bytes == heavy.size_bytes


def test_a_difference_reads_as_one_would_tell_it() -> None:
    old = make_lock({"org/a": {"config.json": b"{}", "gone.txt": b"1"}, "org/b": {"config.json": b"{}"}})
    new = make_lock({"org/a": {"config.json": b"[]", "new.txt": b"22"}, "org/c": {"config.json": b"{}"}})
    moved = msgspec.structs.replace(new.models[0], revision=Revision("cd" * 20), license="apache-2.0")
    new = msgspec.structs.replace(new, models=(moved, new.models[1]))

    assert list(lines(difference(old, new))) == [
        "~ model org/a  abababababab → cdcdcdcdcdcd",
        "    ~ licence  mit → apache-2.0",
        "    ~ config.json  44136fa355b3 (2 B) → 4f53cda18c2b (2 B)",
        "    - gone.txt  1 B",
        "    + new.txt  2 B",
        "- model org/b  at abababababab",
        "+ model org/c  at abababababab, licence mit, 1 file, 2 B, for --model",
    ]


def test_many_wheels_are_counted_and_a_few_are_named() -> None:
    def with_wheels(number: int) -> Lock:
        wheels = tuple(LockedWheel(f"w{each:03}.whl", digest_of(b"w"), 1) for each in range(number))
        return msgspec.structs.replace(make_lock({}), wheels=wheels)

    assert list(lines(difference(with_wheels(0), with_wheels(94)))) == ["+ 94 wheels"]
    assert list(lines(difference(with_wheels(94), with_wheels(0)))) == ["- 94 wheels"]
    assert len(list(lines(difference(with_wheels(0), with_wheels(20))))) == 20


def test_what_changed_inside_of_a_model_at_one_commit_stands_under_its_name() -> None:
    old, new = (make_lock({"org/a": {"config.json": data}}) for data in (b"{}", b"[]"))

    assert list(lines(difference(old, new))) == [
        "~ model org/a",
        "    ~ config.json  44136fa355b3 (2 B) → 4f53cda18c2b (2 B)",
    ]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Lock, Lock]:
    old = make_lock({"org/a": {"config.json": b"{}"}})
    new = msgspec.structs.replace(make_lock({"org/a": {"config.json": b"[1]"}}), serial=2, previous=lock_digest(old))
    write_lock(tmp_path / "old.lock", old)
    write_lock(tmp_path / "new.lock", new)
    return old, new


@pytest.mark.usefixtures("two")
def test_diff_says_what_comes_after_what_and_how_much_is_to_carry(airgap: Run) -> None:
    code, out, _ = airgap("diff", "old.lock", "new.lock")
    assert code == 0
    assert out.endswith("number 2 follows number 1\nto carry to where OLD is: 3 B of 14.0 kB\n")
    code, out, _ = airgap("diff", "new.lock", "old.lock")
    assert "number 1 is older than number 2: OLD and NEW may have changed places" in out


def test_diff_gives_programs_whole_values(airgap: Run, two: tuple[Lock, Lock]) -> None:
    _, out, _ = airgap("diff", "old.lock", "new.lock", "--output", "json")
    told = json.loads(out)

    assert (told["old"]["lock"], told["new"]["previous"]) == (lock_digest(two[0]), lock_digest(two[0]))
    assert [(one["before"], one["after"]) for one in told["changes"]] == [(digest_of(b"{}"), digest_of(b"[1]"))]
    assert told["bytes_anew"] == 3


def test_diff_of_locks_that_do_not_follow_each_other_says_so(
    airgap: Run, two: tuple[Lock, Lock], tmp_path: Path
) -> None:
    write_lock(tmp_path / "other.lock", msgspec.structs.replace(two[1], serial=3, previous=digest_of(b"another")))

    _, out, _ = airgap("diff", "old.lock", "other.lock")
    assert "number 3 does not follow number 1 directly" in out


DIGEST, OTHER = digest_of(b"one"), digest_of(b"other")
PLAIN = msgspec.structs.replace(
    make_lock({"org/a": {"config.json": b"{}"}}),
    images=(
        LockedImage("r.io/a:1", DIGEST, "x/y", {"linux/amd64": DIGEST}, (LockedBlob(DIGEST, 3, "x/y"),), (), ("Pod",)),
    ),
)
EDITS: list[tuple[str, dict[str, object]]] = [
    ("models", {"repo": "org/b"}),
    ("models", {"ref": "v1"}),
    ("models", {"revision": "cd" * 20}),
    ("models", {"license": None}),
    ("models", {"gated": True}),
    ("models", {"why": ("bundle x",)}),
    ("models", {"files": ()}),
    ("models", {"files": (msgspec.structs.replace(PLAIN.models[0].files[0], hub_id="ab" * 20),)}),
    ("models", {"absent": ()}),
    ("models", {"remote_code": ("config.json: auto_map.A = m.A",)}),
    ("images", {"digest": OTHER}),
    ("images", {"media_type": "x/z"}),
    ("images", {"platforms": {}}),
    ("images", {"blobs": ()}),
    ("images", {"referrers": (LockedReferrer(DIGEST, OTHER, "sig", None),)}),
    ("images", {"why": ()}),
    ("charts", {"version": "2"}),
    ("charts", {"digest": OTHER}),
    ("charts", {"size_bytes": 1}),
    ("wheels", {"digest": OTHER}),
    ("wheels", {"size_bytes": 1}),
]


@pytest.mark.parametrize(("kind", "edit"), EDITS)
def test_each_fact_that_changes_alone_is_told(kind: str, edit: dict[str, object]) -> None:
    """`--check` and `--locked` go by it."""
    (one,) = getattr(PLAIN, kind)
    edited = msgspec.structs.replace(PLAIN, **{kind: (msgspec.structs.replace(one, **edit),)})

    assert len(difference(PLAIN, edited)) == 1
    assert len(list(lines(difference(PLAIN, edited)))) in (1, 2)
