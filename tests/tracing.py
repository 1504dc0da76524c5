"""strace on a running host's worker."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts import RunningHost


@contextmanager
def traced(program: str, host: RunningHost, *options: str) -> Iterator[Path]:
    """strace on every thread of the host's worker while the block runs; gives its log, complete after the block.

    Raises PermissionError where the system does not let a process be traced.
    """
    log = host.realm.home.parent / "strace.log"
    (worker,) = host.worker_pids()
    command = [program, "-f", "-p", str(worker), "-o", str(log), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr
        line = tracer.stderr.readline()
        if "attached" not in line:
            raise PermissionError(line)
        yield log
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
