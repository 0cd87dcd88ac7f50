"""The outcome of a job over pairs: what was found, what failed, and how both are written and told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from softctm.errors import OutputError, PartialResultError, SoftCTMError
from softctm.jobs import run_record
from softctm.jobs.failures import nothing_done, some
from softctm.jobs.run_record import RunRecord
from softctm.points import CellClass, CellPoints
from softctm.progress import counted
from softctm.storage.files import write_json_atomically
from softctm.terminal.unexpected import as_expected
from softctm.writers import grand_challenge


@dataclass
class JobResult:
    """The outcome of a job.

    Attributes
    ----------
    points : list of CellPoints or None
        One a pair in input order; None for a pair that failed.
    record : RunRecord
        What `run.json` says.
    result_file : Path
        Where the points were written.
    failures : list of exception types
        One a pair that failed. The exceptions themselves would keep their pairs' images in memory.
    start : float
        When the job began, by `time.perf_counter`.
    """

    points: list[CellPoints | None]
    record: RunRecord
    result_file: Path
    failures: list[type[SoftCTMError]] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    @property
    def summary(self) -> str:
        """One line for the user."""
        found = [cells for cells in self.points if cells is not None]
        counts = {kind: sum(cells.count(kind) for cells in found) for kind in CellClass}
        return (
            f"{self.result_file}: {len(found)} of {counted(len(self.record.items), 'pair')}, "
            f"{counted(counts[CellClass.BACKGROUND], 'background cell')}, "
            f"{counted(counts[CellClass.TUMOR], 'tumor cell')}, "
            f"{self.record.seconds.get('total', 0.0):.1f} s"
        )

    def fail(self, index: int, name: str, error: Exception) -> str:
        """Note a pair's failure; return the line that names it."""
        expected = as_expected(error)
        message = str(expected) if f"pair {name}" in str(expected) else f"pair {name}: {expected}"
        self.failures.append(type(expected))
        self.record.add_failure(index, name, message)
        return message

    def write(self) -> None:
        """Write the points, if any pair was done, and the record.

        Raises
        ------
        OutputError
            If one of them cannot be written.
        """
        try:
            with self.record.timed("write"):
                if any(points is not None for points in self.points):
                    write_json_atomically(self.result_file, grand_challenge.points_document(self.points))
        except OutputError as error:
            self._write_record(status="failed", error=str(error))
            raise
        self._write_record()

    def _write_record(self, **changes: str) -> None:
        self.record.seconds["total"] = time.perf_counter() - self.start
        path = self.result_file.with_name(run_record.FILE_NAME)
        write_json_atomically(path, self.record.document() | changes, indent=1)

    def error(self) -> SoftCTMError | None:
        """What is wrong with the result: no pair was done, pairs or their further files are missing."""
        if not self.failures:
            return None
        if all(points is None for points in self.points):
            first = str(self.record.failures[0]["error"])
            return nothing_done("pair", self.failures, first, run_record.FILE_NAME)
        failed = self.record.failures
        # A pair without counts was not done; one with counts lacks files that `--also` asked for.
        absent = [str(pair["name"]) for pair in failed if "tumor_cells" not in pair]
        unwritten = [str(pair["name"]) for pair in failed if "tumor_cells" in pair]
        parts = []
        if absent:
            parts.append(f"pairs failed and are missing from {self.result_file}: {some(absent)}")
        if unwritten:
            parts.append(f"pairs lack a file that --also asked for: {some(unwritten)}")
        numbers = [len(names) for names in (absent, unwritten) if names]
        told = ", ".join(f"{n} of {len(self.points)} {p}" for n, p in zip(numbers, parts, strict=True))
        return PartialResultError(f"{told}; run.json says why (--allow-partial accepts this)")
