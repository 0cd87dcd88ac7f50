"""What a model is: its networks, their classes and post-processing, named by `model.json` and verified."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import jsonschema

from softctm.errors import ModelError
from softctm.model.network_file import MANIFEST, Network, read_file
from softctm.postprocessing.cell_finder import Postprocessing
from softctm.postprocessing.peaks import Peaks
from softctm.postprocessing.watershed import HardMask

CELL_CLASSES = ("none", "background_cell", "tumor_cell")

Output = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Stage:
    """The networks of one step, tissue or cells.

    Attributes
    ----------
    networks : tuple of Network
        Their probabilities are averaged.
    classes : tuple of str
        Names of the output channels, in order; empty where only the networks know how many there are.
    output : "logits" or "probabilities"
        What the networks put out.
    """

    networks: tuple[Network, ...]
    classes: tuple[str, ...]
    output: Output


@dataclass(frozen=True)
class Model:
    """Everything that `model.json` says about a model.

    Attributes
    ----------
    folder : Path
    name, version : str
    tissue, cell : Stage
    postprocessing : Peaks or HardMask
    manifest : mapping
        The whole document (`license`, `training`, `scores` and so on), empty without one.
    validation_tissue, validation_cell : tuple of Network
        Further networks that only out-of-fold validation needs.
    """

    folder: Path
    name: str
    version: str
    tissue: Stage
    cell: Stage
    postprocessing: Postprocessing = field(default_factory=Peaks)
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)
    validation_tissue: tuple[Network, ...] = ()
    validation_cell: tuple[Network, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """File name → SHA-256 of the networks that the detector loads."""
        return {
            network.path.relative_to(self.folder).as_posix(): network.sha256
            for network in (*self.tissue.networks, *self.cell.networks)
        }

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that a cell network of this model was kept from, ascending."""
        networks = (*self.cell.networks, *self.validation_cell)
        return tuple(sorted({network.fold for network in networks if network.fold is not None}))

    def for_fold(self, fold: int) -> Model:
        """The model's part that never saw the patients of a fold: what they are scored with.

        Raises
        ------
        ModelError
            If the model has no tissue network, or no cell network, that was kept from this fold.
        """
        return replace(
            self,
            tissue=self._kept_from(fold, "tissue", self.tissue, self.validation_tissue),
            cell=self._kept_from(fold, "cell", self.cell, self.validation_cell),
        )

    def with_cell_networks(self, count: int | None) -> Model:
        """The model with its first `count` cell networks only; with all of them for None."""
        return replace(self, cell=replace(self.cell, networks=self.cell.networks[:count]))

    def _kept_from(self, fold: int, kind: str, stage: Stage, further: Sequence[Network]) -> Stage:
        chosen = {network.sha256: network for network in (*stage.networks, *further) if network.fold == fold}
        if not chosen:
            raise ModelError(f"{self.folder}: the model has no {kind} network that was kept from fold {fold}")
        return replace(stage, networks=tuple(chosen.values()))


def load_model(folder: Path | str) -> Model:
    """Read and check a model folder; networks are opened later.

    Parameters
    ----------
    folder : path
        Holds `model.json` and the files that it names, or, without a manifest, `tissue*.onnx` and
        `cell*.onnx`, which are taken by the SoftCTM authors' conventions: the tissue networks give logits,
        the cell networks probabilities, peaks are found by the authors' rule.

    Raises
    ------
    ModelError
        If the folder or a file is missing, or the manifest is not as its schema wants it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; give one with --weights")
    if (folder / MANIFEST).is_file():
        return _from_manifest(folder)
    return _from_file_names(folder)


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a manifest, or cell networks without one."""
    return (folder / MANIFEST).is_file() or any(folder.glob("cell*.onnx"))


def find_weights(
    flag: Path | str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    platform_folder: Path = Path("/opt/ml/model"),
) -> Path:
    """The model folder: the flag, else `SOFTCTM_WEIGHTS`, else `/opt/ml/model`, else `model_weights/`.

    The last is looked for beside the program, then in the working directory.

    Raises
    ------
    ModelError
        If the folder that was asked for does not exist, or none of the others holds a model.
    """
    named = flag or environment.get("SOFTCTM_WEIGHTS")
    if named:
        source = "--weights" if flag else "SOFTCTM_WEIGHTS"
        if not Path(named).is_dir():
            raise ModelError(f"{named}: no such folder ({source}); name one that holds a model")
        return Path(named)
    beside_program = Path(__file__).resolve().parents[3] / "model_weights"
    candidates = [platform_folder, beside_program, Path("model_weights")]
    for folder in candidates:
        if holds_model(folder):
            return folder
    looked = ", ".join(dict.fromkeys(str(folder) for folder in candidates))
    raise ModelError(f"no model found in {looked}; give its folder with --weights or SOFTCTM_WEIGHTS")


@cache
def manifest_schema() -> dict[str, Any]:
    """The JSON schema of `model.json`."""
    text = resources.files("softctm.model").joinpath("model.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _from_manifest(folder: Path) -> Model:
    path = folder / MANIFEST
    try:
        manifest = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); correct it") from error
    fault = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(manifest_schema()).iter_errors(manifest)
    )
    if fault is not None:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path)
        raise ModelError(f"{path}: {where.lstrip('.') or 'the document'}: {fault.message[:200]}; correct it")
    validation = manifest.get("validation", {})
    try:
        postprocessing = _postprocessing(manifest.get("postprocessing", {}))
    except ValueError as error:
        raise ModelError(f"{path}: postprocessing: {error}; correct it") from error
    return Model(
        folder=folder,
        name=manifest["name"],
        version=manifest.get("version", "unknown"),
        tissue=_stage(folder, manifest["tissue"]),
        cell=_stage(folder, manifest["cell"]),
        postprocessing=postprocessing,
        manifest=manifest,
        validation_tissue=_networks(folder, validation.get("tissue", []), must_exist=False),
        validation_cell=_networks(folder, validation.get("cell", []), must_exist=False),
    )


def _postprocessing(section: Mapping[str, Any]) -> Postprocessing:
    options = {key: value for key, value in section.items() if key != "method"}
    return HardMask(**options) if section.get("method") == "hard_mask" else Peaks(**options)


def _stage(folder: Path, section: Mapping[str, Any]) -> Stage:
    return Stage(
        networks=_networks(folder, section["networks"], must_exist=True),
        classes=tuple(section["classes"]),
        output=section["output"],
    )


def _networks(folder: Path, entries: Sequence[Mapping[str, Any]], *, must_exist: bool) -> tuple[Network, ...]:
    networks = []
    for entry in entries:
        path = _inside(folder, entry["file"])
        if must_exist and not path.is_file():
            raise ModelError(f"{path}: missing, though {MANIFEST} names it; fetch the whole model")
        networks.append(Network(path, entry["sha256"].lower(), entry.get("fold")))
    return tuple(networks)


def _inside(folder: Path, name: str) -> Path:
    """A manifest's file, which must lie in the model's folder."""
    parts = PurePosixPath(name).parts
    path = folder.joinpath(*parts)
    outside = not path.resolve().is_relative_to(folder.resolve())
    if name.startswith("/") or "\\" in name or ".." in parts or outside:
        raise ModelError(f"{folder / MANIFEST}: {name} lies outside the model's folder, which is refused")
    return path


def _from_file_names(folder: Path) -> Model:
    tissue, cell = (
        tuple(
            Network(path, hashlib.sha256(read_file(path)).hexdigest())
            for path in sorted(folder.glob(f"{kind}*.onnx"), key=_natural_order)
        )
        for kind in ("tissue", "cell")
    )
    for kind, networks in (("tissue", tissue), ("cell", cell)):
        if not networks:
            raise ModelError(
                f"{folder}: holds neither {MANIFEST} nor {kind}*.onnx; "
                "name a folder with a model by --weights"
            )
    return Model(
        folder=folder,
        name=folder.resolve().name,
        version="unknown",
        tissue=Stage(tissue, (), "logits"),
        cell=Stage(cell, CELL_CLASSES, "probabilities"),
    )


def _natural_order(path: Path) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
