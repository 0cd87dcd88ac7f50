"""The synthetic pairs: coherent across the two resolutions, reproducible, honest about their cells."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hed

from softctm.cli import main
from softctm.pair import CELL_MPP, WINDOW_SIZE, CellTissuePair
from softctm.phantom import DrawnTruth, draw_pair, sample_folders
from softctm.phantom.noise import Noise, grid
from softctm.phantom.sample_folders import draw_pairs

SAMPLE = Path(__file__).parent / "input"


@pytest.fixture(scope="module")
def drawn() -> tuple[CellTissuePair, DrawnTruth]:
    return draw_pair(7)


@pytest.fixture(scope="module")
def container_input(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("container")
    assert main(["phantom", str(folder)]) == 0
    return folder


def test_tissue_window_is_the_cell_patch_seen_from_afar(drawn: tuple[CellTissuePair, DrawnTruth]) -> None:
    pair, _ = drawn
    from_afar = pair.cell.reshape(WINDOW_SIZE, 4, WINDOW_SIZE, 4, 3).mean(axis=(1, 3))
    x, y = pair.window.x, pair.window.y
    window = pair.tissue[y : y + WINDOW_SIZE, x : x + WINDOW_SIZE].astype(float)
    assert np.abs(from_afar - window).mean() < 5
    assert np.abs((from_afar - window).mean(axis=(0, 1))).max() < 1.5
    matching = np.corrcoef(from_afar.ravel(), window.ravel())[0, 1]
    assert matching > 0.98
    # One pixel off would be seen: the geometry is exact, not only about right.
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        assert np.corrcoef(np.roll(from_afar, shift, (0, 1)).ravel(), window.ravel())[0, 1] < matching - 0.01


def test_same_seed_same_pair_other_seed_other_pair(drawn: tuple[CellTissuePair, DrawnTruth]) -> None:
    pair, truth = drawn
    again, same_truth = draw_pair(7)
    assert np.array_equal(pair.cell, again.cell)
    assert np.array_equal(pair.tissue, again.tissue)
    assert np.array_equal(truth.cells.x, same_truth.cells.x)
    other, _ = draw_pair(8)
    assert not np.array_equal(pair.cell, other.cell)


def test_every_true_cell_lies_on_a_dark_blue_spot(drawn: tuple[CellTissuePair, DrawnTruth]) -> None:
    pair, truth = drawn
    hematoxylin = ndimage.gaussian_filter(rgb2hed(pair.cell)[..., 0], 3)
    at_cells = hematoxylin[truth.cells.y, truth.cells.x]
    assert (at_cells > np.percentile(hematoxylin, 60)).mean() > 0.97


@pytest.mark.parametrize("seed", range(4))
def test_both_kinds_of_cells_and_both_kinds_of_tissue_show(seed: int) -> None:
    _, truth = draw_pair(seed)
    assert (truth.cells.label == 1).sum() >= 5
    assert (truth.cells.label == 2).sum() >= 30
    assert set(np.unique(truth.tissue)) == {1, 2, 255}
    assert (truth.tissue == 255).mean() < 0.1


def test_tumor_cells_lie_in_the_cancer_area_and_others_also_outside(
    drawn: tuple[CellTissuePair, DrawnTruth],
) -> None:
    pair, truth = drawn
    under = truth.tissue[pair.window.y + truth.cells.y // 4, pair.window.x + truth.cells.x // 4]
    tumor = truth.cells.label == 2
    assert (under[tumor] != 1).all()
    assert (under[~tumor] == 1).any()


def test_tumor_nuclei_are_larger_than_the_others_and_of_natural_size() -> None:
    """Equal-area diameters of the drawn dark spots, measured in the image, not taken from the generator."""
    diameters = {1: [], 2: []}
    for seed in range(3):
        pair, truth = draw_pair(seed)
        red = ndimage.gaussian_filter(pair.cell[..., 0].astype(float), 1)
        for x, y, label in zip(truth.cells.x, truth.cells.y, truth.cells.label, strict=True):
            near = (slice(max(y - 40, 0), y + 41), slice(max(x - 40, 0), x + 41))
            spots, _ = ndimage.label(red[near] < 150)
            spot = spots[min(y, 40), min(x, 40)]
            area = (spots == spot).sum() * CELL_MPP**2
            # Touching nuclei merge to one spot; only single ones tell a size.
            if spot and area < 140:
                diameters[int(label)].append(2 * np.sqrt(area / np.pi))
    assert 8 <= np.median(diameters[2]) <= 12
    assert 5 <= np.median(diameters[1]) <= 8


def test_a_coarse_grid_shows_the_mean_of_the_fine_one() -> None:
    noise = Noise(np.random.default_rng(0), 100.0, 0.7)
    fine = noise.on_grid(grid(8, 200, 0.2), grid(16, 200, 0.2))
    coarse = noise.on_grid(grid(8, 50, 0.8), grid(16, 50, 0.8))
    np.testing.assert_allclose(coarse, fine.reshape(50, 4, 50, 4).mean(axis=(1, 3)), atol=1e-4)


def test_noise_is_standardized() -> None:
    values = Noise(np.random.default_rng(1), 800.0, 3.0).on_grid(grid(0, 1024, 0.5), grid(0, 1024, 0.5))
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


def test_container_layout(container_input: Path) -> None:
    metadata = json.loads((container_input / "metadata.json").read_text())
    truth = json.loads((container_input / "truth/cell_gt.json").read_text())
    assert truth["num_images"] == len(metadata) == 3
    assert {point["name"] for point in truth["points"]} == {"image_0", "image_1", "image_2"}
    for entry, stem in zip(metadata, ("001", "002", "003"), strict=True):
        assert Image.open(container_input / f"images/cell_patches/{stem}.jpg").size == (1024, 1024)
        assert Image.open(container_input / f"images/tissue_patches/{stem}.jpg").size == (1024, 1024)
        assert np.asarray(Image.open(container_input / f"truth/tissue/{stem}.png")).dtype == np.uint8
        cell, tissue = entry["cell"], entry["tissue"]
        for axis in "xy":
            window = 1024 * (cell[f"{axis}_start"] - tissue[f"{axis}_start"])
            window /= tissue[f"{axis}_end"] - tissue[f"{axis}_start"]
            assert window == int(window) == 1024 * entry[f"patch_{axis}_offset"] - 128
            side = cell[f"{axis}_end"] - cell[f"{axis}_start"]
            assert side * entry[f"mpp_{axis}"] / 1024 == pytest.approx(cell[f"resized_mpp_{axis}"])


def test_ocelot_layout(tmp_path: Path) -> None:
    assert main(["phantom", str(tmp_path), "--layout", "ocelot", "--pairs", "3", "--seed", "4"]) == 0
    entries = json.loads((tmp_path / "metadata.json").read_text())["sample_pairs"]
    assert sorted(entries) == ["001", "002", "003"]
    assert len({entry["slide_name"][:12] for entry in entries.values()}) == 2
    for stem in entries:
        for kind in ("cell", "tissue"):
            assert Image.open(tmp_path / f"images/train/{kind}/{stem}.jpg").size == (1024, 1024)
        labels = np.asarray(Image.open(tmp_path / f"annotations/train/tissue/{stem}.png"))
        assert set(np.unique(labels)) <= {1, 2, 255}
        with (tmp_path / f"annotations/train/cell/{stem}.csv").open() as file:
            rows = [[int(value) for value in row] for row in csv.reader(file)]
        assert all(0 <= x < 1024 and 0 <= y < 1024 and label in (1, 2) for x, y, label in rows)


def test_committed_sample_is_what_the_command_draws(container_input: Path) -> None:
    """`softctm phantom test/input`: another machine's rounding and JPEG library may differ a little."""
    assert (SAMPLE / "metadata.json").read_bytes() == (container_input / "metadata.json").read_bytes()
    assert (SAMPLE / "truth/cell_gt.json").read_bytes() == (
        container_input / "truth/cell_gt.json"
    ).read_bytes()
    images = sorted(path.relative_to(SAMPLE) for path in SAMPLE.rglob("*.jpg"))
    assert len(images) == 6
    for image in images:
        committed = np.asarray(Image.open(SAMPLE / image)).astype(int)
        drawn = np.asarray(Image.open(container_input / image)).astype(int)
        difference = np.abs(committed - drawn)
        assert difference.mean() < 0.5
        assert np.percentile(difference, 99.9) <= 8


@pytest.mark.parametrize("layout", ["container", "ocelot"])
def test_only_its_own_files_are_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    words = ["phantom", str(tmp_path), "--layout", layout]
    assert main([*words, "--pairs", "2"]) == 0
    assert main([*words, "--pairs", "1"]) == 0
    assert not list(tmp_path.rglob("002.*"))
    (tmp_path / "images" / "mine.jpg").write_bytes(b"x")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([*words, "--pairs", "1", "--seed", "5"]) == 6
    assert "mine.jpg is there already and `softctm phantom` did not make it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert main([*words, "--pairs", "1", "--seed", "5", "--overwrite"]) == 0
    assert (tmp_path / "images" / "mine.jpg").read_bytes() == b"x"


@pytest.mark.parametrize("layout", ["container", "ocelot"])
def test_an_interrupted_run_knows_its_own_files(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = sample_folders._write_image, [6]

    def interrupted(path: Path, image: np.ndarray) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        write(path, image)

    command = ["phantom", str(tmp_path), "--layout", layout]
    monkeypatch.setattr(sample_folders, "_write_image", interrupted)
    assert main([*command, "--pairs", "4"]) == 130
    monkeypatch.setattr(sample_folders, "_write_image", write)
    assert main([*command, "--pairs", "1"]) == 0
    assert len(list((tmp_path / "images").rglob("*.jpg"))) == 2


@pytest.mark.parametrize("document", [[], [{"slide_name": "TCGA-01"}], {"sample_pairs": {}}, "text"])
def test_a_release_is_never_drawn_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: object
) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps(document))
    (tmp_path / "images/train/cell").mkdir(parents=True)
    (tmp_path / "images/train/cell/001.jpg").write_bytes(b"real")
    assert main(["phantom", str(tmp_path), "--layout", "ocelot"]) == 6
    assert (tmp_path / "images/train/cell/001.jpg").read_bytes() == b"real"
    assert "--overwrite" in capsys.readouterr().err


def test_names_sort_as_they_are_counted() -> None:
    """1000 comes after 999 only if all names are of one length."""
    first = next(draw_pairs(1000, 0))
    assert first.pair.name == "0001"


def test_impossible_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path), "--pairs", "0"]) == 2
    assert "--pairs" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["phantom", str(tmp_path), "--seed", "-1"])
    assert "--seed: must lie in 0 …" in capsys.readouterr().err


def test_a_refused_call_leaves_what_is_drawn_already(tmp_path: Path) -> None:
    assert main(["phantom", str(tmp_path), "--pairs", "1"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["phantom", str(tmp_path), "--pairs", "0"]) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_image_that_was_put_beside_the_drawn_ones_is_not_their_own(tmp_path: Path) -> None:
    assert main(["phantom", str(tmp_path), "--pairs", "1"]) == 0
    for name in ("002", "0012_biopsy"):
        (tmp_path / f"images/cell_patches/{name}.jpg").write_bytes(b"real")
    assert main(["phantom", str(tmp_path), "--pairs", "1"]) == 6
    for name in ("002", "0012_biopsy"):
        assert (tmp_path / f"images/cell_patches/{name}.jpg").read_bytes() == b"real"


def test_a_file_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").write_text("")
    assert main(["phantom", str(tmp_path), "--pairs", "1"]) == 6
    assert str(tmp_path / "images") in capsys.readouterr().err
