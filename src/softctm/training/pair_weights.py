"""How often single training pairs are drawn, for annotations that are trusted less than others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softctm.datasets.ocelot import AnnotatedPair
from softctm.errors import InputError
from softctm.storage.text_files import read_json


@dataclass(frozen=True)
class PairWeights:
    """Weights of some pairs, and the rule that chose them.

    They concern training alone: every pair is scored.

    Attributes
    ----------
    rule : str
        In words.
    of_pair : mapping of str to float
        Pair ID → how often it is drawn, relative to what it would be otherwise; 0 leaves it out of training.
    """

    rule: str
    of_pair: Mapping[str, float]

    def of(self, pairs: Sequence[AnnotatedPair]) -> list[float]:
        """The weight of every pair, 1 where none is given.

        Raises
        ------
        InputError
            If a weight is of a pair that is not among them.
        """
        if unknown := sorted(self.of_pair.keys() - {pair.id for pair in pairs}):
            raise InputError(f"pair weights: there is no pair {unknown[0]} in the data; take it out")
        return [self.of_pair.get(pair.id, 1.0) for pair in pairs]

    def to_json(self) -> dict[str, Any]:
        """As `read_pair_weights` reads it."""
        return {"rule": self.rule, "weights": dict(sorted(self.of_pair.items()))}


def read_pair_weights(path: Path) -> PairWeights:
    """Read `{"rule": "in words", "weights": {"001": 0, …}}`.

    Raises
    ------
    InputError
        If it cannot be read or is not of this form.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("weights"), dict):
        raise InputError(f'{path}: must be {{"rule": "in words", "weights": {{"001": 0, …}}}}; correct it')
    if not isinstance(document.get("rule"), str):
        raise InputError(f'{path}: does not say by which rule the pairs were chosen; add "rule": "in words"')
    for pair, weight in document["weights"].items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight < 0:
            raise InputError(f"{path}: the weight of pair {pair} is {weight!r}; must be a number, 0 or more")
    return PairWeights(document["rule"], {pair: float(w) for pair, w in document["weights"].items()})
