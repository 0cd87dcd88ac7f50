"""Run inside the container: read every limit from the running kernel, and try to break each.

Prints one line a limit and exits with 1 where one does not hold, so that the runs beside it prove what they
claim to prove.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

MEMORY_LIMIT = 4 << 30
PIDS_LIMIT = 128
SHM_LIMIT = 128 << 20


def cgroup(*names: str) -> str:
    """Value of a control-group file, by its name in version 2 or 1."""
    for name in names:
        path = Path("/sys/fs/cgroup", name)
        if path.is_file():
            return path.read_text().strip()
    return "unknown"


def mount_options() -> dict[str, str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    mounts = {}
    for _, path, kind, options, *_ in map(str.split, lines):
        # An overlay's options list the machine's folders, which say nothing here.
        mounts[path] = f"{kind} {','.join(option for option in options.split(',') if '/' not in option)}"
    return mounts


def refusal(path: str) -> str:
    """Try to create a file in a folder; name of the error, or "writable"."""
    try:
        probe = Path(path, ".softctm-probe")
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "writable"


def reach_out() -> str:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=3).close()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "connected"


def main() -> int:
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    mounts = mount_options()
    shm = os.statvfs("/dev/shm")
    memory = cgroup("memory.max", "memory/memory.limit_in_bytes")
    pids = cgroup("pids.max", "pids/pids.max")
    folders = ("/", "/opt/app", "/input", "/output", "/tmp")
    writable = [folder for folder in folders if refusal(folder) == "writable"]
    facts = {
        "user and group": (f"{os.getuid()}:{os.getgid()}", os.getuid() != 0 and os.getgid() != 0),
        "capabilities (effective, bounding)": (
            f"{status['CapEff']} {status['CapBnd']}",
            int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0,
        ),
        "no new privileges": (status["NoNewPrivs"], status["NoNewPrivs"] == "1"),
        "memory": (memory, memory == str(MEMORY_LIMIT)),
        "processes": (pids, pids == str(PIDS_LIMIT)),
        "shared memory": (str(shm.f_frsize * shm.f_blocks), shm.f_frsize * shm.f_blocks <= SHM_LIMIT),
        "network interfaces": (
            " ".join(name for _, name in socket.if_nameindex()) or "none",
            {name for _, name in socket.if_nameindex()} <= {"lo"},
        ),
        "connecting outside": (reach_out(), reach_out() != "connected"),
        "root file system": (mounts["/"], "ro" in mounts["/"].split()[1].split(",")),
        f"writable of {' '.join(folders)}": (" ".join(writable), writable == ["/output", "/tmp"]),
        "HOME": (os.environ.get("HOME", "unset"), "HOME" not in os.environ),
    }
    for path in ("/input", "/output", "/tmp", "/dev/shm"):
        facts[f"mount {path}"] = (mounts.get(path, "not mounted"), path in mounts)
    for name, (value, holds) in facts.items():
        print(f"  {name}: {value}{'' if holds else '   <-- DOES NOT HOLD'}")
    return 0 if all(holds for _, holds in facts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
