"""Hold a lock against a policy: the ledger of what it carries, every finding, and the verdict. Pure."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from msgspec import Struct

from sie_airgap.amounts import parse_size, sized
from sie_airgap.oci.reference import parse_reference
from sie_airgap.reviewing.policy import Excuse, Level, Policy, Rule
from sie_airgap.store.contents import contents
from sie_core.artifacts.lock import Lock, LockedChart, LockedImage, LockedModel
from sie_core.ids import is_revision

_PICKLES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"))


class Finding(Struct, frozen=True, order=True):
    """One thing that the policy has something against.

    Attributes:
        what: the model or image; `the whole` for what is nobody's alone.
        rule: as an excuse would name it.
        level: `deny` refuses the lock, `note` does not.
        said: what is the case, with both values.
        excused: why it was accepted, where it was.
    """

    what: str
    rule: Rule
    level: Level
    said: str
    excused: str | None = None

    @property
    def refuses(self) -> bool:
        return self.level == "deny" and self.excused is None


class Entry(Struct, frozen=True):
    """One model or image of the ledger; what is not known of an image (its licence, say) is None."""

    kind: str
    name: str
    licence: str | None
    gated: bool | None
    at: str
    size_bytes: int
    why: tuple[str, ...]


class Verdict(Struct, frozen=True):
    """Everything that was found, by model and image; `idle` are excuses that excuse nothing."""

    findings: tuple[Finding, ...]
    idle: tuple[Excuse, ...]

    @property
    def refusals(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.refuses)


def ledger(lock: Lock) -> tuple[Entry, ...]:
    """What is carried of others, models first. Charts and wheels that were given by hand are not in it."""
    models = (
        Entry("model", model.id, model.license, model.gated, model.revision, model.size_bytes, model.why)
        for model in lock.models
    )
    images = (
        Entry("image", image.reference, None, None, image.digest, _image_bytes(image), image.why)
        for image in lock.images
    )
    return (*models, *images)


def judge(lock: Lock, policy: Policy) -> Verdict:
    """The verdict; the same for the same lock and policy."""
    found = [
        finding
        for finding in (
            *(each for model in lock.models for each in _model(model, policy)),
            *(each for image in lock.images for each in _image(image, policy)),
            *(each for chart in lock.charts for each in _chart(chart, policy)),
            *_size("the whole", sum(content.size_bytes for content in contents(lock)), policy.sizes.total),
        )
        if finding.level != "allow"
    ]
    told = tuple(sorted(_excused(finding, policy.excuses) for finding in found))
    idle = tuple(excuse for excuse in policy.excuses if not any(_excuses(excuse, finding) for finding in found))
    return Verdict(told, idle)


def _excused(finding: Finding, excuses: Sequence[Excuse]) -> Finding:
    because = next((excuse.because for excuse in excuses if _excuses(excuse, finding)), None)
    return Finding(finding.what, finding.rule, finding.level, finding.said, because)


def _excuses(excuse: Excuse, finding: Finding) -> bool:
    return excuse.rule == finding.rule and _matches(finding.what, (excuse.what,)) is not None


def _model(model: LockedModel, policy: Policy) -> Iterator[Finding]:
    yield from _licence(model, policy)
    if model.gated:
        yield Finding(model.id, "gated", policy.gated, "the hub wants its licence accepted before it hands out files")
    if model.remote_code:
        more = f", and {len(model.remote_code) - 1} more" if len(model.remote_code) > 1 else ""
        said = f"its repository names code, which is not carried: `{model.remote_code[0]}`{more}"
        yield Finding(model.id, "remote-code", policy.remote_code, said)
    pickled = [file.path for file in model.files if PurePosixPath(file.path).suffix.lower() in _PICKLES]
    if pickled:
        more = f" and {len(pickled) - 3} more" if len(pickled) > 3 else ""
        yield Finding(model.id, "pickle", policy.pickles, f"pickled weights: {', '.join(pickled[:3])}{more}")
    if not is_revision(model.ref):
        said = f"asked for as `{model.ref}`, which was {model.revision} when it was locked"
        yield Finding(model.id, "branch", policy.branches, said)
    yield from _size(model.id, model.size_bytes, policy.sizes.model)
    for file in model.files:
        yield from _size(model.id, file.size_bytes, policy.sizes.file, f"`{file.path}` is ")


def _licence(model: LockedModel, policy: Policy) -> Iterator[Finding]:
    if model.license is None:
        yield Finding(model.id, "licence", policy.licences.unnamed, "its repository names no licence")
        return
    for alternatives in model.license.split(" AND "):
        reasons = [_against(one.strip(" ()"), policy) for one in alternatives.split(" OR ")]
        if all(reason is not None for reason in reasons):
            yield Finding(model.id, "licence", "deny", "; ".join(reason for reason in reasons if reason is not None))


def _against(licence: str, policy: Policy) -> str | None:
    """Why a single licence is not taken; None for one that is."""
    denied = _matches(licence, policy.licences.denied)
    if denied is not None:
        return f"`{licence}` is denied as `{denied}`"
    if policy.licences.allowed and _matches(licence, policy.licences.allowed) is None:
        return f"`{licence}` is not among the allowed"
    return None


def _image(image: LockedImage, policy: Policy) -> Iterator[Finding]:
    name, rules = image.reference, policy.images
    try:
        reference = parse_reference(name)
    except ValueError as error:
        yield Finding(name, "registry", "deny", f"nobody can tell where it is from: {error}")
        return
    if rules.registries and _matches(reference.registry, rules.registries) is None:
        said = f"from `{reference.registry}`, allowed are {', '.join(rules.registries)}"
        yield Finding(name, "registry", "deny", said)
    tag = reference.tag if reference.digest is None else None
    if tag is not None and (denied := _matches(tag, rules.denied_tags)) is not None:
        said = f"its tag `{tag}` is denied as `{denied}`; what it was is locked as {image.digest}"
        yield Finding(name, "tag", "deny", said)
    lacking = [platform for platform in rules.platforms if platform not in image.platforms]
    if lacking:
        have = ", ".join(image.platforms) or "none"
        yield Finding(name, "platform", "deny", f"it has no {', '.join(lacking)}; it has {have}")
    yield from _size(name, _image_bytes(image), policy.sizes.image)


def _chart(chart: LockedChart, policy: Policy) -> Iterator[Finding]:
    for image in chart.not_locked:
        said = f"seen in {chart.file} and not carried: {'; '.join(image.why)}"
        yield Finding(image.reference, "unlocked", policy.images.unlocked, said)
    if chart.not_tried:
        said = f"it was not rendered with these, which may bring images: {', '.join(chart.not_tried)}"
        yield Finding(chart.file, "untried", policy.images.untried, said)


def _image_bytes(image: LockedImage) -> int:
    return sum(blob.size_bytes for blob in image.blobs)


def _size(what: str, size_bytes: int, most: str | None, told: str = "") -> Iterator[Finding]:
    if most is not None and size_bytes > parse_size(most):
        said = f"{told}{sized(size_bytes)} ({size_bytes:,} bytes), at most {most}"
        yield Finding(what, "size", "deny", said)


def _matches(text: str, globs: Sequence[str]) -> str | None:
    """The first glob that a text matches, whatever its case."""
    return next((glob for glob in globs if fnmatchcase(text.lower(), glob.lower())), None)
