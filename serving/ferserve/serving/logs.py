"""Logs on standard error: one line a record, as text for people or as JSON for collectors.

What a call site passes as `extra=` becomes fields of the line. Whatever is logged while a request is worked on carries
its `request_id`, which the protocols set in `REQUEST_ID`. No pixel, no path and no score is ever passed.
"""

import logging
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TextIO

import orjson

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id")
LEVELS: Final = ("debug", "info", "warning", "error")
_NO_EXTRA: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_CHATTY: Final = ("uvicorn", "uvicorn.error", "asyncio")
"""They tell of every start and connection at `info`; what they warn of is kept."""
_ABOUT_CALLERS: Final = ("PIL", "python_multipart")
"""They log what is broken about files and forms: the caller's affair, who is told and could fill the log with it."""


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged, and how.

    Attributes:
        level: one of `LEVELS`; what lies below is left out.
        format: text or json.
        requests: whether each request gets a record of its own, at level info: its id, method, code and duration.
    """

    level: str = "info"
    format: LogFormat = LogFormat.TEXT
    requests: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {self.level!r}")


def configure_logging(config: LogConfig, stream: TextIO = sys.stderr) -> None:
    """Send every record of this process to `stream`; replaces what was configured before."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_add_request_id)
    handler.setFormatter(JsonFormatter() if config.format is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(config.level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _ABOUT_CALLERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class TextFormatter(logging.Formatter):
    """`2026-11-22T17:00:00.123Z INFO ferserve.serving.app: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a traceback follows on lines of its own."""
        fields = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the record's own fields, and a traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line: dict[str, Any] = {
            **_extra(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _add_request_id(record: logging.LogRecord) -> bool:
    request_id = REQUEST_ID.get(None)
    if request_id is not None and not hasattr(record, "request_id"):
        record.request_id = request_id
    return True


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _NO_EXTRA}


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
