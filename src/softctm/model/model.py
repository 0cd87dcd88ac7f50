"""A model folder, loaded: its manifest bound to its files, in the precision and parts that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from softctm.choices import Precision
from softctm.errors import ModelError, one_line
from softctm.model.conventions import implied_manifest
from softctm.model.manifest import Head, Manifest, NetworkEntry, StageInput, read_manifest, settings_of
from softctm.model.network_file import MANIFEST, Network
from softctm.model.tasks import TASKS
from softctm.postprocessing.methods import settings_from


@dataclass(frozen=True)
class Stage:
    """The networks of one step, such as tissue or cells.

    Attributes
    ----------
    name : str
    networks : tuple of Network
        Their outputs are averaged.
    input : StageInput
        Size, mpp and channels of what they are given.
    heads : tuple of Head
        What they give.
    validation : tuple of Network
        Further networks, which only out-of-fold validation needs.
    """

    name: str
    networks: tuple[Network, ...]
    input: StageInput
    heads: tuple[Head, ...]
    validation: tuple[Network, ...] = ()

    @property
    def head(self) -> Head:
        """The one head of a stage that has just one."""
        (head,) = self.heads
        return head

    @property
    def context(self) -> tuple[str, ...]:
        """The input channels that an earlier stage gives, "tissue.cancer" and the like."""
        return tuple(channel for channel in self.input.channels if "." in channel)

    def held_out(self, fold: int) -> Stage:
        """The stage's networks that never saw a fold.

        Raises
        ------
        ModelError
            If there is none.
        """
        chosen = {each.sha256: each for each in (*self.networks, *self.validation) if each.fold == fold}
        if not chosen:
            folder = self.networks[0].path.parent
            raise ModelError(
                f"{folder}: the model has no {self.name} network for which fold {fold} was held out"
            )
        return replace(self, networks=tuple(chosen.values()), validation=())


@dataclass(frozen=True)
class Model:
    """A model, ready to be opened by a detector.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    stages : dict of str to Stage
        In the order in which they run.
    postprocessing : object
        Settings of the method that the manifest names, such as `softctm.postprocessing.peaks.Peaks`.
    precision : "float32", "float16" or "int8"
        Of the files that `stages` names.
    """

    folder: Path
    manifest: Manifest
    stages: dict[str, Stage]
    postprocessing: Any
    precision: Precision = field(default="float32")

    @property
    def name(self) -> str:
        """As the manifest says."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """As the manifest says."""
        return self.manifest.version

    @property
    def tissue(self) -> Stage:
        """The tissue stage of a model that finds cell points."""
        return self.stages["tissue"]

    @property
    def cells(self) -> Stage:
        """The cell stage of a model that finds cell points."""
        return self.stages["cells"]

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that a detector opens, stage by stage."""
        return tuple(network for stage in self.stages.values() for network in stage.networks)

    @property
    def hashes(self) -> dict[str, str]:
        """File name → SHA-256 of these networks."""
        return {network.path.relative_to(self.folder).as_posix(): network.sha256 for network in self.networks}

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions in which every network of the model is stored."""
        entries = [entry for stage in self.manifest.stages.values() for entry in stage.networks]
        return tuple(kind for kind in entries[0].files if all(kind in entry.files for entry in entries))

    def of_task(self, *tasks: str, remedy: str = "") -> Model:
        """The model itself, where it does what is needed.

        Parameters
        ----------
        *tasks : str
        remedy : str
            What the message says to do else; by default to give another model.

        Raises
        ------
        ModelError
            If it is a model of another task.
        """
        if self.manifest.task not in tasks:
            raise ModelError(
                f"{self.folder}: is a model of the task {self.manifest.task}, not of {' or '.join(tasks)}; "
                + (remedy or "give another with --weights")
            )
        return self

    def in_precision(self, precision: Precision) -> Model:
        """The model's files for a precision; for float16, the 32-bit ones where there are no others.

        Raises
        ------
        ModelError
            If the model does not have it.
        """
        stored = precision
        if precision == "float16" and precision not in self.precisions:
            stored = "float32"  # made to compute in 16 bits as they are opened
        if stored not in self.precisions:
            raise ModelError(
                f"{self.folder}: has no {precision} networks, only {', '.join(self.precisions)}"
                + ("; `softctm quantize` makes some" if precision == "int8" else "")
            )
        return replace(self, stages=_bound(self.folder, self.manifest, stored), precision=precision)

    def held_out(self, fold: int) -> Model:
        """The model's part that never saw the patients of a fold: what they are scored with.

        Raises
        ------
        ModelError
            If a stage has no network for which this fold was held out.
        """
        return replace(self, stages={name: stage.held_out(fold) for name, stage in self.stages.items()})

    def with_networks(self, stage: str, count: int | None) -> Model:
        """The model with the first `count` networks of a stage; with all of them for None."""
        cut = replace(self.stages[stage], networks=self.stages[stage].networks[:count])
        return replace(self, stages={**self.stages, stage: cut})


def load_model(folder: Path | str) -> Model:
    """Read and check a model folder; networks are opened later.

    Parameters
    ----------
    folder : path
        Holds `model.json` and the files that it names, or, without a manifest, `tissue*.onnx` and
        `cell*.onnx`, which are taken by the SoftCTM authors' conventions (`softctm.model.conventions`).

    Raises
    ------
    ModelError
        If the folder or a file is missing, or the manifest is not as it must be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; give one with --weights")
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else implied_manifest(folder)
    try:
        if manifest.task not in TASKS:
            raise ValueError(f"task: '{manifest.task}' is not known; there are {', '.join(TASKS)}")
        TASKS[manifest.task].check(manifest)
        postprocessing = settings_from(
            manifest.postprocessing["method"], settings_of(manifest.postprocessing)
        )
    except ValueError as error:
        raise ModelError(f"{folder / MANIFEST}: {error}; correct it") from error
    model = Model(folder, manifest, {}, postprocessing)
    if not model.precisions:
        raise ModelError(f"{folder / MANIFEST}: the networks have no precision in common; correct it")
    return model.in_precision("float32" if "float32" in model.precisions else model.precisions[0])


def _bound(folder: Path, manifest: Manifest, precision: Precision) -> dict[str, Stage]:
    return {
        name: Stage(
            name,
            tuple(_networks(folder, entry.networks, precision, must_exist=True)),
            entry.input,
            entry.heads,
            tuple(_networks(folder, entry.validation, precision, must_exist=False)),
        )
        for name, entry in manifest.stages.items()
    }


def _networks(
    folder: Path, entries: Sequence[NetworkEntry], precision: Precision, *, must_exist: bool
) -> Iterable[Network]:
    for entry in entries:
        if precision not in entry.files:
            continue  # of validation networks; `Model.precisions` has seen to the others
        file = entry.files[precision]
        path = folder.joinpath(*PurePosixPath(file.path).parts)
        try:
            is_inside, is_there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
        except (OSError, RuntimeError) as error:  # the latter of a link that leads to itself
            raise ModelError(f"{path}: cannot be read ({one_line(error)}); fetch the whole model") from error
        if not is_inside:
            raise ModelError(
                f"{folder / MANIFEST}: {file.path} lies outside the model's folder, which is refused"
            )
        if must_exist and not is_there:
            raise ModelError(f"{path}: missing, though {MANIFEST} names it; fetch the whole model")
        yield Network(path, file.sha256, entry.fold)
