"""How a job tells that items of its input failed: pairs, images, slides."""

from __future__ import annotations

from collections.abc import Sequence

from softctm.errors import InputError, SoftCTMError

_SHOWN = 5


def nothing_done(unit: str, kinds: Sequence[type[SoftCTMError]], first: str, place: str) -> SoftCTMError:
    """The error of a job in which every item failed: of the items' own kind where they agree.

    Parameters
    ----------
    unit : str
        What an item is, such as "pair".
    kinds : sequence of exception types
        One per item.
    first : str
        The first item's message.
    place : str
        The file that has all messages.
    """
    kind = kinds[0] if len(set(kinds)) == 1 else InputError
    others = f" (and {len(kinds) - 1} more, see {place})" if len(kinds) > 1 else ""
    return kind(f"no {unit} could be processed: {first}{others}")


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
