"""Standard streams that are closed, full, gone or cannot encode a character, and still never raise."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class GuardedStream:
    """A text stream whose writing never raises; everything else is the stream's own.

    Parameters
    ----------
    stream : text stream or None
        None stands for a stream that is closed.

    Attributes
    ----------
    error : OSError, ValueError or None
        Why the last write that failed did.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.error: OSError | ValueError | None = None
        if stream is None:
            self.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, escaping what the stream cannot encode."""
        encoding = self._stream.encoding or "utf-8"
        with self._noting_errors():
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several lines."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush, if it can be done."""
        with self._noting_errors():
            self._stream.flush()

    def settle(self) -> None:
        """Flush for the last time; what cannot be written is dropped, so that Python's own flush works."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.error = error
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: Python's side of the stream is closed
            self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard stdout and stderr inside the block, and flush them at its end."""
    # Else the next file to be opened would get the number of a closed stream, and libraries' messages.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    out, err = GuardedStream(sys.stdout), GuardedStream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        out.settle()
        err.settle()
