"""What a benchmark ran on, for its report."""

import platform
import subprocess
import time
from typing import Any

from checkout import ROOT

from kms_fast import __version__
from kms_fast._core import backend
from kms_fast.load import page


def read_commit() -> str | None:
    """The checkout's commit, with "-dirty" after it when files differ from it; None outside of a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def describe_machine() -> dict[str, Any]:
    """Date, commit, processor and versions, as they stand in every report."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": read_commit(),
        "version": __version__,
        "machine": page.describe_machine(),
        "python": platform.python_version(),
        "backend": backend(),
    }
