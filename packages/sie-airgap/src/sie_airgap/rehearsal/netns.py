"""Network and mount namespaces for a rehearsal, and the kernel's count of attempts to leave them.

Everything is done by util-linux, iproute2 and nftables, as child processes; nothing is named, so a
rehearsal that is killed leaves no namespace, mount or process behind. Needs CAP_NET_ADMIN and
CAP_SYS_ADMIN over the caller's namespace: root has them, and a plain user under `unshare -rnm`.

Counting: each namespace routes everything by default into its own loopback, where the ruleset counts
and refuses it. A namespace without a default route would refuse as well, and count nothing. DNS is
counted before the local accept, because a resolver may listen on 127.0.0.x.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TOOLS = ("unshare", "nsenter", "setpriv", "chroot", "mount", "ip", "nft")
BRIDGE = "sie0"
ATTEMPTS = "att"
CONTROL = "ctl"
KINDS = ("dns", "tcp", "other")
ROOTS = "/mnt"
"""Where a pod's own mount namespace holds the roots of its containers; outside it stays what it was."""

_OUTSIDE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTROL = """
import socket
for kind, port in ((socket.SOCK_STREAM, 443), (socket.SOCK_DGRAM, 53)):
    attempt = socket.socket(socket.AF_INET, kind)
    attempt.settimeout(2)
    try:
        attempt.connect(("203.0.113.7", port))
        attempt.send(b"control")
    except OSError:
        pass
"""


class NamespaceError(Exception):
    """A namespace, a rule or a tool could not be had; the message says which and why."""


@dataclass(frozen=True)
class Attempts:
    """Packets that tried to leave for anything outside the allow list."""

    dns: int = 0
    tcp: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return self.dns + self.tcp + self.other

    def __add__(self, more: "Attempts") -> "Attempts":
        return Attempts(self.dns + more.dns, self.tcp + more.tcp, self.other + more.other)


def missing_tools(tools: Iterable[str] = TOOLS) -> list[str]:
    """Those of the tools that are not on the system's PATH."""
    return [tool for tool in tools if shutil.which(tool, path=_OUTSIDE_PATH) is None]


def tool(name: str) -> str:
    """The absolute path of a system tool: a pod's PATH is its own and says nothing about ours."""
    found = shutil.which(name, path=_OUTSIDE_PATH)
    if found is None:
        raise NamespaceError(f"`{name}` is not installed")
    return found


def ruleset(allowed: Sequence[str]) -> str:
    """The counting ruleset for a namespace that may reach `allowed` (IPv4 addresses) and itself."""
    elements = f"elements = {{ {', '.join(sorted(set(allowed)))} }}; " if allowed else ""
    return (
        "table inet egress {\n"
        + "".join(f"  counter {ATTEMPTS}_{kind} {{}}\n" for kind in KINDS)
        + f"  set allow {{ type ipv4_addr; {elements}}}\n"
        "  set seen { type inet_proto . ipv4_addr . inet_service; size 1024; flags dynamic; }\n"
        "  chain output {\n"
        "    type filter hook output priority 0; policy drop;\n"
        "    meta l4proto { tcp, udp } th dport { 53, 853 } counter name att_dns drop\n"
        "    fib daddr type local accept\n"
        "    ip daddr @allow accept\n"
        "    meta nfproto ipv4 meta l4proto { tcp, udp } update @seen { meta l4proto . ip daddr . th dport }\n"
        "    meta l4proto tcp counter name att_tcp reject with tcp reset\n"
        "    counter name att_other drop\n"
        "  }\n"
        "}\n"
    )


class Namespace:
    """A network namespace that commands can be run in: the caller's own, or a pod's."""

    def __init__(self, name: str, pid: int | None = None) -> None:
        self.name = name
        self.pid = pid

    def enter(self, *, mount: bool = False) -> list[str]:
        """The words before a command that run it inside."""
        if self.pid is None:
            return []
        mounted = [f"--mount=/proc/{self.pid}/ns/mnt"] if mount else []
        return [tool("nsenter"), f"--net=/proc/{self.pid}/ns/net", *mounted, "--"]

    def run(self, command: Sequence[str], *, given: str | None = None) -> str:
        """Run a tool inside to its end. Raises `NamespaceError` with what it said."""
        words = [*self.enter(), tool(command[0]), *command[1:]]
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise NamespaceError(f"`{' '.join(command)}` in {self.name}: {said}")
        return done.stdout

    def ip(self, *commands: str) -> None:
        """Run commands of `ip` inside, in one process."""
        self.run(["ip", "-batch", "-"], given="\n".join(commands) + "\n")

    def route_into_itself(self, address: str, address6: str) -> None:
        """Give loopback the default routes, so that an attempt to leave meets the ruleset and is counted."""
        commands = ["link set lo up", f"route add default dev lo src {address}"]
        if Path("/proc/net/if_inet6").exists():
            commands += [f"addr add {address6}/128 dev lo nodad", f"route add ::/0 dev lo src {address6}"]
        self.ip(*commands)

    def start_counting(self, allowed: Sequence[str]) -> None:
        """Load the ruleset, make one control attempt over TCP and one over DNS, and begin again at 0.

        What the control attempts were counted as is kept in counters of its own, so that whoever reads the
        count later, in another process, can show that it counts.

        Raises:
            NamespaceError: nft is refused, or the control attempts are not counted.
        """
        self.run(["nft", "-f", "-"], given=ruleset(allowed))
        subprocess.run([*self.enter(), sys.executable, "-I", "-S", "-c", _CONTROL], check=False)
        seen = self._count(ATTEMPTS)
        if seen.tcp == 0 or seen.dns == 0:
            raise NamespaceError(f"the counter in {self.name} did not count the control attempts: {seen}")
        kept = "".join(
            f"add counter inet egress {CONTROL}_{kind} {{ packets {packets} bytes 0 }}\n"
            for kind, packets in zip(KINDS, (seen.dns, seen.tcp, seen.other), strict=True)
        )
        self.run(["nft", "-f", "-"], given="reset counters table inet egress\nflush set inet egress seen\n" + kept)

    def is_counting(self) -> bool:
        """Whether `start_counting` has been done here, by this process or another."""
        try:
            return self.control().total > 0
        except (NamespaceError, KeyError):
            return False

    def allow(self, addresses: Sequence[str]) -> None:
        """Add to what may be reached."""
        self.run(["nft", "add", "element", "inet", "egress", "allow", f"{{ {', '.join(addresses)} }}"])

    def attempts(self) -> Attempts:
        """What was counted since the control attempts."""
        return self._count(ATTEMPTS)

    def control(self) -> Attempts:
        """What the control attempts were counted as."""
        return self._count(CONTROL)

    def destinations(self) -> list[str]:
        """Where attempts over IPv4 were going."""
        listed = json.loads(self.run(["nft", "-j", "list", "set", "inet", "egress", "seen"]))
        return sorted(_destinations(listed))

    def _count(self, prefix: str) -> Attempts:
        listed = json.loads(self.run(["nft", "-j", "list", "counters", "table", "inet", "egress"]))
        counters = [each["counter"] for each in listed["nftables"] if "counter" in each]
        packets = {counter["name"]: counter["packets"] for counter in counters}
        return Attempts(*(packets[f"{prefix}_{kind}"] for kind in KINDS))


class PodNamespace(Namespace):
    """A network and a mount namespace of its own, held by a process that ends when we do."""

    def __init__(self, name: str) -> None:
        held = [tool("unshare"), "--net", "--mount", "--propagation", "private", "--", tool("sh"), "-c"]
        # The holder waits for the end of its standard input, which comes when this process ends in any way.
        self._holder = subprocess.Popen(
            [*held, "echo ready; read _ || :"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if _stream(self._holder.stdout).readline() != b"ready\n":
            said = _stream(self._holder.stderr).read().decode().strip()
            self._holder.wait()
            raise NamespaceError(f"no namespace for {name}: {said}")
        super().__init__(name, self._holder.pid)

    def join(self, bridge: str, *, link: str, address: str, prefix_bits: int) -> None:
        """Plug into `bridge` of the caller's namespace as `eth0` with `address`; no packet is sent by coming up."""
        Namespace("the caller's namespace").ip(
            f"link add {link} type veth peer name eth0 netns {self.pid}",
            f"link set {link} addrgenmode none master {bridge}",
            f"link set {link} up",
        )
        self.ip("link set eth0 addrgenmode none", f"addr add {address}/{prefix_bits} dev eth0", "link set eth0 up")

    def script(self, text: str) -> None:
        """Run a shell script inside both namespaces."""
        words = [*self.enter(mount=True), tool("sh"), "-euc", text]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": _OUTSIDE_PATH})
        if done.returncode != 0:
            raise NamespaceError(f"the root of {self.name} could not be made: {done.stderr.strip()}")

    def path(self, inside: str) -> Path:
        """A path of the pod's mount namespace, as it is reached from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def start(
        self, container: str, argv: Sequence[str], env: Mapping[str, str], output: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        """Start a program in a container's root, with exactly `env`; it is killed when this process ends."""
        words = [tool("setpriv"), "--pdeathsig", "KILL", "--", *self.enter(mount=True)]
        words += [tool("chroot"), f"{ROOTS}/{container}", *argv]
        return subprocess.Popen(words, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def close(self) -> None:
        """Let the holder go; the namespaces end with the last process in them."""
        _stream(self._holder.stdin).close()
        self._holder.wait()
        _stream(self._holder.stdout).close()
        _stream(self._holder.stderr).close()


@dataclass(frozen=True)
class Bridge:
    """The bridge of the caller's namespace that pods are plugged into."""

    name: str
    address: str
    prefix_bits: int


def make_far_side(address: str, prefix_bits: int) -> Bridge:
    """Turn the caller's own, empty network namespace into a far side: a bridge at `address`, and the count.

    Raises:
        NamespaceError: the namespace has interfaces already; rules that refuse everything do not belong there.
    """
    here = Namespace("the far side")
    links = [link["ifname"] for link in json.loads(here.run(["ip", "-j", "link", "show"]))]
    if links != ["lo"]:
        raise NamespaceError(f"this network namespace is in use: it has {', '.join(links)}, want `lo` alone")
    bridge = Bridge(name=BRIDGE, address=address, prefix_bits=prefix_bits)
    # Without the first two options, bringing the bridge up sends packets of its own that would be counted.
    here.ip(
        f"link add {bridge.name} type bridge mcast_snooping 0",
        f"link set {bridge.name} addrgenmode none",
        f"addr add {address}/{prefix_bits} dev {bridge.name}",
        f"link set {bridge.name} up",
    )
    here.route_into_itself(address, "fd77::" + address.rpartition(".")[2])
    here.start_counting([address])
    return bridge


def find_bridge(address: str) -> Bridge:
    """The bridge that has `address` (where the bucket answers).

    Raises:
        NamespaceError: no bridge of this namespace has it.
    """
    here = Namespace("the caller's namespace")
    for link in json.loads(here.run(["ip", "-j", "-d", "addr", "show", "type", "bridge"]) or "[]"):
        for each in link.get("addr_info") or ():
            if each.get("local") == address:
                return Bridge(name=link["ifname"], address=address, prefix_bits=each["prefixlen"])
    raise NamespaceError(f"no bridge of this network namespace has the address {address}")


def _destinations(listed: Mapping[str, object]) -> Iterable[str]:
    entries = listed.get("nftables")
    for entry in entries if isinstance(entries, list) else ():
        for element in (entry.get("set") or {}).get("elem") or ():
            concat = (element.get("elem", {}).get("val", {}) if "elem" in element else element).get("concat") or ()
            if concat:
                protocol, address, port = concat
                yield f"{protocol} {address}:{port}"


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise NamespaceError("a child process has no pipe")
    return stream
