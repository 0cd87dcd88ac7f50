"""Run a command inside the container, pass its output on, and say what it took.

    python measure.py COMMAND …

STARTED, seconds since the epoch, is when the container was asked for. Ends with the command's own exit code.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path


def cgroup_peak() -> str:
    """Most memory that the container held, file cache included, MB."""
    for name in ("memory.peak", "memory/memory.max_usage_in_bytes"):
        path = Path("/sys/fs/cgroup", name)
        if path.is_file():
            return f"{int(path.read_text()) / 1e6:.0f} MB"
    return "unknown"


def main(command: list[str]) -> int:
    started = float(os.environ["STARTED"])
    first = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if first is None and re.search(r"\d+ BC, \d+ TC", line):
                first = time.time() - started
    total = time.time() - started
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"measured: first pair after {first or total:.1f} s, all after {total:.1f} s; peak memory of the "
        f"process {memory:.0f} MB, of the container with its file cache {cgroup_peak()}"
    )
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
