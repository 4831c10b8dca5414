"""`python -m bench`: measures, prints a table, and writes the figures as JSON.

python -m bench                       everything, about an hour
python -m bench --quick               everything, about twenty minutes, for a look
python -m bench --only start,hop      some of it
python -m bench --only flat           memory over ten thousand calls, about five minutes
python -m bench --cases short:1:1     some cases of the load
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import archive, download, hashing, inprocess, machine, measures, plot, pushing
from bench.cases import DEFAULT_CASES, Case
from bench.measures import FULL, QUICK, Effort, Row
from sie_testing.cluster import fill_bucket

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "http",
    "start",
    "hop",
    "steady",
    "flat",
    "engine",
    "load",
    "length",
    "download",
    "hashing",
    "pack",
    "archive",
    "push",
)


def main() -> int:
    arguments = _arguments()
    effort = QUICK if arguments.quick else FULL
    about = machine.describe()
    print(f"{about.cpu}, {about.cores} cores ({about.busy_cores} busy), {' '.join(about.flags)}, Python {about.python}")
    print("GEMM ceiling: " + ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in about.gflops.items()))
    rows: list[Row] = []
    share = None
    try:
        for some in _measured(arguments, effort, about):
            rows += some
        share = measures.share_of_ceiling(rows, max(about.gflops.values()))
    finally:  # what was measured before one part failed, or was interrupted, is kept
        print(table(rows))
        if share is not None:
            print(f"\nlong texts, linear layers: {share:.0%} of the highest GEMM ceiling")
        figures: dict[str, object] = {
            "machine": asdict(about),
            "rows": [_plain(row) for row in rows],
            "share_of_ceiling": share,
        }
        _write(arguments.json, figures)
    return 0


def _measured(arguments: argparse.Namespace, effort: Effort, about: machine.Machine) -> Iterator[list[Row]]:
    """The rows of one part after the other."""
    only = arguments.only
    with tempfile.TemporaryDirectory(prefix="sie-bench-") as name:
        folder = Path(name)
        bucket = fill_bucket(folder / "bucket") if {"http", "start", "steady", "flat"} & set(only) else ""
        if "http" in only:
            yield measures.throughput(arguments.cases, effort, bucket, folder, _say)
        if "start" in only:
            yield [measures.start_to_first_answer(effort, bucket, folder, _say)]
        if "hop" in only:
            yield measures.gateway_hop(effort, folder, _say)
        if "steady" in only:
            yield measures.steadiness(effort, bucket, folder, _say)
        if "flat" in only:
            yield [measures.flat_memory(bucket, folder, _say)]
        yield from _carried(only, effort, folder, quick=arguments.quick)
    inside = inprocess.QUICK if arguments.quick else inprocess.FULL
    if "engine" in only:
        yield inprocess.throughput(max(about.gflops.values()), inside, _say)
        yield [inprocess.outputs_of_one_pass(inside, _say)]
    if "load" in only:
        yield inprocess.load("bge-m3", inside, _say)
    if "length" in only:
        longest = 2048 if arguments.quick else 8192
        points = inprocess.cost_against_length("bge-m3-dense", longest, _say)
        arguments.plot.write_text(plot.lengths(points, about.cpu))
        print(f"cost against length in {arguments.plot}")


def _carried(only: Sequence[str], effort: Effort, folder: Path, *, quick: bool) -> Iterator[list[Row]]:
    """What carrying bytes takes."""

    def own(part: str) -> Path:
        (folder / part).mkdir()
        return folder / part

    if "download" in only:
        yield download.downloads(download.QUICK if quick else download.FULL, own("download"), _say)
    if "hashing" in only:
        yield [hashing.hashing(hashing.QUICK if quick else hashing.FULL, own("hashing"), _say)]
    if "pack" in only:
        yield [archive.pack_speed((1 if quick else 4) << 30, effort.rounds, own("pack"), _say)]
    if "archive" in only:
        yield archive.growth(40 if quick else 100, own("archive"), _say)
    if "push" in only:
        yield pushing.push(effort.rounds, (64 if quick else 160) << 20, own("push"), _say)


def table(rows: Sequence[Row]) -> str:
    """Markdown, so that it can stand in `docs/measurements.md` as it is."""
    lines = ["", "| What | ours | peer | × | |", "|---|---:|---:|---:|---|"]
    lines += [
        f"| {row.what} | {_figure(row.ours)} {row.unit} | {_figure(row.peer)} {row.unit} | "
        f"{_figure(row.ratio)} | {row.note} |"
        for row in rows
    ]
    return "\n".join(lines)


def _figure(value: float) -> str:
    """Three digits that matter."""
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _plain(row: Row) -> dict[str, object]:
    """JSON has no NaN: what was not measured is null."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(row).items()
    }


def _write(target: Path, figures: dict[str, object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nfigures in {target}")


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory beside the peers.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--cases", type=_cases, default=list(DEFAULT_CASES), help="KIND:BATCH:CONNECTIONS,…")
    parser.add_argument("--json", type=Path, default=ROOT / ".cache" / "bench.json", help="where the figures go")
    parser.add_argument("--plot", type=Path, default=ROOT / ".cache" / "cost-against-length.svg", help="of `length`")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    found = text.split(",")
    if set(found) - set(PARTS):
        raise argparse.ArgumentTypeError(f"`{text}` is not of {','.join(PARTS)}")
    return found


def _cases(text: str) -> list[Case]:
    try:
        return [Case.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
