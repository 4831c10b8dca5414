"""The part of a kubelet, played honestly for the handful of pods of our chart, on one machine.

Init containers run to their end first, then the containers, started with exactly the command, environment,
volumes and probes that were rendered, each pod in a network and a mount namespace of its own. Pods are
plugged into the bridge on which the bucket answers and into nothing else. What a pod asks for and does not
get is in `Cluster.not_honoured`; who calls the pods and what that shows is `rehearse`'s.
"""

import http.client
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from sie_airgap.failures import Failure, Misused
from sie_airgap.rehearsal.netns import Attempts, Bridge, Namespace, PodNamespace, find_bridge
from sie_airgap.rehearsal.pod_roots import ETC_FILES, FILES, VOLUMES, root_script, volumes_script
from sie_airgap.rehearsal.pods import Cluster, Container, Objects, Pod, Probe, hosts_file, read

CLIENT = "client"
_FIRST_HOST = 10
_POLL_S = 0.05
_TAIL_LINES = 15
_REFUSED = re.compile(r"^error: .*\b(403|404)\b", re.MULTILINE)
"""Errors only: sizes in a progress line may be 403 MB as well."""
_WAITS = re.compile(r"^looking again in .*\(exit code (\d+)\)$", re.MULTILINE)
"""What our init container says when only a person can help; it would wait for one for ever."""


class NotReady(Failure):
    """A container ended, or its probe never answered, within the time its own manifest gives it."""

    exit_code = 5


class InitFailed(Failure):
    """An init container reported what does not pass by itself; the exit code is that of its kind."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Endpoint:
    """Something outside the pods that they may reach: a name for messages and an address on the bridge."""

    name: str
    url: str

    @property
    def address(self) -> str:
        """The IPv4 address of the URL.

        Raises:
            Misused: a name instead of an address, or a loopback address, which is another one in every pod.
        """
        host = urlsplit(self.url if "//" in self.url else f"//{self.url}").hostname or ""
        try:
            address = ip_address(host)
        except ValueError as error:
            raise Misused(
                f"the {self.name} is at `{self.url}`: a rehearsal wants an IPv4 address, its pods have no resolver",
                hint="give the address that the bridge of this namespace has",
            ) from error
        if address.is_loopback:
            raise Misused(
                f"the {self.name} is at `{self.url}`: a pod's loopback is its own, nothing of it is there",
                hint="let the server listen on the address of the bridge that the pods are plugged into",
            )
        return str(address)


@dataclass
class _Running:
    """One pod that is up."""

    pod: Pod
    address: str
    namespace: PodNamespace
    processes: dict[str, "Popen[bytes]"] = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """What one namespace's kernel counted: attempts of its programs, and those made on purpose before."""

    name: str
    attempts: Attempts
    control: Attempts
    destinations: tuple[str, ...]


class Kubelet:
    """Runs the pods of one rendered chart until the block is left.

    Args:
        cluster: from `read_cluster`.
        bridge: where pods are plugged in.
        endpoints: what they may reach beside each other.
        counted: whether nftables counts; without it the rest still holds.
        programs: folders of this machine with the interpreter and the packages that the pods' commands run from.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        bridge: Bridge,
        endpoints: Sequence[Endpoint],
        counted: bool,
        here: Namespace,
        programs: Sequence[str] | None = None,
    ) -> None:
        self.cluster = cluster
        self._bridge, self.counted = bridge, counted
        self._here = here
        self._programs = list(programs) if programs is not None else program_folders()
        self._addresses = dict(zip([pod.name for pod in cluster.pods], pod_addresses(bridge), strict=False))
        taken = set(self._addresses.values())
        self._addresses[CLIENT] = next(each for each in pod_addresses(bridge) if each not in taken)
        self._allowed = [bridge.address, *(each.address for each in endpoints), *self._addresses.values()]
        self._running: dict[str, _Running] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Kubelet":
        self._logs = Path(self._stack.enter_context(TemporaryDirectory(prefix="sie-rehearse-")))
        if self.counted:
            self._here.allow(self._allowed)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def address(self, pod: str) -> str:
        return self._addresses[pod]

    def up(self, pod: Pod) -> None:
        """Make the pod's namespaces, network and volumes; nothing of it runs yet. May be called from several threads.

        Containers may not be started from such a thread: they end with the thread that started them.
        """
        namespace = PodNamespace(f"pod {pod.name}")
        self._stack.callback(namespace.close)
        address = self._addresses[pod.name]
        running = _Running(pod=pod, address=address, namespace=namespace)
        self._running[pod.name] = running
        namespace.join(
            self._bridge.name, link=_link_name(address), address=address, prefix_bits=self._bridge.prefix_bits
        )
        namespace.route_into_itself(address, _address6(address))
        if self.counted:
            namespace.start_counting(self._allowed)
        namespace.script(volumes_script(pod))
        self._write_files(running)
        for container in (*pod.init, *pod.containers):
            namespace.script(root_script(container, programs=self._programs))

    def run_init(self, pod: Pod, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Run each init container to its end.

        Raises:
            InitFailed: it reported a 403 (6) or a 404 (4), or waits for a person; the message has what it said.
            NotReady: it failed, or did not end in time.
        """
        for container in pod.init:
            process = self._start(pod, container)
            until = clock() + timeout_s
            while process.poll() is None:
                said = self.log(pod.name, container.name)
                _raise_refused(pod, container, said)
                if clock() > until:
                    raise NotReady(f"init container `{container.name}` did not end in {timeout_s:.0f} s\n{_tail(said)}")
                time.sleep(_POLL_S)
            if process.returncode != 0:
                said = self.log(pod.name, container.name)
                _raise_refused(pod, container, said)
                raise NotReady(f"init container `{container.name}` ended with {process.returncode}\n{_tail(said)}")

    def start(self, pod: Pod) -> None:
        """Start the pod's containers."""
        for container in pod.containers:
            self._start(pod, container)

    def wait_ready(self, pod: Pod, *, timeout_s: float) -> None:
        """Run the startup and then the readiness probe of each container until they answer.

        A probe is asked more often than a kubelet would. A startup probe has the time that its own manifest
        gives it, a readiness probe `timeout_s`: a kubelet would wait for that one for ever.

        Raises:
            NotReady: the container ended, or the probe's time is over; the message has its last lines.
        """
        for container in pod.containers:
            if container.startup is not None:
                startup = container.startup
                budget_s = startup.initial_delay_s + startup.period_s * startup.failures
                self._wait_for(pod, container, startup, timeout_s=budget_s)
            if container.readiness is not None:
                self._wait_for(pod, container, container.readiness, timeout_s=timeout_s)

    def run_client(self, argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
        """Run a program in the client pod to its end: its exit code and what it printed.

        Raises `NotReady` when it does not end in time.
        """
        running = self._running[CLIENT]
        output = self._logs / f"client-{len(running.processes)}.log"
        with output.open("wb") as file:
            process = running.namespace.start(CLIENT, argv, {**_base_env(CLIENT), **env}, file)
            running.processes[output.name] = process
            try:
                code = process.wait(timeout=timeout_s)
            except TimeoutExpired as error:
                process.kill()
                said = _tail(output.read_text(errors="replace"))
                raise NotReady(f"the client pod's program did not end in {timeout_s:.0f} s\n{said}") from error
        return code, output.read_text(errors="replace")

    def up_client(self, service: str, port: int, *, folders: Sequence[str] = ()) -> None:
        """A pod for callers, whose own `localhost:PORT` is relayed to a Service, as `kubectl port-forward` does."""
        argv = (sys.executable, "-m", "sie_airgap.rehearsal.relay", f"127.0.0.1:{port}", f"{service}:{port}")
        container = Container(name=CLIENT, image="", argv=argv, env={}, mounts=(), read_only_root=False)
        pod = Pod(
            name=CLIENT, workload=CLIENT, labels={}, hostname=CLIENT, init=(), containers=(container,), volumes=()
        )
        self._programs += list(folders)
        self.up(pod)
        process = self._start(pod, container)
        until = time.monotonic() + 10
        while "listening" not in self.log(CLIENT, CLIENT):
            if process.poll() is not None or time.monotonic() > until:
                raise NotReady(f"the relay of the client pod does not listen\n{_tail(self.log(CLIENT, CLIENT))}")
            time.sleep(_POLL_S)

    def log(self, pod: str, container: str) -> str:
        """All that a container has printed."""
        path = self._log_path(pod, container)
        return path.read_text(errors="replace") if path.exists() else ""

    def counts(self) -> list[Count]:
        """What each namespace's kernel counted, the caller's own first."""
        spaces = [self._here, *(running.namespace for running in self._running.values())]
        return [
            Count(
                name=each.name,
                attempts=each.attempts(),
                control=each.control(),
                destinations=tuple(each.destinations()),
            )
            for each in spaces
        ]

    def stop(self) -> None:
        """SIGINT to every container, SIGKILL to what is left after ten seconds.

        A kubelet sends SIGTERM, upon which a server goes on for seconds for callers that have not heard yet; here
        nobody calls any more, and SIGINT is what our programs take for that.
        """
        processes = [process for running in self._running.values() for process in running.processes.values()]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        until = time.monotonic() + 10
        for process in processes:
            while process.poll() is None and time.monotonic() < until:
                time.sleep(_POLL_S)
            if process.poll() is None:
                process.kill()
                process.wait()

    def _start(self, pod: Pod, container: Container) -> "Popen[bytes]":
        running = self._running[pod.name]
        env = {**_base_env(pod.hostname), **{name: value.reveal() for name, value in container.env.items()}}
        with self._log_path(pod.name, container.name).open("wb") as output:
            process = running.namespace.start(container.name, container.argv, env, output)
        running.processes[container.name] = process
        return process

    def _log_path(self, pod: str, container: str) -> Path:
        return self._logs / f"{pod}.{container}.log"

    def _wait_for(self, pod: Pod, container: Container, probe: Probe, *, timeout_s: float) -> None:
        process = self._running[pod.name].processes[container.name]
        until = time.monotonic() + timeout_s
        what = f"container `{container.name}` of {pod.workload}"
        while not _answers(self._addresses[pod.name], probe):
            said = _tail(self.log(pod.name, container.name))
            if process.poll() is not None:
                raise NotReady(f"{what} ended with {process.returncode}\n{said}")
            if time.monotonic() > until:
                raise NotReady(f"{what} never answered `{probe.path}`\n{said}")
            time.sleep(_POLL_S)

    def _write_files(self, running: _Running) -> None:
        hosts = hosts_file(self.cluster, self._addresses, own_name=running.pod.hostname, own_address=running.address)
        for name, text in {**ETC_FILES, "hosts": hosts}.items():
            running.namespace.path(f"{FILES}/{name}").write_text(text)
        for volume in running.pod.volumes:
            for name, value in volume.files.items():
                path = running.namespace.path(f"{VOLUMES}/{volume.name}/{name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(value.reveal())


def read_cluster(objects: Objects, *, namespace: str, bridge: Bridge) -> Cluster:
    """The pods of the rendered objects, each with an address on the bridge."""
    return read(objects, namespace=namespace, addresses=pod_addresses(bridge))


def bridge_of(endpoint: Endpoint) -> Bridge:
    """The bridge on which an endpoint answers. Raises `NamespaceError`."""
    return find_bridge(endpoint.address)


def pod_addresses(bridge: Bridge) -> Iterator[str]:
    """Addresses on the bridge for pods, from the tenth on, in order."""
    network = ip_network(f"{bridge.address}/{bridge.prefix_bits}", strict=False)
    for index, each in enumerate(network.hosts(), start=1):
        if index >= _FIRST_HOST and str(each) != bridge.address:
            yield str(each)


def program_folders() -> list[str]:
    """Where this interpreter, its environment and its packages are."""
    return [
        sys.prefix,
        sys.base_prefix,
        *(path for path in sys.path if Path(path).is_absolute() and Path(path).exists()),
    ]


def _base_env(hostname: str) -> dict[str, str]:
    """What every container has beside its own variables; nothing else is inherited."""
    return {"PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "HOSTNAME": hostname}  # noqa: S108


def _link_name(address: str) -> str:
    return "sie" + address.rpartition(".")[2]


def _address6(address: str) -> str:
    return "fd77::" + address.rpartition(".")[2]


def _answers(address: str, probe: Probe) -> bool:
    connection = http.client.HTTPConnection(address, probe.port, timeout=probe.timeout_s)
    try:
        connection.request("GET", probe.path)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _raise_refused(pod: Pod, container: Container, said: str) -> None:
    who = f"init container `{container.name}` of {pod.workload}"
    if refused := _REFUSED.search(said):
        code = 6 if refused[1] == "403" else 4
        raise InitFailed(f"{who} reports {refused[1]}\n{_tail(said)}", exit_code=code)
    if waits := _WAITS.search(said):
        raise InitFailed(f"{who} cannot go on\n{_tail(said)}", exit_code=int(waits[1]))


def _tail(said: str) -> str:
    lines = said.splitlines()[-_TAIL_LINES:]
    return "\n".join(f"  | {line}" for line in lines) if lines else "  | (it printed nothing)"
