"""What a user of the command line sees: results, messages, progress. None of it can cost a result.

Results (tables, paths) go to stdout through `show`. Messages are log records: `info` goes to stdout,
everything else to stderr with its level in front. Where a stream cannot be written, what is said there is
lost and nothing is raised; see `softctm.terminal.streams`.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
import traceback
import unicodedata
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from softctm.errors import OutputError
from softctm.progress import Progress, Task, duration
from softctm.terminal.streams import GuardedStream

LEVELS = ("debug", "info", "warning", "error")
"""Choices of `--log-level`."""

_LINE_EVERY_S = 30.0
"""How often steps without a message give a line where there is no bar."""

_logger = logging.getLogger(__name__)
_package = logging.getLogger("softctm")


def show(text: str, *, is_result: bool = False) -> None:
    """Print lines of a command's result on stdout.

    Parameters
    ----------
    text : str
        One line or several, without the last line's end.
    is_result : bool
        Whether the text itself is the result, which no file holds.

    Raises
    ------
    OutputError
        If the text is the result and cannot be written. A reader that has gone away (`… | head`) has what
        it wanted.
    """
    error = _write(text, sys.stdout)
    if is_result:
        _check_printed(error)


def check_stdout() -> None:
    """Make sure that everything printed so far, which was the result, has been written.

    Raises
    ------
    OutputError
        If it has not; see `show`.
    """
    sys.stdout.flush()
    _check_printed(getattr(sys.stdout, "error", None))


def _check_printed(error: OSError | ValueError | None) -> None:
    if error is not None and not isinstance(error, BrokenPipeError):
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"the result cannot be written to stdout ({reason}); send it elsewhere")


def _write(text: str, stream: TextIO | None) -> OSError | ValueError | None:
    """Write lines between the bars of a terminal; why they could not be written."""
    guarded = stream if isinstance(stream, GuardedStream) else GuardedStream(stream)
    with _bars_put_aside():
        guarded.write(text + "\n")
        guarded.flush()
    return guarded.error


@contextlib.contextmanager
def _bars_put_aside() -> Iterator[None]:
    if "tqdm" not in sys.modules:  # then there are none
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        yield


class ConsoleLog(logging.Handler):
    """Prints the package's log records as a user reads them.

    Attributes
    ----------
    tracebacks : bool
        Whether to print where errors come from.
    """

    tracebacks = False

    def show_from(self, level: str) -> None:
        """Print records of this level, one of `LEVELS`, and above."""
        _package.setLevel(level.upper())

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; its traceback, where wanted, comes before the message."""
        try:
            text = record.getMessage()
        except Exception:  # a wrong format must not end the work either
            text = str(record.msg)
        text = _one_line(text)
        if record.levelno == logging.INFO:
            _write(text, sys.stdout)
            return
        text = f"{record.levelname.lower()}: {text}"
        if self.tracebacks and record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1])) + text
        if isinstance(sys.stdout, GuardedStream):
            sys.stdout.flush()  # so that both streams in one file are in order
        _write(text, sys.stderr)


def _one_line(text: str) -> str:
    """A message with what a file's name may hold, such as a line break, made visible."""
    return "".join(c if _is_plain(c) else repr(c)[1:-1] for c in text)


def _is_plain(character: str) -> bool:
    """Whether a stream may get it: letters, spaces of any script, bytes that are no UTF-8."""
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or "\udc80" <= character <= "\udcff"


@contextlib.contextmanager
def log_shown() -> Iterator[ConsoleLog]:
    """Print the package's log records inside the block, from `info` on unless told otherwise."""
    log, before = ConsoleLog(), _package.level
    log.show_from("info")
    _package.addHandler(log)
    try:
        yield log
    finally:
        _package.removeHandler(log)
        _package.setLevel(before)


class ConsoleProgress(Progress):
    """A bar with the time left on a terminal, plain lines elsewhere; nothing above the level `info`."""

    def task(self, total: int, unit: str, name: str = "", done: int = 0) -> Task:
        """Begin a piece of work; see `Progress.task`."""
        stream: TextIO | None = sys.stdout
        if not _logger.isEnabledFor(logging.INFO) or stream is None:
            return Task()
        return _Bar(total, unit, name, done) if stream.isatty() else _Lines(total, unit, name, done)


class _Bar(Task):
    def __init__(self, total: int, unit: str, name: str, done: int) -> None:
        from tqdm import tqdm

        # Not tqdm's own `dynamic_ncols`, which hides the bar in a terminal that does not know its width.
        size = shutil.get_terminal_size()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            desc=name or None,
            file=sys.stdout,
            ncols=size.columns,
            nrows=size.lines,
        )

    def step(self, message: str = "") -> None:
        """Move the bar on."""
        self._bar.set_postfix_str(message, refresh=False)
        self._bar.update()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


class _Lines(Task):
    def __init__(self, total: int, unit: str, name: str, done: int) -> None:
        self._total, self._unit, self._prefix = total, unit, f"{name}: " if name else ""
        self._first = self._done = done
        self._start = self._told = time.monotonic()

    def step(self, message: str = "") -> None:
        """A line, but of steps without a message only now and then."""
        self._done += 1
        now, left = time.monotonic(), self._total - self._done
        if not message and now - self._told < _LINE_EVERY_S:
            return
        self._told = now
        line = f"{self._prefix}{self._unit} {self._done}/{self._total}"
        if message:
            line += f" {message}"
        if left > 0:
            line += f", about {duration((now - self._start) / (self._done - self._first) * left)} left"
        _logger.info("%s", line)
