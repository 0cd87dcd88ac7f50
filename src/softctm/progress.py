"""What a user sees of a long job: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from types import TracebackType
from typing import Any, TextIO


class Progress:
    """Progress on stdout; warnings and failures on stderr.

    A reader that goes away (`… | head`) silences it: the job's result matters more than its messages.

    Parameters
    ----------
    total : int
        Number of steps.
    unit : str
        What a step is, singular.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit, self._done = total, unit, 0
        self._start = time.monotonic()
        self._bar: Any = None
        if sys.stdout.isatty():
            from tqdm import tqdm

            # Not tqdm's own `dynamic_ncols`, which hides the bar in a terminal that does not know its width.
            size = shutil.get_terminal_size()
            self._bar = tqdm(total=total, unit=unit, file=sys.stdout, ncols=size.columns, nrows=size.lines)

    def step(self, message: str) -> None:
        """One step is done; `message` says what came of it."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(message, refresh=False)
            self._bar.update()
            return
        left = self._total - self._done
        seconds = (time.monotonic() - self._start) / self._done * left
        remaining = f", about {_duration(seconds)} left" if left else ""
        self.say(f"{self._unit} {self._done}/{self._total} {message}{remaining}")

    def say(self, message: str) -> None:
        """A line on stdout."""
        self._print(message, sys.stdout)

    def complain(self, message: str) -> None:
        """A line on stderr."""
        self._print(message, sys.stderr)

    def _print(self, message: str, stream: TextIO) -> None:
        if self._bar is not None:
            self._bar.clear()
        write_line(message, stream)
        if self._bar is not None:
            self._bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def write_line(message: str, stream: TextIO) -> None:
    """Print a line, escaping what the stream cannot encode; nothing happens if nobody reads it any more."""
    encoding = stream.encoding or "utf-8"
    with contextlib.suppress(BrokenPipeError):
        print(message.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
