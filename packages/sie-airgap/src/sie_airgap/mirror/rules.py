"""Rules by which a cluster's nodes fetch images from the mirror under the names that the chart renders. Pure.

With them nothing in a chart has to be edited, also not an image whose name no value sets. They hold for images that
were mirrored with `--full-names`: what lies at `REGISTRY/ghcr.io/superlinked/sie-server` is asked for there when a
pod wants `ghcr.io/superlinked/sie-server`. No rule lets a node go on to the registry of the image's own name.

    hosts.toml        containerd (since 1.5): a folder for each registry, under `config_path`
    idms              OpenShift: ImageDigestMirrorSet and ImageTagMirrorSet
    registries.conf   CRI-O and podman: a file of /etc/containers/registries.conf.d
"""

from collections.abc import Iterable, Mapping, Sequence

import yaml

from sie_airgap.oci.reference import Place, parse_reference, path_of_registry

FORMATS = ("hosts.toml", "idms", "registries.conf")
_CERTS_D = "/etc/containerd/certs.d"


def rules(references: Iterable[str], place: Place, *, form: str) -> Mapping[str, str]:
    """The files of a format, by their path: what the nodes need for these images.

    Raises `ValueError` for a format that is none of `FORMATS`, and for a name of an image that is none.
    """
    by_registry: dict[str, set[str]] = {}
    for text in references:
        reference = parse_reference(text)
        by_registry.setdefault(reference.registry, set()).add(reference.repository)
    sources = {host: sorted(repositories) for host, repositories in sorted(by_registry.items())}
    if not sources:
        return {}
    if form == "hosts.toml":
        return {f"{host}/hosts.toml": _hosts(host, place) for host in sources}
    if form == "idms":
        return {"sie-mirror.yaml": _mirror_sets(sources, place)}
    if form == "registries.conf":
        return {"sie-mirror.conf": _registries_conf(sources, place)}
    raise ValueError(f"`{form}` is none of {', '.join(FORMATS)}")


def where_to_put(form: str, place: Place) -> str:
    """What an operator does with the files."""
    if form == "hosts.toml":
        return (
            f"copy the folders to {_CERTS_D} on every node. containerd's config.toml needs\n"
            f'  config_path = "{_CERTS_D}"\n'
            '  in [plugins."io.containerd.cri.v1.images".registry], with containerd 1.x in\n'
            '  [plugins."io.containerd.grpc.v1.cri".registry]\n'
            f"The files are read anew at each pull. Where {place.host} wants a login, give it to\n"
            "containerd (`registry.configs`): pods' pull secrets go to the registry of the image's\n"
            "own name alone"
        )
    if form == "idms":
        return (
            "`oc apply -f sie-mirror.yaml`; the nodes take it up one after the other. The login for "
            f"{place.host} belongs into the cluster's pull secret (`oc -n openshift-config`)"
        )
    return "copy the file to /etc/containers/registries.conf.d on every node; CRI-O takes it up at SIGHUP"


def _path(host: str, place: Place) -> str:
    return place.repository(path_of_registry(host))


def _hosts(host: str, place: Place) -> str:
    url = f"{place.origin}/v2/{_path(host, place)}"
    return (
        f"# Images of {host} come from the mirror, and from nowhere else.\n"
        f"# A private certificate authority: put its file beside this one and take the two `#` away.\n"
        f'server = "{url}"\n'
        'capabilities = ["pull", "resolve"]\n'
        "override_path = true\n"
        '# ca = "ca.crt"\n'
        "\n"
        f'[host."{url}"]\n'
        '  capabilities = ["pull", "resolve"]\n'
        "  override_path = true\n"
        '  # ca = "ca.crt"\n'
    )


def _mirror_sets(sources: Mapping[str, Sequence[str]], place: Place) -> str:
    mirrors = [
        {
            "source": f"{host}/{repository}",
            "mirrors": [f"{place.host}/{_path(host, place)}/{repository}"],
            "mirrorSourcePolicy": "NeverContactSource",
        }
        for host, repositories in sources.items()
        for repository in repositories
    ]
    objects = [
        {
            "apiVersion": "config.openshift.io/v1",
            "kind": kind,
            "metadata": {"name": "sie-mirror"},
            "spec": {key: mirrors},
        }
        for kind, key in (("ImageDigestMirrorSet", "imageDigestMirrors"), ("ImageTagMirrorSet", "imageTagMirrors"))
    ]
    return "".join(f"---\n{yaml.dump(each, Dumper=_Plain, sort_keys=False, width=120)}" for each in objects)


class _Plain(yaml.SafeDumper):
    """Without `&id001`: the two objects share no lines."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _registries_conf(sources: Mapping[str, Sequence[str]], place: Place) -> str:
    """The mirror stands as the location itself: with it as a `mirror`, the source would be tried after it."""
    insecure = "insecure = true\n" if place.origin.startswith("http:") else ""
    return "\n".join(
        f'[[registry]]\nprefix = "{host}/{repository}"\n'
        f'location = "{place.host}/{_path(host, place)}/{repository}"\n{insecure}'
        for host, repositories in sources.items()
        for repository in repositories
    )
