"""Log lines: one event a line, whatever its fields hold."""

import json
import logging

from sie_core.http.log import JsonLine, TextLine

FORGED = "/x\n12:00:00 info all is well\x1b[2K"


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("sie.serve", logging.ERROR, "", 0, "bug", None, None)
    made.fields = fields
    return made


def test_value_from_a_caller_cannot_write_a_line_of_its_own() -> None:
    line = TextLine().format(record(path=FORGED, worker="w 1"))

    assert line.splitlines() == [line]
    assert "\x1b" not in line
    assert line.endswith(" worker=w 1")


def test_json_line_is_one_line_with_the_value_as_it_is() -> None:
    line = JsonLine().format(record(path=FORGED))

    assert line.splitlines() == [line]
    assert json.loads(line)["path"] == FORGED
