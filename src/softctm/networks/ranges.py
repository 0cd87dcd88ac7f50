"""Ranges of numbers in configurations: checked where a configuration is made, whatever it is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """All finite numbers from `low` to `high`, both included, but those in `without`."""

    low: float
    high: float = math.inf
    without: tuple[float, ...] = ()

    def __contains__(self, number: float) -> bool:
        return math.isfinite(number) and self.low <= number <= self.high and number not in self.without

    def __str__(self) -> str:
        if math.isfinite(self.high):
            excluded = f" ({' and '.join(map(str, self.without))} excluded)" if self.without else ""
            return f"lie in {self.low} … {self.high}{excluded}"
        return f"be more than {self.low}" if self.low in self.without else f"be at least {self.low}"


SHARE = Range(0, 1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, without=(0,))
AT_LEAST_ONE = Range(1)


def check_ranges(config: object, **ranges: Range) -> None:
    """Refuse numbers outside their range: for `__post_init__`.

    Parameters
    ----------
    config : object
    **ranges : Range
        Of its attributes, by name; of a tuple, that of each number in it.

    Raises
    ------
    ValueError
        It names the attribute, its range and its value.
    """
    for name, allowed in ranges.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number not in allowed:
                raise ValueError(f"{name} must {allowed}, not {number}")
