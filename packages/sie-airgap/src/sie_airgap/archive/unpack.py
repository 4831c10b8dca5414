"""Put an archive's content into a store on the far side, from whichever of its volumes are here.

Volumes may come all at once or one after the other; what was taken from one is kept until the others come,
also of blobs that are cut across volumes. Every blob is hashed before it counts. A damaged member is named
with its volume and costs nothing but itself. The lock is written last: a store that has one is whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sie_airgap.archive.assembly import Assembly
from sie_airgap.archive.copies import Placed
from sie_airgap.archive.damage import carry_again
from sie_airgap.archive.media import Media
from sie_airgap.archive.volume_reader import Unreadable
from sie_airgap.deltas.delta import ByRecipe
from sie_airgap.deltas.recipes import OnBase, check_base
from sie_airgap.failures import Drift, Expected, Incomplete, Partial, raise_all
from sie_airgap.progress import Progress, Silent, Task
from sie_airgap.store.begun import begun
from sie_airgap.store.blobs import (
    GOLDEN_NAME,
    SIGNATURES_NAME,
    BlobFolder,
    fill,
    held,
    need_space,
    read_lock,
    told_os_errors,
    write_lock,
)
from sie_airgap.store.contents import LOCK_NAME, Content, contents
from sie_airgap.store.kept import keep
from sie_airgap.trust.files import merged, sealed_in
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import lock_digest


@dataclass(frozen=True)
class UnpackPlan:
    """What of the lock is in the store, on the media that are here, and on neither."""

    todo: tuple[Content, ...]
    present: tuple[Content, ...]
    missing: tuple[Content, ...]

    @property
    def todo_bytes(self) -> int:
        return sum(content.size_bytes for content in self.todo)


def plan_unpack(media: Media, store: BlobFolder) -> UnpackPlan:
    """Raises `Drift` when the store is for a later lock, and `Incomplete` when it lacks what a delta leaves to it."""
    _refuse_older(media, store)
    check_base(media.delta, store, media.lock)
    todo, present, missing = [], [], []
    for content in contents(media.lock):
        recipe = media.delta.by_blob.get(content.digest)
        if store.size(content.digest) is not None:
            present.append(content)
        elif content.digest in media.pieces or (recipe is not None and recipe.recipe in media.pieces):
            todo.append(content)
        else:
            missing.append(content)
    return UnpackPlan(tuple(todo), tuple(present), tuple(missing))


def unpack(media: Media, store: BlobFolder, *, progress: Progress) -> UnpackPlan:
    """Take what the store lacks from the media; what there was to do.

    Raises:
        TrustError, Unreadable: something on the media is damaged; everything else was taken.
        Partial: volumes are missing; what is here was taken. Or another run is filling the store.
        NoSpace: it will not fit; nothing was written.
    """
    plan = plan_unpack(media, store)
    need_space(store.root, plan.todo_bytes - store.arrived_bytes)
    with held(store.root), begun(store, media.lock):
        raise_all(_unpacked(media, store, plan, progress))
    return plan


def _unpacked(media: Media, store: BlobFolder, plan: UnpackPlan, progress: Progress) -> list[Expected]:
    """Does it; what went wrong on the way."""
    errors: list[Expected] = list(media.refused)
    with progress.task("unpack", plan.todo_bytes) as task:
        for content in plan.todo:
            task.at(content.label)
            errors += _take(media, store, content, task)
    lacking = [content for content in contents(media.lock) if store.size(content.digest) is None]
    if lacking and media.missing_volumes():
        errors.append(_missing(media, lacking))
    elif lacking and not errors:
        errors.append(Incomplete(f"{lacking[0].label} is on no volume, though every volume is here"))
    if not lacking:
        _finish(media, store)
    return errors


def _finish(media: Media, store: BlobFolder) -> None:
    golden = media.named(GOLDEN_NAME)
    if golden is not None:
        store.write_named(GOLDEN_NAME, golden)
    signatures = merged(sealed_in(media))
    if signatures is not None:
        store.write_named(SIGNATURES_NAME, signatures)
    # Last: a store with a lock is whole.
    write_lock(store.root / LOCK_NAME, media.lock)
    keep(store)


def _refuse_older(media: Media, store: BlobFolder) -> None:
    path = store.root / LOCK_NAME
    if not path.exists():
        return
    old = read_lock(path)
    if lock_digest(old) != media.lock_digest and old.serial >= media.lock.serial:
        raise Drift(
            f"the store {store.root} is for lock number {old.serial} ({lock_digest(old)}), "
            f"the archive is number {media.lock.serial} ({media.lock_digest})",
            hint="unpack it into another folder",
        )


def _take(media: Media, store: BlobFolder, content: Content, task: Task) -> Sequence[Expected]:
    """One blob into the store, or as much of it as is here; what was damaged on the way."""
    recipe = media.delta.by_blob.get(content.digest)
    if recipe is not None:
        return _take_made(media, store, content, recipe, task)
    return _take_carried(media, store, content, task)


def _take_made(media: Media, store: BlobFolder, content: Content, recipe: ByRecipe, task: Task) -> Sequence[Expected]:
    """By its recipe, which is read where it stands, or put together first where it is cut across volumes."""
    if media.size(recipe.recipe) is None and store.size(recipe.recipe) is None:
        part = Content(recipe.recipe, recipe.recipe_bytes, f"recipe of {content.label}")
        errors = _take_carried(media, store, part, Silent())
        if errors or store.size(recipe.recipe) is None:
            return errors
    source = OnBase(media, media.delta, store, media.lock)
    try:
        fill(
            store,
            content.digest,
            content.size_bytes,
            lambda start: source.open(content.digest, start=start),
            label=content.label,
            where=f"{media.where}: recipe {recipe.recipe}",
            advance=task.advance,
        )
    except Unreadable as error:
        return [error]
    except TrustError as error:
        error.hint = error.hint or "`sie-airgap verify`, of these media and of the store, tells which is damaged"
        return [error]
    if recipe.recipe not in {one.digest for one in contents(media.lock)}:
        store.path(recipe.recipe).unlink(missing_ok=True)  # it was the way here, and nothing of the lock
    return []


def _take_carried(media: Media, store: BlobFolder, content: Content, task: Task) -> Sequence[Expected]:
    places = media.pieces[content.digest]
    if places.get(0, [])[:1] and places[0][0].member.whole:
        return _take_whole(store, content, places[0], task)
    return _assemble(store, content, places, task)


def _take_whole(store: BlobFolder, content: Content, copies: Sequence[Placed], task: Task) -> list[Expected]:
    errors: list[Expected] = []
    for placed in copies:
        try:
            fill(
                store,
                content.digest,
                content.size_bytes,
                lambda start, placed=placed: placed.open(start=start),  # type: ignore[misc]
                label=content.label,
                where=f"{placed.path}: {placed.member.name}, bytes from {placed.member.offset:,}",
                advance=task.advance,
            )
        except Unreadable as error:
            errors.append(error)
        except TrustError as error:
            error.hint = carry_again(placed.path)
            errors.append(error)
        else:
            return []  # a second copy was sound: nothing is lost
    return errors


def _assemble(store: BlobFolder, content: Content, places: dict[int, list[Placed]], task: Task) -> Sequence[Expected]:
    """Write the parts that are here in their places; when all have come, the blob."""
    assembly = Assembly(store, content)
    errors: list[Expected] = []
    with told_os_errors(assembly.path):
        for _, copies in sorted(places.items()):
            errors += assembly.take(copies, task)
        if assembly.is_whole:
            errors += assembly.adopt()
    return errors


def _missing(media: Media, lacking: Sequence[Content]) -> Partial:
    names = media.missing_volumes()
    of = next(iter(media.volumes.values())).of
    shown = ", ".join(content.label for content in lacking[:3]) + (" …" if len(lacking) > 3 else "")
    return Partial(
        f"{', '.join(f'`{name}`' for name in names)} of {of} volumes not here; still lacking: {shown}",
        hint="run the same command with the other media: what was taken is kept",
    )
