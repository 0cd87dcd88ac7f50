"""What a report is made of, gathered from files: images, ground truth, evaluation, and the run's record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from softctm.errors import InputError, UsageError
from softctm.evaluation.analysis import evaluate
from softctm.evaluation.bootstrap import RESAMPLES, Bootstrap
from softctm.evaluation.comparison import compare
from softctm.evaluation.scores import count_pairs
from softctm.evaluation.tissue import find_tissue_maps
from softctm.evaluation.truth import GroundTruth, GroundTruthPair
from softctm.points import CellPoints
from softctm.readers import PairSource, open_pairs
from softctm.report.build import ReportInput
from softctm.storage.text_files import read_json


def open_images(images: Path | None, truth: Path | None, subset: str | None) -> PairSource | None:
    """Open the images of a report.

    Parameters
    ----------
    images : Path or None
        A folder in any layout that `open_pairs` reads.
    truth : Path or None
        The ground truth; a release's own images are taken where `images` is None.
    subset : str or None
        Of a release.

    Returns
    -------
    PairSource or None
        None where there are no images.

    Raises
    ------
    UsageError
        If neither the images nor the ground truth have that subset.
    """
    folder = images or (truth if truth is not None and (truth / "images").is_dir() else None)
    if folder is None:
        return None
    # The subset may be meant for the ground truth alone: only a release has subsets.
    applies = subset is not None and (folder / "images" / subset).is_dir()
    if subset is not None and not applies and (truth is None or not truth.is_dir()):
        raise UsageError(f"--subset {subset}: {folder} has no images/{subset}")
    return open_pairs(folder, subset if applies else None)


def name_pairs(truth: GroundTruth | None, source: PairSource | None) -> tuple[GroundTruth, list[int]]:
    """Bring ground truth and images together; at least one of them is given.

    Returns
    -------
    GroundTruth
        With the images' names, because a `cell_gt.json` knows only numbers. Pairs without cells where
        nothing is known.
    list of int
        The number of each pair in `source`; empty without one.
    """
    if truth is None:
        if source is None:
            raise ValueError("a report takes ground truth, images, or both")
        unknown = (GroundTruthPair(name, CellPoints.empty()) for name in source.names)
        return GroundTruth(tuple(unknown), source.layout), list(range(len(source)))
    if source is None:
        return truth, []
    order = place_in_source(truth.names, source)
    named = (replace(pair, name=source.names[i]) for pair, i in zip(truth.pairs, order, strict=True))
    return GroundTruth(tuple(named), truth.source), order


def place_in_source(names: Sequence[str], source: PairSource) -> list[int]:
    """Find each pair of the ground truth among the images: by name, or by position if equally many.

    Raises
    ------
    UsageError
        If neither tells which image belongs to which pair, or some names agree and others do not.
    """
    place = {name: i for i, name in enumerate(source.names)}
    if all(name in place for name in names):
        return [place[name] for name in names]
    if len(names) == len(source) and not any(name in place for name in names):
        return list(range(len(source)))
    raise UsageError(
        f"the ground truth has {len(names)} pairs and --input {len(source)} of other names; give the images "
        "that belong to the ground truth"
    )


def collect(
    files: Sequence[Path],
    names: Sequence[str],
    predictions: Sequence[Sequence[CellPoints]],
    pairs: GroundTruth,
    truth: Path | None,
    *,
    tissue: Path | None = None,
    resamples: int = RESAMPLES,
) -> ReportInput:
    """Evaluate the predictions where there is ground truth, and say where they come from.

    Parameters
    ----------
    files, names, predictions : sequences of one length
        Where each set of predictions lies, what to call it, and its cells, pair by pair. The report is about
        the first; further ones are ranked against it.
    pairs : GroundTruth
        From `name_pairs`.
    truth : Path or None
        Where the ground truth lies; None if there is none, so that nothing is scored.
    tissue : Path, optional
        Folder of predicted tissue maps.
    resamples : int
        Of the bootstrap.

    Returns
    -------
    ReportInput
        Without images.

    Raises
    ------
    InputError
        If a tissue map or an annotation is malformed.
    """
    maps = find_tissue_maps(tissue, pairs) if tissue is not None else None
    evaluation = comparison = None
    if truth is not None:
        evaluation = evaluate(
            predictions[0],
            pairs,
            name=names[0],
            tissue_maps=maps if any(pair.has_tissue for pair in pairs.pairs) else None,
            resamples=resamples,
        )
        if len(predictions) > 1 and pairs.can_be_resampled:
            counts = [count_pairs(points, pairs.points) for points in predictions]
            comparison = compare(names, counts, Bootstrap(len(pairs), resamples, unit_of=pairs.units))
    facts, warnings = _run_record(files[0])
    known = f"ground truth: {truth.resolve().name}" if truth is not None else "no ground truth given"
    return ReportInput(
        title=names[0],
        names=pairs.names,
        predictions=predictions[0],
        evaluation=evaluation,
        tissue_maps=maps or (),
        comparison=comparison,
        facts=[*facts, known],
        warnings=warnings,
    )


def _run_record(predictions: Path) -> tuple[list[str], list[str]]:
    """What a `run.json` beside the predictions tells: the model, and which pairs failed."""
    facts, warnings = [predictions.name], list[str]()
    path = predictions.with_name("run.json")
    try:
        record = read_json(path) if path.is_file() else {}
    except InputError as error:
        return facts, [str(error)]
    model = record.get("model") if isinstance(record, dict) else None
    if not isinstance(model, dict):
        return facts, warnings
    if named := [str(model[key]) for key in ("name", "version") if model.get(key)]:
        facts.append(f"model: {' '.join(named)}")
    failures = record.get("failures")
    for failed in failures if isinstance(failures, list) else []:
        if isinstance(failed, dict) and failed.get("error"):
            # A pair with counts was predicted; only further files of it are missing.
            what = "Incomplete" if "tumor_cells" in failed else "Not predicted, counted as no cells"
            warnings.append(f"{what}: {failed.get('error')}")
    return facts, warnings
