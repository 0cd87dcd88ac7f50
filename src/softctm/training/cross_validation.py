"""The whole ensemble in one run folder: folds, tissue networks, their predictions, cell networks.

Every stage leaves a file behind and is skipped where that file lies, so that the same command resumes
where a killed one stopped.

    RUN/config.json            what is trained; another configuration is refused
    RUN/commit                 of the source that started the run
    RUN/folds.json             who is in which fold
    RUN/cache/                 arrays made from the data (see `softctm.storage.derived`)
    RUN/tissue/fold<k>/        checkpoint, metrics, weights of the tissue network that held out fold k
    RUN/cells/fold<k>/         likewise for cells
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from softctm.datasets.ocelot import AnnotatedPair
from softctm.datasets.patient_folds import DEFAULT_FOLDS, folds_of, make_folds, read_folds, write_folds
from softctm.errors import TrainingError, UsageError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.weights import load_network
from softctm.progress import SILENT, Progress
from softctm.readers.geometry import tissue_window
from softctm.storage.files import write_bytes_atomically
from softctm.training.arrays import TrainingArrays, load_cells, load_tissue
from softctm.training.cell_context import cell_context
from softctm.training.config import Preset, Task, with_defaults
from softctm.training.fold_training import FoldJob, check_task, train_cells, train_tissue
from softctm.training.initialization import from_encoder
from softctm.training.loop import LoopConfig
from softctm.training.pair_arrays import PairArrays
from softctm.training.pair_training import check_common_crops, train_pairs
from softctm.training.pair_weights import PairWeights
from softctm.training.run_folder import (
    FOLDS,
    NETWORK,
    check_fold,
    check_fold_count,
    is_begun,
    keep_config,
    source_commit,
)
from softctm.training.segmenters import ClassicalSegmenter, NucleusSegmenter
from softctm.training.starts import AnyStart


@dataclass(frozen=True)
class EnsembleRun:
    """One run: the data, where its files go and what is trained.

    Attributes
    ----------
    pairs : sequence of AnnotatedPair
    folder : Path
        The run's folder.
    preset : Preset
    loop : LoopConfig
    encoder_weights : str or None
        Initialization of encoders; see `SegmentationNetwork`.
    segmenter : NucleusSegmenter
        For the cell targets.
    start : AnyStart or None
        Initialization of whole networks, fold by fold; tasks whose networks it does not fit are initialized
        by `encoder_weights`.
    pair_weights : PairWeights or None
        Of pairs that are drawn more or less often in training.
    progress : Progress
    """

    pairs: Sequence[AnnotatedPair]
    folder: Path
    preset: Preset
    loop: LoopConfig
    encoder_weights: str | None
    segmenter: NucleusSegmenter = field(default_factory=ClassicalSegmenter)
    start: AnyStart | None = None
    pair_weights: PairWeights | None = None
    progress: Progress = SILENT

    def prepare(
        self, folds: int | None, seed: int, folds_file: Path | None = None, fold: int | None = None
    ) -> None:
        """Write configuration and folds (made, or those of `folds_file`), or check that they are this run's.

        A run that starts from trained networks leaves their patients in their folds: networks would otherwise
        start from what they learned from the patients they are scored on. New patients are assigned to folds.
        Without `folds` a new run has `DEFAULT_FOLDS`, and any other those that it has. `fold` is the only one
        that will be trained, if it is.

        Raises
        ------
        TrainingError
            If the folder belongs to another configuration, its folds are not those asked for or that `start`
            had, or encoder weights are missing or have no use.
        UsageError
            If the folder is a file, there is no `fold`, a network cannot be trained as the preset says, or
            encoder weights are unknown.
        ModelError
            If encoder weights cannot be read or do not fit.
        InputError
            If its configuration cannot be read, or a weight is of a pair that is not in the data.
        OutputError
            If the folder cannot be written to.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"--run {self.folder}: is a file; name a folder")
        for task in self.preset.tasks:
            check_task(task, self.preset.of(task))
        check_common_crops(self.preset)
        self._check_initialization()
        settings = {**asdict(self.preset), "seed": self.loop.seed, "encoder_weights": self._encoder_name()}
        if not isinstance(self.segmenter, ClassicalSegmenter):
            settings["segmenter"] = repr(self.segmenter)
        if self.pair_weights:
            self.pair_weights.of(self.pairs)
            settings["pair_weights"] = self.pair_weights.to_json()
        if not self.loop.bfloat16:
            settings["precision"] = "float32"
        if self.start:
            settings["start"] = self.start.config
            settings["encoder_weights"] = self._encoder_name() or self.start.config.get("encoder_weights")
        is_new = not self.folds_path.exists()
        before = self.start.folds if self.start else None
        count, source = DEFAULT_FOLDS if folds is None else folds, folds_file if is_new else self.folds_path
        made = self._folds(count, seed, source)
        check_fold(fold, made.values())
        keep_config(self.folder, settings, with_defaults)
        if not self._commit_path.exists():
            write_bytes_atomically(self._commit_path, f"{source_commit()}\n".encode())
        if is_new:
            known = before or (read_folds(folds_file) if folds_file else None)
            write_folds(self.folds_path, made, self.pairs, known.seed if known else seed, before)
        elif self.start and before and read_folds(self.folds_path).of_pair != made:
            raise TrainingError(
                f"{self.folds_path}: not the pairs, or not the folds, that {self.start.folder} and the data "
                "give; choose another --run folder"
            )
        elif not before:
            self._check_folds(folds, folds_file)

    def _check_folds(self, count: int | None, given: Path | None) -> None:
        """Refuse a run whose folds are not those asked for."""
        check_fold_count(self.folds_path, read_folds(self.folds_path).count, None if given else count)
        if given and folds_of(self.pairs, given) != self.fold_of():
            raise TrainingError(
                f"{self.folds_path}: not the folds of --folds-file {given}; leave the option out, or choose "
                "another --run folder"
            )

    def _folds(self, count: int, seed: int, given: Path | None) -> dict[str, int]:
        """Pair ID → fold: the start's, those of a file that is given, or new ones."""
        if self.start and self.start.folds:
            return make_folds(self.pairs, self.start.folds.count, seed, self.start.folds.of_patient)
        if given:
            return {pair.id: fold for pair, fold in zip(self.pairs, folds_of(self.pairs, given), strict=True)}
        return make_folds(self.pairs, count, seed)

    def _check_initialization(self) -> None:
        """Refuse encoder weights without use or that do not fit, and a start that needs some and has none."""
        others = [task for task in self.preset.tasks if self._start_of(task) is None]
        if self.start and others and not self.encoder_weights:
            raise TrainingError(
                f"{self.start.folder}: its {' and '.join(others)} networks are of another shape (encoder, "
                "depth, decoder, coupling) than this run's; name their initialization by --encoder-weights"
            )
        if self.start and self.encoder_weights and not others:
            raise TrainingError(
                f"--encoder-weights: has no effect beside --start {self.start.folder}, whose networks bring "
                "their own; leave it out"
            )
        for task in others if self.encoder_weights and not is_begun(self.folder) else ():
            from_encoder(self.encoder_weights)(self.preset.of(task).network, ())

    def _start_of(self, task: Task) -> AnyStart | None:
        """What the task's networks start from, other than an encoder."""
        return self.start if self.start and self.start.fits(task, self.preset.of(task).network) else None

    def commit(self) -> str:
        """The commit of the source that started the run, or "unknown"."""
        return self._commit_path.read_text().strip() if self._commit_path.exists() else "unknown"

    @property
    def _commit_path(self) -> Path:
        return self.folder / "commit"

    def _encoder_name(self) -> str | None:
        return Path(self.encoder_weights).name if self.encoder_weights else None

    @property
    def folds_path(self) -> Path:
        """The file that says who is in which fold."""
        return self.folder / FOLDS

    @property
    def cache(self) -> Path:
        """Where arrays made from the data (see `softctm.storage.derived`) lie."""
        return self.folder / "cache"

    def fold_of(self) -> list[int]:
        """The fold of every pair, in the order of `pairs`."""
        return folds_of(self.pairs, self.folds_path)

    def train_tissue(self, fold: int) -> SegmentationNetwork:
        """Train the tissue network that holds out `fold`, or load it."""
        return self.run_tissue_job(self.job("tissue", fold))

    def train_cells(self, fold: int) -> SegmentationNetwork:
        """Train the cell network that holds out `fold`, or load it; its tissue networks must be there."""
        return self.run_cell_job(self.job("cells", fold))

    def run_tissue_job(self, job: FoldJob) -> SegmentationNetwork:
        """Train a tissue network by the run's recipe; where it begins and where it goes the job says."""
        return train_tissue(self.preset.tissue, self.tissue_arrays(), job)

    def run_cell_job(self, job: FoldJob) -> SegmentationNetwork:
        """As `run_tissue_job`, for cells."""
        points = [pair.cells() for pair in self.pairs]
        arrays = self.cell_arrays()
        if isinstance(arrays, PairArrays):
            return train_pairs(self.preset, arrays, points, job)
        return train_cells(self.preset.cells, arrays, points, job)

    def job(self, task: Task, fold: int) -> FoldJob:
        """The run's own job: begun as the run says, and kept in its folder."""
        place = Path(task) / f"fold{fold}"
        start = self._start_of(task)
        initialize = start.network(task, fold) if start else from_encoder(self.encoder_weights)
        patients = [pair.patient for pair in self.pairs]
        importance = self.pair_weights.of(self.pairs) if self.pair_weights else None
        return FoldJob(fold, self.fold_of(), initialize, self.loop, self.folder / place, patients, importance)

    def tissue_network(self, fold: int) -> SegmentationNetwork:
        """The trained tissue network that held out `fold`.

        Raises
        ------
        TrainingError
            If it has not been trained yet.
        """
        return self._load("tissue", fold)

    def cell_network(self, fold: int) -> SegmentationNetwork:
        """The trained cell network that held out `fold`; errors as `tissue_network`."""
        return self._load("cells", fold)

    def _load(self, task: Task, fold: int) -> SegmentationNetwork:
        path = self.folder / task / f"fold{fold}" / NETWORK
        if not path.exists():
            raise TrainingError(f"{path}: is not there yet; run `softctm train {task} --fold {fold}` first")
        return load_network(self.preset.of(task).network, path)

    def tissue_arrays(self) -> TrainingArrays:
        """What the tissue networks are trained on: patches and annotated tissue of all pairs."""
        factor = self.preset.tissue.stored_downsampling
        return load_tissue(self.pairs, factor, self.cache, self.progress)

    def cell_arrays(self) -> TrainingArrays | PairArrays:
        """What the cell networks are trained on: patches, targets and tissue context of all pairs."""
        config = self.preset.cells
        has_context = config.coupling in ("predicted", "annotated")
        context, made_of = (
            cell_context(self.pairs, self.fold_of(), self.preset, self.folder / "tissue", self.cache)
            if has_context
            else (None, "")
        )
        factor = config.stored_downsampling
        cells = load_cells(
            self.pairs,
            factor,
            config.target,
            self.segmenter,
            context,
            self.cache,
            context_made_of=made_of,
            progress=self.progress,
        )
        if not config.sees_pair:
            return cells
        tissue = load_tissue(self.pairs, factor, self.cache, self.progress)
        windows = tuple(tissue_window(pair.metadata, pair.id) for pair in self.pairs)
        return PairArrays(cells, tissue, windows)
