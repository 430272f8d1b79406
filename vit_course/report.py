"""The rows of the replication report, what each rests on, and its page (lesson 14c).

What has become of each part of the paper stands in `replication.toml`; what was
measured is in `benchmarks/`, in a clone of the course only.
"""

import html
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from IPython.display import display

__all__ = [
    "COLOURS",
    "STATUSES",
    "evidence",
    "load_report",
    "printed",
    "show_report",
    "stored_row",
]

_HERE = Path(__file__).resolve().parent
_BENCHMARKS = _HERE.parent / "benchmarks"
_NOTEBOOKS = _HERE.parent / "notebooks"
_SIDES = {1: "above zero", -1: "below zero", 0: "no difference"}
COLOURS = {  # white text is readable on each
    "reproduced": "#0B6E4F",
    "same direction": "#0B5FA5",
    "opposite": "#A3340B",
    "undecided": "#8A5A00",
    "no verdict": "#6B4C9A",
    "not done": "#666666",
    "out of reach": "#3D3D3D",
}
STATUSES = tuple(COLOURS)


def load_report() -> list[dict[str, Any]]:
    """Reads the claims of `replication.toml`; its head says what each field means."""
    return tomllib.loads((_HERE / "replication.toml").read_text("utf-8"))["claim"]


def _entries(content: Any, key: str = "") -> Iterator[dict[str, Any]]:
    """Yields every table of a stored file that has an interval, with its key."""
    if isinstance(content, dict):
        if "interval" in content:
            yield {"key": key} | content
        for name, value in content.items():
            yield from _entries(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value, key)


def stored_row(claim: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a file in `benchmarks/` that a measured claim names.

    It has an `interval`, `p_holm` if p was corrected, and `of`, what was measured.
    """
    content = json.loads((_BENCHMARKS / claim["file"]).read_text("utf-8"))
    wanted = claim["row"].items()
    (row,) = (row for row in _entries(content) if wanted <= row.items())
    if "of" not in row:
        seeds, images = len(content["seeds"]), content["test_images"]
        row["of"] = f"{seeds} seeds, the same {images} test images"
    return row


def evidence(claim: dict[str, Any]) -> Iterator[str]:
    """Yields the lines under a claim: what was measured, quoted, or is missing."""
    where = ""
    if "file" in claim:
        row = stored_row(claim)
        low, high = row["interval"]
        difference = row.get("difference", row.get("mean"))
        one = "in one model: " if "one model" in row["of"] else ""
        yield f"{one}{claim['difference']}"
        p = row.get("p_holm", 1)
        p = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
        p = f", {p} (corrected)" if "p_holm" in row else ""
        interval = f"{difference:+.2f} ({low:+.2f} … {high:+.2f}) {claim['unit']}"
        yield f"difference (95 % interval): {interval}{p}"
        yield f"measured: over {row['of']}; lesson {claim['lesson']}, {claim['file']}"
        yield f"images: {claim['images']}"
        if "note" in claim:
            yield f"mind: {claim['note']}"
        yield f"the paper's side: {_SIDES[claim['sign']]}"
        if claim["status"] == "undecided" and "paper" in claim:
            # Could so few runs have seen it?
            inside = low <= float(claim["paper"].split()[0]) <= high
            where = f"; {'inside' if inside else 'outside'} our interval"
    elif "why" in claim:
        if "seen" in claim:
            yield f"lesson {claim['lesson']}: {claim['seen']}"
        yield claim["why"]
    else:
        yield f"against {claim['against']}; lesson {claim['lesson']}"
        yield from claim.get("shown", [])
        if "test" in claim:
            yield f"tests/{claim['test']}"
    if "paper" in claim:
        yield f"the paper: {claim['paper']}{where}"


def show_report(report: list[dict[str, Any]]) -> None:
    """Shows a table per status, folded if nothing was measured; elsewhere its text."""
    left = "text-align: left; vertical-align: top; white-space: normal"
    page, text = [], []
    for status, colour in COLOURS.items():
        claims = [claim for claim in report if claim["status"] == status]
        text += ["", f"{status}: {len(claims)}"]
        fold = " open" if any("file" in claim for claim in claims) else ""
        band = f"background: {colour}; color: white; padding: 0.4em; font-weight: bold"
        page.append(f'<details{fold}><summary style="{band}">{text[-1]}</summary>')
        page.append('<table class="dataframe" style="width: 100%"><tbody>')
        for claim in claims:
            lines = list(evidence(claim))
            text.append(f"  {claim['part']}: {claim['says']}")
            text += [f"    {line}" for line in lines]
            part, says, *lines = (
                html.escape(line) for line in (claim["part"], claim["says"], *lines)
            )
            style = f"border-left: 6px solid {colour}; width: 25%; {left}"
            page.append(f'<tr><th scope="row" style="{style}">{part}</th>')
            style = f"{left}; overflow-wrap: anywhere"
            says = "<br>".join([f"<b>{says}</b>", *lines])
            page.append(f'<td style="{style}">{says}</td></tr>')
        page.append("</tbody></table></details>")
    content = {"text/html": "\n".join(page), "text/plain": "\n".join(text[1:])}
    display(content, raw=True)


def printed(lesson: str) -> list[str]:
    """Returns the lines that a lesson has printed, and the texts of its figures.

    Args:
        lesson: its number, such as "05b".
    """
    (path,) = _NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    text = ""
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        text += "".join(output.get("text", ""))
        if "data" in output:
            text += "\n" + "".join(output["data"].get("text/plain", "")) + "\n"
    return [line.strip() for line in text.splitlines()]
