"""`values-offline.yaml`: the values that install the chart from what was mirrored, written from the lock.

The keys are the guide's. The file is for people to read and keep: each part says what it is there for, and
secrets are named, never held. The commits and images are the lock's own: `clusterCache.lock` pins the
former, `image.digest` the latter, so that neither a moved ref nor a moved tag changes what runs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from sie_airgap.amounts import counted
from sie_airgap.failures import Incomplete
from sie_airgap.oci.reference import Place, mirrored, parse_place, parse_reference
from sie_core.artifacts.lock import CHART_NAME, Lock, LockedImage, lock_digest

_IMAGES = {
    "sie-gateway": ("gateway", "image"),
    "sie-config": ("config", "image"),
    "sie-server": ("workers", "common", "image"),
}
"""The last part of an image's name → where the chart takes it."""


@dataclass(frozen=True)
class Bucket:
    """Where workers read weights.

    Attributes:
        url: as the pods see it: `s3://…`, `gs://…`, or `file:///…`, which is written as a folder of the nodes.
        endpoint: of an S3-compatible server; None is AWS.
        region: None leaves it to the environment.
        path_style: the bucket is named in the path.
        ca_secret: a Secret with `ca.crt`; None trusts the image's own roots.
        credentials_secret: a Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; None uses the identity of
            the workers' ServiceAccount.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = True
    ca_secret: str | None = None
    credentials_secret: str | None = None


@dataclass(frozen=True)
class PrivateRegistry:
    """Where images were mirrored: `private-registry.example.com/sie`, and the pull secret's name or None."""

    url: str
    pull_secret: str | None = None


def offline_values(lock: Lock, *, bucket: Bucket, registry: PrivateRegistry | None = None) -> dict[str, Any]:
    """The values as a tree; without a registry the chart's own image names stay.

    Raises:
        Incomplete: the lock lacks one of the chart's images, and a registry is given.
        ValueError: the registry's address cannot be one.
    """
    values: dict[str, Any] = {
        "workers": {
            "common": {
                "clusterCache": _cluster_cache(lock, bucket),
                "hfCache": {"home": "/models/huggingface", "tokenSecret": ""},
                "preloadModels": [model.id for model in lock.models if not model.is_part],
            }
        },
        "hfToken": {"create": False},
    }
    if registry is not None:
        place = parse_place(registry.url)
        for name, path in _IMAGES.items():
            _put(values, path, _image(_named(lock, name), place))
        if registry.pull_secret is not None:
            values["global"] = {"imagePullSecrets": [{"name": registry.pull_secret}]}
    return values


def offline_yaml(lock: Lock, *, bucket: Bucket, registry: PrivateRegistry | None = None) -> str:
    """The same as the text of `values-offline.yaml`, with a comment over each part."""
    head = f"# values-offline.yaml for the lock {lock_digest(lock)} (serial {lock.serial}).\n"
    lines = _written(offline_values(lock, bucket=bucket, registry=registry), ())
    told = [*lines, *_advice(lock, registry)]
    return head + "# Written by `sie-airgap values`.\n" + "".join(f"{line}\n" for line in told)


def _advice(lock: Lock, registry: PrivateRegistry | None) -> Iterator[str]:
    """For what these values do not reach: the images of other charts keep the names that those give them."""
    others = [chart.file for chart in lock.charts if chart.name != CHART_NAME]
    if others:
        yield f"# {', '.join(others)}: installed by themselves, each with values of its own."
    named = [image for image in lock.images if parse_reference(image.reference).name not in _IMAGES]
    if named and registry is not None:
        yield f"# {counted(len(named), 'image')} more in {registry.url} under names that no value here reaches;"
        yield "# `sie-airgap mirror images --full-names` with `sie-airgap mirror rules` lets the nodes find them:"
        yield from (f"#   {image.reference}" for image in named)


def _cluster_cache(lock: Lock, bucket: Bucket) -> dict[str, Any]:
    cache: dict[str, Any] = {
        "enabled": True,
        "url": bucket.url,
        "lock": lock_digest(lock),
        "requireVerified": True,
    }
    if bucket.url.startswith("s3://"):
        cache["pathStyle"] = bucket.path_style
        told = {
            "endpoint": bucket.endpoint,
            "region": bucket.region,
            "caSecret": bucket.ca_secret,
            "credentialsSecret": bucket.credentials_secret,
        }
        cache.update({key: value for key, value in told.items() if value is not None})
    if bucket.url.startswith("file://"):
        cache["volume"] = {"hostPath": {"path": unquote(urlsplit(bucket.url).path), "type": "Directory"}}
    return cache


def _named(lock: Lock, name: str) -> LockedImage:
    for image in lock.images:
        if parse_reference(image.reference).name == name:
            return image
    raise Incomplete(
        f"the lock has no image `{name}`, which the chart needs",
        hint="`sie-airgap lock --chart` reads the images off the rendered chart",
    )


def _image(image: LockedImage, place: Place) -> dict[str, Any]:
    """By the name that `mirror images` gives it, and by the lock's digest."""
    target = mirrored(parse_reference(image.reference), place)
    return {"repository": f"{target.registry}/{target.repository}", "tag": target.tag, "digest": image.digest}


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *folders, last = path
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[last] = value


_COMMENTS: Mapping[tuple[str, ...], str] = {
    ("workers", "common", "clusterCache"): "Workers read weights from here. The hub is off as long as this is enabled.",
    ("workers", "common", "clusterCache", "url"): "Must be reachable from worker pods.",
    ("workers", "common", "clusterCache", "lock"): "Only the commits of this airgap.lock are served, and each file is"
    " checked against it.",
    ("workers", "common", "clusterCache", "endpoint"): "The S3-compatible server, as pods see it.",
    ("workers", "common", "clusterCache", "caSecret"): "A Secret whose key `ca.crt` holds the server's certificate"
    " authority.",
    ("workers", "common", "clusterCache", "credentialsSecret"): "A Secret with AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY; it must be there before the install.",
    ("workers", "common", "clusterCache", "volume"): "A folder of every node. Better is a `persistentVolumeClaim` or"
    " `nfs`: restricted Pod Security forbids hostPath.",
    ("workers", "common", "hfCache"): "Where fetched weights lie on a worker. No hub token: nothing asks the hub.",
    ("workers", "common", "preloadModels"): "Fetched and verified by the init container, loaded before a worker is"
    " Ready.",
    ("workers", "common", "image"): "Images from the private registry, by the lock's digests.",
    ("hfToken",): "No hub token in an air-gapped cluster.",
    ("global", "imagePullSecrets"): "The registry's credentials, a docker-registry Secret in the release's namespace;"
    " it must be there before the install.",
}


def _written(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Lines of YAML. Scalars are written as JSON, which YAML reads as the same values."""
    indent = "  " * len(path)
    for key, value in tree.items():
        at = (*path, key)
        if not path and key != next(iter(tree)):
            yield ""
        if at in _COMMENTS:
            yield f"{indent}# {_COMMENTS[at]}"
        match value:
            case Mapping():
                yield f"{indent}{key}:"
                yield from _written(value, at)
            case [_, *_]:
                yield f"{indent}{key}:"
                yield from (f"{indent}  - {_scalar(item)}" for item in value)
            case _:
                yield f"{indent}{key}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, Mapping):
        ((key, inner),) = value.items()
        return f"{key}: {_scalar(inner)}"
    return json.dumps(value, ensure_ascii=False)
