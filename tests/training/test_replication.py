"""Lesson 14c: each status of the replication report follows from what is stored."""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
REPORT = tomllib.loads((ROOT / "vit_course" / "replication.toml").read_text("utf-8"))
REPORT = REPORT["claim"]
STATUSES = ["reproduced", "same direction", "opposite", "undecided", "not done"]
STATUSES += ["out of reach"]
MEASURED = [claim for claim in REPORT if "file" in claim]
EXACT = [claim for claim in REPORT if claim["status"] == "reproduced"]


def name_of(claim):
    return claim["part"]


def lesson_of(claim):
    (path,) = NOTEBOOKS.glob(f"{claim['lesson']}_*.ipynb")
    return path


def printed(lesson):
    """What the cells of a lesson print, line by line."""
    lines = []
    for cell in nbformat.read(lesson, as_version=4).cells:
        for output in cell.get("outputs", []):
            lines += output.get("text", "").splitlines()
    return lines


def entries(content, key=""):
    """Every table within tables and lists that has an interval, and its key."""
    if isinstance(content, dict):
        if "interval" in content:
            yield {"key": key} | content
        for name, value in content.items():
            yield from entries(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from entries(value, key)


def stored_row(claim):
    path = ROOT / "benchmarks" / claim["file"]
    wanted = claim["row"].items()
    rows = [
        row for row in entries(json.loads(path.read_text())) if wanted <= row.items()
    ]
    assert len(rows) == 1, f"{path.name} has {claim['row']} {len(rows)} times"
    return rows[0]


def judge(row, sign):
    """The status that a difference and its interval allow."""
    low, high = row["interval"]
    if low <= 0 <= high or row.get("p_holm", 0) >= 0.05:
        return "undecided"
    side = 1 if low > 0 else -1
    return "same direction" if side == sign else "opposite"


@pytest.mark.parametrize(
    "interval, p_holm, sign, status",
    [
        ([1, 2], 0.01, 1, "same direction"),
        ([-2, -1], 0.01, -1, "same direction"),
        ([1, 2], 0.01, -1, "opposite"),
        ([-2, -1], 0.01, 1, "opposite"),
        ([1, 2], 0.05, 1, "undecided"),
        ([-1, 2], 0.01, 1, "undecided"),
        ([1, 2], 0.01, 0, "opposite"),  # the paper finds no difference
        ([-2, -1], 0.01, 0, "opposite"),
    ],
)
def test_how_a_difference_is_judged(interval, p_holm, sign, status):
    assert judge({"interval": interval, "p_holm": p_holm}, sign) == status


@pytest.mark.parametrize("claim", MEASURED, ids=name_of)
def test_the_status_follows_from_the_stored_interval(claim):
    row = stored_row(claim)
    low, high = row["interval"]
    assert low <= row.get("difference", row.get("mean")) <= high
    assert claim["status"] == judge(row, claim["sign"])
    assert lesson_of(claim).is_file()


@pytest.mark.parametrize("claim", EXACT, ids=name_of)
def test_what_is_reproduced_is_an_output_of_the_lesson(claim):
    assert re.search(r"equal( to within 1e-\d+)?$", claim["shown"])
    assert claim["shown"] in [line.strip() for line in printed(lesson_of(claim))]


def test_each_claim_has_what_its_status_needs():
    fields = {"reproduced": {"lesson", "shown"}}
    fields |= {s: {"lesson", "file", "row", "sign"} for s in STATUSES[1:4]}
    fields |= {s: {"why"} for s in STATUSES[4:]}
    for claim in REPORT:
        assert set(claim) == {"part", "says", "status"} | fields[claim["status"]]
    assert max(Counter(map(name_of, REPORT)).values()) == 1


def test_all_equations_tables_and_figures_are_judged():
    """The paper has Equations 1 to 8, Tables 1 to 9 and Figures 1 to 14."""
    named = " ".join(f"{claim['part']} {claim['says']}" for claim in REPORT)
    named = named.replace("Equations 7 and 8", "Equation 7, Equation 8")
    for kind, last in (("Equation", 8), ("Table", 9), ("Figure", 14)):
        found = {int(n) for n in re.findall(rf"{kind} (\d+)", named)}
        assert found == set(range(1, last + 1)), kind
