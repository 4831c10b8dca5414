"""Writes the blocking client from the awaiting one, token by token.

    python tools/unasync.py           write
    python tools/unasync.py --check   exit 1 where the file on disk is not what would be written

`async` and `await` go, names in `NAMES` change, and a line with the words `async only` is left out.
"""

import argparse
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "packages/sie-sdk/src/sie_sdk/client"
SOURCE, TARGET = CLIENT / "async_.py", CLIENT / "sync.py"

NAMES = {
    "SIEAsyncClient": "SIEClient",
    "AwaitingDriver": "BlockingDriver",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
WORDS = {"tasks": "threads"}
"""Changed in docstrings and comments only."""

FIRST = '"""The blocking client. Generated from `async_.py` by `tools/unasync.py`: edit that one."""'


def blocking(source: str) -> str:
    """The blocking form of an awaiting module, not yet laid out.

    Raises:
        ValueError: the module does not begin with a docstring.
    """
    kept = "".join(line for line in source.splitlines(keepends=True) if "async only" not in line)
    tokens = [_changed(token) for token in tokenize.generate_tokens(io.StringIO(kept).readline) if not _goes(token)]
    text = tokenize.untokenize((token.type, token.string) for token in tokens)
    if not text.startswith('"""'):
        raise ValueError("the module has no docstring")
    return FIRST + text[text.index('"""', 3) + 3 :]


def formatted(text: str) -> str:
    """Laid out by ruff, which also removes the blanks that the missing words leave."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file would change")
    check = parser.parse_args(arguments).check
    wanted = formatted(blocking(SOURCE.read_text()))
    if check:
        same = TARGET.exists() and TARGET.read_text() == wanted
        if not same:
            print(f"error: {TARGET.relative_to(ROOT)} is not generated from {SOURCE.name}", file=sys.stderr)
            print("\nhint: `python tools/unasync.py` writes it again", file=sys.stderr)
        return 0 if same else 1
    TARGET.write_text(wanted)
    return 0


def _goes(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.NAME and token.string in ("async", "await")


def _changed(token: tokenize.TokenInfo) -> tokenize.TokenInfo:
    if token.type == tokenize.NAME:
        return token._replace(string=NAMES.get(token.string, token.string))
    if token.type in (tokenize.STRING, tokenize.COMMENT):
        return token._replace(string=_prose(token.string))
    return token


def _prose(text: str) -> str:
    for old, new in {**NAMES, **WORDS}.items():
        text = re.sub(rf"\b{re.escape(old)}\b", new, text)
    return re.sub(r"\b(async|await) ", "", text)


if __name__ == "__main__":
    sys.exit(main())
