"""The page is one self-contained file, and a browser shows it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_spd.report import page as report
from anomalib_spd.report.page import write_report
from tests.report.synthetic import GRID, write_results


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def test_the_page_is_self_contained(page: str) -> None:
    assert not re.findall(r"https?://|@import|url\((?!#)", page)
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    sources = parsed.values("src")
    assert len(sources) == 2 * 3 * 12 - 2 * 3
    assert all(source.startswith("data:image/") for source in sources)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert set(parsed.values("href")) <= {f"#{name}" for name in ids}
    assert len(page) < 2_000_000


def test_a_page_of_3_backbones_3_detectors_and_3_categories_is_below_1_mb_without_pictures(tmp_path: Path) -> None:
    grid = GRID | {"backbones": GRID["backbones"] | {"control": "efficientnet_lite0_control"}, "seeds": [0, 1, 2]}
    grid |= {"detectors": GRID["detectors"] | {"patchcore_0.1": GRID["detectors"]["padim"]}}
    write_report(write_results(tmp_path / "results", grid), tmp_path / "report", resamples=20)
    text = (tmp_path / "report" / report.PAGE).read_text()
    assert len(re.findall(r"<svg", text)) == 2 + 3 * (1 + 3)
    assert len(re.sub(r'"data:image/[^"]*"', "", text).encode()) < 1_000_000


def test_without_images_only_heatmaps_are_shown(small: Path, tmp_path: Path) -> None:
    write_report(small, tmp_path / "with", resamples=20)
    write_report(small, tmp_path / "without", images=False, resamples=20)
    with_images, without = ((tmp_path / name / report.PAGE).read_text() for name in ("with", "without"))
    for text in (with_images, without):
        assert "data:image/jpeg" not in text
        assert len(Page(text).values("src")) == 2 * 3
    # the files of the photographs are gone
    assert with_images.count("not shown") == 6
    assert "<th>truth</th>" not in without
    assert "Photographs and masks are left out." in without
    assert (tmp_path / "with" / report.TEXT).read_text() == (tmp_path / "without" / report.TEXT).read_text()


def test_only_the_page_holds_photographs(results: Path, written: Path) -> None:
    assert {path.suffix for path in written.rglob("*") if path.is_file()} == {".html", ".md", ".svg", ".csv"}
    assert not [path for path in (written / "plots").rglob("*.svg") if "<image" in path.read_text()]


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs Chromium: no 'chromium' on the path")
    return found


def browse(browser: str, page: Path, profile: Path, *options: str, width: int = 1400) -> str:
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    command = [browser, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [f"--user-data-dir={profile}", f"--window-size={width},3000", *options, page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_browser_shows_the_page(browser: str, written: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    browse(browser, written / report.PAGE, tmp_path / "profile", f"--screenshot={shot}")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (3000, 1400, 3)
    # every 500 rows show something
    for at in range(0, 3000, 500):
        assert len(np.unique(pixels[at : at + 500].reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("width", [1400, 600])
def test_a_browser_draws_every_picture_and_never_scrolls_sideways(
    browser: str, written: Path, page: str, tmp_path: Path, width: int
) -> None:
    measure = """<script>
        const drawn = [...document.images].filter(image => image.complete && image.naturalWidth > 0).length;
        const flat = [...document.querySelectorAll("details[open] svg, section svg")].filter(
            svg => svg.getBoundingClientRect().height < 60).length;
        const sections = [...document.querySelectorAll("section")].map(section => section.id);
        const root = document.documentElement;
        document.title = JSON.stringify([drawn, flat, sections, root.scrollWidth - root.clientWidth]);
    </script></body>"""
    copy = tmp_path / "report.html"
    copy.write_text(page.replace("</body>", measure).replace("<details>", "<details open>"))
    dom = browse(browser, copy, tmp_path / "profile", "--dump-dom", width=width)
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    drawn, flat, sections, overhang = json.loads(title[1].replace("&quot;", '"'))
    assert drawn == len(Page(page).values("src"))
    assert flat == 0
    assert sections == ["verdict", "detector-1", "detector-2", "metadata"]
    assert overhang <= 0
