"""What is done of a slide, on disk: one file per stretch, whole or absent, under the key of what made it.

    RESULTS/.state/key.json      what the results in the folder are made of
    RESULTS/.state/<digest>/     stretches that were computed under the key of that digest

So what is left of another key, or still written by a worker of an earlier run, is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softctm.errors import OutputError, SlideError, one_line
from softctm.jobs.slides.plan import Stretch
from softctm.slides.result_folder import KEY_FILE, RECORD_FILE, STATE_FOLDER, read_record, stored_key
from softctm.storage.files import (
    output_errors,
    prepare_folder,
    refuse_foreign_files,
    remove_left_overs,
    remove_where_possible,
    write_bytes_atomically,
    write_json_atomically,
)

T = TypeVar("T")

_STRETCH_SUFFIX = ".bin"
_EMBEDDINGS = "choice_of_embeddings"

_OF_QUALITY = ("model", "number_of_views", "precision")
_WORDS = {
    "number_of_views": "number of views (--quality or --views)",
    "precision": "precision (--quality or --precision)",
}
"""Parts of a key as messages call them, where the name does not say which option it comes from."""


class SlideState:
    """The state of one slide's computation.

    Parameters
    ----------
    folder : Path
        The slide's results; the state lies in a folder `.state` in it.
    key : mapping
        Everything that the computation depends on: slide, model, options.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder, self.key = folder, dict(key)
        self._files = folder / STATE_FOLDER / _digest(self.key)
        self._key_file = folder / STATE_FOLDER / KEY_FILE

    @classmethod
    def taken_up(cls, folder: Path, keys: Sequence[Mapping[str, Any]]) -> SlideState:
        """The state under that one of several keys which the folder holds; else under the first of them."""
        states = [cls(folder, key) for key in keys]
        return next((state for state in states if stored_key(folder) == state.key), states[0])

    @property
    def has_embeddings(self) -> bool:
        """Whether its key asks for embeddings."""
        return _EMBEDDINGS in self.key

    def record(self) -> dict[str, Any] | None:
        """The `slide.json` of an earlier run that finished under this key; None without one."""
        document = read_record(self.folder / RECORD_FILE)
        is_ours = document.get("key") == self.key and document.get("status") == "complete"
        return document if is_ours else None

    def begin(self, overwrite: bool = False, results: Iterable[str] = ()) -> None:
        """Take up the state that is there, or start one.

        Parameters
        ----------
        overwrite : bool
            Remove what is there.
        results : iterable of str
            Names of result files: removed with it, or refused where they lie in a folder without a state.

        Raises
        ------
        SlideError
            If the folder holds the results of another slide, model or option, or result files of whatever
            else, and `overwrite` is not given.
        OutputError
            If it cannot be written to.
        """
        stored = stored_key(self.folder)
        if overwrite and self.folder.is_dir():
            with output_errors(self.folder):
                for name in (*results, RECORD_FILE):
                    (self.folder / name).unlink(missing_ok=True)
                if self._key_file.parent.is_dir():
                    shutil.rmtree(self._key_file.parent)
        elif stored is not None and stored != self.key:
            raise SlideError(
                f"{self.folder}: holds results of another {_difference(stored, self.key)}; take another "
                "output folder, or --overwrite"
            )
        elif stored is None:
            files = [self.folder / name for name in (*results, RECORD_FILE)]
            try:
                refuse_foreign_files(files, "slides", lambda _: False)
            except OutputError as error:  # concerns this slide alone
                raise SlideError(str(error)) from None
        for folder in (self.folder, self._key_file.parent):
            if folder.exists() and not folder.is_dir():
                raise SlideError(
                    f"{folder}: is a file where results would go; move it, or choose another output folder"
                )
        prepare_folder(self._files)
        for folder in (self.folder, self._key_file.parent, self._files):
            remove_left_overs(folder)
        if not self._key_file.is_file():
            write_json_atomically(self._key_file, self.key, indent=1)

    def is_done(self, stretch: Stretch) -> bool:
        """Whether a stretch is stored."""
        return self.file(stretch.name).is_file()

    def write(self, stretch: Stretch, content: bytes) -> None:
        """Store what was found in a stretch."""
        write_bytes_atomically(self.file(stretch.name), content)

    def file(self, name: str) -> Path:
        """Where a stretch of that name is stored, if it is."""
        return self._files / f"{name}{_STRETCH_SUFFIX}"

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """What `load` makes of a stretch's file.

        Raises
        ------
        SlideError
            If it cannot be read. If it is damaged it is forgotten: the next run computes it again.
        """
        path = self.file(name)
        try:
            return load(path)
        except OSError as error:
            raise SlideError(f"{path}: cannot be read ({error.strerror or error}); run again") from error
        except (ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            remove_where_possible([path])
            raise SlideError(f"{path}: is damaged ({one_line(error)}); run again: it is made anew") from error

    def drop(self, kind: str) -> None:
        """Forget the stretches of a kind, once what they hold is written as a result."""
        for file in self._files.glob(f"{kind}-*{_STRETCH_SUFFIX}"):
            file.unlink(missing_ok=True)

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """Store an array under a name."""
        write_bytes_atomically(self._files / f"{name}.npy", npy_bytes(array))

    def array(self, name: str) -> NDArray[Any] | None:
        """A stored array, None where there is none that can be read."""
        try:
            array: NDArray[Any] = np.load(self._files / f"{name}.npy")
        except (OSError, ValueError, EOFError):
            return None
        return array


def with_embeddings(key: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    """The key of what is computed with embeddings, or without; only the first says so."""
    return {**key, _EMBEDDINGS: True} if wanted else dict(key)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _difference(stored: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    """What two keys differ in, in a user's words."""
    names = [name for name in key if stored.get(name) != key[name]]
    if "model" in names and _is_same_model(stored.get("model"), key["model"]):
        # Which networks of it are taken is the quality's choice, and views and precision follow from it.
        names = ["--quality", *(name for name in names if name not in _OF_QUALITY)]
    return " and another ".join(_WORDS.get(name, name.replace("_", " ")) for name in names) or "kind"


def _is_same_model(stored: Any, model: Mapping[str, Any]) -> bool:
    """Whether two keys' models differ in nothing but which of its files are taken."""
    if not isinstance(stored, Mapping) or {**stored, "sha256": model["sha256"]} != model:
        return False
    return all(stored["sha256"].get(file, digest) == digest for file, digest in model["sha256"].items())
