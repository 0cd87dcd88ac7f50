"""Which patient a pair is of: by default TCGA's barcode, else what `--patient-key` says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softctm.errors import UsageError
from softctm.progress import counted

BARCODE_LENGTH = 12
"""A TCGA barcode's first twelve characters (TCGA-AB-1234) name the patient."""

_BARCODE = re.compile(r"TCGA-\w{2}-\w{4}")

DEFAULT_RULE = f"the first {BARCODE_LENGTH} characters of slide_name, as in TCGA's barcodes"


def patient_of_image(name: str) -> str:
    """The patient of a single image, told by a TCGA barcode; without one, the image by itself.

    Parameters
    ----------
    name : str
        As images of datasets are called: `dataset/image`.
    """
    image = name.split("/")[-1]
    return image[:BARCODE_LENGTH] if _BARCODE.match(image) else name


@dataclass(frozen=True)
class PatientKey:
    """How to tell a pair's patient from its metadata entry.

    Attributes
    ----------
    text : str
        The name of a metadata field, such as `patient_id`; or a regular expression with one group, which
        is searched in `slide_name`, such as `^(P\\d+)_`; or "" for `DEFAULT_RULE`.

    Raises
    ------
    UsageError
        If it is neither.
    """

    text: str = ""

    def __post_init__(self) -> None:
        if self._is_field:
            return
        try:
            groups = re.compile(self.text).groups
        except re.error as error:
            raise UsageError(f"--patient-key {self.text}: not a regular expression ({error})") from None
        if groups != 1:
            raise UsageError(
                f"--patient-key {self.text}: name a metadata field, such as patient_id, or a regular "
                f"expression with one group, such as '^(P\\d+)_'; this one has {groups} groups"
            )

    @property
    def _is_field(self) -> bool:
        return re.fullmatch(r"\w*", self.text) is not None

    def __call__(self, entry: Mapping[str, Any]) -> str:
        """The patient of one pair; "" where the entry does not say."""
        if self.text and self._is_field:
            value = entry.get(self.text)
            return "" if value is None else str(value)
        name = entry.get("slide_name") if self.text else entry["slide_name"]
        if not isinstance(name, str):
            return ""
        if not self.text:
            return name[:BARCODE_LENGTH]
        match = re.search(self.text, name)
        return (match[1] or "") if match else ""


TCGA_PATIENTS = PatientKey()
"""`DEFAULT_RULE`."""


def odd_slide_names(pairs: Sequence[tuple[str, object]]) -> str:
    """A warning where patients were told by TCGA's rule but the names have another form; else "".

    Parameters
    ----------
    pairs : sequence of (str, object)
        Patient and `slide_name` of each pair.
    """
    odd = [
        name
        for patient, name in pairs
        if isinstance(name, str) and name[:BARCODE_LENGTH] == patient and not _BARCODE.match(name)
    ]
    if not odd:
        return ""
    patients = counted(len({patient for patient, _ in pairs}), "patient")
    return (
        f"{odd[0]}: not a TCGA barcode; a patient is taken to be {DEFAULT_RULE}, which makes "
        f"{patients} of {counted(len(pairs), 'pair')}; if that is wrong, name a metadata field or a pattern "
        "by --patient-key"
    )
