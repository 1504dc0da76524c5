"""Logging of the host's processes to stderr: lines for people, or one JSON object each."""

import json
import logging
import sys
import time


def start_logging(level: str, form: str, who: str = "") -> None:
    """Log to stderr from now on; ``who`` tells the processes of one host apart."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(who) if form == "json" else _TextFormatter(who))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _TextFormatter(logging.Formatter):
    def __init__(self, who: str) -> None:
        said_by = f"{who}: " if who else ""
        super().__init__(f"%(asctime)s.%(msecs)03dZ %(levelname)s {said_by}%(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


class _JsonFormatter(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = {"process": who} if who else {}

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._who,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)
