"""One service a home, and how others see that it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kms_fast.client.presence import Presence, find_service
from kms_fast.errors import KmsFastError


def test_a_service_is_seen_while_it_runs(tmp_path: Path) -> None:
    assert find_service(tmp_path) is None
    presence = Presence(tmp_path)
    assert find_service(tmp_path) == os.getpid()
    presence.close()
    assert find_service(tmp_path) is None


def test_a_second_one_is_told_which_process_runs(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    with pytest.raises(KmsFastError) as caught:
        Presence(tmp_path)
    assert (caught.value.result.name, caught.value.details["process"]) == ("CLIENT_RUNNING", os.getpid())
    presence.close()
    Presence(tmp_path).close()


def test_a_killed_service_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from kms_fast.client.presence import Presence\n"
        "kept = Presence(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], timeout=60).returncode == -9
    assert find_service(tmp_path) is None
    Presence(tmp_path).close()
