"""Draw docs/images/report-*.png: pages of synthetic pairs and predictions, seen by headless Chromium.

python docs/figures/report.py     # needs chromium, chromedriver and the extra 'dev'
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from softctm.cli import main as softctm
from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair, load_release
from softctm.phantom.sample_folders import LAYOUTS, draw_pairs
from softctm.points import CellPoints
from softctm.storage.files import write_json_atomically
from softctm.writers.grand_challenge import points_document

IMAGES = Path(__file__).resolve().parents[1] / "images"
PAIRS, SEED = 9, 4
SLIDER = (
    "const s = document.getElementById('threshold'); s.value = 50; s.dispatchEvent(new Event('input'));"
    "document.querySelectorAll('#pairs [role=tab]')[3].click();"
    "document.getElementById('viewer').scrollIntoView();"
)


def predict(pair: AnnotatedPair, random: np.random.Generator) -> CellPoints:
    """True cells, some of them moved, lost, renamed or invented, more of it in some pairs than in others."""
    true, badness = pair.cells(), random.uniform(0.3, 1.7)
    kept = np.flatnonzero(random.random(len(true)) > 0.12 * badness)
    invented = random.poisson(0.12 * badness * len(true))
    renamed = random.random(len(kept)) < 0.08 * badness
    place = np.column_stack((true.x, true.y))[kept] + random.normal(0, 3 * badness, (len(kept), 2))
    place = np.concatenate([place, random.uniform(0, 1023, (invented, 2))]).clip(0, 1023).astype(np.int32)
    label = np.where(renamed, 3 - true.label[kept], true.label[kept])
    score = np.concatenate(
        [random.normal(0.75, 0.12, len(kept)) - 0.2 * renamed, random.normal(0.4, 0.15, invented)]
    )
    return CellPoints(
        place[:, 0].copy(),
        place[:, 1].copy(),
        np.concatenate([label, random.integers(1, 3, invented)]).astype(np.uint8),
        score.clip(0, 1).astype(np.float32),
    )


def predict_tissue(pair: AnnotatedPair, random: np.random.Generator) -> Image.Image:
    """The annotated cancer area with a frayed border."""
    cancer = gaussian_filter((pair.tissue_labels() == TISSUE_CANCER).astype(np.float32), 12)
    fray = gaussian_filter(random.normal(size=cancer.shape), 16)
    labels = np.where(cancer + 0.25 * fray / fray.std() > 0.5, TISSUE_CANCER, TISSUE_BACKGROUND)
    return Image.fromarray(labels.astype(np.uint8))


def photograph(page: Path, name: str, size: tuple[int, int], script: str = "") -> None:
    """Open a page and store what a window of that size shows."""
    options = Options()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"):
        options.add_argument(flag)
    for flag in ("--disable-background-networking", "--disable-sync", "--force-prefers-reduced-motion"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page.as_uri())
        browser.execute_script(script)
        path = IMAGES / f"report-{name}.png"
        browser.save_screenshot(str(path))
    finally:
        browser.quit()
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


def main() -> None:
    """Draw the pairs, make both pages, and take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    random = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        LAYOUTS["ocelot"](folder / "phantom", draw_pairs(PAIRS, SEED))
        pairs = load_release(folder / "phantom")
        predictions = folder / "cell_classification.json"
        write_json_atomically(predictions, points_document([predict(pair, random) for pair in pairs]))
        (folder / "tissue").mkdir()
        for pair in pairs:
            predict_tissue(pair, random).save(folder / "tissue" / f"{pair.id}.png")
        with_truth, without = folder / "with_truth.html", folder / "without_truth.html"
        shared = ["--predictions", str(predictions), "--tissue", str(folder / "tissue")]
        shared += ["--title", "Synthetic pairs"]
        softctm(["report", str(with_truth), *shared, "--truth", str(folder / "phantom")])
        softctm(["report", str(without), *shared, "--input", str(folder / "phantom")])
        photograph(with_truth, "overview", (1400, 1150))
        photograph(with_truth, "viewer", (1400, 960), SLIDER)
        photograph(without, "without-ground-truth", (1400, 1000), SLIDER)


if __name__ == "__main__":
    main()
