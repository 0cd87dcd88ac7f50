"""Locks: one holder at a time, and a line where a file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softctm.errors import OutputError
from softctm.storage.lock import locked


def test_somebody_elses_lock_is_told_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        locked(path),
        pytest.raises(OutputError, match=rf"^process {os.getpid()} on .* works here$"),
        locked(path, "{} works here".format),
    ):
        pass
    with locked(path, "{} works here".format):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(OutputError, match=r"\.lock cannot be locked .*file system with locks"),
        locked(tmp_path / ".lock"),
    ):
        pass
    with pytest.raises(OutputError, match=r"cannot be written"), locked(tmp_path / "gone" / ".lock"):
        pass


def test_a_full_disk_leaves_the_lock_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    path = tmp_path / ".lock"
    with (
        locked(path),
        pytest.raises(OutputError, match=r"^another process works here$"),
        locked(path, "{} works here".format),
    ):
        pass


HOLDER = """
import os, sys, time
from pathlib import Path
from softctm.storage.lock import locked

with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_lock_goes_with_its_holder_though_a_child_of_it_lives_on(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        with pytest.raises(OutputError, match=f"^process {holder.pid} on "), locked(path, str):
            pass
        holder.kill()
        holder.wait()
        try:
            os.kill(child, 0)  # it is there
            with locked(path, str):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
