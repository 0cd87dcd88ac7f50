"""The cohort's table and page: what they say, and that the page works in a browser without a network."""

import csv
import io
import os
import re
import shutil

import pytest
from PIL import Image

from softctm.jobs.slides.cells.columns import CELL_COLUMNS
from softctm.writers import cohort_page as cohort_page_module
from softctm.writers.cohort_page import cohort_page
from softctm.writers.cohort_table import CohortRow, cohort_csv


def record(index):
    part = {
        "background_cells": 100 * index,
        "tumor_cells": 50,
        "tumor_purity": round(50 / (100 * index + 50), 4),
        "background_cells_per_mm2": 1000.0 * index,
        "tumor_cells_per_mm2": 500.0,
    }
    return {
        **part,
        "tissue_mm2": 1.5 * index,
        "cancer_area": {**part, "mm2": 0.5},
        "outside_cancer_area": {**part, "mm2": 1.0, "background_cells_per_mm2": None},
        "slide": {"mpp": [0.25, 0.25], "width": 1000, "height": 900},
        "seconds": {"total": 3.5},
        "warnings": ["coarse"],
    }


ROWS = [
    CohortRow("beta", "in/beta.svs", record(3)),
    CohortRow("alpha <&>", "in/alpha.svs", record(1)),
    CohortRow("gamma", "in/gamma.svs", record(2)),
    CohortRow("delta", "in/delta.svs", error="in/delta.svs: is <no> slide"),
    CohortRow("epsilon", "in/epsilon.svs"),
]


@pytest.fixture
def overviews(tmp_path):
    paths = {}
    for index, row in enumerate(ROWS[:3]):
        paths[row.name] = tmp_path / row.name / "overview.png"
        paths[row.name].parent.mkdir()
        Image.new("RGB", (1412, 1000), (50 * index, 90, 200)).save(paths[row.name])
    return paths


def test_the_table_has_a_line_a_slide():
    rows = list(csv.DictReader(io.StringIO(cohort_csv(ROWS, CELL_COLUMNS).decode())))
    assert [row["status"] for row in rows] == ["complete"] * 3 + ["failed", "waiting"]
    assert rows[0]["background_cells"] == "300"
    assert rows[0]["cancer_area_mm2"] == "0.5"
    assert rows[0]["outside_cancer_area_background_cells_per_mm2"] == ""
    assert rows[3]["error"] == "in/delta.svs: is <no> slide"
    assert rows[4]["tumor_cells"] == ""


def test_pages_of_many_slides_link_to_names_of_any_bytes(overviews, monkeypatch):
    monkeypatch.setattr(cohort_page_module, "_MOST_PICTURES", 0)
    odd = os.fsdecode(b"\xfcber & unter")
    row = CohortRow(odd, f"in/{odd}.svs", record(1))
    place = overviews["beta"].parent.rename(overviews["beta"].parent.with_name(odd))
    page = cohort_page([row], {odd: place / "overview.png"}, CELL_COLUMNS)
    assert b'href="%FCber%20%26%20unter/overview.png"' in page


def test_the_page_needs_nothing_else(overviews):
    page = cohort_page(ROWS, overviews, CELL_COLUMNS).decode()
    assert "3 of 5 slides, 1 failed, 1 still waiting" in page
    assert "alpha &lt;&amp;&gt;" in page
    assert "is &lt;no&gt; slide" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in page
    assert page.count("<svg") == 3
    assert cohort_page([], {}, CELL_COLUMNS).decode().count("<tr>") == 1


@pytest.mark.parametrize("kept", [0, 20, 60, 500])
def test_a_damaged_picture_does_not_cost_the_page(overviews, kept):
    overviews["beta"].write_bytes(overviews["beta"].read_bytes()[:kept])
    page = cohort_page(ROWS, overviews, CELL_COLUMNS).decode()
    assert page.count('src="data:image/jpeg') == 2
    assert 'data-value="beta"' in page


def test_a_large_cohort_links_its_pictures(overviews):
    many = [CohortRow(f"slide {index}", "x", record(1)) for index in range(201)]
    page = cohort_page([ROWS[0], *many], overviews, CELL_COLUMNS).decode()
    assert 'href="beta/overview.png"' in page


@pytest.fixture
def browser():
    selenium = pytest.importorskip("selenium.webdriver")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs chromium and chromedriver")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.slow
def test_the_page_works_in_a_browser(browser, overviews, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "cohort.html"
    path.write_bytes(cohort_page(ROWS, overviews, CELL_COLUMNS))
    browser.get(path.as_uri())

    def names():
        return [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#slides tbody td:nth-child(2)")]

    def press(head):
        browser.find_element(By.XPATH, f"//th/button[.='{head}']").click()

    assert names() == ["beta", "alpha <&>", "gamma"]
    press("Slide")
    assert names() == ["alpha <&>", "beta", "gamma"]
    press("Background cells")
    assert names() == ["beta", "gamma", "alpha <&>"]
    press("Background cells")
    assert names() == ["alpha <&>", "gamma", "beta"]
    head = browser.find_element(By.XPATH, "//th[button[.='Background cells']]")
    assert head.get_attribute("aria-sort") == "ascending"
    viewer = browser.find_element(By.ID, "viewer")
    assert not viewer.is_displayed()
    browser.find_elements(By.CSS_SELECTOR, "#slides td button")[1].click()
    assert viewer.is_displayed()
    title, image = browser.find_element(By.ID, "viewer-name"), browser.find_element(By.ID, "viewer-image")
    assert title.text == "gamma"
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 1400
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert title.text == "beta"
    browser.find_element(By.XPATH, "//dialog//button[.='Next']").click()
    assert title.text == "alpha <&>"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not viewer.is_displayed()
    for width in (360, 1400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [url for url in asked if not url.startswith("data:")] == []
