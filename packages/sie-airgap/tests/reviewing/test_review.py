"""A lock held against a policy: what is found, what is accepted, and what the verdict is."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.reviewing.policy import Excuse, Images, Licences, Policy, Rule, Sizes, parse_policy
from sie_airgap.reviewing.review import Finding, judge, ledger
from sie_airgap.store.blobs import write_lock
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage, LockedModel
from sie_testing.carried import Run, locked_model, make_lock

FREE = Policy(licences=Licences(allowed=(), denied=(), unnamed="allow"), images=Images(denied_tags=()))
"""Refuses nothing of what these tests lock."""


def model(name: str = "org/a", /, **changes: object) -> LockedModel:
    plain = msgspec.structs.replace(locked_model(name, {"config.json": b"{}"}), ref="ab" * 20)
    return msgspec.structs.replace(plain, **changes)


def image(reference: str = "ghcr.io/acme/x:v1", size_bytes: int = 5) -> LockedImage:
    blob = LockedBlob(digest_of(b"manifest"), size_bytes, "x/y")
    return LockedImage(reference, blob.digest, "x/y", {"linux/amd64": blob.digest}, (blob,), (), ("Deployment/x",))


def lock_of(*models: LockedModel, images: tuple[LockedImage, ...] = ()) -> Lock:
    empty = make_lock({})
    return msgspec.structs.replace(empty, models=models, images=images)


def found(lock: Lock, policy: Policy) -> list[tuple[str, str, str]]:
    return [(finding.what, finding.rule, finding.level) for finding in judge(lock, policy).findings]


@pytest.mark.parametrize(
    ("license", "refused"),
    [
        ("mit", False),
        ("Apache-2.0", False),
        ("bsd-3-clause", False),
        ("cc-by-nc-4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("LicenseRef-jina-research-only", True),
        ("gemma", True),
        ("other", True),
        (None, True),
        ("", True),
        ("mit AND apache-2.0", False),
        ("mit AND cc-by-nc-4.0", True),
        ("cc-by-nc-4.0 OR mit", False),
        ("gpl-3.0 OR gemma", True),
    ],
)
def test_by_default_only_permissive_licences_pass(license: str | None, refused: bool) -> None:
    verdict = judge(lock_of(model(license=license)), Policy())

    assert bool(verdict.refusals) is refused
    assert {finding.rule for finding in verdict.findings} == ({"licence"} if refused else set())


def test_a_denied_licence_is_told_with_the_glob_that_denies_it() -> None:
    (finding,) = judge(lock_of(model(license="CC-BY-NC-4.0")), Policy()).findings

    assert finding.said == "`CC-BY-NC-4.0` is denied as `*-nc-*`"


@pytest.mark.parametrize(
    ("changes", "rule", "field"),
    [
        ({"gated": True}, "gated", "gated"),
        ({"remote_code": ("config.json: auto_map.A = m.A",)}, "remote-code", "remote_code"),
        ({"ref": "main"}, "branch", "branches"),
        ({"license": None}, "licence", "unnamed"),
    ],
)
@pytest.mark.parametrize("level", ["deny", "note", "allow"])
def test_each_fact_of_a_model_is_as_grave_as_the_policy_says(
    changes: dict[str, object], rule: str, field: str, level: str
) -> None:
    licences = {"licences": {"allowed": [], "unnamed": level if field == "unnamed" else "allow"}}
    told = licences if field == "unnamed" else licences | {field: level}
    policy = parse_policy(yaml.safe_dump(told).encode(), where="p.yaml")

    assert found(lock_of(model(**changes)), policy) == ([] if level == "allow" else [("org/a", rule, level)])


def test_pickled_weights_are_named() -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"x", "head.pt": b"x"}
    (finding,) = judge(lock_of(msgspec.structs.replace(locked_model("org/a", files), ref="ab" * 20)), Policy()).findings

    assert (finding.rule, finding.level) == ("pickle", "note")
    assert finding.said == "pickled weights: head.pt, pytorch_model.bin"


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (Policy(images=Images(registries=("*.example.com",))), "registry"),
        (Policy(images=Images(denied_tags=("v*",))), "tag"),
        (Policy(images=Images(platforms=("linux/arm64",))), "platform"),
        (Policy(sizes=Sizes(image="4")), "size"),
        (Policy(sizes=Sizes(total="1kB")), "size"),
        (Policy(images=Images(registries=("ghcr.io",), platforms=("linux/amd64",))), None),
        (Policy(sizes=Sizes(image="5", total="1GB")), None),
    ],
)
def test_images_are_judged_by_name_platform_and_size(policy: Policy, want: str | None) -> None:
    assert [rule for _, rule, _ in found(lock_of(images=(image(),)), policy)] == ([want] if want else [])


@pytest.mark.parametrize(
    ("reference", "refused"),
    [
        ("ghcr.io/acme/x:latest", True),
        ("busybox", True),
        ("busybox:1.36", False),
        (f"ghcr.io/acme/x@{digest_of(b'manifest')}", False),
        (f"ghcr.io/acme/x:latest@{digest_of(b'manifest')}", False),
        ("UPPER/case:v1", True),
    ],
)
def test_a_tag_that_floats_is_refused_and_a_digest_is_none(reference: str, refused: bool) -> None:
    assert bool(judge(lock_of(images=(image(reference),)), Policy()).refusals) is refused


def test_sizes_are_told_with_both_values() -> None:
    policy = msgspec.structs.replace(FREE, sizes=Sizes(file="1", model="1"))
    told = [finding.said for finding in judge(lock_of(model()), policy).findings]

    assert told == ["2 B (2 bytes), at most 1", "`config.json` is 2 B (2 bytes), at most 1"]


# Excuses.


def test_an_accepted_finding_stands_in_the_report_and_refuses_nothing() -> None:
    policy = Policy(excuses=(Excuse("licence", "org/*", "legal, 2026-11-02"),))
    verdict = judge(lock_of(model(license="gemma")), policy)

    assert not verdict.refusals
    assert [finding.excused for finding in verdict.findings] == ["legal, 2026-11-02"]


def test_an_excuse_for_another_rule_or_model_excuses_nothing_and_is_told() -> None:
    excuses = (Excuse("size", "org/a", "x"), Excuse("licence", "org/b", "x"))
    verdict = judge(lock_of(model(license="gemma")), Policy(excuses=excuses))

    assert verdict.refusals
    assert verdict.idle == excuses


models = st.builds(
    lambda name, license, gated, code, ref: model(name, license=license, gated=gated, remote_code=code, ref=ref),
    st.sampled_from(["org/a", "org/b", "acme/c"]),
    st.none() | st.sampled_from(["mit", "gemma", "cc-by-nc-4.0", "mit AND gemma", "mit OR gemma"]),
    st.booleans(),
    st.sampled_from([(), ("config.json: auto_map.A = m.A",)]),
    st.sampled_from(["main", "ab" * 20]),
)
references = st.sampled_from(["ghcr.io/a/b:v1", "ghcr.io/a/b:latest", "busybox", "quay.io/x/y:1.2"])
locks = st.builds(
    lambda chosen, named: lock_of(
        *(chosen[name] for name in sorted(chosen)), images=tuple(image(name) for name in sorted(named))
    ),
    st.lists(models, max_size=3).map(lambda several: {one.id: one for one in several}),
    st.sets(references, max_size=3),
)
levels = st.sampled_from(["deny", "note", "allow"])
rules = st.sampled_from(["licence", "gated", "remote-code", "pickle", "branch", "size", "registry", "tag", "platform"])
excuses = st.lists(st.builds(Excuse, rules, st.sampled_from(["*", "org/*", "acme/c", "ghcr.io/*"]), st.just("x")))
policies = st.builds(
    Policy,
    licences=st.builds(
        Licences,
        allowed=st.sampled_from([(), ("mit",), ("mit", "gemma")]),
        denied=st.sampled_from([(), ("gemma",), ("*nc*",)]),
        unnamed=levels,
    ),
    gated=levels,
    remote_code=levels,
    pickles=levels,
    branches=levels,
    sizes=st.builds(Sizes, file=st.sampled_from([None, "1"]), total=st.sampled_from([None, "1", "1GB"])),
    images=st.builds(Images, registries=st.sampled_from([(), ("ghcr.io",)])),
    excuses=excuses.map(tuple),
)


@given(locks)
def test_what_forbids_nothing_refuses_nothing(lock: Lock) -> None:
    assert not judge(lock, FREE).refusals


@given(locks, policies)
def test_each_finding_is_of_something_that_is_carried(lock: Lock, policy: Policy) -> None:
    carried = {entry.name for entry in ledger(lock)} | {"the whole"}
    verdict = judge(lock, policy)

    assert {finding.what for finding in verdict.findings} <= carried
    assert all(finding.level != "allow" and finding.said for finding in verdict.findings)
    assert list(verdict.findings) == sorted(verdict.findings)


@given(locks, policies, rules, st.sampled_from(["*", "org/a", "quay.io/*"]))
def test_one_more_excuse_never_refuses_more(lock: Lock, policy: Policy, rule: Rule, what: str) -> None:
    more = msgspec.structs.replace(policy, excuses=(*policy.excuses, Excuse(rule, what, "because")))
    before, after = judge(lock, policy), judge(lock, more)

    assert set(after.refusals) <= set(before.refusals)
    gone = set(before.refusals) - set(after.refusals)
    assert all(finding.rule == rule for finding in gone)


@given(locks, policies)
def test_one_thing_less_in_the_lock_never_refuses_more(lock: Lock, policy: Policy) -> None:
    """Each thing is judged by itself: what is taken out takes its findings along, and no other."""
    whole = judge(lock, policy)
    for model_ in lock.models:
        rest = msgspec.structs.replace(lock, models=tuple(one for one in lock.models if one.id != model_.id))
        others = {finding for finding in whole.refusals if finding.what not in (model_.id, "the whole")}
        assert {one for one in judge(rest, policy).refusals if one.what != "the whole"} == others


@given(policies)
def test_a_policy_written_down_is_the_same_policy(policy: Policy) -> None:
    written = yaml.safe_dump(msgspec.to_builtins(policy))

    assert parse_policy(written.encode(), where="p.yaml") == policy


# The file.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gatted: deny", "there is no `gatted` in a policy; did you mean `gated`?"),
        ("licences: {allow: [mit]}", "there is no `licences.allow` in a policy; did you mean `licences.allowed`?"),
        ("gated: maybe", "Invalid enum value 'maybe' - at `$.gated`"),
        ("version: 2", "$.version"),
        ("- gated", "want a mapping like `gated: deny`, have list"),
        ("", "have NoneType"),
        ("gated: [", "is not YAML"),
        ("gated: deny\nbranches: note\ngated: allow", "line 3: `gated` stands here a second time"),
        ("sizes: {total: 1GB, total: 2GB}", "`total` stands here a second time"),
        ("excuses: [{rule: size, rule: tag, what: x, because: y}]", "`rule` stands here a second time"),
        ("&a {gated: *a}", "has a value inside itself"),
        ("a: " + "9" * 5000, "is not YAML"),
        ("sizes: {model: big}", "`big` is not a size"),
        ("licences: mit", "$.licences"),
        ("excuses: [{rule: licence, what: org/a}]", "because"),
        ("excuses: [{rule: licence, what: org/a, because: ''}]", "length >= 1"),
        ("excuses: [{rule: smell, what: org/a, because: x}]", "smell"),
    ],
)
def test_a_policy_that_cannot_be_meant_names_the_file_and_the_key(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^p\.yaml") as caught:
        parse_policy(text.encode(), where="p.yaml")
    assert says in str(caught.value)


def test_what_a_policy_leaves_out_is_as_in_the_default() -> None:
    policy = parse_policy(b"licences: {allowed: [mit]}", where="p.yaml")

    assert policy == Policy(licences=Licences(allowed=("mit",)))


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_bytes_break_the_reading_of_a_policy(data: bytes) -> None:
    try:
        parse_policy(data, where="p.yaml")
    except ValueError as error:
        assert str(error).startswith("p.yaml")


# The verb.


@pytest.fixture
def written(tmp_path: Path) -> Path:
    lock = lock_of(
        model("org/a", license="mit"),
        model("org/b", license="gemma", gated=True),
        images=(image("ghcr.io/acme/x:latest"),),
    )
    write_lock(tmp_path / "airgap.lock", lock)
    return tmp_path


def test_a_review_prints_the_ledger_and_every_finding_and_ends_with_12(airgap: Run, written: Path) -> None:
    code, out, err = airgap("review")

    assert code == 12
    assert "org/a  mit      open   2 B   abababababab  --model" in out
    assert "deny    licence     org/b: `gemma` is not among the allowed" in out
    assert "note    gated       org/b: " in out
    assert "deny    tag         ghcr.io/acme/x:latest: " in out
    assert out.endswith("refused by the default policy: 2 findings\n")
    assert "2 findings against the default policy" in err
    assert "excuses" in err


def test_a_review_with_what_was_accepted_passes(airgap: Run, written: Path) -> None:
    (written / "policy.yaml").write_text(
        "images: {denied_tags: []}\n"
        "excuses:\n"
        "  - {rule: licence, what: org/b, because: 'legal, ticket 7'}\n"
        "  - {rule: size, what: org/b, because: nothing}\n"
    )
    code, out, err = airgap("review", "--policy", "policy.yaml")

    assert (code, err) == (0, "")
    assert "excused licence     org/b: `gemma` is not among the allowed (accepted: legal, ticket 7)" in out
    assert "idle    excuse of size for org/b: nothing was found" in out
    assert out.endswith("passed by policy.yaml\n")


def test_a_review_gives_programs_all_of_it(airgap: Run, written: Path) -> None:
    code, out, err = airgap("review", "--output", "json")
    told = json.loads(out)

    assert (code, told["verdict"], json.loads(err)["exit_code"]) == (12, "refused", 12)
    assert {entry["name"] for entry in told["ledger"]} == {"org/a", "org/b", "ghcr.io/acme/x:latest"}
    assert [(one["what"], one["rule"]) for one in told["findings"] if one["level"] == "deny"] == [
        ("ghcr.io/acme/x:latest", "tag"),
        ("org/b", "licence"),
    ]
    assert told["policy"]["gated"] == "note"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["review", "nowhere.lock"], 4, "there is no lock at nowhere.lock"),
        (["review", "--policy", "nowhere.yaml"], 4, "nowhere.yaml"),
        (["review", "--policy", "airgap.lock"], 2, "airgap.lock: there is no `charts` in a policy"),
    ],
)
def test_what_cannot_be_reviewed_says_why(airgap: Run, written: Path, words: list[str], code: int, says: str) -> None:
    ended, _, err = airgap(*words)

    assert ended == code
    assert says in err


def test_a_finding_that_is_excused_is_not_one_that_refuses() -> None:
    assert Finding("org/a", "gated", "deny", "said").refuses
    assert not Finding("org/a", "gated", "deny", "said", "because").refuses
    assert not Finding("org/a", "gated", "note", "said").refuses
