"""The report in a real browser: headless Chromium, without network."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium")
pytest.importorskip("jinja2", reason="the report needs the extra 'report'")
pytest.importorskip("matplotlib", reason="the report needs the extra 'report'")

from evaluation_cases import BC, TC, cells, document, imperfect, random_cells, take, write_json
from report_cases import write_release_with_images
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from softctm.cli import main
from softctm.evaluation.predictions import load_predictions
from softctm.evaluation.scores import challenge_scores, count_pairs
from softctm.evaluation.truth import load_truth

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",  # no smooth scrolling, which a click would have to wait for
    "--window-size=1400,1000",
)
OUTCOMES = {"tp": "tp", "fp": "fp", "fn": "fn"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            pytest.skip(f"needs {name}; on Debian: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = programs["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    random = np.random.default_rng(5)
    true = [*(random_cells(random, n) for n in (150, 90, 60, 40, 30)), cells()]
    predicted = [imperfect(random, points) for points in true]
    release = write_release_with_images(folder / "release", true, ["kidney", "liver"] * 3)
    return release, write_json(folder / "cell_classification.json", document(predicted))


@pytest.fixture(scope="module")
def page_with_truth(case, tmp_path_factory):
    release, predictions = case
    out = tmp_path_factory.mktemp("with-truth") / "report.html"
    words = ("--predictions", predictions, "--truth", release, "--resamples", 50)
    assert main(["report", str(out), *map(str, words)]) == 0
    return out


@pytest.fixture
def opened(browser, page_with_truth):
    return open_page(browser, page_with_truth)


def open_page(browser, path):
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    return browser


def assert_quiet(browser, path):
    """No message on the console, and nothing asked of any server."""
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert path.as_uri() in {url.split("#")[0] for url in asked}
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def focus(browser, css):
    browser.execute_script("document.querySelector(arguments[0]).focus()", css)


def focused(browser):
    return browser.execute_script(
        "const e = document.activeElement; return e.id || e.dataset.layer || e.tagName"
    )


def set_stop(browser, stop):
    """Move the slider with the keyboard, as a user would."""
    focus(browser, "#threshold")
    if stop > 50:
        press(browser, Keys.END, *[Keys.ARROW_LEFT] * (100 - stop))
    else:
        press(browser, Keys.HOME, *[Keys.ARROW_RIGHT] * stop)


def shown_marks(browser):
    """Marks that are really displayed, by outcome and class."""
    return browser.execute_script(
        """const counts = {};
        for (const mark of document.querySelectorAll("#marks .mark")) {
          if (getComputedStyle(mark).display === "none") continue;
          const key = mark.getAttribute("class").replace("mark ", "");
          counts[key] = (counts[key] || 0) + 1;
        }
        return counts;"""
    )


def table(browser, name):
    """The live table's cells by their key."""
    found = browser.find_elements(By.CSS_SELECTOR, f"#{name} [data-key]")
    return {cell.get_attribute("data-key"): cell.text for cell in found}


def selected(browser):
    return browser.find_element(By.CSS_SELECTOR, "#pairs [aria-selected=true] b").text


def truth_and_predictions(case):
    release, predictions = case
    truth = load_truth(release)
    return truth, load_predictions(predictions, len(truth))


@pytest.mark.parametrize("stop", [0, 1, 37, 50, 80, 100])
def test_the_slider_updates_counts_and_scores(opened, case, stop):
    truth, predicted = truth_and_predictions(case)
    left = [take(points, points.score >= np.float32(stop / 100)) for points in predicted]
    counts = count_pairs(left, truth.points)
    scores = challenge_scores(counts.sum(axis=0))
    set_stop(opened, stop)
    everything, pair = table(opened, "all-scores"), table(opened, "pair-scores")
    own = counts[truth.names.index(selected(opened))]
    for i, name in enumerate(("BC", "TC")):
        for j, key in enumerate(("tp", "fp", "fn")):
            assert everything[f"{name}.{key}"] == str(counts[:, i, j].sum())
            assert pair[f"{name}.{key}"] == str(own[i, j])
            assert shown_marks(opened).get(f"{OUTCOMES[key]} {name}", 0) == own[i, j]
        for key, kind in (("precision", "Pre"), ("recall", "Rec"), ("f1", "F1")):
            assert everything[f"{name}.{key}"] == f"{scores[f'{kind}/{name}']:.4f}"
    assert everything["mean_f1"] == f"{scores['mF1']:.4f}"
    kept = counts[:, :, :2].sum(axis=(0, 2))
    assert everything["purity"] == (f"{kept[1] / kept.sum():.3f}" if kept.sum() else "–")
    assert opened.find_element(By.ID, "threshold-value").text == f"{stop / 100:.2f}"
    spoken = opened.find_element(By.ID, "threshold").get_attribute("aria-valuetext")
    assert spoken.endswith(f"mean F1 {scores['mF1']:.4f}")


def test_the_best_threshold_is_the_best_one(opened, case):
    truth, predicted = truth_and_predictions(case)
    means = []
    for stop in range(101):
        left = [take(points, points.score >= np.float32(stop / 100)) for points in predicted]
        means.append(challenge_scores(count_pairs(left, truth.points).sum(axis=0))["mF1"])
    opened.find_element(By.XPATH, "//button[.='Best mean F1']").click()
    assert table(opened, "all-scores")["mean_f1"] == f"{max(means):.4f}"
    opened.find_element(By.XPATH, "//button[.='All cells']").click()
    assert table(opened, "all-scores")["mean_f1"] == f"{means[0]:.4f}"


def test_layers_and_classes_switch_on_and_off(opened):
    before = shown_marks(opened)
    assert {key.split()[0] for key in before} == {"tp", "fn", "fp"}
    for layer in ("tp", "fn", "fp", "BC", "TC"):
        focus(opened, f"[data-layer={layer}]")
        press(opened, Keys.SPACE)
        assert shown_marks(opened) == {key: n for key, n in before.items() if layer not in key.split()}
        press(opened, Keys.SPACE)
    assert shown_marks(opened) == before
    for layer, css in (
        ("image", "#cell-image"),
        ("image", "#tissue-image"),
        ("frame", "#frame"),
        ("annotated", "#cell-regions .annotated.cancer"),
        ("annotated", "#tissue-regions .annotated.cancer"),
        ("unknown", "#tissue-regions .unknown"),
    ):
        element = opened.find_element(By.CSS_SELECTOR, css)
        box = opened.find_element(By.CSS_SELECTOR, f"[data-layer={layer}]")
        displayed = []
        for _ in range(3):
            displayed.append(element.value_of_css_property("display") != "none")
            box.click()
        box.click()
        assert displayed == [True, False, True]


def test_outcomes_differ_by_shape_and_classes_by_the_challenges_colors(opened):
    def shape(outcome):
        use = opened.find_element(By.CSS_SELECTOR, f"#marks .{outcome} .ink")
        return opened.find_element(By.CSS_SELECTOR, use.get_attribute("href")).get_attribute("d")

    assert len({shape(outcome) for outcome in ("tp", "fn", "fp")}) == 3
    for name, color in (("BC", "rgb(255, 225, 0)"), ("TC", "rgb(0, 120, 255)")):
        marks = opened.find_elements(By.CSS_SELECTOR, f"#marks .{name} .ink")
        assert {mark.value_of_css_property("stroke") for mark in marks} == {color}


def test_marks_lie_where_the_cells_are(opened, case):
    truth, predicted = truth_and_predictions(case)
    index = truth.names.index(selected(opened))
    places = opened.execute_script(
        """const box = document.getElementById("stage").getBoundingClientRect();
        return [...document.querySelectorAll("#marks .tp, #marks .fp")].map((mark) => {
          const own = mark.getBoundingClientRect();
          const [x, y] = [own.x + own.width / 2 - box.x, own.y + own.height / 2 - box.y];
          return [x / box.width * 1024, y / box.height * 1024];
        });"""
    )
    expected = np.column_stack((predicted[index].x, predicted[index].y))
    assert np.abs(np.array(places) - expected).max() < 1


def test_everything_is_reached_by_keyboard_in_a_sensible_order(opened):
    order = []
    focus(opened, "nav li:last-child a")
    for _ in range(16):
        press(opened, Keys.TAB)
        order.append(focused(opened))
    assert order[:7] == ["tab-0", "zoom-out", "zoom-reset", "zoom-in", "stage", "threshold", "BUTTON"]
    assert order[8:] == ["tp", "fp", "fn", "BC", "TC", "image", "frame", "annotated"]
    for element in opened.find_elements(
        By.CSS_SELECTOR, "#viewer :is(button, input, svg[tabindex]), th button"
    ):
        assert element.accessible_name.strip(), element.get_attribute("outerHTML")[:200]


def test_arrow_keys_switch_pairs(opened):
    names = [tab.text for tab in opened.find_elements(By.CSS_SELECTOR, "#pairs b")]
    assert len(names) == 5
    focus(opened, "#tab-0")
    press(opened, Keys.ARROW_RIGHT)
    assert (selected(opened), focused(opened)) == (names[1], "tab-1")
    press(opened, Keys.END)
    assert selected(opened) == names[-1]
    press(opened, Keys.ARROW_RIGHT)
    assert selected(opened) == names[0]
    press(opened, Keys.ARROW_LEFT, Keys.HOME)
    assert selected(opened) == names[0]
    first = opened.find_element(By.ID, "cell-image").get_attribute("href")
    focus(opened, "#stage")
    press(opened, Keys.ARROW_RIGHT)
    assert (selected(opened), focused(opened)) == (names[1], "stage")
    assert opened.find_element(By.ID, "cell-image").get_attribute("href") != first
    assert opened.find_element(By.ID, "pair-name").text.startswith(names[1])


def test_the_view_zooms_and_pans(opened):
    def view():
        return [float(v) for v in opened.find_element(By.ID, "stage").get_dom_attribute("viewBox").split()]

    focus(opened, "#stage")
    press(opened, "+")
    x, y, side, _ = view()
    assert side == pytest.approx(1024 / 1.5)
    assert x == y == pytest.approx((1024 - side) / 2)
    ActionChains(opened).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert view()[0] == pytest.approx(x + 0.1 * side)
    seen = opened.find_element(By.ID, "seen")
    assert float(seen.get_dom_attribute("x")) == pytest.approx(100 + view()[0] / 4)
    assert float(seen.get_dom_attribute("width")) == pytest.approx(side / 4)
    press(opened, *"+" * 20)
    assert view()[2] == pytest.approx(1024 / 8)
    press(opened, "0")
    assert view() == [0, 0, 1024, 1024]


def test_the_tissue_patch_has_the_cell_patchs_frame(opened):
    parts = opened.find_elements(By.CSS_SELECTOR, "#frame rect")
    assert parts
    for part in parts:
        assert [part.get_dom_attribute(name) for name in ("x", "y", "width", "height")] == [
            "100",
            "300",
            "256",
            "256",
        ]


def test_tables_sort_and_open_pairs(opened):
    rows = "#pairs-table tbody tr"
    head = opened.find_elements(By.CSS_SELECTOR, "#pairs-table th button")
    column = [button.text for button in head].index("True TC")
    for direction, order in (("descending", -1), ("ascending", 1)):
        opened.execute_script("arguments[0].click()", head[column])
        found = opened.find_elements(By.CSS_SELECTOR, f"{rows} :nth-child({column + 1})")
        numbers = [int(cell.text) for cell in found]
        assert numbers == sorted(numbers, key=lambda n: order * n)
        assert len(set(numbers)) > 1
        head_cell = opened.find_element(By.CSS_SELECTOR, f"#pairs-table th:nth-child({column + 1})")
        assert head_cell.get_attribute("aria-sort") == direction
    link = opened.find_elements(By.CSS_SELECTOR, "#pairs-table a")[-1]
    name = link.text
    opened.execute_script("arguments[0].click()", link)
    assert selected(opened) == name


def test_pointing_at_a_cell_names_it(opened):
    mark = opened.find_element(By.CSS_SELECTOR, "#marks .tp")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(opened).move_to_element(mark).perform()
    assert re.match(r"(BC|TC), .* at \(\d+, \d+\)", opened.find_element(By.ID, "tip").text)


@pytest.mark.parametrize("width", [360, 768, 1024, 1400, 1920])
def test_the_page_fits_its_window(opened, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        widths = opened.execute_script(
            """const tables = [...document.querySelectorAll(".live")];
            return tables.map((table) => [table.offsetWidth, table.parentElement.clientWidth]);"""
        )
        assert all(table <= column for table, column in widths)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def luminance(color):
    channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(opened, scheme):
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    pairs = opened.execute_script(
        """const behind = (e) => {
          for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (!color.endsWith(", 0)")) return color;
          }
        };
        const kinds = "h1, h2, h3, p, dt, dd, dd *, th, td, a, caption, figcaption, legend, button, kbd";
        return [...document.querySelectorAll(kinds)]
          .filter((e) => e.textContent.trim() && e.getClientRects().length)
          .map((e) => [getComputedStyle(e).color, behind(e), e.textContent.trim().slice(0, 40)]);"""
    )
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(pairs) > 100
    for color, background, text in pairs:
        low, high = sorted((luminance(color), luminance(background)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, color, background)


def test_a_page_used_all_over_stays_quiet_and_offline(browser, page_with_truth):
    open_page(browser, page_with_truth)
    for tab in browser.find_elements(By.CSS_SELECTOR, "#pairs [role=tab]"):
        tab.click()
        set_stop(browser, 40)
    assert_quiet(browser, page_with_truth)


def test_without_truth_the_viewer_shows_the_cells_and_their_purity(browser, case, tmp_path):
    release, predictions = case
    out = tmp_path / "without_truth.html"
    assert main(["report", str(out), "--predictions", str(predictions), "--input", str(release)]) == 0
    open_page(browser, out)
    _, predicted = truth_and_predictions(case)
    set_stop(browser, 60)
    left = [take(points, points.score >= np.float32(0.6)) for points in predicted]
    own = left[int(selected(browser)) - 1]
    expected = {f"cell {name}": int(np.sum(own.label == label)) for name, label in (("BC", BC), ("TC", TC))}
    assert shown_marks(browser) == expected
    pair, everything = table(browser, "pair-scores"), table(browser, "all-scores")
    assert pair == {
        "BC.cells": str(expected["cell BC"]),
        "TC.cells": str(expected["cell TC"]),
        "purity": f"{expected['cell TC'] / sum(expected.values()):.3f}",
    }
    labels = np.concatenate([points.label for points in left])
    assert everything["TC.cells"] == str(np.sum(labels == TC))
    assert everything["purity"] == f"{np.mean(labels == TC):.3f}"
    assert not browser.find_elements(By.CSS_SELECTOR, "[data-layer=tp]")
    assert_quiet(browser, out)


def test_the_default_models_predictions_on_real_pairs_make_a_page_that_works(browser, six_pairs, tmp_path):
    release = six_pairs
    truth = load_truth(release, "train")
    options = ("--input", release, "--subset", "train", "--output", tmp_path, "--views", 1, "--device", "cpu")
    assert main(["predict", *map(str, options)]) == 0
    predictions = tmp_path / "cell_classification.json"
    out = tmp_path / "ocelot.html"
    words = ("--predictions", predictions, "--truth", release, "--subset", "train", "--resamples", 200)
    assert main(["report", str(out), *map(str, words)]) == 0
    assert out.stat().st_size < 9 * 0.75e6 + 1e6
    open_page(browser, out)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#pairs [role=tab]")) == len(truth)
    written = load_predictions(predictions, len(truth))
    for stop in (0, 63):
        left = [take(points, points.score >= np.float32(stop / 100)) for points in written]
        scores = challenge_scores(count_pairs(left, truth.points).sum(axis=0))
        set_stop(browser, stop)
        assert table(browser, "all-scores")["mean_f1"] == f"{scores['mF1']:.4f}"
    assert_quiet(browser, out)
