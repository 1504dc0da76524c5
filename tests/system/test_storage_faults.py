"""Storage that fails, files that are damaged or another's: no wrong answer, nothing lost once the cause is gone.

Real hosts; what they told is compared with their ledger by the reference. docs/ledger.md, "When storage fails".
"""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import pytest

from tests.durability.claims import Findings
from tests.durability.stores import check_inventory
from tests.hosts import PUBLISHER_ID, Realm, RunningHost, make_realm, run_cli, serve
from tests.reference.answer import Leaf
from tests.reference.ledger import ENTRY_SIZE, Segment, check_ledger
from tests.reference.rpc import Connection
from tests.reference.verify import Verified
from tests.system.asker import Asker

THRESHOLD = 3
FDATASYNC = "posix/io/sync/fdatasync"


@dataclass
class Clients:
    """Machines of a realm, each asking once, and what they were told."""

    realm: Realm
    told: list[Verified] = field(default_factory=list)

    def ask(self, host: RunningHost) -> bool:
        """One machine asks; whether it got a signed answer, which passes every check of a client."""
        asker = Asker.of(self.realm, "desktop")
        asked = asker.ask()
        try:
            with Connection(host.address) as connection:
                connection.bind()
                answer, _ = connection.call(asked.request)
        except OSError:
            return False
        if answer is not None:
            self.told.append(asker.check(asked, answer))
        return answer is not None

    def ask_often(self, host: RunningHost, times: int) -> None:
        """So many machines, each of which must be answered."""
        for _ in range(times):
            assert self.ask(host)

    def ask_until_answered(self, host: RunningHost) -> None:
        """Ask until the host answers again, as it must without being touched."""
        end_s = time.monotonic() + 30
        while not self.ask(host):
            assert time.monotonic() < end_s
            time.sleep(0.1)

    def check(self) -> list[Segment]:
        """The ledger, which verifies, holds all that was told exactly once, and whose counts never went back."""
        assert run_cli("ledger", "verify", home=self.realm.home)[1]["ok"]
        segments = check_ledger(self.realm.home / "host" / "ledger", (self.realm.root,), PUBLISHER_ID)
        leaves = [Leaf.parse(leaf) for segment in segments for record in segment.records for leaf in record.leaves]
        assert [leaves.count(verified.leaf) for verified in self.told] == [1] * len(self.told)
        counts = [verified.leaf.current_count for verified in self.told]
        assert counts == sorted(counts)
        assert counts[-1] == min(2 * THRESHOLD, len(counts))
        return segments


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    """Clients of a new realm."""
    return Clients(make_realm(tmp_path, threshold=THRESHOLD))


class Disk:
    """A file system of its own on a file, which can fail as a broken disk makes it fail."""

    def __init__(self, folder: Path) -> None:
        self.mounted = folder / "disk"
        self._image = folder / "disk.img"
        self.mounted.mkdir()
        with self._image.open("wb") as image:
            image.truncate(192 << 20)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True, timeout=60)

    def mount(self) -> bool:
        """Whether it could be mounted."""
        command = ["mount", "-o", "loop", self._image, self.mounted]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    def unmount(self) -> None:
        """Take it away; nobody uses it any more."""
        subprocess.run(["umount", self.mounted], check=True, timeout=60)

    def fail(self) -> None:
        """From now on the kernel refuses every write, as after an error of the disk."""
        subprocess.run(["mount", "-o", "remount,abort", self.mounted], check=True, timeout=60)

    def repair(self) -> None:
        """Check the unmounted file system, as an administrator does."""
        done = subprocess.run(["e2fsck", "-fy", self._image], capture_output=True, timeout=60)
        assert done.returncode in (0, 1), done.stdout


@pytest.fixture
def disk(tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> Iterator[Disk]:
    """A mounted disk."""
    if shutil.which("mkfs.ext4") is None:
        unavailable("mkfs.ext4 is not installed")
    made = Disk(tmp_path)
    if os.geteuid() != 0 or not made.mount():
        unavailable("mounting a file system on a file needs root and loop devices")
    yield made
    subprocess.run(["umount", "-l", made.mounted], capture_output=True, timeout=60)


def test_a_disk_that_becomes_read_only(disk: Disk, clients: Clients) -> None:
    shutil.move(clients.realm.home, disk.mounted / "home")
    os.sync()  # what the host does not write is not its to sync
    clients.realm = replace(clients.realm, home=disk.mounted / "home")
    with serve(clients.realm, "--low-water", "0B") as host:
        clients.ask_often(host, 10)
        disk.fail()
        assert not clients.ask(host)
        # Its workers cannot open a segment any more, and a crash loop ends it.
        while host.process.poll() is None:
            assert not clients.ask(host)
        assert host.process.returncode == 1
    disk.unmount()
    disk.repair()
    assert disk.mount()
    with serve(clients.realm, "--low-water", "0B") as host:
        clients.ask_often(host, 2)
        assert host.stop() == 0
    clients.check()


@pytest.fixture
def faults(tmp_path: Path, require_tool: Callable[[str], str]) -> Callable[..., dict[str, str]]:
    """Call it with failure points of libfiu: the environment of a process in which they are enabled."""
    program = require_tool("fiu-run")

    def make(*commands: str) -> dict[str, str]:
        options = [word for command in commands for word in ("-c", command)]
        command = [program, "-x", "-f", str(tmp_path / "fiu"), *options, "env", "-0"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        fields = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
        return {name: value for name, value in fields.items() if name == "LD_PRELOAD" or name.startswith("FIU_")}

    return make


@pytest.mark.parametrize("once", ["", ",onetime"], ids=["until it ends", "once"])
def test_an_error_at_sync(faults: Callable[..., dict[str, str]], clients: Clients, tmp_path: Path, once: str) -> None:
    """A sync that failed says nothing of the file, also when the next one succeeds."""
    with serve(clients.realm, environment=faults()) as host:
        clients.ask_often(host, 10)
        for worker in host.worker_pids():
            enable = f"enable name={FDATASYNC},failinfo={errno.EIO}{once}"
            subprocess.run(["fiu-ctrl", "-f", tmp_path / "fiu", "-c", enable, str(worker)], check=True, timeout=60)
        assert not clients.ask(host)
        clients.ask_until_answered(host)
        assert "segment-00000001.kfl could not be written: Input/output error" in read_log(clients.realm)
        assert host.stop() == 0
    clients.check()


def test_a_start_without_syncs(faults: Callable[..., dict[str, str]], clients: Clients) -> None:
    with serve(clients.realm) as host:
        clients.ask_often(host, 2)
        host.process.kill()
        host.process.wait()
    with (
        pytest.raises(RuntimeError, match="STORAGE_FAILED"),
        serve(clients.realm, environment=faults(f"enable name={FDATASYNC},failinfo={errno.EIO}")),
    ):
        pass
    with serve(clients.realm) as host:
        clients.ask_often(host, 2)
        assert host.stop() == 0
    clients.check()


def read_log(realm: Realm) -> str:
    return (realm.home.parent / "serve.log").read_text()


def change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def fill(path: Path) -> None:
    """A file that takes the last page of its file system. Raises OSError."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def put_back(copy: Path, folder: Path) -> None:
    """The folder is as its copy."""
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


@contextmanager
def refused_until_put_back(clients: Clients, copy: Path, result: str) -> Iterator[Path]:
    """A host's folder, to be spoiled in the block: then the host does not start, and from the copy it goes on."""
    with serve(clients.realm) as host:
        clients.ask_often(host, 4)
        assert host.stop() == 0
    folder = clients.realm.home / "host"
    shutil.copytree(folder, copy)
    yield folder
    with pytest.raises(RuntimeError, match=result), serve(clients.realm):
        pass
    put_back(copy, folder)
    with serve(clients.realm) as host:
        clients.ask_often(host, 2)
        assert host.stop() == 0
    clients.check()


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


SEGMENT, COUNTS, INVENTORY = "ledger/segment-00000001.kfl", "counts.db", "inventory.db"


@pytest.mark.parametrize(
    ("name", "damage", "result"),
    [
        (SEGMENT, lambda path: change_byte(path, 100), "LEDGER_DAMAGED"),
        (SEGMENT, lambda path: cut(path, 0), "LEDGER_DAMAGED"),
        (SEGMENT, lambda path: cut(path, 2000), "LEDGER_DAMAGED"),
        (SEGMENT, lambda path: path.write_bytes(os.urandom(9000)), "LEDGER_DAMAGED"),
        (SEGMENT, lambda path: path.rename(path.with_name("segment-00000007.kfl")), "LEDGER_DAMAGED"),
        (SEGMENT, lambda path: cut(path, path.stat().st_size - 1), "LEDGER_WENT_BACK"),
        (SEGMENT, lambda path: change_byte(path, path.stat().st_size - ENTRY_SIZE), "LEDGER_WENT_BACK"),
        (SEGMENT, lambda path: path.unlink(), "LEDGER_WENT_BACK"),
        (COUNTS, lambda path: path.write_bytes(os.urandom(9000)), "STORE_DAMAGED"),
        (COUNTS, lambda path: cut(path, path.stat().st_size // 2), "STORE_DAMAGED"),
        (COUNTS, lambda path: cut(path, 50), "STORE_DAMAGED"),
        (INVENTORY, lambda path: path.write_bytes(os.urandom(9000)), "STORE_DAMAGED"),
        (INVENTORY, lambda path: cut(path, path.stat().st_size // 2), "STORE_DAMAGED"),
    ],
    ids=[
        "first block changed", "segment emptied", "segment cut in its first block", "segment of other bytes",
        "segment renamed", "last batch cut", "last batch changed", "segment gone", "counts of other bytes",
        "counts cut in half", "counts cut in their header", "inventory of other bytes", "inventory cut in half",
    ],
)  # fmt: skip
def test_a_damaged_file(
    clients: Clients, tmp_path: Path, name: str, damage: Callable[[Path], None], result: str
) -> None:
    with refused_until_put_back(clients, tmp_path / "backup", result) as folder:
        damage(folder / name)


def test_a_byte_in_the_middle_of_a_segment(clients: Clients, tmp_path: Path) -> None:
    """A start looks only at segments that none names as ended; `ledger verify` at everything."""
    for _ in range(2):
        with serve(clients.realm) as host:
            clients.ask_often(host, 4)
            assert host.stop() == 0
    segment = clients.realm.home / "host" / SEGMENT
    shutil.copy(segment, tmp_path / "backup")
    change_byte(segment, segment.read_bytes().index(b"KFL1") + 200)
    with serve(clients.realm) as host:
        clients.ask_often(host, 2)
        assert host.stop() == 0
    code, verdict, _ = run_cli("ledger", "verify", home=clients.realm.home)
    assert (code, verdict["name"], str(segment) in verdict["message"]) == (1, "LEDGER_DAMAGED", True)
    shutil.copy(tmp_path / "backup", segment)
    clients.check()


def test_counts_that_were_emptied(clients: Clients) -> None:
    """An empty file is an empty store: who asks again counts again, and what was granted stays granted."""
    with serve(clients.realm) as host:
        clients.ask_often(host, 5)
        assert host.stop() == 0
    cut(clients.realm.home / "host" / COUNTS, 0)
    with serve(clients.realm) as host:
        clients.ask_often(host, 3)
        assert host.stop() == 0
    assert [(told.leaf.current_count, told.leaf.result == 0) for told in clients.told[5:]] == [
        (1, False), (2, False), (3, True),
    ]  # fmt: skip


def test_an_inventory_that_is_gone(clients: Clients) -> None:
    """It is made anew from the ledger."""
    with serve(clients.realm) as host:
        clients.ask_often(host, 5)
        assert host.stop() == 0
    (clients.realm.home / "host" / INVENTORY).unlink()
    with serve(clients.realm) as host:
        clients.ask_often(host, 1)
        assert host.stop() == 0
    findings = Findings()
    check_inventory(clients.check(), clients.realm.home / "host" / INVENTORY, findings, complete=True)
    assert findings.texts == []


def test_a_full_disk_of_counts(mount: Callable[[str], Path], clients: Clients) -> None:
    """Below the cap a machine that cannot be stored is not answered; with room again it is, and counts once."""
    folder = mount("size=72m")
    shutil.move(clients.realm.home, folder / "home")
    clients.realm = replace(clients.realm, home=folder / "home")
    with serve(clients.realm, "--low-water", "0B") as host:
        clients.ask_often(host, 2)
        filler = folder / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        assert not clients.ask(host)
        filler.unlink()
        clients.ask_often(host, 2)
        assert host.stop() == 0
    # The machine that was turned away may have been stored, but was not answered.
    assert [told.leaf.current_count for told in clients.told] in ([1, 2, 3, 4], [1, 2, 4, 5])
    assert run_cli("ledger", "verify", home=clients.realm.home)[1]["ok"]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("ledger", "LEDGER_WENT_BACK"),
        ("ledger/segment-00000002.kfl", "LEDGER_DAMAGED"),
        ("host.key", "CONFIGURATION_INVALID"),
        ("host.cert", "CONFIGURATION_INVALID"),
    ],
)
def test_another_hosts_files(clients: Clients, tmp_path: Path, name: str, result: str) -> None:
    other = make_realm(tmp_path / "other", threshold=THRESHOLD, host="other")
    for _ in range(2):
        with serve(other) as host:
            Clients(other).ask_often(host, 1)
            assert host.stop() == 0
    with refused_until_put_back(clients, tmp_path / "backup", result) as folder:
        if name == "ledger":
            put_back(other.home / "host" / name, folder / name)
        else:
            shutil.copy(other.home / "host" / name, folder / name)


def test_another_hosts_counts(clients: Clients, tmp_path: Path) -> None:
    """Counts are of families and name no host, as when hosts share a store: the machines in them count."""
    other = make_realm(tmp_path / "other", threshold=THRESHOLD, host="other")
    with serve(other) as host:
        Clients(other).ask_often(host, 2)
        assert host.stop() == 0
    shutil.copy(other.home / "host" / COUNTS, clients.realm.home / "host" / COUNTS)
    with serve(clients.realm) as host:
        clients.ask_often(host, 1)
        assert host.stop() == 0
    assert clients.told[0].leaf.current_count == 3
