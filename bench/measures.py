"""The measurements: each runs ours and the peer in turn, round by round, and returns rows of figures."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import servers
from bench.cases import LONG_TOKENS, Case, bodies
from bench.load import Load, Measured, measure
from bench.servers import ENCODE, Server, free_port, start, started, stop


@dataclass(frozen=True)
class Effort:
    """How long is measured: `seconds` in each of `rounds`, after `warm_s`; twice that for calls of many texts."""

    rounds: int
    seconds: float
    warm_s: float
    starts: int


FULL = Effort(rounds=5, seconds=5.0, warm_s=1.0, starts=7)
QUICK = Effort(rounds=2, seconds=2.5, warm_s=0.5, starts=3)


@dataclass(frozen=True)
class Row:
    """One figure of ours beside the peer's. `ratio` is how many times better ours is, the median over the rounds."""

    what: str
    unit: str
    ours: float
    peer: float
    ratio: float
    note: str = ""


Say = Callable[[str], None]
ONE = bodies(Case("short", 1, 1), calls=1)[0]


def throughput(cases: Sequence[Case], effort: Effort, bucket: str, folder: Path, say: Say) -> list[Row]:
    """Texts a second over HTTP, and at the end the peak memory; infinity beside, where its environment was made."""
    ours_port, peer_port, infinity_port = free_port(), free_port(), free_port()
    infinity = servers.infinity_command(infinity_port)
    if infinity is None:
        say("infinity is not measured: `make bench` could not make its environment, .venv-infinity")
    with ExitStack() as stack:
        ours = stack.enter_context(
            started(servers.worker_command(ours_port, bucket, folder / "cache"), ours_port, folder, ONE)
        )
        peer = stack.enter_context(started(servers.peer_command(peer_port), peer_port, folder, ONE))
        sides = {"ours": ours, "peer": peer}
        if infinity is not None:
            sides["infinity"] = stack.enter_context(started(infinity, infinity_port, folder, ONE))
        measured: dict[tuple[Case, str], list[Measured]] = {}
        for number, case in _each_round(cases, effort):
            # Who goes first alternates: what the machine does meanwhile favours none.
            for name, server in list(sides.items())[:: 1 if number % 2 else -1]:
                measured.setdefault((case, name), []).append(measure(_load(case, server, effort)))
            say(f"round {number + 1}/{effort.rounds}  {case}")
        rows = [_texts_row(case, measured[case, "ours"], measured[case, "peer"]) for case in cases]
        rows += [
            replace(_texts_row(case, measured[case, "ours"], measured[case, "infinity"]), what=f"{case}, infinity")
            for case in cases
            if infinity is not None
        ]
        for name in sides.keys() - {"ours"}:
            ours_mib, peer_mib = ours.peak_rss_mib, sides[name].peak_rss_mib
            what = "peak RSS under all of that" + ("" if name == "peer" else f", {name}")
            rows.append(Row(what, "MiB", ours_mib, peer_mib, peer_mib / ours_mib))
    return rows


def _each_round(cases: Sequence[Case], effort: Effort) -> Iterator[tuple[int, Case]]:
    for number in range(effort.rounds):
        for case in cases:
            yield number, case


def _load(case: Case, server: Server, effort: Effort) -> Load:
    seconds = effort.seconds if case.batch == 1 else 2 * effort.seconds
    return Load("127.0.0.1", server.port, ENCODE, bodies(case), case.connections, effort.warm_s, seconds)


def _texts_row(case: Case, ours: Sequence[Measured], peer: Sequence[Measured]) -> Row:
    ours_s = [case.batch * one.calls / one.seconds for one in ours]
    peer_s = [case.batch * one.calls / one.seconds for one in peer]
    ratio = statistics.median(a / b for a, b in zip(ours_s, peer_s, strict=True))
    p50 = statistics.median(one.p50_ms for one in ours), statistics.median(one.p50_ms for one in peer)
    note = f"p50 {p50[0]:.1f} ms, peer {p50[1]:.1f}"
    return Row(str(case), "texts/s", statistics.median(ours_s), statistics.median(peer_s), ratio, note)


def share_of_ceiling(rows: Sequence[Row], gflops: float, *, mflop_per_token: float = 21.2) -> float | None:
    """How much of the GEMM ceiling the long texts used, ours; None where they were not measured.

    21.2 MFLOP a token is what the linear layers of all-MiniLM-L6-v2 cost.
    """
    long = next((row for row in rows if row.what.startswith("long:")), None)
    return None if long is None else long.ours * LONG_TOKENS * mflop_per_token / 1000 / gflops


def start_to_first_answer(effort: Effort, bucket: str, folder: Path, say: Say) -> Row:
    """Seconds from starting the process to its first answered call; the first start of each only warms the cache."""
    took: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(effort.starts + 1):
        for name in ("ours", "peer") if number % 2 else ("peer", "ours"):
            port = free_port()
            command = (
                servers.worker_command(port, bucket, folder / "cache") if name == "ours" else servers.peer_command(port)
            )
            began_s = time.monotonic()
            server = start(command, port, folder)
            try:
                took[name].append(servers.first_answer(server, ONE) - began_s)
            finally:
                stop(server)
        say(f"start {number}/{effort.starts}  {took['ours'][-1]:.2f} s, peer {took['peer'][-1]:.2f} s")
    ours, peer = took["ours"][1:], took["peer"][1:]
    ratio = statistics.median(b / a for a, b in zip(ours, peer, strict=True))
    return Row("process start to first answer", "s", statistics.median(ours), statistics.median(peer), ratio)


def gateway_hop(effort: Effort, folder: Path, say: Say) -> list[Row]:
    """What a hop costs before a worker that answers at once: ours beside nginx, where that is installed."""
    stub_port, gateway_port, nginx_port = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        ways = {
            "direct": stack.enter_context(started(servers.stub_command(stub_port), stub_port, folder, ONE)),
            "ours": stack.enter_context(
                started(servers.gateway_command(gateway_port, stub_port), gateway_port, folder, ONE)
            ),
        }
        nginx = servers.nginx_command(nginx_port, stub_port, folder)
        if nginx is not None:
            ways["nginx"] = stack.enter_context(started(nginx, nginx_port, folder, ONE))
        alone, many = Case("short", 1, 1), Case("short", 1, 16)
        measured: dict[tuple[str, Case], list[Measured]] = {}
        for number, case in _each_round((alone, many), effort):
            for name, server in ways.items():
                measured.setdefault((name, case), []).append(measure(_load(case, server, effort)))
            say(f"round {number + 1}/{effort.rounds}  hop, {case.connections} connections")
    return _hop_rows(measured, alone, many, nginx is not None)


def _hop_rows(measured: dict[tuple[str, Case], list[Measured]], alone: Case, many: Case, has_nginx: bool) -> list[Row]:
    def added_ms(name: str) -> float:
        pairs = zip(measured[name, alone], measured["direct", alone], strict=True)
        return statistics.median(through.p50_ms - direct.p50_ms for through, direct in pairs)

    def share(name: str) -> float:
        pairs = zip(measured[name, many], measured["direct", many], strict=True)
        return statistics.median(
            (through.calls / through.seconds) / (direct.calls / direct.seconds) for through, direct in pairs
        )

    nan = float("nan")
    ours_ms, nginx_ms = added_ms("ours"), added_ms("nginx") if has_nginx else nan
    ours_share, nginx_share = share("ours"), share("nginx") if has_nginx else nan
    peer = "peer: nginx" if has_nginx else "nginx is not installed"
    return [
        Row("gateway hop: p50 added, 1 connection", "ms", ours_ms, nginx_ms, nginx_ms / ours_ms, peer),
        Row(
            "gateway hop: share of direct, 16 connections", "", ours_share, nginx_share, ours_share / nginx_share, peer
        ),
    ]


FLAT_CALLS = 10_000
_FLAT_AT_ONCE = 16


def flat_memory(bucket: str, folder: Path, say: Say) -> Row:
    """What ten thousand calls of random lengths leave in memory, no two texts the same; five minutes on two cores.

    Before it, a tenth of them: what is kept for each size of a batch is there then.
    """
    port = free_port()
    drawn = bodies(Case("any", 1, _FLAT_AT_ONCE), calls=FLAT_CALLS + FLAT_CALLS // 10)
    with started(servers.worker_command(port, bucket, folder / "cache"), port, folder, ONE) as ours:
        done, before_mib = -FLAT_CALLS // 10, 0.0
        while done < FLAT_CALLS:
            some = drawn[FLAT_CALLS // 10 + done :]
            load = Load("127.0.0.1", ours.port, ENCODE, some, _FLAT_AT_ONCE, 0.0, 5.0)
            done += measure(load).calls
            if not before_mib and done >= 0:
                before_mib = ours.anonymous_mib
            say(f"{done}/{FLAT_CALLS} calls: {ours.anonymous_mib:.0f} MiB")
        grown_mib = ours.anonymous_mib - before_mib
    nan = float("nan")
    what = f"memory grown by {done} calls of random lengths"
    return Row(what, "MiB", grown_mib, nan, nan, "ours alone; aim + 60")


STEADY_CONNECTIONS = (1, 4, 16, 64)


def steadiness(effort: Effort, bucket: str, folder: Path, say: Say) -> list[Row]:
    """What a token costs with few and with many clients, and what ten thousand calls leave in memory; ours alone."""
    port = free_port()
    calls = 10_000 if effort is FULL else 3_000
    with started(servers.worker_command(port, bucket, folder / "cache"), port, folder, ONE) as ours:
        speeds: dict[int, float] = {}
        for connections in STEADY_CONNECTIONS:
            measured = measure(_load(Case("mixed", 1, connections), ours, effort))
            speeds[connections] = measured.calls / measured.seconds
            say(f"{connections} connections: {speeds[connections]:.0f} texts/s")
        before_mib = ours.peak_rss_mib
        done = 0
        while done < calls:
            measured = measure(_load(Case("mixed", 1, 16), ours, effort))
            done += measured.calls
        grown_mib = ours.peak_rss_mib - before_mib
        say(f"{done} calls: {grown_mib:+.0f} MiB")
    nan = float("nan")
    rows = [
        Row(f"mixed lengths, {connections} connections", "texts/s", speed, nan, nan, "ours alone")
        for connections, speed in speeds.items()
    ]
    return [*rows, Row(f"peak memory grown by {done} calls of mixed lengths", "MiB", grown_mib, nan, nan, "ours alone")]
