"""
The service's log: one JSON object a line on standard error.

What a device sends is never in it, nor the names of sessions: no text, no tokens, no states. A key
is named by its public id.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered; its answer carries the same as X-Request-Id."""


class JsonLines(logging.Formatter):
    """Writes time, level, logger, message, the request, and what ``extra={"facts": …}`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := request_id.get()) is not None:
            line["request"] = request
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(level: str) -> None:
    """Show the service's own log from ``level`` on, and warnings of everything else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("sideplug.cloud").setLevel(level.upper())
