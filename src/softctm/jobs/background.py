"""Work in a thread beside the caller's own, one piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec

_Arguments = ParamSpec("_Arguments")


class Background:
    """Does one thing while its caller does another; the thread begins with the first piece of work.

    Leaving the `with` block waits for the last piece. Its error is raised there, or by the next `begin`,
    unless the caller is leaving with an error of its own.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._last: Future[None] | None = None

    def begin(
        self, work: Callable[_Arguments, None], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> None:
        """Wait for the piece before, so that no more than one is ever held, and begin this one."""
        self._wait()
        self._last = self._pool.submit(work, *args, **kwargs)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self._wait()
