"""`make fuzz`: every target for a while, one after the other; what is found is kept, and how to see it again is told.

python -m fuzz                       each for 20 seconds
python -m fuzz --seconds 60          each for longer
python -m fuzz --only lock,pickle    some of them
python -m fuzz --replay FILE         what was found, once more; the folder is the target's name
"""

import argparse
import subprocess
import sys
from pathlib import Path

from fuzz.targets import TARGETS

FOUND = Path(__file__).resolve().parents[1] / ".cache" / "fuzz"
_MOST_MIB, _LONGEST_S = 2048, 20


def main() -> int:
    arguments = _arguments()
    if arguments.replay is not None:
        taken = TARGETS[arguments.replay.parent.name].check(arguments.replay.read_bytes())
        print(f"{arguments.replay}: {'taken' if taken else 'refused as it should be'}")
        return 0
    failed = [name for name in arguments.only if not _ran(name, arguments.seconds)]
    print(
        f"fuzz: {len(arguments.only)} targets, {len(failed)} with findings{': ' if failed else ''}{', '.join(failed)}"
    )
    return 1 if failed else 0


def _ran(name: str, seconds: int) -> bool:
    """Whether nothing was found; the corpus that coverage led to is kept for the next run."""
    folder, corpus = FOUND / name, FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    flags = [f"-max_total_time={seconds}", f"-max_len={TARGETS[name].most_bytes}", f"-artifact_prefix={folder}/"]
    flags += [f"-rss_limit_mb={_MOST_MIB}", f"-timeout={_LONGEST_S}", "-print_final_stats=1"]
    words = [sys.executable, "-m", "fuzz.guided", name, *flags, str(corpus)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    tried = said.partition("stat::number_of_executed_units:")[2].split()[:1]
    print(f"fuzz: {name}: {tried[0] if tried else 'none'} tried", flush=True)
    if done.returncode:
        print(said[-6000:])
        for path in sorted(folder.glob("*-*")):
            print(f"fuzz: again: python -m fuzz --replay {path}")
    return done.returncode == 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description="what comes from outside, altered for ever")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default: 20)")
    parser.add_argument("--only", type=_names, default=list(TARGETS), help="targets, joined by commas")
    parser.add_argument("--replay", type=Path, help="a file that was found")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in TARGETS:
            raise argparse.ArgumentTypeError(f"`{name}` is no target; there are {', '.join(TARGETS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
