"""How a long job tells how far it is, without knowing who listens.

Functions that take long have a parameter `progress: Progress = SILENT`; the command line passes a
`softctm.terminal.console.ConsoleProgress`. Messages that are not about progress go to the standard `logging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

_Item = TypeVar("_Item")


class Task:
    """A piece of work of known length, used in a `with` block. This one says nothing."""

    def step(self, message: str = "") -> None:
        """One step is done; `message` says what came of it."""

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work has ended, with or without an error."""


class Progress:
    """Begins tasks. This one is silent; subclasses override `task`.

    >>> with progress.task(len(slides), "slide") as task:
    ...     for slide in slides:
    ...         task.step(f"{slide.name}: {count(slide)} cells")
    """

    def task(self, total: int, unit: str, name: str = "", done: int = 0) -> Task:
        """Begin a piece of work.

        Parameters
        ----------
        total : int
            Number of steps, those of an earlier run included.
        unit : str
            What a step is, singular.
        name : str
            What the work is, where it is one of several, such as `fold 0`.
        done : int
            Steps that an earlier run has done.
        """
        return Task()

    def over(
        self, items: Iterable[_Item], unit: str, name: str = "", total: int | None = None
    ) -> Iterator[_Item]:
        """Yield `items`, a step each; without `total` they must have a length."""
        if total is None:
            if not isinstance(items, Sized):
                raise TypeError("items without a length need a total")
            total = len(items)
        with self.task(total, unit, name) as task:
            for item in items:
                yield item
                task.step()


SILENT = Progress()
"""What library functions use where nothing is injected."""


def counted(number: int, singular: str, plural: str = "") -> str:
    """So many of something, in words: "1 slide", "2 slides"; a plural that adds an s need not be given."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
