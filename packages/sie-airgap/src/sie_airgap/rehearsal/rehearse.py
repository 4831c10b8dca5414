"""The far side on one machine: render the chart, run its pods where nothing else is, call them, and count.

`rehearse` takes what an operator would install and answers a `Report`. What runs the pods is `kubelet`; what
refuses and counts is the kernel (`netns`). The caller must be on a far side already (`far_side`): the rules
that refuse everything do not belong into a namespace that is in use.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sie_airgap.charts import helm
from sie_airgap.failures import EgressSeen, Failure, Incomplete, Misused, raise_all
from sie_airgap.rehearsal.guides_call import GuidesCall, call_of
from sie_airgap.rehearsal.kubelet import Count, Endpoint, Kubelet, bridge_of, read_cluster
from sie_airgap.rehearsal.netns import Bridge, Namespace, NamespaceError, missing_tools
from sie_airgap.rehearsal.pods import Cluster, Objects, Service

PORT = 8080
URL = f"http://localhost:{PORT}"
"""Where the client pod reaches the gateway, and an operator once it is kept running."""
_DECLARED = """\
from sie_sdk import SIEClient

print(*SIEClient({url!r}).get_model({model!r}).get('outputs', ()))
"""


class NotCounted(Failure):
    """Namespaces, nftables or the far side around us could not be had: nothing is known about egress."""

    exit_code = 10


class NotAnswered(Failure):
    """The guide's call did not end with an answer."""

    exit_code = 5


@dataclass(frozen=True)
class Release:
    """What an operator would give to `helm upgrade --install`.

    Attributes:
        chart: the `.tgz` from the archive.
        values: files, the later over the earlier; usually the one that `values` wrote.
        manifests: Secrets and ConfigMaps that would be applied beside the chart.
    """

    helm: Path
    chart: Path
    values: tuple[Path, ...]
    manifests: Path | None
    name: str
    namespace: str


@dataclass(frozen=True)
class Call:
    """The guide's call: which model, on which machine profile; `golden` is compared where it is given."""

    model: str
    gpu: str
    golden: Path | None


@dataclass(frozen=True)
class Report:
    """What a rehearsal showed.

    Attributes:
        made: the guide's call, as the model takes it.
        printed: what it printed.
        golden: what the comparison with the recorded answers said, line by line; empty without a record.
        differs: a recorded answer was not reproduced.
        counts: attempts to leave, a namespace each; None where they could not be counted, and `not_counted` says why.
    """

    made: GuidesCall
    printed: str
    golden: tuple[str, ...]
    differs: bool
    counts: tuple[Count, ...] | None
    not_counted: str
    not_honoured: tuple[str, ...]

    @property
    def attempts(self) -> int:
        return sum(each.attempts.total for each in self.counts or ())


Say = Callable[[str, str, float], None]
"""Told of each finished step: its name, what it did, and its seconds."""


@dataclass(frozen=True)
class Stage:
    """A rehearsal that is up: all pods Ready, the client pod beside them."""

    kubelet: Kubelet
    gateway: Service

    def address(self) -> str:
        """Where the gateway answers, for callers on the bridge."""
        return f"{self.kubelet.address(self.gateway.pods[0])}:{PORT}"


@contextmanager
def stage(release: Release, say: Say, *, init_timeout_s: float, folders: Sequence[str]) -> Iterator[Stage]:
    """Bring the chart's pods up, until the block is left.

    Args:
        folders: what the client pod sees of this machine beside the programs.

    Raises:
        NotCounted: no namespaces at all can be had here.
        Failure: from rendering, from the manifests, from a pod that does not become Ready, or from the block;
            with it, first, the attempts to leave that were counted until then.
    """
    with _timed(say, "render") as told:
        objects = render(release)
        endpoints = endpoints_of(objects)
        told.append(f"{len(objects)} objects, as release `{release.name}` in namespace `{release.namespace}`")
    bridge, here = _ground(endpoints)
    cluster = read_cluster(objects, namespace=release.namespace, bridge=bridge)
    gateway = _gateway(cluster)
    counted = here.is_counting()
    with Kubelet(cluster, bridge=bridge, endpoints=endpoints, counted=counted, here=here) as kubelet:
        try:
            _bring_up(kubelet, cluster, say, init_timeout_s=init_timeout_s)
            kubelet.up_client(gateway.name, PORT, folders=folders)
            yield Stage(kubelet=kubelet, gateway=gateway)
        except NamespaceError as error:
            raise NotCounted(f"egress: not counted ({error})") from error
        except Failure as error:
            # Whatever failed may have failed because it could not leave: that is what must be put right.
            raise_all([*egress(kubelet.counts() if counted else ()), error])


def call(on: Stage, wanted: Call, say: Say) -> Report:
    """Make the guide's call from the client pod, compare with what was recorded, and read the counters.

    Raises:
        NotAnswered: the call failed; the message has what it printed.
    """
    with _timed(say, "call") as told:
        made = call_of(_client(on.kubelet, _DECLARED.format(url=URL, model=wanted.model)).split())
        printed = _client(on.kubelet, made.program(wanted.model, wanted.gpu, url=URL))
        told.append(f"the guide's: {made.verb} with gpu={wanted.gpu!r}, wait_for_capacity=True → {printed}")
    golden: list[str] = []
    differs = False
    if wanted.golden is not None:
        with _timed(say, "golden") as told:
            differs, golden = _compare(on.kubelet, wanted.golden)
            told.append(golden[-1] if golden else "nothing was recorded")
    counted = on.kubelet.counted
    return Report(
        made=made,
        printed=printed,
        golden=tuple(golden),
        differs=differs,
        counts=tuple(on.kubelet.counts()) if counted else None,
        not_counted="" if counted else "the namespace of this command does not count: `sie-airgap far-side` makes one",
        not_honoured=on.kubelet.cluster.not_honoured,
    )


def egress(counts: Sequence[Count]) -> list[EgressSeen]:
    """The finding that something tried to leave, if so: where, and for what."""
    seen = [each for each in counts if each.attempts.total]
    if not seen:
        return []
    total = sum(each.attempts.total for each in seen)
    told = "; ".join(f"{each.name}: {attempts_text(each)}" for each in seen)
    return [EgressSeen(f"{total} attempts to leave were counted, in {told}")]


def render(release: Release) -> list[Any]:
    """The chart's objects and those that an operator applies beside them.

    Raises:
        Incomplete: the manifests file is not there.
        Refused: Helm does not render the chart with these values.
    """
    objects: list[Any] = helm.template(
        release.helm, release.chart, release=release.name, namespace=release.namespace, values=release.values
    )
    if release.manifests is not None:
        if not release.manifests.exists():
            raise Incomplete(f"`{release.manifests}` is not there")
        objects += helm.parse(release.manifests.read_text())
    return objects


def endpoints_of(objects: Objects) -> list[Endpoint]:
    """The bucket and the registry that the rendered objects name.

    Raises:
        Misused: workers read weights from no S3-compatible server, so there is nothing to join the pods with.
    """
    workloads = [each for each in objects if each.get("kind") in ("Deployment", "StatefulSet", "DaemonSet")]
    containers = [each for workload in workloads for each in workload["spec"]["template"]["spec"]["containers"]]
    buckets = {
        variable["value"]
        for container in containers
        for variable in container.get("env") or ()
        if variable["name"] == "AWS_ENDPOINT_URL_S3" and variable.get("value")
    }
    if not buckets:
        raise Misused(
            "the values name no bucket with an endpoint of its own: a rehearsal joins its pods with one",
            hint="set `workers.common.clusterCache.endpoint` to the bucket's address on the bridge",
        )
    registries = {each["image"].split("/")[0] for each in containers}
    return [
        *(Endpoint(name="bucket", url=url) for url in sorted(buckets)),
        *(Endpoint(name="registry", url=host) for host in sorted(registries) if _is_address(host)),
    ]


def _is_address(host: str) -> bool:
    return host.split(":")[0].replace(".", "").isdigit()


def _ground(endpoints: Sequence[Endpoint]) -> tuple[Bridge, Namespace]:
    lacking = missing_tools(("unshare", "nsenter", "setpriv", "chroot", "mount", "ip"))
    if lacking:
        raise NotCounted(f"egress: not counted (`{'`, `'.join(lacking)}` not installed), nothing was started")
    for each in endpoints:
        _ = each.address
    try:
        return bridge_of(endpoints[0]), Namespace("far side")
    except NamespaceError as error:
        raise NotCounted(
            f"egress: not counted ({error}), nothing was started",
            hint="`sie-airgap far-side -- COMMAND` runs the bucket, the registry and this command where pods can join",
        ) from error


def _bring_up(kubelet: Kubelet, cluster: Cluster, say: Say, *, init_timeout_s: float) -> None:
    with _timed(say, "pods") as told:
        with ThreadPoolExecutor() as pool:
            list(pool.map(kubelet.up, cluster.pods))
        told.append(f"{_names(cluster)}: each with a network and a root of its own")
    for pod in sorted(cluster.pods, key=lambda pod: len(pod.init)):
        if pod.init:
            with _timed(say, "init") as told:
                kubelet.run_init(pod, timeout_s=init_timeout_s)
                told.append(f"{pod.workload}: {', '.join(f'`{each.name}`' for each in pod.init)} ended with 0")
        kubelet.start(pod)
    with _timed(say, "ready") as told:
        for pod in cluster.pods:
            kubelet.wait_ready(pod, timeout_s=init_timeout_s)
        told.append("every startup and readiness probe answers")


def _names(cluster: Cluster) -> str:
    """The pods' names without what all of them begin with."""
    split = [pod.name.split("-") for pod in cluster.pods]
    shared = min(len(words) for words in split) - 1
    while len({tuple(words[:shared]) for words in split}) > 1:
        shared -= 1
    return ", ".join("-".join(words[shared:]) for words in split)


def _gateway(cluster: Cluster) -> Service:
    for service in cluster.services:
        if service.name.endswith("-gateway") and service.pods:
            return service
    raise Incomplete("the rendered chart has no Service `…-gateway` with a pod behind it")


def _client(kubelet: Kubelet, program: str) -> str:
    code, said = kubelet.run_client([sys.executable, "-c", program], env={}, timeout_s=660)
    if code != 0:
        raise NotAnswered(f"the guide's call ended with {code}\n{said.strip()}")
    return said.strip()


def _compare(kubelet: Kubelet, golden: Path) -> tuple[bool, list[str]]:
    argv = [sys.executable, "-m", "sie_airgap", "golden", "compare", str(golden), "--url", URL]
    code, said = kubelet.run_client(argv, env={}, timeout_s=660)
    if code not in (0, 9):
        raise NotAnswered(f"the comparison with `{golden}` ended with {code}\n{said.strip()}")
    return code == 9, said.strip().splitlines()


@contextmanager
def _timed(say: Say, step: str) -> Iterator[list[str]]:
    began_s = time.monotonic()
    told: list[str] = []
    yield told
    say(step, "; ".join(told), time.monotonic() - began_s)


def lines(report: Report) -> Iterator[str]:
    """The report as an operator reads it."""
    if report.counts is None:
        yield f"egress: not counted ({report.not_counted})"
    else:
        control = sum(each.control.total for each in report.counts)
        where = f"in {len(report.counts)} namespaces, over all their processes, DNS included"
        yield f"egress: {report.attempts} attempts to leave {where} (made on purpose to see that it counts: {control})"
        for each in report.counts:
            if each.attempts.total:
                yield f"  {each.name}: {attempts_text(each)}"
    yield f"not honoured: {'; '.join(report.not_honoured)}"


def attempts_text(each: Count) -> str:
    """What one namespace counted, by kind, and where it was going: `1 DNS, 2 TCP to tcp 203.0.113.9:80`."""
    kinds: Mapping[str, int] = {"DNS": each.attempts.dns, "TCP": each.attempts.tcp, "other": each.attempts.other}
    counted = ", ".join(f"{packets} {kind}" for kind, packets in kinds.items() if packets) or "none"
    return counted + (f" to {', '.join(each.destinations)}" if each.destinations else "")
