"""A lock on a file that other processes see, here or on a machine that shares the folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from softctm.errors import OutputError

_held: set[int] = set()


def _let_go_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    # A forked child that outlives its parent would keep the lock of a process that is gone.
    os.register_at_fork(after_in_child=_let_go_in_child)


class NoLocksError(OutputError):
    """The file system has no locks."""


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[str], str] | None = None) -> Iterator[None]:
    """Hold the lock of a file, made where it is missing; the system lets go of it however the process ends.

    Parameters
    ----------
    path : Path
    busy : callable, optional
        Where somebody else's lock is not waited for: what to say, given who holds it.

    Raises
    ------
    NoLocksError
        If the file system has no locks.
    OutputError
        If somebody else holds it and `busy` is given, or the file cannot be written.
    """
    import fcntl

    try:
        # Network file systems lock for writing only what is open for writing.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise OutputError(busy(holder) if busy else holder) from error
        except OSError as error:
            raise NoLocksError(
                f"{path} cannot be locked ({error.strerror}); choose a folder on a file system with locks"
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds, and its holder has no name
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)
