"""What processors this process may really use: how many, and whether they multiply 8-bit integers fast."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")

_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""Instructions for dot products of 8-bit integers: Intel's and AMD's, and ARM's."""


def available_processors(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """Processors that the scheduler and the control group's quota leave to this process, at least 1.

    A container limited to two processors' time on a 64-core host still sees 64 of them; that many threads
    would spend their time being throttled.

    Parameters
    ----------
    cgroups : Path
        Where the control groups are mounted.
    own_cgroup : Path
        The file that lists the groups of this process.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups, own_cgroup)
    # 1.5 processors' time keeps two threads busy three quarters of the time: better than one all the time.
    return processors if quota is None else max(1, min(processors, round(quota + 0.25)))


def has_int8_arithmetic(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the processor has instructions for products of 8-bit integers (VNNI, AMX and the like).

    Without them 8-bit networks are no faster than 32-bit ones.
    """
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _INT8_FLAGS.isdisjoint(flags.partition(":")[2].split())


def _quota(cgroups: Path, own_cgroup: Path) -> float | None:
    """Smallest processor quota on the way from this process's group to the root, in processors."""
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            quotas += [_quota_v2(folder) for folder in _ancestors(cgroups, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for folder in _ancestors(cgroups / "cpu", path)]
    known = [quota for quota in quotas if quota is not None]
    return min(known) if known else None


def _ancestors(mount: Path, path: str) -> list[Path]:
    """The group's folder and those above it; inside a container only the mount itself may exist."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _quota_v2(folder: Path) -> float | None:
    """`cpu.max` holds "max 100000" or "150000 100000": microseconds allowed in each period."""
    try:
        allowed, period = (folder / "cpu.max").read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """The same in two files; -1 means no limit."""
    try:
        allowed = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return None if allowed <= 0 else allowed / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
