"""Learning curves for TensorBoard: one event file a run, however often the run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)


class Curves:
    """Writes every epoch's numbers; a folder without room loses its curves, not its training.

    Parameters
    ----------
    folder : Path
        Where the event file lies. Earlier ones are replaced: their rows are written again.
    rows : sequence of dict
        The epochs before this; each has "epoch" and numbers by name.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, float]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink(missing_ok=True)
        self._writer: SummaryWriter | None = SummaryWriter(str(folder))
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """Add one epoch."""
        if self._writer is None:
            return
        try:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()
        except OSError as error:
            logger.warning("TensorBoard's events cannot be written (%s); training goes on without", error)
            self._writer = None

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
