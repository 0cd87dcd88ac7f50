"""The numbers of a slide's cells that the cohort's table and page show."""

from __future__ import annotations

from softctm.writers.cohort_table import CohortColumns, PageColumn, TableColumn

_PARTS = ("", "cancer_area", "outside_cancer_area")
_NUMBERS = (
    "background_cells",
    "tumor_cells",
    "tumor_purity",
    "background_cells_per_mm2",
    "tumor_cells_per_mm2",
)

CELL_COLUMNS = CohortColumns(
    table=(
        TableColumn("tissue_mm2", ("tissue_mm2",)),
        TableColumn("cancer_area_mm2", ("cancer_area", "mm2")),
        *(
            TableColumn(f"{part}_{name}" if part else name, (part, name) if part else (name,))
            for part in _PARTS
            for name in _NUMBERS
        ),
    ),
    page=(
        PageColumn("Tissue, mm²", ("tissue_mm2",), decimals=2),
        PageColumn("Cancer area, mm²", ("cancer_area", "mm2"), decimals=2),
        PageColumn("Tumor cells", ("tumor_cells",)),
        PageColumn("Background cells", ("background_cells",)),
        PageColumn("Tumor purity", ("tumor_purity",), decimals=3, is_plotted=True, highest=1),
        PageColumn("Purity in cancer area", ("cancer_area", "tumor_purity"), decimals=3),
        PageColumn(
            "Tumor cells per mm² in cancer area", ("cancer_area", "tumor_cells_per_mm2"), is_plotted=True
        ),
        PageColumn(
            "Background cells per mm² in cancer area",
            ("cancer_area", "background_cells_per_mm2"),
            is_plotted=True,
        ),
        PageColumn("Background cells per mm² outside", ("outside_cancer_area", "background_cells_per_mm2")),
    ),
)
