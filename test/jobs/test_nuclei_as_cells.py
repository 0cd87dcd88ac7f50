"""`--as-cells`: a model of nuclei finds the cells of pairs, and its result is scored as any other."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from color_nuclei import RADIUS, drawn, heads, write_model
from evaluation_cases import BC, TC, cells, write_release
from inputs import entry as pair_entry
from inputs import write_metadata
from numpy.typing import NDArray
from PIL import Image

from softctm import CellTissuePair, TissueWindow, load_detector
from softctm.cli import main
from softctm.errors import ModelError, UsageError
from softctm.inference.nuclei_cells import NucleiAsCells
from softctm.jobs.job_options import JobOptions
from softctm.jobs.pairs import load_detector as detector_of_job
from softctm.model import load_model
from softctm.model.tasks import TASKS
from softctm.postprocessing.hover import SeparatedNuclei

HAND_SET = Path(__file__).parents[1] / "hand_set"
WHITE = np.full((1024, 1024, 3), 255, np.uint8)
FOUR_TYPES = [
    *heads()[:2],
    {"name": "nuclei_type_map", "classes": ["background", "a", "b=c", "d"], "activation": "logits"},
]


def pair(cell: NDArray[np.uint8]) -> CellTissuePair:
    return CellTissuePair(cell, WHITE, TissueWindow(0, 0), "A 17")


def grid(count: int = 9, step: float = 110.0) -> list[tuple[float, float]]:
    """Centers in the middle of pixels; some lie where fields of 256 pixels meet."""
    return [(60.5 + step * column, 50.5 + step * row) for row in range(count) for column in range(count)]


def test_points_by_hand(tmp_path: Path) -> None:
    """What a stand-in for the networks sees, at half the patch's resolution, and what must come of it."""
    instances, types = np.zeros((512, 512), np.int32), np.zeros((512, 512), np.uint8)
    # Rows 10, 11, columns 20 … 23: centroid at (21.5, 10.5), in the patch's pixels at (44, 22).
    instances[10:12, 20:24], types[10:12, 20:24] = 1, 1
    # 3 × 3 at the bottom right corner, six pixels of it d: centroid (510, 510), its middle at 1021.
    instances[509:, 509:], types[509:, 509:], types[509, 509:] = 2, 3, 1
    # 3 × 3, none of them of any type; then 3 × 3 of b=c.
    instances[100:103, 300:303] = 3
    instances[200:203, 0:3], types[200:203, 0:3] = 4, 2
    seen: list[tuple[int, ...]] = []

    def detect(image: NDArray[np.uint8]) -> SeparatedNuclei:
        seen.append(image.shape)
        return SeparatedNuclei(instances, types)

    stage = {"input": {"size": 512, "mpp": 0.4, "channels": ["red", "green", "blue"]}, "heads": FOUR_TYPES}
    model = load_model(write_model(tmp_path / "model", stage=stage))

    class StandIn(SimpleNamespace):
        def __call__(self, image: NDArray[np.uint8]) -> SeparatedNuclei:
            return detect(image)

    def found(*as_cells: str) -> list[tuple[float, ...]]:
        stand_in: Any = StandIn(model=model, size=512, device="cpu", notice=None)
        points = NucleiAsCells(stand_in, as_cells)(pair(WHITE))
        rows = zip(points.x, points.y, points.label, points.score, strict=True)
        return [(int(x), int(y), int(label), round(float(score), 4)) for x, y, label, score in rows]

    nothing = (603, 203, BC, 0.0)
    assert found("a=tumor") == [(44, 22, TC, 1), (1021, 1021, BC, 0.6667), nothing, (3, 403, BC, 1)]
    assert found("d=tumor", "b=c=tumor") == [
        (44, 22, BC, 1), (1021, 1021, TC, 0.6667), nothing, (3, 403, TC, 1)
    ]  # fmt: skip
    assert seen == [(512, 512, 3)] * 2


def test_fields_and_scale_do_not_move_points(tmp_path: Path) -> None:
    """Of a model at 0.25 µm per pixel that sees 256 pixels a side: many fields, and a resampled patch."""
    model = write_model(tmp_path / "model")
    found = load_detector(model, device="cpu", as_cells=("neoplastic=tumor",))(
        pair(drawn(1024, 1024, grid(), RADIUS / 0.8))
    )
    expected = [(int(x), int(y), TC if i % 2 == 0 else BC) for i, (x, y) in enumerate(grid())]
    rows = sorted(zip(found.x.tolist(), found.y.tolist(), found.label.tolist(), strict=True))
    assert len(rows) == len(expected)
    assert [row[2] for row in rows] == [row[2] for row in sorted(expected)]
    np.testing.assert_allclose(rows, sorted(expected), atol=1)
    assert found.score.min() > 0.8


def write_drawn_pairs(folder: Path) -> list[list[tuple[float, float]]]:
    """Two pairs, the second without nuclei."""
    centers = [grid(), []]
    for index, drawing in enumerate(centers):
        for kind, image in (("cell", drawn(1024, 1024, drawing, RADIUS / 0.8)), ("tissue", WHITE)):
            path = folder / "images" / f"{kind}_patches" / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    write_metadata(folder, [pair_entry() for _ in centers])
    return centers


def test_the_command_and_its_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = write_model(tmp_path / "model"), tmp_path / "out"
    centers = write_drawn_pairs(tmp_path / "in")
    command = ["predict", "--input", str(tmp_path / "in"), "--output", str(out), "--weights", str(model)]
    also = ["--also", "geojson,csv,overlay,overview"]
    assert main([*command, "--as-cells", "odd=tumor", "--device", "cpu", *also]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["options"]["as_cells"] == ["odd=tumor"]
    assert record["options"]["views"] == 1
    assert (record["pairs"][0]["tumor_cells"], record["pairs"][0]["background_cells"]) == (40, 41)
    assert (record["pairs"][1]["tumor_cells"], record["pairs"][1]["background_cells"]) == (0, 0)
    assert set(record["detect_seconds"]) == {"nuclei"}
    for name in ("geojson", "csv", "overlay", "overview"):
        assert len(list((out / name).iterdir())) == 2
    truth = [
        cells(*((int(x), int(y), TC if number % 2 else BC) for number, (x, y) in enumerate(drawing)))
        for drawing in centers
    ]
    release = write_release(tmp_path / "release", truth, ["kidney", "liver"])
    capsys.readouterr()
    result = str(out / "cell_classification.json")
    assert main(["evaluate", "--predictions", result, "--truth", str(release)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.split()[:1] == ["mF1"])
    assert line.split()[1] == "1.0000"


@pytest.mark.parametrize(
    ("code", "match", "words"),
    [
        (2, "has no type 'tumor_cell'; it has neoplastic, odd", ["--as-cells", "tumor_cell=tumor"]),
        (2, "has no type 'background'; it has neoplastic, odd", ["--as-cells", "background=tumor"]),
        (2, "--as-cells must be TYPE=tumor", ["--as-cells", "neoplastic"]),
        (2, "--as-cells must be TYPE=tumor", ["--as-cells", "odd=background"]),
        (2, "--also tissue: a model of nuclei", ["--as-cells", "odd=tumor", "--also", "csv,tissue"]),
        (2, "--views 2: models of the task nuclei", ["--as-cells", "odd=tumor", "--views", "2"]),
        (4, "name the types of nuclei that are tumor cells with --as-cells", []),
        (
            4,
            "of the task cell-points, not of nuclei; leave --as-cells out",
            ["--as-cells", "odd=tumor", "--weights", str(HAND_SET)],
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, match: str, words: list[str]
) -> None:
    model, pairs = write_model(tmp_path / "model"), Path(__file__).parents[1] / "input"
    command = ["predict", "--input", str(pairs), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--weights", str(model), *words]) == code
    assert match in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "cell_classification.json").exists()


def test_from_python(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    detector = load_detector(model, device="cpu", as_cells=["odd=tumor"])
    patch = pair(drawn(1024, 1024, [(500.5, 500.5)], RADIUS / 0.8))
    for predicted in (detector(patch), detector.predict(patch).points):
        assert (predicted.x.tolist(), predicted.y.tolist(), predicted.label.tolist()) == ([500], [500], [BC])
    with pytest.raises(UsageError, match="maps neither tissue nor cells"):
        detector.predict(patch, maps=True)
    with pytest.raises(ModelError, match="leave --as-cells out"):
        load_detector(HAND_SET, device="cpu", as_cells=["odd=tumor"])
    # What `softctm serve` loads once and gives to every job.
    options = JobOptions(weights=model, device="cpu", as_cells=("odd=tumor",), also=("overview",))
    assert isinstance(detector_of_job(options), NucleiAsCells)
    assert not options.maps


def test_help_names_the_model_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert f"without --weights: model_weights/{TASKS['nuclei'].shipped})" in " ".join(
        capsys.readouterr().out.split()
    )
