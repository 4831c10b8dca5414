"""The verbs of the far side: mirror, values."""

from pathlib import Path

import click

from sie_airgap.charts.values import Bucket, PrivateRegistry, offline_yaml
from sie_airgap.cli.console import (
    Console,
    Told,
    bucket,
    bucket_options,
    check_bucket,
    dry_run_option,
    output_option,
    written,
)
from sie_airgap.cli.guarding import Carried, Guard, carried_options
from sie_airgap.cli.registries import full_names_option, opened_registry, registry_place
from sie_airgap.failures import Misused
from sie_airgap.mirror import rules as mirror_rules
from sie_airgap.mirror.images import chart_artifact, plan_chart, plan_images, pull_secret, read_chart
from sie_airgap.mirror.images import mirror_chart as push_chart
from sie_airgap.mirror.images import mirror_images as push_images
from sie_airgap.mirror.rules import FORMATS
from sie_airgap.mirror.weights import Mirrored, mirror_weights, plan_weights
from sie_airgap.oci.sessions import kept_sessions
from sie_airgap.progress import counted, sized
from sie_airgap.settings import docker_config_file, state_folder
from sie_airgap.store.blobs import BlobFolder, Blobs, write_atomically
from sie_airgap.store.kept import is_rolled_back
from sie_airgap.trust.files import merged, sealed_in
from sie_core.artifacts.lock import Lock, lock_digest

_MOST_NAMES = 20
"""More strays than that are counted."""


@click.group()
def mirror() -> None:
    """Copy what was carried to where the cluster reads it: a bucket, a registry.

    From a store, or with --from straight from the volumes. What is there already is left alone.
    """


_replace_option = click.option(
    "--replace", is_flag=True, help="Read what is there already, too, and copy again what is not what was locked."
)


@mirror.command("weights", short_help="Models, to a bucket or a folder.")
@click.argument("url")
@bucket_options
@_replace_option
@carried_options
@dry_run_option
@output_option
def mirror_weights_command(
    url: str,
    endpoint: str | None,
    region: str | None,
    replace: bool,
    carried: Carried,
    dry_run: bool,
    output: str,
) -> None:
    """Copy weights to URL: s3://BUCKET/PREFIX/, gs://BUCKET/PREFIX/ or file:///FOLDER.

    Credentials are found as by every other program: in the environment, in a profile, by the identity of the
    machine. What the bucket has under another name is copied there and not sent. A reader never finds part of a
    model: manifests come after files, refs after manifests, and the lock last. Nothing is ever deleted.

    Stopped by Ctrl-C, the file under way begins anew; after anything else, a crash too, it goes on.

    \b
    Example:  sie-airgap mirror weights s3://models/weights/ --from /media/dvd1
    """
    console = Console(output)
    blobs, lock, guard = carried.opened(console)
    told = _weights(lock, blobs, url, endpoint, region, replace=replace, dry_run=dry_run, guard=guard, console=console)
    console.data(*told)


def _weights(
    lock: Lock,
    blobs: Blobs,
    url: str,
    endpoint: str | None,
    region: str | None,
    *,
    replace: bool,
    dry_run: bool,
    guard: Guard,
    console: Console,
) -> Told:
    rolled_back = isinstance(blobs, BlobFolder) and is_rolled_back(blobs)
    store = bucket(url, endpoint=endpoint, region=region, journals=state_folder() / "uploads")
    done = None
    if dry_run:
        copies = plan_weights(lock, blobs, store, replace=replace, rolled_back=rolled_back)
        for copy in copies:
            verb = "send" if copy.is_sent else "copy there"
            console.note(f"{verb}  {copy.model} {copy.entry.path}  {sized(copy.entry.size_bytes)}")
    else:
        done = mirror_weights(
            lock,
            blobs,
            store,
            replace=replace,
            signatures=merged(sealed_in(blobs)),
            rolled_back=rolled_back,
            progress=console.progress,
        )
        guard.taken(blobs, lock)
        copies = done.copies
        _tell_of_others(done, url, console)
    size_bytes = sum(copy.entry.size_bytes for copy in copies)
    sent_bytes = sum(copy.entry.size_bytes for copy in copies if copy.is_sent)
    verb = "to copy" if dry_run else "copied"
    text = f"{counted(len(copies), 'file')} {verb} to {url}, {sized(size_bytes)}"
    if sent_bytes < size_bytes:
        text += f" ({sized(size_bytes - sent_bytes)} of it from what is there)"
    facts: dict[str, object] = {"weights": url, "files": len(copies), "bytes": size_bytes, "sent_bytes": sent_bytes}
    if done is not None:
        facts |= {"strays": list(done.strays), "unfinished": [one.name for one in done.unfinished]}
    return f"{text}; {counted(len(lock.models), 'model')}", facts


def _tell_of_others(done: Mirrored, url: str, console: Console) -> None:
    """What is there besides; it is never touched."""
    for name in done.strays[:_MOST_NAMES]:
        console.note(f"stray  {name}: no lock there names it; it is left alone")
    if len(done.strays) > _MOST_NAMES:
        console.note(f"stray  {len(done.strays) - _MOST_NAMES} more; --output json names all")
    for upload in done.unfinished[:_MOST_NAMES]:
        console.note(
            f"unfinished  {upload.name}, begun {upload.since}: an upload of another process or machine, which takes "
            f"space in {url} until it ends or is aborted"
        )


@mirror.command("images", short_help="Images, to a registry.")
@click.argument("registry")
@full_names_option
@carried_options
@dry_run_option
@output_option
def mirror_images_command(registry: str, full_names: bool, carried: Carried, dry_run: bool, output: str) -> None:
    """Copy images to REGISTRY: HOST[:PORT]/PATH, with http:// before it where there is no TLS.

    Logins are docker's own (`docker login`, or DOCKER_CONFIG); SSL_CERT_FILE names a private certificate authority.
    Every platform is kept, every digest, and the signatures that were locked. An upload that is interrupted goes on
    where it was, where the registry remembers it.

    \b
    Example:  sie-airgap mirror images registry.internal/sie
    """
    console = Console(output)
    blobs, lock, _ = carried.opened(console)
    console.data(*_images(lock, blobs, registry, full_names=full_names, dry_run=dry_run, console=console))


def _images(lock: Lock, blobs: Blobs, target: str, *, full_names: bool, dry_run: bool, console: Console) -> Told:
    with opened_registry(target) as registry:
        plans = plan_images(lock.images, blobs, registry, full_names=full_names, say=console.note)
        todo = [plan for plan in plans if not plan.is_done]
        for plan in todo:
            console.note(f"push  {plan.target}  {sized(plan.size_bytes)}")
        size_bytes = sum(plan.size_bytes for plan in plans)
        if not dry_run:
            with (
                kept_sessions(state_folder(), registry.place.origin, say=console.note) as sessions,
                console.progress.task("mirror images", size_bytes) as task,
            ):
                push_images(lock.images, blobs, registry, plans, task, sessions=sessions, say=console.note)
        if not dry_run and registry.wants_login:
            console.note(pull_secret(registry.place, docker_config_file()))
    verb = "to push" if dry_run else "pushed"
    text = f"{len(todo)} of {len(plans)} images {verb} to {target}, {sized(size_bytes)}"
    return text, {"registry": target, "images": len(todo), "bytes": size_bytes}


@mirror.command("chart", short_help="The chart, to a registry or a folder.")
@click.argument("target")
@carried_options
@dry_run_option
@output_option
def mirror_chart_command(target: str, carried: Carried, dry_run: bool, output: str) -> None:
    """Copy the lock's charts to TARGET: a registry (oci://HOST/PATH), or a folder (./FOLDER, or one that is there)
    that gets each .tgz.

    \b
    Example:  sie-airgap mirror chart oci://registry.internal/sie
    """
    console = Console(output)
    blobs, lock, _ = carried.opened(console)
    console.data(*_charts(lock, blobs, target, dry_run=dry_run, console=console))


def _charts(lock: Lock, blobs: Blobs, target: str, *, dry_run: bool, console: Console) -> Told:
    if not Path(target).is_dir() and not set(target) & set("./:"):
        raise Misused(
            f"`{target}` is no folder that is there, and no registry", hint=f"`./{target}` makes it; or oci://HOST/PATH"
        )
    texts: list[str] = []
    copied: list[dict[str, object]] = []
    for chart in lock.charts:
        tgz = read_chart(chart, blobs)
        if target.startswith((".", "/")) or Path(target).is_dir():
            path = Path(target) / chart.file
            done = path.exists() and path.read_bytes() == tgz
            if not dry_run and not done:
                write_atomically(path, tgz)
            where = str(path)
        else:
            where, done = _chart_to_registry(chart.file, tgz, target, dry_run=dry_run, console=console)
        said = "is there" if done else "would be copied" if dry_run else "copied"
        texts.append(f"chart {chart.file} {said}: {where}")
        copied.append({"chart": chart.file, "at": where, "copied": not done})
    return "\n".join(texts) or "the lock has no chart", {"charts": copied}


def _chart_to_registry(file: str, tgz: bytes, target: str, *, dry_run: bool, console: Console) -> tuple[str, bool]:
    try:
        artifact = chart_artifact(tgz)
    except ValueError as error:
        raise Misused(
            f"`{file}` of the lock: {error}",
            hint="`sie-airgap lock --chart` takes what `helm package` makes, or its folder",
        ) from error
    with opened_registry(target) as registry:
        plan = plan_chart(artifact, registry)
        if not dry_run:
            with console.progress.task("mirror chart", plan.size_bytes) as task:
                push_chart(artifact, registry, plan, task)
    return f"oci://{plan.target}", plan.is_done


@mirror.command("rules", short_help="Rules by which nodes read images from the mirror.")
@click.argument("registry")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="Who reads the rules.")
@click.option(
    "-o",
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for the files.  [default: stdout]",
)
@carried_options
@dry_run_option
@output_option
def mirror_rules_command(
    registry: str, form: str, folder: Path | None, carried: Carried, dry_run: bool, output: str
) -> None:
    """Write rules by which the nodes fetch the lock's images from REGISTRY under their own names.

    No chart is edited then, also not where no value sets an image. Mirror with `mirror images REGISTRY --full-names`,
    and write the values without --registry. hosts.toml is for containerd, idms for OpenShift (ImageDigestMirrorSet,
    ImageTagMirrorSet), registries.conf for CRI-O and podman.

    \b
    Example:  sie-airgap mirror rules registry.internal/sie --format hosts.toml
    """
    console = Console(output)
    _, lock, _ = carried.opened(console)
    place = registry_place(registry)
    files = mirror_rules.rules((image.reference for image in lock.images), place, form=form)
    told, facts = [], []
    for name, text in files.items():
        at = folder / name if folder is not None else None
        state = "printed" if at is None else written(at, text, dry_run=dry_run)
        told.append(f"# {name}\n{text}" if at is None else f"{at} {state}")
        facts.append({"file": str(at or name), "state": state, "text": text})
    console.data("\n".join(told) or "the lock has no images, so there are no rules", {"files": facts})
    if files:
        console.note(mirror_rules.where_to_put(form, place))


@mirror.command("all", short_help="Weights, images and the chart.")
@click.option("--bucket", "url", required=True, metavar="URL", help="Where weights go.")
@click.option("--registry", required=True, metavar="HOST/PATH", help="Where images and the chart go.")
@bucket_options
@full_names_option
@_replace_option
@carried_options
@dry_run_option
@output_option
def mirror_all_command(
    url: str,
    registry: str,
    endpoint: str | None,
    region: str | None,
    full_names: bool,
    replace: bool,
    carried: Carried,
    dry_run: bool,
    output: str,
) -> None:
    """Copy weights, images and the charts, one after the other: what `mirror weights`, `images` and `chart` do.

    \b
    Example:  sie-airgap mirror all --bucket s3://models/weights/ \\
                  --registry registry.internal/sie
    """
    console = Console(output)
    blobs, lock, guard = carried.opened(console)
    done = (
        _weights(lock, blobs, url, endpoint, region, replace=replace, dry_run=dry_run, guard=guard, console=console),
        _images(lock, blobs, registry, full_names=full_names, dry_run=dry_run, console=console),
        _charts(lock, blobs, registry, dry_run=dry_run, console=console),
    )
    facts = {name: facts for name, (_, facts) in zip(("weights", "images", "chart"), done, strict=True)}
    console.data("\n".join(text for text, _ in done), facts)


@click.command()
@click.option("--bucket", "url", required=True, metavar="URL", help="As the pods see it.")
@click.option("--registry", metavar="HOST/PATH", help="Where the images are.  [default: their own names]")
@click.option("--pull-secret", metavar="NAME", help="Of kind docker-registry, in the release's namespace.")
@click.option("--credentials-secret", metavar="NAME", help="Holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
@click.option("--ca-secret", metavar="NAME", help="Holds ca.crt of a private certificate authority.")
@click.option("-o", "--write", "path", type=click.Path(path_type=Path, dir_okay=False), help="A file, not stdout.")
@bucket_options
@carried_options
@dry_run_option
@output_option
def values(
    url: str,
    registry: str | None,
    pull_secret: str | None,
    credentials_secret: str | None,
    ca_secret: str | None,
    path: Path | None,
    endpoint: str | None,
    region: str | None,
    carried: Carried,
    dry_run: bool,
    output: str,
) -> None:
    """Write values-offline.yaml: the values that install the chart from what was mirrored.

    It pins the lock: workers serve its commits and nothing that is not verified.

    \b
    Example:  sie-airgap values --bucket s3://models/weights/ \\
                  --registry registry.internal/sie -o values-offline.yaml
    """
    check_bucket(url)
    console = Console(output)
    _, lock, _ = carried.opened(console)
    place = None
    if registry is not None:
        with opened_registry(registry) as checked:
            prefix = "/".join(part for part in (checked.place.host, checked.place.prefix) if part)
            place = PrivateRegistry(prefix, pull_secret)
    elif pull_secret is not None:
        raise Misused("--pull-secret means nothing without --registry")
    where = Bucket(url, endpoint=endpoint, region=region, ca_secret=ca_secret, credentials_secret=credentials_secret)
    text = offline_yaml(lock, bucket=where, registry=place)
    state = "printed" if path is None else written(path, text, dry_run=dry_run)
    facts = {"file": None if path is None else str(path), "state": state, "lock": lock_digest(lock), "text": text}
    told = f"{path} {state}: it pins lock number {lock.serial}, {lock_digest(lock)}"
    console.data(text.rstrip("\n") if path is None else told, facts)
