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
from start_page import card_figures, figure, first_cell, write_thumbnail

ROOT = Path(__file__).resolve().parent.parent
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The Vision Transformer, one equation at a time</title>
<style>
  :root {{ --paper: #fff; --ink: #323232; --quiet: #48566b; --line: #c9c9c9;
           --blue: #0072b2; --red: #b3261e; color-scheme: light dark; }}
  @media (prefers-color-scheme: dark) {{
    :root {{ --paper: #121212; --ink: #ced6dd; --quiet: #9ca4af; --line: #48566b;
             --blue: #4aa9e0; --red: #ff8a80; }} }}
  body {{ font: 17px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2.5rem auto;
         padding: 0 1rem; background: var(--paper); color: var(--ink); }}
  h1 {{ font-weight: 400; font-size: 2.5rem; line-height: 1.15; margin: 0 0 1rem; }}
  h2 {{ font-size: 1.05rem; margin: 0; padding: .8rem 1rem 0; }}
  a {{ color: var(--blue); }}
  ul {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
       gap: 1rem; padding: 0; list-style: none; }}
  li {{ border: 1px solid var(--line); border-radius: .75rem; overflow: hidden;
       display: flex; flex-direction: column; position: relative; }}
  li:hover {{ border-color: var(--blue); }}
  li img {{ width: 100%; aspect-ratio: 16 / 9; }}
  li a {{ color: inherit; text-decoration: none; }}
  li a::after {{ content: ""; position: absolute; inset: 0; }}
  li p {{ font-size: .9rem; margin: .3rem 1rem .8rem; }}
  li .run {{ color: var(--quiet); margin-top: auto; }}
  li .failed {{ color: var(--red); margin-top: auto; }}
</style>
<h1>The Vision Transformer, one equation at a time</h1>
<p>These lessons ran on this machine. Each page holds what it computed here. To change
the code and run it yourself, <code>make lab</code> opens the lessons in JupyterLab.
Terms in English and Chinese: the <a href="GLOSSARY.html">glossary</a>.</p>
<ul>
{cards}
</ul>
</html>
"""
CARD = """<li>{image}
<h2><a href="{name}.html">{title}</a></h2>
<p>{ability}</p>
<p class="{state}">{minutes} · {result}</p></li>"""


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


def write_card(lesson: Path, seconds: float, result: str) -> str:
    """Returns a lesson as a card of the page; its image goes beside the lesson."""
    image = ""
    chosen = card_figures()[lesson.stem]
    try:
        pixels, alt = figure(lesson, chosen["figure"])
    except ValueError:
        pass  # the lesson failed before its figure
    else:
        file = lesson.parent / "cards" / f"{lesson.stem}.jpg"
        write_thumbnail(pixels, chosen.get("crop", [0, 0, 1, 1]), file)
        image = f'<img src="cards/{file.name}" alt="{html.escape(alt)}">'
    words = {k: html.escape(v.replace("`", "")) for k, v in first_cell(lesson).items()}
    ran = result == "ok"
    return CARD.format(
        **words,
        name=lesson.stem,
        image=image,
        state="run" if ran else "failed",
        result=f"ran in {seconds:.1f} s" if ran else html.escape(result),
    )


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
    cards = [write_card(lessons[name], *result) for name, result in results.items()]
    glossary = (ROOT / "notebooks" / "GLOSSARY.md").read_text(encoding="utf-8")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(glossary)])
    write_page(page, folder / "GLOSSARY.html")
    index = folder / "index.html"
    index.write_text(PAGE.format(cards="\n".join(cards)), encoding="utf-8")
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
