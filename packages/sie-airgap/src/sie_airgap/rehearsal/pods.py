"""What the rendered chart asks a kubelet to run, read as plain values.

`read` takes the objects that `helm template` gave and those that an operator would apply beside them
(Secrets, ConfigMaps) and answers one `Pod` a workload: commands, arguments, environment, volumes and
probes of its containers, all resolved as a kubelet would resolve them. It starts nothing: `rehearse`
does. What a rehearsal cannot honour is listed in `Cluster.not_honoured`, so that it can be said.
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sie_airgap.failures import Failure
from sie_airgap.rehearsal import pod_names
from sie_core.settings import Secret

Objects = Sequence[Mapping[str, Any]]

_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


class ManifestError(Failure):
    """The manifests ask for something that is not there (exit code 4), or that a rehearsal cannot do (2)."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Mount:
    """A volume inside a container. `sub_path` is a file or folder of the volume, or empty for all of it."""

    volume: str
    path: str
    read_only: bool
    sub_path: str = ""


@dataclass(frozen=True)
class Probe:
    """An httpGet probe: every `period_s`, up to `failures` times, each within `timeout_s`."""

    path: str
    port: int
    period_s: float
    timeout_s: float
    failures: int
    initial_delay_s: float


@dataclass(frozen=True)
class Container:
    """One program of a pod, as it is started. `env` holds secrets and is never printed."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: Mapping[str, Secret]
    mounts: tuple[Mount, ...]
    read_only_root: bool
    startup: Probe | None = None
    readiness: Probe | None = None
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """A volume of a pod: `files` of a ConfigMap or Secret, or none for an empty folder; `host` for a folder here."""

    name: str
    files: Mapping[str, Secret] = field(default_factory=dict)
    host: str | None = None


@dataclass(frozen=True)
class Pod:
    """What one workload's first replica runs."""

    name: str
    workload: str
    labels: Mapping[str, str]
    hostname: str
    init: tuple[Container, ...]
    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...]

    @property
    def ports(self) -> set[int]:
        return {port for container in self.containers for port in container.ports.values()}


@dataclass(frozen=True)
class Service:
    """A name that pods are found under; `ports` are those it listens on, the same as the pods' own."""

    name: str
    namespace: str
    pods: tuple[str, ...]
    ports: tuple[int, ...]

    @property
    def host_names(self) -> tuple[str, ...]:
        """Every form under which a pod of the namespace may write it."""
        short = f"{self.name}.{self.namespace}"
        return (self.name, short, f"{short}.svc", f"{short}.svc.cluster.local")


@dataclass(frozen=True)
class Cluster:
    """All that a rehearsal starts, and what of the manifests it leaves out."""

    namespace: str
    pods: tuple[Pod, ...]
    services: tuple[Service, ...]
    not_honoured: tuple[str, ...]


def read(objects: Objects, *, namespace: str, addresses: Iterator[str]) -> Cluster:
    """Every workload as one pod with an address from `addresses`.

    Raises:
        ManifestError: a Secret, ConfigMap or key that is named and not there (exit code 4), or something
            that cannot be rehearsed: an exec probe, a Service that moves a port, no workload at all (2).
        Misused: a name or path that no API server would accept.
    """
    lookup = _Lookup(objects, namespace)
    pods: list[Pod] = []
    skipped: set[str] = set()
    for workload in objects:
        if workload.get("kind") not in _WORKLOADS or _replicas(workload) == 0:
            continue
        pods.append(_pod(workload, lookup, address=next(addresses)))
        skipped.update(_skipped(workload))
    if not pods:
        raise ManifestError("the rendered chart has no workload with a replica", exit_code=2)
    services = tuple(_service(each, pods, namespace) for each in objects if each.get("kind") == "Service")
    return Cluster(namespace=namespace, pods=tuple(pods), services=services, not_honoured=tuple(sorted(skipped)))


def hosts_file(cluster: Cluster, addresses: Mapping[str, str], *, own_name: str, own_address: str) -> str:
    """`/etc/hosts` of a pod: itself, and every Service with a line for each of its pods."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{own_address} {own_name}"]
    for service in cluster.services:
        names = " ".join(service.host_names)
        lines += [f"{addresses[pod]} {names}" for pod in service.pods]
    return "\n".join(lines) + "\n"


class _Lookup:
    """Secrets and ConfigMaps by name, decoded."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self.namespace = namespace
        self._found: dict[tuple[str, str], dict[str, Secret]] = {}
        for each in objects:
            if each.get("kind") in ("Secret", "ConfigMap"):
                self._found[each["kind"], each["metadata"]["name"]] = _data(each)

    def all(self, kind: str, name: str, *, optional: bool) -> Mapping[str, Secret]:
        if (kind, name) in self._found:
            return self._found[kind, name]
        if optional:
            return {}
        raise ManifestError(
            f"{kind} `{name}` is named by the chart and is not among the manifests",
            exit_code=4,
            hint=f"add it to the file given with `--manifests`, as an operator would apply it to namespace "
            f"`{self.namespace}`",
        )

    def one(self, kind: str, reference: Mapping[str, Any]) -> Secret | None:
        optional = bool(reference.get("optional"))
        data = self.all(kind, reference["name"], optional=optional)
        if reference["key"] in data:
            return data[reference["key"]]
        if optional:
            return None
        have = ", ".join(f"`{key}`" for key in sorted(data)) or "no key"
        raise ManifestError(f"{kind} `{reference['name']}` has no key `{reference['key']}`; it has {have}", exit_code=4)


def _data(each: Mapping[str, Any]) -> dict[str, Secret]:
    plain = _checked(each, "stringData")
    if each["kind"] == "ConfigMap":
        return plain | _checked(each, "data")
    decoded = {key: Secret(b64decode(value.reveal()).decode()) for key, value in _checked(each, "data").items()}
    return decoded | plain


def _checked(each: Mapping[str, Any], part: str) -> dict[str, Secret]:
    what = f"{each['kind']} `{each['metadata']['name']}`"
    return {pod_names.key(key, what): Secret(str(value)) for key, value in (each.get(part) or {}).items()}


def _replicas(workload: Mapping[str, Any]) -> int:
    return 1 if workload["kind"] == "DaemonSet" else int(workload["spec"].get("replicas", 1))


def _pod(workload: Mapping[str, Any], lookup: _Lookup, *, address: str) -> Pod:
    template = workload["spec"]["template"]
    spec, own = template["spec"], pod_names.name(workload["metadata"]["name"], f"a {workload['kind']}")
    fields = {
        "metadata.name": f"{own}-0",
        "metadata.namespace": lookup.namespace,
        "status.podIP": address,
        "status.podIPs": address,
        "spec.nodeName": "rehearsal",
    }
    volumes = tuple(_volume(each, lookup) for each in spec.get("volumes") or ())
    return Pod(
        name=own,
        workload=f"{workload['kind']}/{own}",
        labels=template["metadata"].get("labels") or {},
        hostname=spec.get("hostname") or f"{own}-0",
        init=tuple(_container(each, lookup, fields) for each in spec.get("initContainers") or ()),
        containers=tuple(_container(each, lookup, fields) for each in spec["containers"]),
        volumes=volumes,
    )


def _container(each: Mapping[str, Any], lookup: _Lookup, fields: Mapping[str, str]) -> Container:
    env = _environment(each, lookup, fields)
    ports = {
        str(port.get("name", port["containerPort"])): int(port["containerPort"]) for port in each.get("ports") or ()
    }
    argv = tuple(_expanded(str(part), env) for part in [*(each.get("command") or ()), *(each.get("args") or ())])
    if not each.get("command"):
        raise ManifestError(
            f"container `{each['name']}` has no `command`: what its image would start cannot be known here", exit_code=2
        )
    return Container(
        name=pod_names.name(each["name"], "a container"),
        image=each["image"],
        argv=argv,
        env=env,
        mounts=tuple(_mount(mount) for mount in each.get("volumeMounts") or ()),
        read_only_root=bool((each.get("securityContext") or {}).get("readOnlyRootFilesystem")),
        startup=_probe(each, "startupProbe", ports),
        readiness=_probe(each, "readinessProbe", ports),
        ports=ports,
    )


def _environment(each: Mapping[str, Any], lookup: _Lookup, fields: Mapping[str, str]) -> dict[str, Secret]:
    env: dict[str, Secret] = {}
    for source in each.get("envFrom") or ():
        kind, reference = (
            ("Secret", source["secretRef"]) if "secretRef" in source else ("ConfigMap", source["configMapRef"])
        )
        found = lookup.all(kind, reference["name"], optional=bool(reference.get("optional")))
        env.update({source.get("prefix", "") + key: value for key, value in found.items()})
    for variable in each.get("env") or ():
        value = _value(variable, each["name"], lookup, fields, env)
        if value is not None:
            env[variable["name"]] = value
    return env


def _value(
    variable: Mapping[str, Any], container: str, lookup: _Lookup, fields: Mapping[str, str], env: Mapping[str, Secret]
) -> Secret | None:
    source = variable.get("valueFrom")
    if source is None:
        return Secret(_expanded(str(variable.get("value") or ""), env))
    if "secretKeyRef" in source:
        return lookup.one("Secret", source["secretKeyRef"])
    if "configMapKeyRef" in source:
        return lookup.one("ConfigMap", source["configMapKeyRef"])
    path = str((source.get("fieldRef") or {}).get("fieldPath"))
    if path in fields:
        return Secret(fields[path])
    raise ManifestError(
        f"`{variable['name']}` of container `{container}` comes from `{path}` ({', '.join(source)}): "
        "a rehearsal has no such value",
        exit_code=2,
    )


def _expanded(text: str, env: Mapping[str, Secret]) -> str:
    """`$(NAME)` replaced where NAME is set, left as it is where not; `$$` is one dollar."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env[match[2]].reveal() if match[2] in env else match[0]

    return _REFERENCE.sub(replaced, text)


def _mount(mount: Mapping[str, Any]) -> Mount:
    return Mount(
        volume=pod_names.name(mount["name"], "a mounted volume"),
        path=pod_names.absolute_path(mount["mountPath"], f"`mountPath` of volume `{mount['name']}`"),
        read_only=bool(mount.get("readOnly")),
        sub_path=pod_names.inner_path(mount.get("subPath", ""), f"`subPath` of volume `{mount['name']}`"),
    )


def _volume(each: Mapping[str, Any], lookup: _Lookup) -> Volume:
    own = pod_names.name(each["name"], "a volume")
    if "emptyDir" in each:
        return Volume(name=own)
    if "hostPath" in each:
        return Volume(name=own, host=pod_names.absolute_path(each["hostPath"]["path"], f"`hostPath` of volume `{own}`"))
    for source_key, kind, field_name in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")):
        if source_key in each:
            source = each[source_key]
            data = lookup.all(kind, source[field_name], optional=bool(source.get("optional")))
            return Volume(name=own, files=_projected(data, source.get("items"), own))
    kinds = ", ".join(f"`{kind}`" for kind in each if kind != "name")
    raise ManifestError(f"volume `{own}` is a {kinds}, which a rehearsal has not", exit_code=2)


def _projected(
    data: Mapping[str, Secret], items: Sequence[Mapping[str, str]] | None, volume: str
) -> Mapping[str, Secret]:
    """All of the data under its keys, or what `items` names under the paths that it gives."""
    if not items:
        return data
    return {pod_names.inner_path(item["path"], f"a path of volume `{volume}`"): data[item["key"]] for item in items}


def _probe(each: Mapping[str, Any], key: str, ports: Mapping[str, int]) -> Probe | None:
    probe = each.get(key)
    if probe is None:
        return None
    http = probe.get("httpGet")
    if http is None:
        raise ManifestError(f"`{key}` of container `{each['name']}` is not an httpGet probe", exit_code=2)
    port = http["port"]
    return Probe(
        path=http.get("path", "/"),
        port=port if isinstance(port, int) else ports[port],
        period_s=float(probe.get("periodSeconds", 10)),
        timeout_s=float(probe.get("timeoutSeconds", 1)),
        failures=int(probe.get("failureThreshold", 3)),
        initial_delay_s=float(probe.get("initialDelaySeconds", 0)),
    )


def _service(each: Mapping[str, Any], pods: Iterable[Pod], namespace: str) -> Service:
    own, spec = pod_names.name(each["metadata"]["name"], "a Service"), each["spec"]
    selector = spec.get("selector") or {}
    chosen = [pod for pod in pods if selector and selector.items() <= pod.labels.items()]
    ports = tuple(int(port["port"]) for port in spec.get("ports") or ())
    for port in spec.get("ports") or ():
        for pod in chosen:
            target = _target_port(port, pod)
            if target != int(port["port"]):
                raise ManifestError(
                    f"Service `{own}` listens on {port['port']} and its pod `{pod.name}` on {target}: "
                    "a rehearsal does not move ports",
                    exit_code=2,
                )
    return Service(name=own, namespace=namespace, pods=tuple(pod.name for pod in chosen), ports=ports)


def _target_port(port: Mapping[str, Any], pod: Pod) -> int:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod.containers:
        if target in container.ports:
            return container.ports[target]
    raise ManifestError(f"pod `{pod.name}` has no port named `{target}`", exit_code=2)


def _skipped(workload: Mapping[str, Any]) -> Iterable[str]:
    spec = workload["spec"]["template"]["spec"]
    if _replicas(workload) > 1:
        yield f"replicas (one of {_replicas(workload)} of {workload['metadata']['name']})"
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    if spec.get("securityContext") or any(each.get("securityContext") for each in containers):
        yield "security contexts (user, capabilities, seccomp; a read-only root is honoured)"
    if any(each.get("resources") for each in containers):
        yield "resource requests and limits"
    if any(spec.get(key) for key in ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")):
        yield "node selection"
    if any(each.get("livenessProbe") for each in containers):
        yield "liveness probes"
    yield "images (the programs of this environment are started under their names)"
