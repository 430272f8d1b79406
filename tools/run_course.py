"""Runs every lesson on this machine into build/ and writes a page that lists them."""

import argparse
import html
import json
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
from latex2mathml.converter import convert as to_mathml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The Vision Transformer, one equation at a time</title>
<style>
  body {{ font: 17px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
         padding: 0 1rem; color-scheme: light dark; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #8886; }}
  td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
<h1>The Vision Transformer, one equation at a time</h1>
<p>These lessons ran on this machine. Each page holds what it computed here.</p>
<table>
<tr><th scope="col">Lesson</th><th scope="col">Seconds</th>
  <th scope="col">Result</th></tr>
{rows}
</table>
<p>Terms in English and Chinese: the <a href="GLOSSARY.html">glossary</a>. To change
the code and run it yourself, <code>make lab</code> opens the lessons in JupyterLab.</p>
</html>
"""


def typeset(text: str) -> str:
    """Turns the LaTeX of a markdown cell into MathML, which needs no network."""

    def formula(match: re.Match) -> str:
        display = "block" if match.group(1) else "inline"
        return to_mathml(match.group(1) or match.group(2), display=display)

    # Code is set aside first: a dollar sign in it is no formula.
    pieces = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.DOTALL)
    pattern = r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)\$"
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(pattern, formula, pieces[i], flags=re.DOTALL)
    return "".join(pieces)


def write_page(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes a notebook as a page that fetches nothing from anywhere."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # Links to another lesson lead to its page; those to the web stay.
            source = typeset(cell.source)
            link = r"\]\((?!\w+:)([^)/]+)\.(?:ipynb|md)\)"
            source = re.sub(link, r"](\1.html)", source)
            # Exercises are written in, so they have no page: to the notebook itself.
            link = r"\]\((exercises/[^)]+)\)"
            cell.source = re.sub(link, r"](../notebooks/\1)", source)
    exporter = HTMLExporter(mathjax_url="", require_js_url="", mermaid_js_url="")
    resources = {"metadata": {"name": path.stem}}
    page, _ = exporter.from_notebook_node(notebook, resources=resources)
    page = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    page = page.replace("</head>", "<style>math { font-size: 1.3em }</style></head>", 1)
    path.write_text(page, encoding="utf-8")


def title(path: Path) -> str:
    """Returns a notebook's title, the first line of its first cell."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return first.splitlines()[0].lstrip("# ")


def run(path: Path, folder: Path, timeout: int) -> tuple[float, str]:
    """Runs one notebook; writes it and its page to `folder`.

    Returns:
        The seconds it took, and "ok" or a line that says what failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        startup_timeout=180,  # a slow machine, with its first import from a cold disk
        record_timing=False,
        # Else each kernel warns that it listens on this machine without encryption.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    start, result = time.perf_counter(), "ok"
    try:
        client.execute()
    except CellExecutionError as error:
        result = f"failed: {error.ename}: {error.evalue}".splitlines()[0]
    except CellTimeoutError:
        result = f"failed: a cell ran for more than {timeout} seconds"
    except DeadKernelError:
        result = "failed: the kernel died (often: not enough memory)"
    except RuntimeError as error:
        result = f"failed: no kernel (is 127.0.0.1 blocked?): {error}".splitlines()[0]
    seconds = time.perf_counter() - start
    nbformat.write(notebook, folder / path.name)
    write_page(notebook, folder / path.with_suffix(".html").name)
    return seconds, result


def write_index(folder: Path, results: dict[str, list]) -> Path:
    """Writes the page that lists the lessons, with those of earlier calls.

    Args:
        results: by a lesson's name its seconds, and "ok" or what failed.
    """
    kept = folder / "results.json"
    if kept.is_file():
        results = json.loads(kept.read_text(encoding="utf-8")) | results
    lessons = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    results = {name: results[name] for name in lessons if name in results}
    kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    rows = []
    for name, (seconds, result) in results.items():
        link = f'<a href="{name}.html">{html.escape(title(lessons[name]))}</a>'
        rows.append(
            f'<tr><td>{link}</td><td class="number">{seconds:.1f}</td>'
            f"<td>{html.escape(result)}</td></tr>"
        )
    glossary = (ROOT / "notebooks" / "GLOSSARY.md").read_text(encoding="utf-8")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(glossary)])
    write_page(page, folder / "GLOSSARY.html")
    index = folder / "index.html"
    index.write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")
    return index


def main() -> int:
    """Runs the lessons that were named, or all, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "lessons", nargs="*", help="parts of their names, such as 04 (default: all)"
    )
    parser.add_argument(
        "--build",
        type=Path,
        default=ROOT / "build",
        help="output folder (default: build)",
    )
    parser.add_argument(
        "--timeout", type=int, default=600, help="seconds per cell (default: 600)"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="lessons run at a time (default: 2)"
    )
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs must be 1 or more, not {arguments.jobs}")
    wanted = arguments.lessons or [""]
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    paths = [path for path in paths if any(part in path.name for part in wanted)]
    if not paths:
        parser.error(f"no lesson in notebooks/ has {wanted} in its name")
    arguments.build.mkdir(parents=True, exist_ok=True)
    # Plots belong into the notebook, whatever the shell says.
    os.environ.pop("MPLBACKEND", None)
    # Lessons that run side by side share the cores.
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    width = max(len(path.stem) for path in paths)
    print(f"{'lesson':{width}}  seconds  result")
    results = {}
    one = partial(run, folder=arguments.build, timeout=arguments.timeout)
    pool = ProcessPoolExecutor(arguments.jobs)
    try:
        for path, (seconds, result) in zip(paths, pool.map(one, paths), strict=True):
            print(f"{path.stem:{width}}  {seconds:7.1f}  {result}", flush=True)
            results[path.stem] = [seconds, result]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C no further lesson begins
    index = write_index(arguments.build, results)
    failed = sum(result != "ok" for _, result in results.values())
    print(
        f"\n{len(paths) - failed} of {len(paths)} lessons ran. Open this page:\n{index}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
