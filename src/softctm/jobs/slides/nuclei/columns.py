"""The numbers of a slide's nuclei that the cohort's table and page show."""

from __future__ import annotations

from collections.abc import Sequence

from softctm.writers.cohort_table import CohortColumns, PageColumn, TableColumn

_NUMBERS = ("nuclei", "nuclei_per_mm2", "mean_area_um2")


def nuclei_columns(types: Sequence[str]) -> CohortColumns:
    """Those of all nuclei, and of each type by name."""
    page = [
        PageColumn("Tissue, mm²", ("tissue_mm2",), decimals=2),
        PageColumn("Nuclei", ("nuclei",)),
        PageColumn("Nuclei per mm²", ("nuclei_per_mm2",), is_plotted=True),
        PageColumn("Mean area, µm²", ("mean_area_um2",), decimals=1),
    ]
    table = [TableColumn(name, (name,)) for name in ("tissue_mm2", *_NUMBERS)]
    for kind in types:
        words = kind.replace("_", " ").capitalize()
        page.append(PageColumn(words, ("types", kind, "nuclei")))
        page.append(
            PageColumn(f"{words}, share", ("types", kind, "share"), decimals=3, is_plotted=True, highest=1)
        )
        table += [TableColumn(f"{kind}_{name}", ("types", kind, name)) for name in (*_NUMBERS, "share")]
    return CohortColumns(tuple(table), tuple(page))
