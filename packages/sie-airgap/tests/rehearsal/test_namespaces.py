"""What leaves a namespace is refused and counted by the kernel; what stays is not. Real namespaces, real nftables."""

import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sie_airgap.rehearsal.netns import missing_tools, ruleset

FAR_SIDE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "--mount"]

pytestmark = pytest.mark.skipif(
    bool(missing_tools()) or subprocess.run([*FAR_SIDE, "true"], check=False, capture_output=True).returncode != 0,
    reason="needs network namespaces and nftables: `make setup` as root installs nftables",
)

PRELUDE = """
import socket, subprocess, sys
from sie_airgap.rehearsal.netns import *
from sie_airgap.rehearsal.pod_roots import *
from sie_airgap.rehearsal.pods import *

def attempt(namespace, text):
    return subprocess.run([*namespace.enter(), sys.executable, "-c", text], check=False, capture_output=True, text=True)
"""
TCP = "import socket; socket.create_connection(('203.0.113.9', 80), 2)"
UDP = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ('203.0.113.9', 9))"
V6 = "import socket; socket.create_connection(('2001:db8::1', 80), 2)"
DNS = "import socket; socket.getaddrinfo('huggingface.co', 443)"


def far_side(body: str) -> list[str]:
    """Run Python in an empty network namespace of its own; what it printed, by line."""
    program = PRELUDE + textwrap.dedent(body)
    done = subprocess.run(
        [*FAR_SIDE, sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_control_attempts_show_that_the_counter_counts_and_are_not_in_the_count():
    lines = far_side("""
        make_far_side("10.77.0.1", 24)
        here = Namespace("here")
        print(here.control().tcp, here.control().dns, here.attempts().total, here.is_counting())
    """)

    assert lines == ["1 1 0 True"]


@pytest.mark.parametrize(
    ("attempt", "counted"), [(TCP, "0 1 0"), (UDP, "0 0 1"), (V6, "0 1 0")], ids=["tcp", "udp", "ipv6"]
)
def test_each_attempt_to_leave_a_pod_fails_and_is_counted_once(attempt: str, counted: str):
    lines = far_side(f"""
        make_far_side("10.77.0.1", 24)
        pod = PodNamespace("pod")
        pod.join("sie0", link="sie10", address="10.77.0.10", prefix_bits=24)
        pod.route_into_itself("10.77.0.10", "fd77::10")
        pod.start_counting(["10.77.0.1"])
        print(attempt(pod, {attempt!r}).returncode)
        seen = pod.attempts()
        print(seen.dns, seen.tcp, seen.other)
        pod.close()
    """)

    assert lines == ["1", counted]


def test_name_that_is_looked_up_is_counted_as_dns():
    lines = far_side(f"""
        make_far_side("10.77.0.1", 24)
        attempt(Namespace("here"), {DNS!r})
        print(Namespace("here").attempts().dns > 0)
    """)

    assert lines == ["True"]


def test_pod_reaches_the_bridge_and_nothing_is_counted():
    lines = far_side("""
        make_far_side("10.77.0.1", 24)
        here = Namespace("here")
        here.allow(["10.77.0.10"])
        pod = PodNamespace("pod")
        pod.join("sie0", link="sie10", address="10.77.0.10", prefix_bits=24)
        pod.route_into_itself("10.77.0.10", "fd77::10")
        pod.start_counting(["10.77.0.1"])
        server = socket.create_server(("10.77.0.1", 8000))
        print(attempt(pod, "import socket; socket.create_connection(('10.77.0.1', 8000), 2)").returncode)
        print(here.attempts().total, pod.attempts().total)
        pod.close()
    """)

    assert lines == ["0", "0 0"]


def test_destination_of_an_attempt_is_named():
    lines = far_side(f"""
        make_far_side("10.77.0.1", 24)
        attempt(Namespace("here"), {TCP!r})
        print(Namespace("here").destinations())
    """)

    assert lines == ["['tcp 203.0.113.9:80']"]


def test_namespace_in_use_is_not_turned_into_a_far_side():
    lines = far_side("""
        make_far_side("10.77.0.1", 24)
        try:
            make_far_side("10.77.0.1", 24)
        except NamespaceError as error:
            print(error)
    """)

    assert "in use" in lines[0]


def test_root_of_a_container_is_read_only_and_has_its_volumes(tmp_path: Path):
    (tmp_path / "given.txt").write_text("from here")
    lines = far_side(f"""
        pod = PodNamespace("pod")
        mounts = (Mount("data", "/data", False), Mount("host", "/host", True))
        script = "touch /x /host/x 2>/dev/null; cat /host/given.txt && touch /data/y && echo done; env"
        container = Container("c", "", ("sh", "-c", script), {{}}, mounts, True)
        shown = Pod("p", "p", {{}}, "p", (), (container,), (Volume("data"), Volume("host", host={str(tmp_path)!r})))
        pod.script(volumes_script(shown))
        for name, text in ETC_FILES.items():
            pod.path(FILES + "/" + name).write_text(text)
        pod.script(root_script(container, programs=[]))
        with open({str(tmp_path / "out")!r}, "wb") as output:
            print(pod.start("c", container.argv, {{"PATH": "/usr/bin:/bin", "ONLY": "this"}}, output).wait())
        pod.close()
    """)
    said = (tmp_path / "out").read_text()

    assert lines == ["0"]
    assert "from heredone" in said.replace("\n", "")
    assert {line for line in said.splitlines() if "=" in line} == {"PATH=/usr/bin:/bin", "ONLY=this", "PWD=/"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.txt", "out"]


def test_nothing_is_left_of_a_rehearsal_that_is_killed():
    body = """
        make_far_side("10.77.0.1", 24)
        pod = PodNamespace("pod")
        container = Container("c", "", ("sleep", "600"), {}, (), False)
        shown = Pod("p", "p", {}, "p", (), (container,), ())
        pod.script(volumes_script(shown))
        pod.path(FILES + "/hosts").write_text("127.0.0.1 localhost")
        pod.script(root_script(container, programs=[]))
        process = pod.start("c", container.argv, {"PATH": "/usr/bin:/bin"}, sys.stderr.buffer)
        print(process.pid, pod.pid, flush=True)
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [*FAR_SIDE, sys.executable, "-c", PRELUDE + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    pids = [int(pid) for pid in done.stdout.split()]

    assert len(pids) == 2, done.stderr
    assert all(ends_within(pid, seconds=20) for pid in pids)


def ends_within(pid: int, *, seconds: float) -> bool:
    """Whether a process, no child of ours, is gone or goes in time."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def test_ruleset_counts_dns_before_it_accepts_what_is_local():
    rules = ruleset(["10.0.0.1"])

    assert rules.index("att_dns drop") < rules.index("fib daddr type local accept")
