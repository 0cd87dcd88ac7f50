"""What can go wrong that is not a bug: one base error, and a named one for each exit code.

A message is one line that names the culprit (file, pair, option) and the remedy. The command line prints
it last on stderr, without a traceback, and exits with `exit_code`.
"""


class SoftCTMError(Exception):
    """Base of all expected errors. `exit_code` is the process's exit status when it ends the run."""

    exit_code = 1


class UsageError(SoftCTMError):
    """Options that contradict each other or lie outside their range."""

    exit_code = 2


class InputError(SoftCTMError):
    """The input as a whole cannot be used: missing folder, contradictory layout, unreadable metadata."""

    exit_code = 3


class PairError(InputError):
    """One pair cannot be used; the others can."""


class SlideError(InputError):
    """One slide cannot be used; the others can."""


class ModelError(SoftCTMError):
    """The model cannot be used: missing or altered files, a wrong manifest, wrong shapes, NaN outputs."""

    exit_code = 4


class DeviceError(SoftCTMError):
    """The device that was asked for is not there or ran out of memory."""

    exit_code = 5


class OutputError(SoftCTMError):
    """The result cannot be written."""

    exit_code = 6


class PartialResultError(SoftCTMError):
    """The result was written, but at least one pair failed and is missing from it."""

    exit_code = 7


class ScoreTooLowError(SoftCTMError):
    """An evaluation ended below the score that `--fail-under` demands."""

    exit_code = 8


class TrainingError(SoftCTMError):
    """Training cannot go on: gradients that are not finite, or a run folder of another configuration."""

    exit_code = 9


class MissingPackageError(SoftCTMError):
    """A package that this command needs is not installed."""

    exit_code = 10


def one_line(error: BaseException) -> str:
    """A library's complaint, short enough for the middle of a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "…"
