"""Lesson 14c: the statuses of measured rows are checked against what is stored.

`judge` and `check_statuses` are those of the lesson, taken from the notebook.
"""

import ast
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from going_modular.variants import VARIANTS, count_parameters
from vit_course import report
from vit_course.report import COLOURS, evidence, load_report, printed, stored_row

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
REPORT = load_report()
STATUSES = ["reproduced", "same direction", "opposite", "undecided"]
STATUSES += ["no verdict", "not done", "out of reach"]
MEASURED = [claim for claim in REPORT if "file" in claim]
EXACT = [claim for claim in REPORT if claim["status"] == "reproduced"]


def functions_of_the_lesson():
    """What the lesson defines, without what it runs."""
    space = {"stored_row": stored_row}
    for cell in nbformat.read(NOTEBOOKS / "14c_replication_report.ipynb", 4).cells:
        if cell.cell_type == "code":
            body = [
                part
                for part in ast.parse(cell.source).body
                if isinstance(part, ast.FunctionDef)
            ]
            exec(compile(ast.Module(body, []), cell.id, "exec"), space)
    return space


LESSON = functions_of_the_lesson()
judge, check_statuses = LESSON["judge"], LESSON["check_statuses"]


def name_of(claim):
    return claim["part"]


def row_of(claim):
    """What the stored row of a measured claim is of."""
    return stored_row(claim)["of"]


@pytest.mark.parametrize(
    "interval, p, sign, status",
    [
        ([1, 2], 0.01, 1, "same direction"),
        ([-2, -1], 0.01, -1, "same direction"),
        ([1, 2], 0.01, -1, "opposite"),
        ([-2, -1], 0.01, 1, "opposite"),
        ([1, 2], 0.05, 1, "undecided"),
        ([1, 2], 0.05, -1, "undecided"),
        ([-1, 2], 0.01, 1, "undecided"),
        # The paper finds no difference, which an interval can only refute:
        ([1, 2], 0.01, 0, "opposite"),
        ([-2, -1], 0.01, 0, "opposite"),
        ([1, 2], 0.05, 0, "undecided"),
        ([-1, 2], 0.9, 0, "undecided"),
        # Without a p the interval decides alone:
        ([1, 2], None, 1, "same direction"),
        ([1, 2], None, -1, "opposite"),
        ([-1, 2], None, 1, "undecided"),
    ],
)
def test_how_a_difference_is_judged(interval, p, sign, status):
    assert judge(interval, sign, p) == status


@pytest.mark.parametrize("claim", MEASURED, ids=name_of)
def test_the_status_follows_from_the_stored_interval(claim):
    row = stored_row(claim)
    low, high = row["interval"]
    assert low <= row.get("difference", row.get("mean")) <= high
    p = row.get("p_holm")
    assert claim["status"] == judge(row["interval"], claim["sign"], p)
    assert printed(claim["lesson"])


@pytest.mark.parametrize("claim", MEASURED, ids=name_of)
def test_a_measured_claim_is_printed_with_all_that_it_rests_on(claim):
    text = "\n".join(evidence(claim))
    number = r"[+-]\d+\.\d\d"
    interval = rf"{number} \({number} … {number}\) {re.escape(claim['unit'])}"
    assert re.search(interval, text)
    one = "in one model: " if "one model" in row_of(claim) else ""
    assert text.startswith(f"{one}{claim['difference']}\n")
    assert claim.get("note", "") in text
    assert f"images: {claim['images']}" in text
    over = r"over (\d+ seeds, the same \d+ test images|\d+ test images and \d+ seeds);"
    assert re.search(rf"{over}|, one model;", text)
    assert re.search("the paper's side: (above zero|below zero|no difference)", text)
    undecided = claim["status"] == "undecided" and "paper" in claim
    assert undecided == bool(re.search("(in|out)side our interval", text))
    assert ("paper" in claim) == ("the paper: " in text)


def test_one_checkpoint_is_called_one_model():
    stored = json.loads((ROOT / "benchmarks" / "looking_inside.json").read_text())
    rows = stored["rows"]
    assert all(row["of"].endswith(", one model") for row in rows)
    assert all(row["p"] <= row["p_holm"] for row in rows)
    (claim,) = (claim for claim in MEASURED if "Figure 11" in claim["part"])
    assert stored["images"] == "rendered" and "drawn" in claim["images"]
    # What its words say: one step makes the slope, and chance makes none.
    (reach,) = (row for row in rows if "untrained" in row)
    steps = [b - a for a, b in itertools.pairwise(reach["layers"])]
    assert sorted(range(4), key=lambda i: steps[i])[-1] == 1  # from layer 2 to 3
    assert max(reach["untrained"]) < min(0.1, reach["interval"][0])


def test_what_the_note_on_rollout_says_follows_from_its_file():
    (claim,) = (claim for claim in MEASURED if "Figure 6" in claim["part"])
    rows = json.loads((ROOT / "benchmarks" / claim["file"]).read_text())["rows"]
    corrected = [row for row in rows if "p_holm" in row]
    assert f"one of the {len(corrected)} comparisons" in claim["note"]
    found = {(row["first"], row["second"], row["way"]): row for row in rows}
    last = found["last layer", "middle first", "left out"]
    assert last["interval"][0] > 0 and last["p_holm"] < 0.05
    for way in ("16 grey", "16 kept"):
        low, high = found["rollout", "middle first", way]["interval"]
        assert low < 0 < high


def test_what_the_row_on_masked_patches_says_follows_from_its_file():
    (claim,) = (claim for claim in REPORT if claim["part"] == "Section 4.6")
    assert claim["status"] == "not done"
    stored = json.loads((ROOT / "benchmarks" / "without_labels.json").read_text())
    assert {facts.get("task") for facts in stored["facts"].values()} == {None, "mae"}
    p = {
        row["method"]: row["p_holm"]
        for row in stored["differences"]
        if (row["of"], row["over"]) == ("MAE", "random")
    }
    assert p["linear probe"] < 0.05 <= p["k-NN"]


def test_a_row_of_the_inductive_bias_table_can_be_named(monkeypatch, tmp_path):
    """By two models and a number of images, which three of its rows share in part."""
    pair = {"first": "CNN", "second": "ViT", "images": 1000, "difference": 9.5}
    pair |= {"interval": [7.0, 12.0], "p_holm": 0.01}
    others = [pair | {"images": 300}, pair | {"second": "CNN, shuffled"}]
    alone = {"model": "CNN", "images": 1000, "mean": 84.0, "interval": [83.0, 85.0]}
    stored = {"seeds": [0, 1, 2, 3, 4], "test_images": 600}
    stored |= {"rows": [alone], "comparisons": [*others, pair]}
    (tmp_path / "table.json").write_text(json.dumps(stored))
    monkeypatch.setattr(report, "_BENCHMARKS", tmp_path)
    named = {"first": "CNN", "second": "ViT", "images": 1000}
    row = stored_row({"file": "table.json", "row": named})
    assert (
        row == {"key": "comparisons", "of": "5 seeds, the same 600 test images"} | pair
    )


@pytest.mark.parametrize("claim", EXACT, ids=name_of)
def test_what_is_reproduced_is_an_output_of_the_lesson_or_a_test(claim):
    lines = printed(claim["lesson"])
    for line in claim.get("shown", []):
        assert re.search(r"equal( to within 1e-\d+)?$", line)
        assert line in lines
    if "test" in claim:
        path, name = claim["test"].split("::")
        assert f"\ndef {name}(" in (ROOT / "tests" / path).read_text("utf-8")


def test_what_the_row_on_sizes_says_follows_from_the_counts():
    (claim,) = (claim for claim in REPORT if claim["part"] == "Table 1")
    names = [line.split(":")[0] for line in claim["shown"]]
    parts = [count_parameters(VARIANTS[f"vit_{name}"]) for name in names]
    base, large, huge = (round(sum(part.values()) / 1e6) for part in parts)
    assert f"round to {base}, {large} and {huge} with" in claim["paper"]
    headless = round((sum(parts[0].values()) - parts[0]["head"]) / 1e6)
    assert f"without a head, Base rounds to {headless}." in claim["paper"]


def figures_of(lesson):
    """The alt texts of the figures of a lesson."""
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            for about in output.get("metadata", {}).values():
                yield about.get("alt")


def test_the_check_of_the_lesson_finds_a_wrong_status():
    assert check_statuses(REPORT) == len(MEASURED)
    for claim in MEASURED:
        for status in set(STATUSES[1:4]) - {claim["status"]}:
            with pytest.raises(AssertionError, match=f" is {claim['status']}"):
                check_statuses([claim | {"status": status}])


def test_each_claim_has_what_its_status_needs():
    measured = {"lesson", "file", "images", "row", "difference", "unit", "sign"}
    for claim in REPORT:
        fields = set(claim) - {"part", "says", "status", "paper"}
        if claim["status"] == "reproduced":
            assert fields in ({"lesson", "against", s} for s in ("shown", "test"))
        elif claim["status"] in STATUSES[1:4]:
            assert fields - {"note"} == measured
        elif claim["status"] == "no verdict":  # something is there to be looked at
            assert fields == {"lesson", "seen", "why"}
            assert claim["seen"] in printed(claim["lesson"])
            assert claim["seen"] in figures_of(claim["lesson"])
        else:
            assert claim["status"] in STATUSES and fields == {"why"}
    assert max(Counter(map(name_of, REPORT)).values()) == 1


def test_every_status_has_a_colour_with_readable_white_text():
    assert list(COLOURS) == STATUSES
    for colour in COLOURS.values():
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        ]
        light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (light + 0.05) >= 4.5, colour


def test_all_equations_tables_and_figures_are_judged():
    """The paper has Equations 1 to 8, Tables 1 to 9 and Figures 1 to 14."""
    named = " ".join(f"{claim['part']} {claim['says']}" for claim in REPORT)
    named = named.replace("Equations 7 and 8", "Equation 7, Equation 8")
    for kind, last in (("Equation", 8), ("Table", 9), ("Figure", 14)):
        found = {int(n) for n in re.findall(rf"{kind} (\d+)", named)}
        assert found == set(range(1, last + 1)), kind
