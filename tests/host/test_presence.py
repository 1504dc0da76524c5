"""What a running host says of itself in its home."""

from pathlib import Path

from kms_fast.errors import KmsFastError
from kms_fast.host.presence import HostProcess, Presence, list_running


def test_a_long_error_leaves_the_addresses_readable(tmp_path: Path) -> None:
    process = HostProcess(pid=1, version="1", started_ms=0, addresses=("127.0.0.1:1688",), workers=1)
    presence = Presence(tmp_path, process)
    error = KmsFastError("x" * 5000, file="y" * 5000).to_json()
    presence.update(reloads=1, reload_error=error)
    (told,) = list_running(tmp_path)
    presence.close()
    assert (told.addresses, told.reloads) == (("127.0.0.1:1688",), 1)
    assert told.reload_error is not None
    assert KmsFastError.from_json(told.reload_error).message == "x" * 1000
