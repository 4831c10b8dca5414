"""Log lines: one event with fields, as JSON for machines or as text for people, on stderr.

`logger.info("listening", extra={"fields": {"url": url}})` is the whole interface. Texts of requests are
never logged, and settings that are secrets have no readable form.
"""

import json
import logging
import sys
import time

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(level: str, *, as_json: bool) -> None:
    """Set the process up to log; raises `ValueError` for a level that is not one of `LEVELS`."""
    if level.upper() not in LEVELS:
        raise ValueError(f"`SIE_LOG_LEVEL` is `{level}`, want one of {', '.join(f'`{name}`' for name in LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if as_json else TextLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sie").setLevel(level.upper())


class JsonLine(logging.Formatter):
    """`{"time", "level", "logger", "event", …fields}` on one line; the traceback, if any, in `error`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextLine(logging.Formatter):
    """`12:00:00 info listening url=http://…`, the traceback, if any, below.

    A value with a line end or an escape sequence in it is shown quoted: a path is the caller's own, and could write
    lines that nobody logged.
    """

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {key}={_shown(value)}" for key, value in getattr(record, "fields", {}).items())
        line = f"{clock} {record.levelname.lower()} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else repr(text)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
