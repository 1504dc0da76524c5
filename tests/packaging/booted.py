"""A system of the tests' own under a real systemd, as in a container: its own processes, mounts, network and users.

Its root is this machine's with a layer of memory above it, so what is done there is gone with it. ``kms-fast`` is
installed in /usr/local/bin, from this checkout; the units run it where home folders are closed to them.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
INSTALLED = "/opt/kms-fast"
BOOT_LIMIT_S = 60.0

# The control group comes first: a process sees as the root of its namespace the group that it was in.
_ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root" "$1/groups"
mount -t cgroup2 cgroup2 "$1/groups"
mkdir -p "$1/groups/$2"
echo $$ > "$1/groups/$2/cgroup.procs"
exec unshare --pid --cgroup --uts --ipc --net --fork --kill-child sh -c "$3" sh "$@"
"""
_BOOT = """
set -e
root="$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
# As containers have them: the kernel's settings are not this system's to make.
mount --bind -o ro "$root/proc/sys" "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
for part in python code packages; do mkdir -p "$root$4/$part"; done
mount --bind "$5" "$root$4/python"
mount --bind "$6" "$root$4/code"
mount --bind "$7" "$root$4/packages"
cat > "$root/usr/local/bin/kms-fast" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$4/python/lib PYTHONPATH=$4/code:$4/packages
exec $4/python/bin/$8 -m kms_fast "\\$@"
END
chmod 755 "$root/usr/local/bin/kms-fast"
hostname kms.example.com
ip link set lo up
mkdir -p "$root/old"
cd "$root"
pivot_root . old
umount -l /old
# systemd hands credentials over by mounts.
mount --make-rshared /
exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin "$9" \\
    --system --unit=basic.target --log-target=journal --show-status=0
"""


class BootedSystem:
    """Use it as a context; ``name`` is that of its control group."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._pid: int | None = None

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command there, as root."""
        path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["env", "-i", path, "sh", "-c", f"exec 2>&1; cd /; {command}"]
        return subprocess.run([*self._prefix, *inside], stdout=subprocess.PIPE, text=True, timeout=120)

    def succeed(self, command: str) -> str:
        """Run a command that must end with 0; what it printed."""
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{self.run('journalctl --no-pager --lines=30').stdout}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.succeed(f"systemctl show --value --property={name} {unit}").strip()

    def journal(self, unit: str) -> str:
        """What a unit has logged."""
        return self.succeed(f"journalctl --no-pager --output=cat --unit={unit}")

    def __enter__(self) -> "BootedSystem":
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        parts = [sys.base_prefix, str(CHECKOUT), sysconfig.get_path("purelib")]
        told = [str(self._folder), self._name, _BOOT, INSTALLED, *parts, python, str(SYSTEMD)]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *told],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        end_s = time.monotonic() + BOOT_LIMIT_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise OSError(self._end() or f"it was not up after {BOOT_LIMIT_S:.0f} s")
            time.sleep(0.05)
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> str:
        """End all that is there; why it ended by itself, if it did."""
        if self._pid is None:
            self._process.kill()
        else:
            # With the first process of its namespace all others end, before its parent sees it.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        _, said = self._process.communicate()
        groups = self._folder / "groups"
        groups.mkdir()
        remove = 'mount -t cgroup2 cgroup2 "$1"; test ! -d "$1/$2" || find "$1/$2" -depth -type d -exec rmdir {} +'
        subprocess.run(["unshare", "--mount", "sh", "-c", remove, "sh", groups, self._name], check=True)
        return said

    def _is_up(self) -> bool:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        try:
            [pid] = map(int, children.read_text().split())
            if Path(f"/proc/{pid}/exe").readlink().name != "systemd":
                return False
        except (OSError, ValueError):
            return False
        self._pid = pid
        kinds = ("mount", "pid", "cgroup", "uts", "ipc", "net")
        self._prefix = ["nsenter", f"--target={pid}", *(f"--{kind}" for kind in kinds), "--root", "--wd"]
        return self.run("systemctl is-system-running").stdout.strip() in ("running", "degraded")
