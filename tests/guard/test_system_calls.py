"""A worker's system calls per activation stay within their bounds, and a worker that makes more is noticed."""

from collections import Counter
from pathlib import Path

import pytest

from tests.durability.host import planting_environment
from tests.guard.bounds import find_excesses, read_bounds
from tests.guard.system_calls import count_calls, count_system_calls, find_kind, make_cost

LOG = """\
11 epoll_pwait(5<anon_inode:[eventpoll]>, [{events=EPOLLIN, data=0x7}], 1024, 12, NULL, 8) = 1
11 read(14<socket:[77]>, ""..., 65536) = 244
12 fdatasync(9</home/x/host/ledger/segment-00000001.kfl> <unfinished ...>
11 write(14<socket:[77]>, ""..., 1020) = 1020
12 <... fdatasync resumed>) = 0
12 write(8<pipe:[5]>, ""..., 1 <unfinished ...>
11 futex(0x5555, FUTEX_WAKE_PRIVATE, 1) = 1
12 <... write resumed>) = 1
11 pread64(10</home/x/host/counts.db>, ""..., 16, 24) = 16
12 --- SIGTERM {si_signo=SIGTERM} ---
12 +++ exited with 0 +++
"""


def test_each_call_is_counted_once_with_what_it_works_on() -> None:
    assert count_calls(LOG) == {
        "epoll_pwait": 1, "read socket": 1, "write socket": 1, "fdatasync ledger": 1, "write pipe": 1, "futex": 1,
        "pread64 file": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("recvmsg socket", "receives"), ("writev socket", "sends"), ("write pipe", "wake_ups"),
        ("read eventfd", "wake_ups"), ("io_uring_enter", "epoll_changes"), ("epoll_wait", "epoll_waits"),
        ("getpeername socket", "socket_options"), ("pwrite64 ledger", "ledger_writes"),
        ("write ledger", "ledger_writes"), ("pwrite64 file", "other_calls"), ("getrandom", "other_calls"),
    ],
)  # fmt: skip
def test_calls_have_kinds(call: str, kind: str) -> None:
    assert find_kind(call) == kind


def test_what_happens_once_a_load_cancels_out() -> None:
    once = Counter({"read socket": 100 + 64, "write socket": 100, "fdatasync ledger": 10})
    twice = Counter({"read socket": 200 + 64, "write socket": 300, "fdatasync ledger": 30})
    cost = make_cost(once, twice, activations=100, batches=15)
    assert cost.figures["receives"].measured == 1
    assert cost.figures["sends"].measured == 2
    assert cost.figures["ledger_syncs_per_batch"].measured == 2
    assert cost.parts["fdatasync ledger, per batch"] == 2
    assert cost.parts["read socket"] == 1


@pytest.mark.usefixtures("strace")
def test_system_calls_are_within_their_bounds(tmp_path: Path) -> None:
    excesses = find_excesses(count_system_calls(tmp_path), read_bounds().costs)
    assert not excesses, "\n".join(excesses)


@pytest.mark.usefixtures("strace")
def test_a_wasteful_worker_is_noticed(tmp_path: Path) -> None:
    """The negative control: calls for all connections when anything arrives, and a second write for a batch in ten."""
    costs = count_system_calls(tmp_path, planting_environment("asked_sockets", "doubled_record"))
    excesses = "\n".join(find_excesses(costs, read_bounds().costs))
    for work in ("worker, kept open", "worker, a connection each"):
        assert f"{work}: socket_options is" in excesses
        assert f"{work}: ledger_writes_per_batch is" in excesses
    assert "fcntl socket (now" in excesses
    assert "sends is" not in excesses
