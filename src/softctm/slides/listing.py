"""Which slides a user means: files, folders, and lists as CSV."""

from __future__ import annotations

import csv
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softctm.errors import InputError, SlideError
from softctm.progress import counted
from softctm.slides.flat_image import SUFFIXES as FLAT_SUFFIXES
from softctm.slides.identity import data_folder
from softctm.slides.resolution import MPP_RANGE, is_usable
from softctm.slides.result_folder import RECORD_FILE, STATE_FOLDER, holds_results_of, place_of
from softctm.storage.text_files import read_text

SLIDE_SUFFIXES = (
    ".bif",
    ".dcm",
    ".mrxs",
    ".ndpi",
    ".scn",
    ".svs",
    ".svslide",
    ".tif",
    ".tiff",
    ".vms",
    ".vmu",
)
"""What folders are searched for, in either case, with JPEG and PNG beside them."""

TABLE_FILE, PAGE_FILE = "cohort.csv", "cohort.html"
"""What lies beside the folders of the slides' results."""

_LONGEST_NAME = 240
"""Bytes; file systems take 255."""
_REST_OF_CHARACTER = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that no character begins with."""

_COLUMNS = ("path", "mpp", "region")
_BEYOND = "beyond"
"""Key of what a line holds beyond the columns that the first one names."""


@dataclass(frozen=True)
class SlideInput:
    """A slide to work on.

    Attributes
    ----------
    path : Path
    name : str
        What its results are called: the file's stem, with more of its path where that is not unique. Results
        that are there already keep their name.
    mpp : float or None
        µm per pixel, instead of the file's.
    region : Path or None
        GeoJSON of the region of interest.
    """

    path: Path
    name: str = ""
    mpp: float | None = None
    region: Path | None = None


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes
    ----------
    slides : tuple of SlideInput
        In the order given; within folders by name.
    passed_over : tuple of str
        A line for each file in a folder that is no slide by its name.
    """

    slides: tuple[SlideInput, ...]
    passed_over: tuple[str, ...]


def find_slides(
    inputs: Sequence[Path],
    mpp: float | None = None,
    region: Path | None = None,
    output: Path | None = None,
) -> Listing:
    """List the slides that inputs name.

    A folder is searched with its subfolders, but for the data that belong to a slide (an MRXS slide's folder,
    the pictures beside a VMS) and for results. A folder of DICOM files is one slide, or one for each series
    in it.

    Parameters
    ----------
    inputs : sequence of Path
        Slides, folders, or CSV files with a column `path` (from the CSV's folder, where relative) and, where
        wanted, `mpp` and `region`.
    mpp, region
        For those slides for which no CSV says more. What a CSV says holds, too, where the slide is named
        again, by itself or by its folder.
    output : Path, optional
        Where results go: what lies there is no slide, unless it is named itself.

    Raises
    ------
    InputError
        If an input does not exist, a CSV cannot be used, two CSVs contradict each other, or there is no slide
        at all.
    """
    slides: dict[Path, SlideInput] = {}
    listed: dict[Path, SlideInput] = {}
    results = output.resolve() if output is not None else None
    passed_over: list[str] = []
    searched: set[Path] = set()
    for path in inputs:
        if path.suffix.lower() == ".csv" and path.is_file():
            for slide in _from_csv(path, mpp, region):
                first = listed.setdefault(place_of(slide.path), slide)
                if (first.mpp, _place(first.region)) != (slide.mpp, _place(slide.region)):
                    raise InputError(
                        f"{path}: gives {slide.path} another mpp or region than a list before it; let one of "
                        "them name it"
                    )
                slides.setdefault(place_of(slide.path), slide)
            continue
        if path.is_dir():
            inside = results if results != path.resolve() else None
            found = list(_from_folder(path, passed_over, inside, searched))
        elif path.exists():
            found = [path]
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
        for file in found:
            slides.setdefault(place_of(file), SlideInput(file, "", mpp, region))
    unique = [listed.get(place, slide) for place, slide in slides.items()]
    if not unique:
        where = ", ".join(map(str, inputs))
        raise InputError(f"{where}: holds no slide ({', '.join(SLIDE_SUFFIXES)}); name one")
    return Listing(tuple(_named(unique, output)), tuple(passed_over))


def _place(region: Path | None) -> Path | None:
    return None if region is None else place_of(region)


def _from_csv(path: Path, mpp: float | None, region: Path | None) -> Iterator[SlideInput]:
    text = read_text(path).splitlines()
    # Where decimals have commas, spreadsheets write semicolons between columns.
    delimiter = max(",;\t", key="".join(text[:1]).count)
    rows = csv.DictReader(text, restkey=_BEYOND, delimiter=delimiter)
    try:
        columns = [name.strip() for name in rows.fieldnames or ()]
        rows.fieldnames = columns
        numbered = [(rows.line_num, row) for row in rows]
    except csv.Error as error:
        raise InputError(f"{path}: is not CSV ({error}); correct it") from None
    if "path" not in columns:
        names = f"its first line names {', '.join(columns)}" if any(columns) else "its first line is empty"
        raise InputError(f"{path}: has no column path, {names}; begin it with path,mpp,region or path alone")
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown:
        raise InputError(f"{path}: knows no column {unknown[0]}; {', '.join(_COLUMNS)} are")
    lines: dict[Path, int] = {}
    for number, row in numbered:
        where = f"{path}, line {number}"
        value = {key: (row.get(key) or "").strip() for key in _COLUMNS}
        beyond = [text for text in row.get(_BEYOND) or () if text.strip()]
        if beyond:
            raise InputError(
                f"{where}: holds {beyond[0]!r} beyond its {counted(len(columns), 'column')}; put what "
                "holds a comma in quotes, or name the column"
            )
        if not any(value.values()):
            continue  # spreadsheets write what is left of rows that were emptied
        if not value["path"]:
            raise InputError(f"{where}: has no path; fill it in")
        slide = path.parent / value["path"]
        if (first := lines.setdefault(place_of(slide), number)) != number:
            raise InputError(
                f"{where}: names {slide} again, as line {first}; give each slide one line, and one file of "
                "all its regions"
            )
        try:
            own_mpp = float(value["mpp"].replace(",", ".")) if value["mpp"] else mpp
        except ValueError:
            own_mpp = math.nan
        if own_mpp is not None and not is_usable(own_mpp):
            raise InputError(f"{where}: mpp is {value['mpp']}, not {MPP_RANGE}; correct it")
        own_region = path.parent / value["region"] if value["region"] else region
        yield SlideInput(slide, "", own_mpp, own_region)


def _from_folder(
    folder: Path, passed_over: list[str], results: Path | None, searched: set[Path]
) -> Iterator[Path]:
    """Slides in a folder and its subfolders, by name; none of folders that are `searched` already."""
    place = folder.resolve()
    if place == results or place in searched:  # a link may lead back to where it lies
        return
    searched.add(place)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        passed_over.append(f"{folder}: cannot be looked into ({error.strerror}); check its permissions")
        return
    if (folder / RECORD_FILE).is_file() or (folder / STATE_FOLDER).is_dir():
        passed_over.append(f"{folder}: holds a slide's results; what else lies there must be named by itself")
        return
    if any(entry.name.lower() == "slidedat.ini" for entry in entries):
        return  # the data of an MRXS slide, which lies beside this folder
    files = [entry for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    suffixes = {file.suffix.lower() for file in files}
    if ".dcm" in suffixes:
        yield from _dicom_slides([file for file in files if file.suffix.lower() == ".dcm"])
    # The pictures beside a VMS or VMU are its tiles.
    known = SLIDE_SUFFIXES if {".vms", ".vmu"} & suffixes else SLIDE_SUFFIXES + FLAT_SUFFIXES
    companions = (".opt", ".jpg") if {".vms", ".vmu"} & suffixes else ()
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _from_folder(entry, passed_over, results, searched)
        elif entry in files and entry.suffix.lower() != ".dcm":
            if entry.suffix.lower() in known:
                yield entry
            elif entry.suffix.lower() not in companions:
                passed_over.append(f"{entry}: is no slide by its name; name it by itself if it is one")


def _dicom_slides(files: Sequence[Path]) -> Iterator[Path]:
    """One slide a series: the folder where there is one, else the series' first file."""
    firsts: dict[str, Path] = {}
    for file in files:
        firsts.setdefault(_series_of(file), file)
    yield from [files[0].parent] if len(firsts) == 1 else firsts.values()


def _series_of(file: Path) -> str:
    from softctm.slides.openslide_pyramid import OpenSlidePyramid

    try:
        pyramid = OpenSlidePyramid(file)
    except SlideError:
        return str(file)  # named when it is its turn
    try:
        return pyramid.property("dicom.SeriesInstanceUID") or str(file)
    finally:
        pyramid.close()


def _named(slides: Sequence[SlideInput], output: Path | None) -> Iterator[SlideInput]:
    """Give each slide a name of its own: stem, file name, that with its folder's before it, or a number."""
    places = [place_of(slide.path) for slide in slides]
    choices = [
        [place.name if place.is_dir() else place.stem for place in places],
        [place.name for place in places],
        [_short(f"{place.parent.name}-{place.name}") for place in places],
    ]
    counts = [Counter(name.lower() for name in names) for names in choices]
    # A cohort grows: results of an earlier run stay where they are.
    before = [_name_before(slide.path, names, output) for slide, *names in zip(slides, *choices, strict=True)]
    taken = {TABLE_FILE, PAGE_FILE, *(name.lower() for name in before if name)}
    for index, slide in enumerate(slides):
        unique = (
            names[index]
            for names, count in zip(choices, counts, strict=True)
            if count[names[index].lower()] == 1 and not _is_part_of(slide.path, names[index], output)
        )
        numbered = (f"{choices[-1][index]}-{number}" for number in itertools.count(2))
        name = before[index] or next(
            name for name in itertools.chain(unique, numbered) if name.lower() not in taken
        )
        taken.add(name.lower())
        yield replace(slide, name=name)


def _short(name: str) -> str:
    """A name without its beginning, where it is too long for a folder."""
    return os.fsdecode(os.fsencode(name)[-_LONGEST_NAME:].lstrip(_REST_OF_CHARACTER))


def _name_before(path: Path, names: Sequence[str], output: Path | None) -> str | None:
    """What an earlier run called the slide's results, if they are there."""
    if output is None:
        return None
    numbered = (f"{names[-1]}-{number}" for number in itertools.count(2))
    there = itertools.takewhile(lambda name: (output / name).is_dir(), numbered)
    return next((name for name in (*names, *there) if holds_results_of(output / name, path)), None)


def _is_part_of(path: Path, name: str, output: Path | None) -> bool:
    """Whether results of that name would lie in the slide's own file or folder."""
    place = place_of(path)
    return output is not None and place_of(output) / name in (place, data_folder(place))
