"""Logging as JSON lines, one object a line, for log collectors; and a limit on how many lines a node writes."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from tactus.hal.error_report import describe
from tactus.runtime.rate import Rate
from tactus.runtime.wire.codec import WireError

LINES_PER_S = 50.0

OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else was passed as `extra` and becomes a field."""


def json_line(level: str, logger: str, message: str, **fields: Any) -> str:
    """Keys time (ISO 8601, UTC), level, logger and message, then the fields that are not None.

    Only what is passed is written: no config, no environment, and so no key.
    """
    about = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "logger": logger}
    known = {key: value for key, value in fields.items() if value is not None}
    return json.dumps({**about, "message": message, **known}, default=str)


class JsonFormatter(logging.Formatter):
    """Of log records; `extra` becomes fields, a WireError among the arguments gives `code`, a traceback `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in vars(record).items() if key not in OWN}
        arguments = record.args if isinstance(record.args, tuple) else ()
        codes = [argument.code for argument in arguments if isinstance(argument, WireError)]
        if codes:
            fields.setdefault("code", codes[0])
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(record.levelname.lower(), record.name, record.getMessage(), **fields)


class LineFormatter(logging.Formatter):
    """A line per record; of an exception, what was raised and the file that holds its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        raised = record.exc_info[1] if record.exc_info else None
        text = super().format(logging.makeLogRecord({**vars(record), "exc_info": None, "exc_text": None}))
        return f"{text}: {describe(raised)}" if raised else text


class SparingHandler(logging.StreamHandler):
    """Writes LINES_PER_S on average, a second's worth at once, so that a flood of complaints fills no disk."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._rate = Rate(LINES_PER_S)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._rate.allows(time.monotonic()):
            self._dropped += 1
            return
        if self._dropped:
            text = f"{self._dropped} lines were left out, more than {LINES_PER_S:g} a second"
            super().emit(logging.makeLogRecord({"name": record.name, "levelname": "WARNING", "msg": text}))
            self._dropped = 0
        super().emit(record)


def log_to(stream: Any, log_format: str, text: str) -> None:
    """Everything logged goes to `stream`. log_format: json, or text, which looks as the format string `text` says."""
    handler = SparingHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else LineFormatter(text))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
