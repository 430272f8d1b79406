"""Lesson 14: the replication report says nothing that the lessons do not show."""

import tomllib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
TABLE = tomllib.loads((ROOT / "vit_course" / "replication.toml").read_text("utf-8"))
REPORT = [SimpleNamespace(**{"shown": ""} | claim) for claim in TABLE["claim"]]
SHOWN = [claim for claim in REPORT if claim.status != "out of reach"]
STATUSES = ("reproduced", "approximated", "out of reach")


def words_of(lesson):
    """Text, code and outputs of a lesson."""
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    words = []
    for cell in nbformat.read(path, as_version=4).cells:
        words.append(cell.source)
        for output in cell.get("outputs", []):
            words.append(output.get("text", ""))
            words.append(output.get("data", {}).get("text/plain", ""))
    return "\n".join(words)


@pytest.mark.parametrize("claim", SHOWN, ids=lambda claim: claim.part)
def test_the_lesson_shows_it(claim):
    assert len(claim.shown) > 5
    assert claim.shown in words_of(claim.where)


def test_the_test_above_can_fail():
    assert "gradient of x_class" not in words_of("08")


def test_each_status_is_used_and_no_part_is_named_twice():
    assert set(Counter(claim.status for claim in REPORT)) == set(STATUSES)
    assert max(Counter(claim.part for claim in REPORT).values()) == 1


def test_all_equations_tables_and_figures_are_judged():
    """The paper has Equations 1 to 8, Tables 1 to 9 and Figures 1 to 14."""
    parts = " ".join(
        claim.part.replace("Equations 5 to 8", "Equation 5") for claim in REPORT
    )
    for number in range(1, 6):
        assert f"Equation {number}" in parts
    named = " ".join(f"{claim.part} {claim.what}" for claim in REPORT)
    for kind, last in (("Table", 9), ("Figure", 14)):
        missing = [n for n in range(1, last + 1) if f"{kind} {n}" not in named]
        assert not missing, f"{kind}s {missing}"


def test_what_is_out_of_reach_says_why():
    for claim in REPORT:
        assert (claim.shown == "") == (claim.status == "out of reach")
        assert len(claim.where) > (5 if claim.status == "out of reach" else 1)
