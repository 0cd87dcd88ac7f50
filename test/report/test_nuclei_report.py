"""The page on nuclei: what it draws and says; in a real browser where there is one."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("jinja2", reason="the report needs the extra 'report'")

from nuclei_cases import WRITERS, drawn
from PIL import Image

from softctm.cli import main
from softctm.datasets.nuclei import open_nuclei
from softctm.evaluation.nuclei.scores import evaluate_nuclei
from softctm.postprocessing.outlines import outlines
from softctm.report.nuclei_page import chosen_images


class Paths(HTMLParser):
    """Classes, corners and words of every outline, and the addresses that the page refers to."""

    def __init__(self, text):
        super().__init__()
        self.found, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[key] for key in ("href", "src") if key in attributes]
        if tag == "path":
            numbers = np.array(re.findall(r"-?\d+", attributes["d"]), int).reshape(-1, 2)
            self.found.append((attributes["class"].split(), np.cumsum(numbers, axis=0) / 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Predictions that lack the first image's first nucleus and move the second's by its width."""
    root = tmp_path_factory.mktemp("nuclei")
    WRITERS["labels"](root / "truth")
    WRITERS["labels"](root / "predicted")
    path = root / "predicted/instances/first.png"
    instances = np.asarray(Image.open(path)).copy()
    instances[instances == 300] = 0
    Image.fromarray(instances).save(path)
    path = root / "predicted/instances/second.png"
    instances = np.asarray(Image.open(path))
    moved = np.where(np.roll(instances == 1200, 8, axis=0), 1200, np.where(instances == 1200, 0, instances))
    Image.fromarray(moved.astype(np.uint16)).save(path)
    truth, predicted = str(root / "truth"), str(root / "predicted")
    options = ["--report", str(root / "page.html"), "--resamples", "50"]
    assert main(["evaluate", "nuclei", "--predictions", predicted, "--truth", truth, *options]) == 0
    return root


def test_outlines_and_outcomes(folder):
    page = Paths((folder / "page.html").read_text())
    outcomes = [classes[1] for classes, _ in page.found]
    assert {name: outcomes.count(name) for name in ("tp", "fp", "fn", "true")} == {
        "tp": 6,
        "fp": 1,
        "fn": 2,
        "true": 6,
    }
    expected = {
        tuple(map(tuple, polygon.tolist())) for _, instances, _ in drawn() for polygon in outlines(instances)
    }
    for classes, corners in page.found:
        if classes[1] in ("true", "fn"):
            assert tuple(map(tuple, corners.tolist())) in expected


def test_needs_no_other_file(folder):
    page = Paths((folder / "page.html").read_text())
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)


def test_scores_on_the_page(folder):
    text = (folder / "page.html").read_text()
    found = evaluate_nuclei(
        open_nuclei(folder / "truth"), open_nuclei(folder / "predicted"), name="predicted", resamples=50
    )
    for name in ("bpq", "mpq", "aji", "dice", "detection_f1"):
        assert f"<strong>{found.overall.figures[name].value:.3f}</strong>" in text
    for name in ("a_inflammatory", "liver", "first"):
        assert f'<th scope="row">{name}</th>' in text


def test_merged_types_have_their_colors(folder):
    truth, predicted = str(folder / "truth"), str(folder / "predicted")
    options = ["--report", str(folder / "merged.html"), "--merge", "all=a_inflammatory,b_connective,c_dead"]
    assert main(["evaluate", "nuclei", "--predictions", predicted, "--truth", truth, *options]) == 0
    page = Paths((folder / "merged.html").read_text())
    assert {classes[2] for classes, _ in page.found} == {"k1"}


def test_names_are_escaped(tmp_path):
    WRITERS["labels"](tmp_path / "truth")
    for part, ending in (("images", "png"), ("instances", "png"), ("types", "csv")):
        (tmp_path / f"truth/{part}/first.{ending}").rename(tmp_path / f"truth/{part}/<b>&.{ending}")
    truth = str(tmp_path / "truth")
    assert (
        main(["evaluate", "nuclei", "--predictions", truth, "--truth", truth, "--report", f"{truth}.html"])
        == 0
    )
    text = (tmp_path / "truth.html").read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


def test_without_images_it_shows_the_scores_and_says_so(tmp_path):
    WRITERS["labels"](tmp_path / "truth")
    (tmp_path / "truth/images/first.png").unlink()
    truth = str(tmp_path / "truth")
    assert (
        main(["evaluate", "nuclei", "--predictions", truth, "--truth", truth, "--report", f"{truth}.html"])
        == 0
    )
    text = (tmp_path / "truth.html").read_text()
    assert "Not shown:" in text
    assert len(Paths(text).found) == 8


def test_choice_of_images(folder):
    found = evaluate_nuclei(
        open_nuclei(folder / "truth"), open_nuclei(folder / "predicted"), name="predicted", resamples=0
    )
    few = chosen_images(found.images, 2)
    assert list(few) == sorted((0, 1), key=lambda i: found.images[i].figures["bpq"])
    many = chosen_images([found.images[0]] * 3 + [found.images[1]] * 4, 1)
    assert list(many.values()) == ["worst", "median", "best"]


@pytest.mark.slow
def test_in_a_browser(folder):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    for flag in (*flags, "--force-prefers-reduced-motion", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(f"file://{folder / 'page.html'}")

        def visible(selector):
            return sum(element.is_displayed() for element in browser.find_elements("css selector", selector))

        assert visible("path.nucleus.fn") + visible("path.nucleus.tp") > 0
        shown = [visible(f"path.nucleus.{name}") for name in ("tp", "fn")]
        browser.find_element("css selector", "input[data-outcome=tp]").click()
        assert [visible(f"path.nucleus.{name}") for name in ("tp", "fn")] == [0, shown[1]]
        browser.find_element("css selector", "input[data-outcome=tp]").click()
        browser.find_element("css selector", "input[value=predicted-types]").click()
        assert visible("path.nucleus.fn") == visible("path.nucleus.true") == 0
        assert visible("path.nucleus.tp") == shown[0]
        first = browser.find_elements("css selector", "figure[data-image]")
        browser.find_elements("css selector", "button[data-image]")[1].click()
        assert [figure.is_displayed() for figure in first] == [False, True]
        assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
