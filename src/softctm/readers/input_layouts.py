"""Recognize an input folder by what lies in it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softctm.errors import InputError, UsageError
from softctm.pair import PATCH_SIZE
from softctm.progress import counted
from softctm.readers.images import STACK_SUFFIXES, SUFFIXES, RowImage, list_images, open_rows, patches_in
from softctm.readers.metadata import Metadata
from softctm.readers.sockets import find_sockets
from softctm.readers.source import PairSource, PatchFiles
from softctm.storage.text_files import read_json

CELL_FOLDER, TISSUE_FOLDER = "images/cell_patches", "images/tissue_patches"

_EXPECTED = (
    f"expected {CELL_FOLDER}/ and {TISSUE_FOLDER}/ with metadata.json, an OCELOT release "
    "(images/<subset>/cell and tissue with metadata.json), or Grand Challenge's inputs.json; whole "
    "slides and single images are for `softctm slides`"
)


@dataclass(frozen=True)
class _Place:
    """Where one stream lies: a folder of images or a single file."""

    kind: str
    path: Path
    label: str

    def files(self) -> tuple[dict[str, list[Path]], list[str]]:
        """Images by stem, and what else lies there."""
        if self.path.is_file():
            return {unicodedata.normalize("NFC", self.path.stem): [self.path]}, []
        return list_images(self.path, self.label)

    def name_of(self, path: Path) -> str:
        """A file of this place as messages call it."""
        return self.label if path == self.path else f"{self.label}/{path.name}"


def open_pairs(folder: Path | str, subset: str | None = None) -> PairSource:
    """Find out how pairs are stored in `folder` and open them for reading one at a time.

    Parameters
    ----------
    folder : Path
        The input: patch folders, stacked images, an OCELOT release, or Grand Challenge sockets
        (docs/input-formats.md).
    subset : str, optional
        For an OCELOT release: `train`, `val` or `test`; needed where it has several.

    Raises
    ------
    InputError
        If the folder or its metadata cannot be used as a whole.
    UsageError
        If `subset` is given for another layout, or does not exist.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"input folder {folder} does not exist; check --input")
    if not folder.is_dir():
        raise InputError(f"input {folder} is not a folder; check --input")
    try:
        has_patches = (folder / CELL_FOLDER).exists() or (folder / TISSUE_FOLDER).exists()
        subsets = _ocelot_subsets(folder)
        has_sockets = (folder / "inputs.json").exists()
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise InputError(f"input folder {folder} cannot be read ({error.strerror}); check it") from error
    if subset is not None or (subsets and not has_patches and not has_sockets):
        return _open_ocelot(folder, subsets, subset)
    if has_sockets:
        places, metadata, warnings = find_sockets(folder)
        cell, tissue = (_Place(kind, *places[kind]) for kind in ("cell", "tissue"))
        return _open_streams("Grand Challenge sockets", cell, tissue, metadata, warnings)
    if has_patches:
        cell = _Place("cell", folder / CELL_FOLDER, CELL_FOLDER)
        tissue = _Place("tissue", folder / TISSUE_FOLDER, TISSUE_FOLDER)
        return _open_streams("patch folders", cell, tissue, _metadata_file(folder))
    raise InputError(f"input folder {folder} {'is empty' if is_empty else 'holds no pairs'}: {_EXPECTED}")


def check_subset(folder: Path, subset: str, present: Sequence[str]) -> None:
    """Refuse a subset that an OCELOT release does not hold.

    Raises
    ------
    UsageError
        It names those that the release holds.
    """
    if subset not in present:
        held = ", ".join(present) or "an empty list of pairs"
        raise UsageError(f"--subset {subset}: {folder} holds only {held}")


def _metadata_file(folder: Path) -> Metadata:
    path = folder / "metadata.json"
    return Metadata(read_json(path, path.name, f"add it as {path.absolute()}"), path.name)


def _open_streams(
    layout: str,
    cell: _Place,
    tissue: _Place,
    metadata: Metadata,
    warnings: Sequence[str] = (),
    subset: str | None = None,
) -> PairSource:
    """Open two places as stacks, where each holds one stackable file, or as folders of patches."""
    (cells, cell_others), (tissues, tissue_others) = cell.files(), tissue.files()
    warnings = [
        *warnings,
        *(
            f"{place.label}: passed over {len(others)} entries that are no images ({others[0]}, …)"
            for place, others in ((cell, cell_others), (tissue, tissue_others))
            if others
        ),
    ]
    single = [_only_stackable(files) for files in (cells, tissues)]
    if single[0] and single[1] and not (metadata.by_stem and set(cells) == set(tissues)):
        return _open_stacks(layout, (cell, single[0]), (tissue, single[1]), metadata, warnings)
    stems = sorted(set(cells) | set(tissues))
    if not stems:
        raise InputError(
            f"{cell.label} and {tissue.label} hold no images that are read"
            f"{_kinds_of([*cell_others, *tissue_others])}; put {', '.join(SUFFIXES)} files there"
        )
    if not set(cells) & set(tissues):
        for place, files in ((cell, cells), (tissue, tissues)):
            _refuse_several_stacks(place, files)
        raise InputError(
            "no file name occurs in both "
            f"{cell.label} ({_some(cells)}) and {tissue.label} ({_some(tissues)}); the "
            "two images of a pair must share their name"
        )
    warnings += metadata.check_order(stems)
    if subset is not None:
        warnings += metadata.without_images(stems, subset)
    return PairSource(
        f"{layout}, one image a pair",
        stems,
        PatchFiles(cell.kind, cell.label, stems, cells),
        PatchFiles(tissue.kind, tissue.label, stems, tissues),
        metadata,
        warnings,
    )


def _kinds_of(names: Sequence[str]) -> str:
    """What lies in a folder instead of images, for a message."""
    if not names:
        return " (they are empty)"
    kinds = Counter(Path(name).suffix.lower() or "files without a suffix" for name in names)
    return f" (they hold {', '.join(f'{count} {kind}' for kind, count in kinds.most_common(4))})"


def _some(files: Mapping[str, Sequence[Path]]) -> str:
    """How many images there are and the first one's name, for a message."""
    names = [path.name for paths in files.values() for path in paths]
    return f"{counted(len(names), 'image')}, such as {names[0]}" if names else "no images"


def _refuse_several_stacks(place: _Place, files: Mapping[str, Sequence[Path]]) -> None:
    """Say so where a place holds several stacks and is not the folder of patches that it was taken for."""
    paths = [path for same_stem in files.values() for path in same_stem]
    stacks = [path for path in paths if path.suffix.lower() in STACK_SUFFIXES]
    if len(stacks) < 2 or len(stacks) < len(paths):
        return
    if open_rows(stacks[0], place.name_of(stacks[0])).rows > PATCH_SIZE:
        raise InputError(
            f"{place.label}: holds {len(stacks)} stacks ({', '.join(path.name for path in stacks[:3])}) "
            "where one is expected; leave the one that metadata are for"
        )


def _only_stackable(files: dict[str, list[Path]]) -> Path | None:
    """The file, if there is just one and its format can hold a stack."""
    paths = [path for same_stem in files.values() for path in same_stem]
    return paths[0] if len(paths) == 1 and paths[0].suffix.lower() in STACK_SUFFIXES else None


def _open_stacks(
    layout: str,
    cell: tuple[_Place, Path],
    tissue: tuple[_Place, Path],
    metadata: Metadata,
    warnings: list[str],
) -> PairSource:
    images: list[RowImage] = []
    counts = []
    for place, path in (cell, tissue):
        label = place.name_of(path)
        images.append(open_rows(path, label))
        counts.append(patches_in(images[-1], label))
    if counts[0] != counts[1]:
        raise InputError(
            f"{cell[0].name_of(cell[1])} holds {counts[0]} patches and {tissue[0].name_of(tissue[1])} "
            f"{counts[1]}; a stack needs one of each for every pair"
        )
    if metadata.by_stem:
        raise InputError(
            f"{metadata.label}: a stack has no stems for sample_pairs; make it a list in the stack's order"
        )
    names = [f"image_{index}" for index in range(counts[0])]
    return PairSource(f"{layout}, one stack a kind", names, images[0], images[1], metadata, warnings)


def _ocelot_subsets(folder: Path) -> list[str]:
    """Names of the subsets of an OCELOT release; empty where it is none."""
    images = folder / "images"
    if not images.is_dir():
        return []
    return sorted(
        path.name for path in images.iterdir() if (path / "cell").is_dir() or (path / "tissue").is_dir()
    )


def _open_ocelot(folder: Path, subsets: list[str], subset: str | None) -> PairSource:
    if not subsets:
        raise UsageError(
            f"--subset {subset}: {folder} is no OCELOT release (images/<subset>/cell and tissue)"
        )
    if subset is None:
        if len(subsets) > 1:
            raise UsageError(f"{folder} holds the subsets {', '.join(subsets)}; choose one with --subset")
        subset = subsets[0]
    check_subset(folder, subset, subsets)
    cell, tissue = (
        _Place(kind, folder / "images" / subset / kind, f"images/{subset}/{kind}")
        for kind in ("cell", "tissue")
    )
    layout = f"OCELOT release, subset {subset}"
    return _open_streams(layout, cell, tissue, _metadata_file(folder), subset=subset)
