"""The tables of docs/experiments.md are recomputed from results/*.csv, number by number."""

import re
import subprocess
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pandas as pd
import pytest
from scipy.stats import spearmanr

from tests.conftest import REPOSITORY

METRICS = {"image AU-ROC": "image_AUROC", "image AU-PR": "image_AUPR_step"} | {
    "pixel AU-ROC": "pixel_AUROC",
    "pixel AU-PR": "pixel_AUPR_step",
}
#: printed numbers that results/ must reproduce, by grid: a table that is no longer found fails the test
CHECKED = {
    "dense": 104,
    "cutswap": 144,
    "self_supervised": 64,
    "memory": 174,
    "memory_ablations": 263,
    "memory_spd": 110,
    "parts_spd": 108,
    "cosine": 90,
    "forms_2cls_highshot": 75,
    "both_spd": 150,
    "stages": 104,
    "stages_hazelnut": 34,
    "averaged": 158,
}
#: rows of "All forms in one table": form -> grid, SPD, its control, and its name in the 2-class grid
FORMS = {
    "SimSiam": ("self_supervised", "SimSiam + SPD", "SimSiam", None),
    "MoCo v2": ("self_supervised", "MoCo + SPD", "MoCo", None),
    "SimCLR": ("self_supervised", "SimCLR + SPD", "SimCLR", None),
    "supervised + cosine (ours)": ("cosine", "SPD", "control", "cosine"),
    "dense*": ("dense", "SPD", "control", None),
    "memory of other views*": ("memory_spd", "SPD", "control", None),
    "cross-image*": ("parts_spd", "SPD", "control", "parts"),
    "cosine, then cross-image*": ("both_spd", "SPD", "control", "both"),
    "cosine, then cross-image, memory of all locations*": ("stages", "SPD", "control", "all places"),
    "the same with 0.3 of the base's weights*": ("averaged", "SPD with base", "control with base", None),
    "the mean of these three*": ("averaged", "mean SPD", "mean control", None),
}
#: other tables of these sections are of seeds or runs that no grid holds
NOT_IN_GRIDS = (
    "the two before",
    "statistics",
    "encoder that has learned",
    "base, 0.001",
    "SmoothBlend + CutPaste, 0.001",
)
#: the log's names of backbones -> the grid's
ALIASES = {
    "self_supervised": {"MoCo v2": "MoCo"},
    "forms_2cls_highshot": {"both, section 15": "both", "all places, section 16": "all places"},
}
#: what a grid's tables leave unsaid
DEFAULT_METRIC = {"forms_2cls_highshot": "pixel_AUPR_step", "stages_hazelnut": "pixel_AUPR_step"}
NUMBER = r"\d\.\d{3}"
MEAN = re.compile(rf"({NUMBER})(?: ± ({NUMBER}))?(?: \(({NUMBER})(?: ± ({NUMBER}))?\))?")
INTERVAL = re.compile(rf"(\*\*)?([+-]{NUMBER}) \[([+-]{NUMBER}), ([+-]{NUMBER})\](?:\*\*)?")


class Grid(NamedTuple):
    name: str
    means: pd.DataFrame
    intervals: pd.DataFrame


def read(name: str) -> Grid:
    means, intervals = (
        pd.read_csv(REPOSITORY / "results" / f"{name}.{table}.csv", dtype=str, keep_default_na=False)
        for table in ("means", "intervals")
    )
    return Grid(name, means, intervals)


def fields(line: str) -> list[str]:
    return [field.strip() for field in line.strip().strip("|").split("|")]


def tables(grid: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Head and rows of every table between the link to a grid's CSV and the end of its section."""
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    start = text.index(f"(../results/{grid}.means.csv)")
    section = text[start : text.find("\n## ", start)]
    for block in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        head, _, *rows = (fields(line) for line in block.splitlines())
        if not any(phrase in " | ".join(head) for phrase in NOT_IN_GRIDS):
            yield head, rows


def one(table: pd.DataFrame, **where: str) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, f"{len(table)} rows have {where}"
    return table.iloc[0]


def check(grid: Grid, labels: list[str], text: str) -> int:
    """Compare one field with the grid's CSV; returns how many numbers it has."""
    backbones, categories, detectors = (set(grid.means[name]) for name in ("backbone", "category", "detector"))
    aliases = ALIASES.get(grid.name, {})
    parts = [aliases.get(label, label) for label in labels]
    parts += [part for label in parts if label not in backbones for part in label.split(", ")]
    detector = next((d for d in detectors for part in parts if d.endswith(f" {part}")), None) or min(detectors)
    category = next((part for part in parts if part in categories), "mean" if "mean" in categories else min(categories))
    named = next(
        (METRICS[part.removesuffix(" (step)")] for part in parts if part.removesuffix(" (step)") in METRICS), None
    )
    backbone = next((part for part in parts if part in backbones), None)
    if found := INTERVAL.fullmatch(text):
        a, b = pair(parts, backbone)
        where = {"detector": detector, "category": category, "metric": named or DEFAULT_METRIC[grid.name]}
        row = one(grid.intervals, a=a, b=b, **where)
        assert [row.difference, row.low, row.high] == list(found.groups()[1:])
        assert row.excludes_zero == str(bool(found[1]))
        return 3
    found = MEAN.fullmatch(text)
    assert found, f"{text!r} is neither a mean nor an interval"
    assert backbone, f"no backbone in {labels}"
    metrics = (named or DEFAULT_METRIC.get(grid.name, "image_AUROC"), "pixel_AUPR_step")
    for metric, mean, sd in zip(metrics, found.groups()[::2], found.groups()[1::2], strict=True):
        if mean:
            row = one(grid.means, backbone=backbone, detector=detector, category=category, metric=metric)
            assert row["mean"] == mean
            assert sd in (None, row.sd)
    return sum(group is not None for group in found.groups())


def pair(parts: list[str], backbone: str | None) -> tuple[str, str]:
    """A and B of a difference; the log may leave out one that the row names."""
    differences = [part for part in parts if "minus" in part] or ["CutSwap minus this"]
    a, b = min(differences, key=len).split("minus ")
    a, b = a.strip() or backbone or "SPD", b.strip()
    if "both at one energy" in parts:
        a, b = f"{a} at one energy", f"{b} at one energy"
    if b == "its control":
        assert backbone is not None
        a, b = backbone, f"control of {backbone}"
    return a, (backbone or b) if b == "this" else b


@pytest.mark.parametrize("name", CHECKED)
def test_the_tables_of_the_log_can_be_recomputed(name: str) -> None:
    grid = read(name)
    checked = 0
    for head, rows in tables(name):
        # "+ SPD" continues the column to its left
        for at, title in enumerate(head):
            if title == "+ SPD":
                head[at] = ALIASES[name].get(head[at - 1], head[at - 1]) + " + SPD"
        columns = [at for at, title in enumerate(head) if at > 0 and title]
        group = ""
        for row in rows:
            group = row[0] or group
            labels = [group, *(field for at, field in enumerate(row) if at not in (0, *columns))]
            if "seeds 1 and 2 alone" in row[0]:
                continue
            if row[0] in ("mean of both", "mean of the three"):
                labels.append("pixel AU-PR" if row[0] == "mean of both" else "image AU-ROC")
            for at in columns:
                if row[at]:
                    try:
                        checked += check(grid, [*labels, head[at]], row[at])
                    except AssertionError as error:
                        raise AssertionError(f"{name}, row {' / '.join(labels)}, column {head[at]}: {error}") from error
    assert checked == CHECKED[name]


def test_the_table_of_all_forms_can_be_recomputed() -> None:
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    rows = {row[0]: row for row in map(fields, text[: text.index("\n## 1. ")].splitlines()) if row[0] in FORMS}
    assert set(rows) == set(FORMS)
    for form, (name, spd, control, of_2cls) in FORMS.items():
        grid, row = read(name), rows[form]
        for metric, text in (("image AU-ROC", row[2]), ("pixel AU-PR", row[3])):
            check(grid, [f"{spd} minus {control}", "0.01", metric], text)
        for metric, text in (("image AU-ROC", row[4]), ("pixel AU-PR", row[5])):
            if "[" in text:
                check(grid, [f"{spd} minus base", "0.01", metric], text)
            elif text:  # the grid has no interval of this pair
                where = {"detector": "PatchCore 0.01", "category": "mean", "metric": METRICS[metric]}
                a, b = (float(one(grid.means, backbone=backbone, **where)["mean"]) for backbone in (spd, "base"))
                assert float(text) == pytest.approx(a - b, abs=0.0011)
        if of_2cls:
            check(read("forms_2cls_highshot"), [of_2cls, "SPD minus its control", "pixel AU-PR"], row[6])


def test_the_search_for_real_differences_can_be_recomputed() -> None:
    runs = pd.read_csv(REPOSITORY / "results" / "real_forms.csv")
    means = runs.groupby(["balance", "form", "group"])[["image_AUROC", "pixel_AUPR"]].mean()
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    table = text[text.index("(../results/real_forms.csv)") :].split("\n\n")[1]
    _, _, *rows = map(fields, table.splitlines())
    assert [row[0] for row in rows] == list(dict.fromkeys(runs.form))
    for form, *printed in rows:
        at_rms, at_variance = (means.loc[balance, form] for balance in ("rms", "var"))
        if form != "base":
            at_rms, at_variance = at_rms - means.loc["rms", "base"], at_variance - means.loc["var", "base"]
        # castings and solar cells have no masks
        by_group = at_rms.loc[["papers", "castings", "solar cells", "synthetic"]].to_numpy().flatten()
        expected = [*at_rms.mean(), *by_group[~pd.isna(by_group)], *at_variance.mean()]
        assert [float(number) for field in printed for number in field.split(" / ")] == pytest.approx(
            expected, abs=6e-4
        )


def test_the_adaptations_can_be_recomputed() -> None:
    runs = pd.read_csv(REPOSITORY / "results" / "adaptation.csv")
    metrics = ["image_AUROC", "pixel_AUPR"]
    table = runs.set_index(["form", "fraction", "images", "balance", "set", "training"])[metrics].sort_index()

    def gain(form: str, fraction: float, images: str, balance: str) -> pd.DataFrame:
        trained = table.loc[form, fraction, images, balance]
        return trained - table.loc["base", 0.0, images, balance].loc[trained.index]

    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 22. ") :]
    search, confirmation = (
        [fields(line) for line in section[section.index(title) :].split("\n\n")[1].splitlines()]
        for title in ("*Outcome of the search*", "*Outcome on the development sets*")
    )
    confirmed = [row[0] for row in confirmation[2:-1]]
    for name, *printed in search[2:]:
        form, fraction = name.removesuffix(", halfway"), 0.5 if name.endswith("halfway") else 1.0
        expected = []
        for images, balance in (("test", "rms"), ("test", "var"), ("own", "rms")):
            gains = gain(form, fraction, images, balance).groupby("set").mean()
            expected += gains.drop(confirmed, errors="ignore").mean().tolist()
        assert [float(each) for each in printed] == pytest.approx(expected, abs=1.1e-3), name

    halfway, whole = (gain("drawn", fraction, "test", "rms") for fraction in (0.5, 1.0))

    def by_the_rule(balance: str) -> pd.DataFrame:
        forms = {0.0: "base", 0.5: "drawn", 1.0: "drawn"}
        totals = pd.DataFrame({each: table.loc[form, each, "own", balance].sum(axis=1) for each, form in forms.items()})
        gains = {each: gain("drawn", each, "test", balance) for each in (0.5, 1.0)}
        gains[0.0] = gains[1.0] * 0
        best = totals.dropna().idxmax(axis=1)
        return pd.DataFrame([gains[each].loc[run] for run, each in best.items()])

    columns = {"drawn, halfway": halfway, "drawn": whole, "by the rule": by_the_rule("rms")}
    columns |= {"by the rule, equal variance": by_the_rule("var"), "CutSwap": gain("CutSwap", 1.0, "test", "rms")}
    columns |= {"eta 0": gain("eta 0", 1.0, "test", "rms")}
    assert confirmation[0][2:] == list(columns)
    for place, gains in enumerate(columns.values(), 2):
        gains.index = pd.MultiIndex.from_tuples(gains.index, names=["set", "training"])
        by_set = gains.groupby("set")[metrics].mean().loc[confirmed]
        for row, expected in zip(confirmation[2:], [*by_set.to_numpy(), by_set.mean().to_numpy()], strict=True):
            numbers = [float(each) for each in row[place].split(" / ")]
            assert numbers == pytest.approx([each for each in expected if not pd.isna(each)], abs=6e-4), row


def test_neither_pages_nor_pictures_nor_paths_with_spaces_are_tracked() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert not [path for path in tracked.split("\0") if path.endswith((".svg", ".html")) or " " in path]


def test_the_longer_trainings_can_be_recomputed() -> None:
    metrics = ["image_AUROC", "pixel_AUPR"]
    runs = pd.read_csv(REPOSITORY / "results" / "longer.csv", dtype={"seeds": str})
    runs["trainings"] = runs.form + runs.steps.map("{:.0f}".format) + "@" + runs.way.map("{:.2f}".format)
    # of each group of judges, then of these: castings are a group, and their faint defects are of another
    by_group = runs.groupby(["part", "balance", "trainings", "seeds", "group"], dropna=False)[metrics].mean()
    means = by_group.groupby(level=[0, 1, 2, 3], dropna=False).mean()
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 25. ") : text.index("## 26. ")]
    tables = [
        [fields(line) for line in part.splitlines()] for part in section.split("\n\n") if part.startswith("| form |")
    ]
    search, confirmation = ({row[0].strip("*"): row[1:] for row in table[2:]} for table in tables)

    def gains(part: str, balance: str, trainings: str, seeds: str | None = None) -> pd.DataFrame:
        found = means.loc[part, balance, trainings]
        base = means.loc[part, balance, "basenan@0.00"].iloc[0]
        return (found if seeds is None else found.loc[[seeds]]) - base

    for name, trainings, seeds in (
        ("250 steps", "drawn250@1.00", "0"),
        ("250 steps, halfway", "drawn250@0.50", None),
        ("mean of the weights of three trainings of 250 steps", "drawn250@1.00", "0+1+2"),
        ("the same, three quarters of the way", "drawn250@0.75", "0+1+2"),
        ("the same, halfway", "drawn250@0.50", "0+1+2"),
        ("1,000 steps", "drawn1000@1.00", "0"),
        ("1,000 steps, halfway", "drawn1000@0.50", "0"),
    ):
        expected: list[float] = []
        for balance in ("rms", "var"):
            each = gains("search", balance, trainings, seeds)
            if seeds is None:
                each = each.loc[["0", "1", "2"]]
            expected += [value for metric in metrics for value in each[metric]]
        printed = [float(number) for field in search[name][1:] for number in field.split(", ")]
        assert printed == pytest.approx(expected, abs=6e-4), name
    for name, trainings in (
        ("1,000 steps", "drawn1000@1.00"),
        ("1,000 steps, halfway", "drawn1000@0.50"),
        ("eta 0", "eta 01000@1.00"),
    ):
        expected = [
            value for balance in ("rms", "var") for value in gains("confirmation", balance, trainings)[metrics].mean()
        ]
        printed = [float(field.strip("*").partition(" ")[0]) for field in confirmation[name]]
        assert printed == pytest.approx(expected, abs=6e-4), name


@pytest.mark.parametrize(
    ("name", "section", "arms"),
    [
        ("ships", 26, ["halfway", "clean"]),
        ("lite2", 28, ["halfway", "eta 0"]),
        ("adapted", 29, ["SPD", "adapted", "from clean"]),
        ("changes", 30, []),
        ("spots", 31, ["all and spots", "four"]),
        ("two_way", 32, ["eta 0", "two-way"]),
        ("textures", 34, ["three", "four, drawn"]),
        ("line", 35, ["mixed", "eta 0", "by category"]),
        ("line_adapted", 36, ["mixed", "eta 0", "by category"]),
        ("adapted_further", 37, ["halfway", "eta 0", "three quarters"]),
        ("terms", 38, []),
        ("distilled", 39, ["distilled"]),
        ("adapted_aspect", 40, []),
        ("long", 41, ["all", "long"]),
        ("photographs", 43, ["eta 0", "all", "photographs"]),
        ("own_aspect", 42, ["all", "squeezed", "eta 0", "own aspect"]),
    ],
)
def test_what_was_judged_can_be_recomputed(name: str, section: int, arms: list[str]) -> None:
    """The differences from the rows of single backbones, the section's tables from both."""
    results = REPOSITORY / "results"
    metrics = ["image_AUROC", "pixel_AUPR_step"]
    keys = ["balance", "coreset_sampling_ratio"]
    judged = pd.read_csv(results / f"{name}.csv")
    runs = judged.groupby(["arm", *keys, "set"]).mean(numeric_only=True)
    means = runs.groupby(level=[0, 1, 2]).mean()
    differences = pd.read_csv(results / f"{name}.intervals.csv").set_index(["arm", "minus", "set", *keys, "metric"])
    for (arm, minus, group, *where, metric), row in differences.iterrows():
        figures = means if group == "mean" else runs.xs(group, level="set")
        expected = figures.loc[(arm, *where)][metric] - figures.loc[(minus, *where)][metric]
        assert row["value"] == pytest.approx(expected, abs=2e-4)

    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    text = text[text.index(f"## {section}. ") :]
    rows = [*map(fields, text[: text.index("\n## ")].splitlines())]
    compared = [row for row in rows if len(row) == 6 and " minus " in row[0]]
    assert len(compared) >= judged["arm"].nunique() - 1
    for head, ratio, *cells in compared:
        for cell, (balance, metric) in zip(cells, product(("rms", "var"), metrics), strict=True):
            found = differences.loc[(*head.split(" minus "), "mean", balance, float(ratio), metric)]
            printed = [float(number) for number in re.findall(r"[+-]?\d\.\d{3}", cell)]
            assert printed == pytest.approx(found[["value", "low", "high"]].tolist(), abs=6e-4), head
            assert cell.startswith("**") == found["excludes_zero"], head

    at_rms = judged[(judged["balance"] == "rms") & (judged["coreset_sampling_ratio"] == 0.01)].set_index(["arm", "set"])
    by_set = [row for row in rows if len(row) == 2 + 2 * len(arms) and ("base", row[0]) in at_rms.index]
    assert len(by_set) == judged["set"].nunique() * bool(arms)
    for of, *cells in by_set:
        base = at_rms.loc[[("base", of)]].iloc[0][metrics]
        expected = [base, *(at_rms.loc[[(arm, of)]][each] - base[each] for arm in arms for each in metrics)]
        for cell, values in zip(cells, expected, strict=True):
            printed = [float(number) for number in re.split(", | / ", cell) if number]
            assert printed == pytest.approx(values.dropna().tolist(), abs=6e-4), of


@pytest.mark.parametrize(
    ("name", "section", "arms"),
    [
        ("mixtures", 31, ["all", "two", "three", "four", "all and spots"]),
        ("mixture_means", 34, ["all", "four", "all and four", "five"]),
    ],
)
def test_the_search_of_mixtures_can_be_recomputed(name: str, section: int, arms: list[str]) -> None:
    """Castings, solar cells and the papers' mean count alike in images; only papers have masks."""
    table = pd.read_csv(REPOSITORY / "results" / f"{name}.csv")
    table = table[table["coreset_sampling_ratio"] == 0.01].set_index(["arm", "balance", "set"])
    metrics = ["image_AUROC", "pixel_AUPR_step", "pixel_AUPRO"]
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    text = text[text.index(f"## {section}. ") : text.index(f"## {section + 1}. ")]
    rows = [row for row in map(fields, text.splitlines()) if len(row) == 7 and row[0] in table.index.levels[0]]
    assert [row[0] for row in rows] == arms
    for arm, *printed in rows:
        expected: list[float] = []
        for balance in ("rms", "var"):
            gain = table.loc[(arm, balance)][metrics] - table.loc[("base", balance)][metrics]
            groups = gain.groupby(lambda name: "paper" if name.startswith("paper") else name).mean()
            expected += [groups["image_AUROC"].mean(), *groups.loc["paper", metrics[1:]]]
        assert [float(each) for each in printed] == pytest.approx(expected, abs=6e-4), arm


def test_the_choice_of_a_balance_can_be_recomputed() -> None:
    table = pd.read_csv(REPOSITORY / "results" / "balance.csv").set_index(["images", "backbone", "set", "balance"])
    balances, metrics = ["rms", "var", "noise", "whitened"], ["image_AUROC", "pixel_AUPR_step"]
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 33. ") : text.index("## 34. ")]
    sets = table.index.levels[2]
    rows = {row[0]: row[1:] for row in map(fields, section.splitlines()) if len(row) == 9}
    assert sets.isin(rows).all()
    for number, backbone in enumerate(["efficientnet_lite0_in1k", "efficientnet_lite0_spd"]):
        gains = []
        for of in sets:
            chosen = table.loc[("held out", backbone, of)][metrics].sum(axis=1).idxmax()
            found = table.loc[("test", backbone, of)][metrics]
            gains.append(found.loc[chosen] - found.loc["rms"])
            for balance, cell in zip(balances, rows[of][4 * number : 4 * number + 4], strict=True):
                assert cell.startswith("**") == (balance == chosen), (of, balance)
                printed = [float(each) for each in cell.strip("*").split(" / ")]
                assert printed == pytest.approx(found.loc[balance].dropna().tolist(), abs=6e-4)
        printed = [float(each) for each in rows["chosen minus equal RMS, mean"][4 * number].split(" / ")]
        assert printed == pytest.approx(pd.DataFrame(gains).mean().tolist(), abs=6e-4)


def test_the_readme_has_the_figures_of_what_ships() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    for name, arm, start in (
        ("ships", "halfway", "| mean of seven development sets"),
        ("adapted", "adapted", "| adapted to each set"),
    ):
        table = pd.read_csv(REPOSITORY / "results" / f"{name}.intervals.csv")
        keys = ["arm", "minus", "balance", "coreset_sampling_ratio"]
        table = table.set_index(keys).sort_index().loc[(arm, "base", "rms", 0.01)]
        (number,) = (number for number, line in enumerate(lines) if line.startswith(start))
        metrics = ("image_AUROC", "pixel_AUPR_step")
        for mean, ends, metric in zip(fields(lines[number])[1:], fields(lines[number + 1])[1:], metrics, strict=True):
            of = table[table["metric"] == metric].set_index("set")[["value", "low", "high"]]
            printed = [[float(each) for each in re.findall(r"[+-]?\d\.\d{3}", cell)] for cell in (mean, ends)]
            assert printed[0] == pytest.approx(of.loc["mean"].tolist(), abs=6e-4)
            assert printed[1] == pytest.approx(of["value"].drop("mean").agg(["min", "max"]).tolist(), abs=6e-4)
            assert (of["high"] >= 0).all()  # as the README says of all sets


def test_the_readme_has_the_figures_of_the_aspect_of_long_parts() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    printed = re.search(r"AU-ROC of (\d\.\d{3}) at\s+`\[352, 144\]` and (\d\.\d{3}) squeezed to 224 x 224", text)
    assert printed is not None
    for name, found in zip(("kolektor_aspect", "spots"), printed.groups(), strict=True):
        table = pd.read_csv(REPOSITORY / "results" / f"{name}.csv").set_index(
            ["arm", "set", "balance", "coreset_sampling_ratio"]
        )
        assert float(found) == pytest.approx(table.loc[("base", "kolektor", "rms", 0.01), "image_AUROC"], abs=6e-4)


def test_the_search_of_the_adaptation_can_be_recomputed() -> None:
    table = pd.read_csv(REPOSITORY / "results" / "adaptation_search.csv").set_index(["backbone", "fraction", "images"])
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 29. ") :]
    forms = {"drawn": ("ImageNet", 1.0), "SPD": ("SPD", 0.0), "SPD, then drawn": ("SPD", 1.0)}
    forms |= {f"{name}, halfway": (forms[name][0], 0.5) for name in ("drawn", "SPD, then drawn")}

    def figures(backbone: str, fraction: float, balance: str) -> pd.DataFrame:
        found = table.loc[(backbone, fraction, "test")].set_index(["balance", "set"])
        return found.loc[balance][["image_AUROC", "pixel_AUPR"]]

    rows = {
        row[0].strip("*"): row[1:] for row in map(fields, section.splitlines()) if row and row[0].strip("*") in forms
    }
    assert rows.keys() == forms.keys()
    for name, printed in rows.items():
        gains = [figures(*forms[name], balance) - figures("ImageNet", 0.0, balance) for balance in ("rms", "var")]
        expected = [*gains[0].mean(), *gains[1].mean(), *gains[0].min()]
        assert [float(each) for field in printed for each in field.split(" / ")] == pytest.approx(expected, abs=6e-4)


def test_how_far_an_adaptation_goes_can_be_recomputed() -> None:
    keys, metrics = ["training", "interpolation", "balance", "set"], ["image_AUROC", "pixel_AUPR"]
    runs = pd.read_csv(REPOSITORY / "results" / "adaptation_interpolation.csv")
    table = runs.groupby(keys)[metrics].mean()
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 37. ") :]
    trainings = set(table.index.levels[0]) - {"none"}
    rows = {row[0]: row[1:] for row in map(fields, section.splitlines()) if row and row[0] in trainings}
    assert rows.keys() == trainings
    for name, cells in rows.items():
        for cell, (share, balance) in zip(cells, product((0.5, 0.75, 1.0), ("rms", "var")), strict=True):
            gain = (table.loc[(name, share, balance)] - table.loc[("none", 0.0, balance)]).mean()
            assert [float(each) for each in cell.split(" / ")] == pytest.approx(gain.tolist(), abs=6e-4), name
    single = runs[(runs["training"] == "8") & (runs["balance"] == "rms")]
    base = table.loc[("none", 0.0, "rms")].loc[single["set"]]
    gains = pd.DataFrame(single[metrics].to_numpy() - base.to_numpy()).fillna(0).sum(axis=1)
    printed = re.search(r"over the (\d+) weights of single trainings .* is (\d\.\d\d)", section)
    assert printed is not None
    assert int(printed[1]) == len(single)
    assert float(printed[2]) == pytest.approx(single["own"].reset_index(drop=True).corr(gains, "spearman"), abs=6e-3)


def test_the_thresholds_can_be_recomputed() -> None:
    runs = pd.read_csv(REPOSITORY / "results" / "thresholds.csv")
    of_runs = runs.groupby(["set", "detector", "arm"])[["f1", "fpr", "fnr"]].mean()
    intervals = pd.read_csv(REPOSITORY / "results" / "thresholds.intervals.csv", keep_default_na=False)
    differences = intervals[intervals.measure == "f1"].set_index(["a", "b", "set", "detector"])
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 24. ") : text.index("## 25. ")]
    rows = [row for row in map(fields, section.splitlines()) if len(row) == 12 and row[0] in {*runs["set"]}]
    assert len(rows) == 14
    columns = [("f1", arm) for arm in ("ours", "Perlin", "percentile", "oracle")]
    columns += [(rate, arm) for rate in ("fpr", "fnr") for arm in ("ours", "Perlin", "percentile")]
    for name, detector, *cells in rows:
        for cell, (measure, arm) in zip(cells, columns, strict=True):
            assert float(cell) == pytest.approx(of_runs.loc[(name, detector, arm), measure], abs=6e-3)
    rows = [row for row in map(fields, section.splitlines()) if len(row) == 4 and row[0].startswith("ours")]
    assert len(rows) == 4
    for head, *cells in rows:
        a, _, b = head.partition(" minus ")
        for cell, detector in zip(cells, ("both", "PatchCore 0.01", "PaDiM"), strict=True):
            printed = [float(number) for number in re.findall(r"[+-]?\d\.\d{3}", cell)]
            found = differences.loc[a, b, "mean", detector][["value", "low", "high"]].tolist()
            assert printed == pytest.approx(found[: len(printed)], abs=6e-4)
    means = runs.groupby(["detector", "set", "arm"])["f1"].mean().groupby("arm").mean()
    for arm, other in (("ours", "Perlin"), ("ours", "percentile"), ("ours", "oracle")):
        assert differences.loc[arm, other, "mean", "both"]["value"] == pytest.approx(
            means[arm] - means[other], abs=2e-4
        )


def test_the_rank_correlations_can_be_recomputed() -> None:
    runs = pd.read_csv(REPOSITORY / "results" / "ranking.csv")
    stored = pd.read_csv(REPOSITORY / "results" / "ranking.intervals.csv").set_index(["metric", "set"])
    text = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text[text.index("## 27. ") : text.index("## 28. ")]
    rows = {row[0]: row[1:] for row in map(fields, section.splitlines()) if len(row) == 3}
    for column, metric in enumerate(("image_AUROC", "pixel_AUPR_step")):
        expected = {}
        for name, of_set in runs.groupby("set"):
            drawn, real = of_set[f"drawn_{metric}"], of_set[f"real_{metric}"]
            if real.nunique() > 1:
                expected[name] = float(spearmanr(drawn, real)[0])
        expected["mean"] = sum(expected.values()) / len(expected)
        assert {name for name, row in rows.items() if re.search(r"\d", row[column])} == {*expected}
        for name, value in expected.items():
            assert stored.loc[(metric, name), "value"] == pytest.approx(value, abs=0.01)  # ties of rounded figures
            printed = [float(number) for number in re.findall(r"-?\d\.\d\d", rows[name][column])]
            assert printed == pytest.approx(stored.loc[(metric, name)][["value", "low", "high"]].tolist(), abs=6e-3)
