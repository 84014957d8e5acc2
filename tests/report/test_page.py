"""The report prints what is on record."""

import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from anomalib_spd.benchmark.results import Result
from anomalib_spd.cli import report as report_command
from anomalib_spd.cli.main import main
from anomalib_spd.detectors.operating_point import describe
from anomalib_spd.metrics.binomial import clopper_pearson
from anomalib_spd.report import page as report
from anomalib_spd.report.bootstrap import BOOTSTRAPPED, paired_bootstrap_ci
from anomalib_spd.report.comparison import GridResults, load
from anomalib_spd.report.page import write_report
from anomalib_spd.report.tables import LABELS, format_difference
from tests.conftest import REPOSITORY
from tests.report.synthetic import (
    ANOMALOUS,
    FAILED,
    GRID,
    MISSING,
    NORMAL,
    RESAMPLES,
    SMALL,
    WITHOUT_MASKS,
    write_results,
)

DETECTORS, CATEGORIES, BACKBONES = (list(GRID[axis]) for axis in ("detectors", "categories", "backbones"))

Tables = dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def records(results: Path) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Read the records of all measured cells without our code."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for path in sorted(results.rglob("cell.json")):
        record = json.loads(path.read_text())
        if record["status"] == "done":
            cell = record["cell"]
            found.setdefault((cell["detector"], cell["category"], cell["backbone"]), []).append(record)
    return found


def tables(markdown: str) -> Tables:
    """Return head and rows of the first table after each heading."""
    found: Tables = {}
    for section in re.split(r"^#+ ", markdown, flags=re.MULTILINE)[1:]:
        title, *lines = section.splitlines()
        rows: list[list[str]] = []
        for line in lines:
            if line.startswith("|"):
                rows.append([field.strip() for field in re.split(r"(?<!\\)\|", line)[1:-1]])
            elif rows:
                break
        found[title] = [rows[0], *rows[2:]] if rows else []
    return found


def format_mean(values: list[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def test_the_table_of_results_has_mean_and_deviation_of_the_records(
    markdown: str, records: dict[tuple[str, str, str], list[dict[str, Any]]]
) -> None:
    for detector in DETECTORS:
        head, *rows = tables(markdown)[detector]
        assert head == ["category", "backbone", "seeds", *LABELS.values()]
        by_label = {(row[0], row[1]): row[2:] for row in rows}
        for category in CATEGORIES:
            for backbone in BACKBONES:
                of_seeds = [record["metrics"] for record in records[detector, category, backbone]]
                expected = [format_mean([of[metric] for of in of_seeds if metric in of]) for metric in LABELS]
                assert by_label[category, backbone] == [str(len(of_seeds)), *expected]
                assert (expected[-1] == "-") == (category == WITHOUT_MASKS)


def test_means_say_over_how_many_categories_they_are(
    markdown: str, records: dict[tuple[str, str, str], list[dict[str, Any]]]
) -> None:
    for detector in DETECTORS:
        for backbone in BACKBONES:
            label = "mean of 3 (pixel: 2)"
            (row,) = [row for row in tables(markdown)[detector] if row[:2] == [label, backbone]]
            for metric, text in zip(LABELS, row[3:], strict=True):
                categories = [c for c in CATEGORIES if metric.startswith("image") or c != WITHOUT_MASKS]
                of = {
                    category: {r["cell"]["seed"]: r["metrics"][metric] for r in records[detector, category, backbone]}
                    for category in categories
                }
                mean = statistics.fmean(statistics.fmean(seeds.values()) for seeds in of.values())
                seeds = [seed for seed in GRID["seeds"] if all(seed in of[category] for category in categories)]
                of_seeds = [statistics.fmean(of[category][seed] for category in categories) for seed in seeds]
                deviation = f" ± {statistics.stdev(of_seeds):.3f}" if len(seeds) > 1 else ""
                assert text == f"{mean:.3f}{deviation}"


def test_a_mean_is_over_the_categories_that_every_backbone_has(tmp_path: Path) -> None:
    grid = SMALL | {"categories": {"bottle": None, "candle": None}}
    folder = write_results(tmp_path / "results", grid)
    shutil.rmtree(folder / "cells" / "base" / "patchcore_0.01" / "candle")
    write_report(folder, tmp_path / "report", resamples=20)
    rows = tables((tmp_path / "report" / report.TEXT).read_text())["patchcore_0.01"]
    bottle, mean = ({row[1]: row[3:] for row in rows if row[0] == label} for label in ("bottle", "mean of 1"))
    assert bottle == mean
    assert set(mean) == {"base", "SPD"}


def test_differences_are_those_of_the_bootstrap_and_bold_where_0_is_excluded(results: Path, markdown: str) -> None:
    grid = load(results, resamples=20)
    bold, plain = 0, 0
    for detector in DETECTORS:
        head, *rows = tables(markdown)[f"{detector}: A minus B"]
        assert head == ["category", "A minus B", "seeds", *(LABELS[metric] for metric in BOOTSTRAPPED)]
        assert [row[0] for row in rows] == [*CATEGORIES, "mean of 3 (pixel: 2)"]
        for row, category in zip(rows, [*CATEGORIES, None], strict=True):
            assert row[1] == "SPD minus base"
            for metric, text in zip(BOOTSTRAPPED, row[3:], strict=True):
                a, b = (matched(grid, backbone, detector, category, metric) for backbone in ("SPD", "base"))
                if not a:
                    assert text == "-"
                    continue
                it = paired_bootstrap_ci(a, b, metric, RESAMPLES)
                expected = f"{it.value:+.3f} [{it.low:+.3f}, {it.high:+.3f}]"
                excludes = it.low > 0 or it.high < 0
                assert text == (f"**{expected}**" if excludes else expected)
                bold, plain = bold + excludes, plain + (not excludes)
    assert bold > 5
    assert plain > 5


def test_the_bounds_of_an_interval_show_their_side_of_0() -> None:
    assert [format_difference(value) for value in (-0.0003, 0.0, 0.0123)] == ["-0.000", "+0.000", "+0.012"]


def matched(grid: GridResults, backbone: str, detector: str, category: str | None, metric: str) -> list[Result]:
    """Return results of a backbone, without the seeds that the other backbone lacks."""
    lost = {(cell.detector, cell.category, cell.seed) for cell in (FAILED, MISSING)}
    return [
        result
        for result in grid.cells.values()
        if (result.cell.backbone, result.cell.detector) == (backbone, detector)
        and category in (None, result.cell.category)
        and metric in result.record["metrics"]
        and (detector, result.cell.category, result.cell.seed) not in lost
    ]


def test_the_verdict_counts_the_means_whose_intervals_exclude_0(markdown: str, page: str) -> None:
    counted = {"above": 0, "below": 0, "undecided": 0}
    for detector in DETECTORS:
        head, *_, mean = tables(markdown)[f"{detector}: A minus B"]
        for title, text in zip(head, mean, strict=True):
            if "trapezoid" not in title and "AU-" in title and "AU-PRO" not in title:
                counted["undecided" if "**" not in text else "above" if text.startswith("**+") else "below"] += 1
    assert sum(counted.values()) == 8
    assert (
        f"Of 8 mean differences, **{counted['above']}** are above 0 with the whole interval, **{counted['below']}** below, "
        f"and **{counted['undecided']}** are undecided."
    ) in markdown
    assert re.findall(r"<strong>(\d+)</strong>", page)[:3] == [str(count) for count in counted.values()]


def test_the_report_says_what_intervals_leave_out(markdown: str, page: str) -> None:
    intervals = sum(
        text not in {"", "-"}
        for detector in DETECTORS
        for row in tables(markdown)[f"{detector}: A minus B"][1:]
        for text in row[3:]
    )
    for text in (markdown, page):
        assert (
            "Another training of these backbones, each of which is one set of weights, is not covered: base, SPD."
            in text
        )
        assert "a training of its own" not in text
        assert f"This report has {intervals} such intervals: without any difference, about 1 in 20" in text
        assert "never over a whole data set" in text


def test_backbones_with_a_training_per_seed_are_named(tmp_path: Path) -> None:
    trainings = {"base": "efficientnet_lite0_in1k", "SPD": "spd_seed{seed}"}
    results = write_results(tmp_path / "results", SMALL | {"backbones": trainings, "seeds": [0, 1]})
    write_report(results, tmp_path / "report", images=False, resamples=RESAMPLES)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "each of which is one set of weights, is not covered: base." in text
    assert "Every seed of these backbones is a training of its own: SPD." in text


def test_the_papers_figures_stand_beside_ours_with_their_footnotes(markdown: str) -> None:
    section = markdown[markdown.index("patchcore_0.01: beside the papers") :]
    section = section[: section.index("patchcore_0.01: curves")]
    rows = [[field.strip() for field in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    screw = next(row for row in rows if row[0] == "screw")
    assert screw[-3:] == ["0.848", "0.949", "0.871"]
    assert screw[2] == tables(markdown)["patchcore_0.01"][4][3]
    candle = next(row for row in rows if row[0] == "candle")
    # the last column is of a figure of the average alone
    assert candle[-4:] == ["0.909", "0.984", "0.956", "-"]
    averages = [row for row in rows if row[0] == "all of MVTec AD, as printed"]
    assert [row[1:] for row in averages] == [
        ["-", "-", "0.960", "0.981", "0.980"],
        ["-", "-", "0.959 [1]", "0.972", "0.970 [2]"],
    ]
    assert r"\[2\] printed 0.970, the mean of the rows is 0.9693" in section
    mean = next(row for row in rows if row[0] == "mean of 2")
    ours = [float(row[1].split()[0]) for row in rows[2:4]]
    assert float(mean[1]) == pytest.approx(np.mean(ours), abs=0.001)
    theirs = [(0.848 + 1) / 2, (0.949 + 1) / 2, (0.871 + 0.999) / 2]
    assert [float(text) for text in mean[-3:]] == pytest.approx(theirs, abs=0.0006)


def test_the_report_says_how_cells_were_measured(markdown: str, page: str) -> None:
    assert "22 of 24 cells measured, 1 failed, 1 missing" in markdown
    assert "| base / padim / candle / seed 1 | OutOfMemoryError | no memory for \\|a bank\\| of 10 GiB |" in markdown
    assert f"- {MISSING}" in markdown
    assert "images 64x64 px; center crop 56x56 px; anomaly map 56x56 px; coreset 0.01; on cpu; threads: 2" in markdown
    assert "| patchcore_0.01 | SPD | 5 | 12.4 | 4.8 | 200 | 1.50 |" in markdown
    visible = re.sub(r"<[^>]*>", " ", page)
    for text in ("1 missing", "OutOfMemoryError", str(MISSING), "torch 2.14.0", f"{b'spd'.hex():0>64}"):
        assert text in markdown
        assert text in visible


def test_titles_are_text_without_markup(markdown: str, page: str) -> None:
    assert "# Synthetic: SPD \\<against\\> base" in markdown
    assert "<h1>Synthetic: SPD &lt;against&gt; base</h1>" in page


def test_the_markdown_links_every_plot(written: Path, markdown: str) -> None:
    linked = {unquote(path) for path in re.findall(r"!\[.*?\]\((.*?)\)", markdown)}
    assert linked == {path.relative_to(written).as_posix() for path in (written / "plots").rglob("*") if path.is_file()}
    assert len(linked) == 1 + len(DETECTORS) * (1 + len(CATEGORIES))
    for path in linked:
        assert ElementTree.parse(written / path).getroot().tag.endswith("svg")


def test_operating_points_of_drawn_defects_are_in_the_page_and_the_csv(small: Path, tmp_path: Path) -> None:
    """Of cells that have one; a report of the CSV says the same."""
    shutil.copytree(small, tmp_path / "grid")
    for path in (tmp_path / "grid").rglob("cell.json"):
        record = json.loads(path.read_text())
        point = {"image_threshold": 23.456789, **describe(2, 40), "test_false_alarms": 3, "test_missed": 1}
        path.write_text(
            json.dumps(record | ({"operating_point": point} if record["cell"]["backbone"] == "SPD" else {}))
        )
    write_report(tmp_path / "grid", tmp_path / "report", resamples=RESAMPLES)
    markdown = (tmp_path / "report/report.md").read_text()
    (row,) = (line for line in markdown.splitlines() if "| 23.46 |" in line)
    low, high = (1000 * each for each in clopper_pearson(2, 40))
    assert row == (
        f"| bottle | SPD | 0 | 23.46 | 2 of 40 | 50 [{low:.0f}, {high:.0f}] | 3 of {NORMAL} | 1 of {ANOMALOUS} |"
    )
    assert "at most 1, 5, 10, 50 false alarms per 1,000 good parts takes 2995, 598, 299, 59 good images" in markdown
    assert "Operating points" in (tmp_path / "report/report.html").read_text()
    write_report(tmp_path / "report/runs.csv", tmp_path / "again", resamples=RESAMPLES)
    assert row in (tmp_path / "again/report.md").read_text()


def test_a_single_backbone_has_no_verdict(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "results")
    grid = SMALL | {"backbones": {"SPD": "efficientnet_lite0_spd"}}
    (tmp_path / "results" / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    write_report(tmp_path / "results", tmp_path / "report")
    markdown = (tmp_path / "report" / report.TEXT).read_text()
    _, row = tables(markdown)["patchcore_0.01"]
    assert row[:3] == ["bottle", "SPD", "1"]
    assert "Verdict" not in markdown
    assert "minus" not in markdown


def test_an_earlier_report_is_replaced(small: Path, tmp_path: Path) -> None:
    write_report(small, tmp_path, resamples=20)
    stale = tmp_path / "plots" / "curves" / "patchcore_0.01" / "gone.svg"
    stale.write_text("of a category that was removed")
    (tmp_path / "note.txt").write_text("mine")
    before = (tmp_path / report.PAGE).read_text()
    write_report(small, tmp_path, resamples=20)
    assert not stale.exists()
    assert (tmp_path / "note.txt").read_text() == "mine"
    assert (tmp_path / report.PAGE).read_text() == before


@pytest.mark.parametrize("name", ["thesis.txt", "report.html", "report.md"])
def test_a_foreign_folder_is_left_alone(
    small: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("<html>mine</html>")
    assert main(["report", str(small), "--output", str(tmp_path)]) == 1
    assert f"error: {tmp_path} is neither empty nor an earlier report" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "<html>mine</html>"}


def test_a_file_as_output_is_refused(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["report", str(small), "--output", str(tmp_path / "file")]) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_the_command_writes_beside_the_results(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(report_command, "write_report", lambda *args, **kwargs: asked.append((args, kwargs)))
    assert main(["report", str(small)]) == 0
    assert main(["report", str(small), "--output", "elsewhere", "--without-images"]) == 0
    assert asked == [
        ((small, small / "report"), {"images": True}),
        ((small, Path("elsewhere")), {"images": False}),
    ]
    assert capsys.readouterr().out.splitlines()[0] == f"Wrote {small / 'report' / 'report.html'}"


def test_other_folders_than_results_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "it has no grid.yaml: give that of 'anomalib-spd benchmark'" in capsys.readouterr().err
    (tmp_path / "grid.yaml").write_text("colors: 3")
    assert main(["report", str(tmp_path)]) == 1
    assert "is not the configuration of a grid" in capsys.readouterr().err
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(["report", str(tmp_path)]) == 1
    assert "was measured, 0 failed: run the benchmark first" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_report_drawn_from_its_own_csv_prints_the_same_tables(written: Path, markdown: str, tmp_path: Path) -> None:
    shutil.copy(written / "runs.csv", tmp_path / "grid.csv")
    shutil.copy(written / "intervals.csv", tmp_path / "grid.intervals.csv")
    shutil.copy(written / "means.csv", tmp_path / "grid.means.csv")
    for name, missing in (("grid.csv", set()), ("grid.means.csv", {"Images", "Weights"})):
        assert main(["report", str(tmp_path / name)]) == 0
        text = (tmp_path / "grid.report" / report.TEXT).read_text()
        of_cells, of_csv = tables(markdown), tables(text)
        for title in [
            title for title in of_cells if re.match(r"(padim|patchcore_0.01)(: A minus B)?$|Images|Weights", title)
        ]:
            assert title in missing or of_csv[title] == of_cells[title]
        assert "give the folder of results" in text
        assert (tmp_path / "grid.report" / "plots" / "verdict" / "1.svg").is_file()


def test_a_csv_of_labels_and_metrics_is_enough(tmp_path: Path) -> None:
    lines = [
        "backbone,sha256,detector,category,seed,status,image_AUROC",
        "1,,PaDiM,NA,0,done,0.75",
        "1,,PaDiM,NA,1,done,0.25",
    ]
    (tmp_path / "small.csv").write_text("\n".join([*lines, "2,,PaDiM,NA,0,failed,"]))
    assert main(["report", str(tmp_path / "small.csv")]) == 0
    rows = tables((tmp_path / "small.report" / report.TEXT).read_text())["PaDiM"]
    assert [row[:4] for row in rows[1:]] == [["NA", "1", "2", "0.500 ± 0.354"], ["NA", "2", "0", "-"]]


def test_other_csv_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, message in (("a,b\n1,2\n", "has no column backbone"), ("", "is not a table of")):
        for name in ("other.csv", "other.means.csv"):
            (tmp_path / name).write_text(content)
            assert main(["report", str(tmp_path / name)]) == 1
            assert message in capsys.readouterr().err


def test_tracked_results_of_grids_without_cells_can_be_drawn(tmp_path: Path) -> None:
    write_report(REPOSITORY / "results" / "stages.means.csv", tmp_path)
    markdown = (tmp_path / report.TEXT).read_text()
    # one of these printed intervals is [+0.000, +0.033]
    counts = re.findall(r"\*\*(\d)\*\* (?:is|are) above .* \*\*(\d)\*\* below, and \*\*(\d)\*\*", markdown)
    assert counts == [("3", "0", "5"), ("2", "0", "6"), ("2", "0", "6"), ("0", "0", "8")]
    rows = tables(markdown)
    assert rows["PatchCore 0.01"][-1][:3] == ["mean of 3 (pixel: 2)", "SPD", "3"]
    assert rows["PatchCore 0.01: A minus B"][-4][3:5] == ["+0.004 [-0.015, +0.026]", "+0.010 [-0.010, +0.033]"]
    assert rows["PatchCore 0.01: A minus B"][-4][7] == "**+0.022 [+0.010, +0.033]**"


def test_messages_make_no_links_no_images_and_no_rows(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", GRID | {"detectors": {"padim": GRID["detectors"]["padim"]}})
    path = FAILED.folder(results) / "cell.json"
    record = json.loads(path.read_text())
    message = "![x](https://a.b/c.png) [here](https://a.b) <b>\x1b[31m\nnew | row"
    record["error"]["message"] = message
    path.write_text(json.dumps(record))
    write_report(results, tmp_path / "report", images=False, resamples=10)
    text = (tmp_path / "report/report.md").read_text()
    (line,) = (line for line in text.splitlines() if "a.b/c.png" in line)
    assert r"!\[x\](https://a.b/c.png) \[here\](https://a.b) \<b\>�\[31m new \| row" in line
    page = (tmp_path / "report/report.html").read_text()
    assert "![x](https://a.b/c.png) [here](https://a.b) &lt;b&gt;�[31m new | row" in page
    assert "\x1b" not in text + page
