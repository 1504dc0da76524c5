"""What a benchmark ran on, for its report."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from checkout import ROOT

from kms_fast import __version__
from kms_fast._core import backend


def read_commit() -> str | None:
    """The checkout's commit, with "-dirty" after it when files differ from it; None outside of a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def describe_machine() -> dict[str, Any]:
    """Date, commit, processor and versions, as they stand in every report."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": read_commit(),
        "version": __version__,
        "machine": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "backend": backend(),
    }
