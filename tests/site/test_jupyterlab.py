"""Three lessons in a real JupyterLab, run from its menu in a real browser."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browsing import watched_page
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
LESSONS = ["04_class_token", "06_self_attention", "13_predictions_and_attention"]
SETTINGS = {
    # Cells outside of the window are drawn too, so that the test sees all of them.
    "notebook-extension/tracker": {"windowingMode": "none"},
    # The question whether to fetch news would stand in front of the lesson.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def jupyterlab(folder):
    """JupyterLab on copies of the lessons; yields its address."""
    (folder / "notebooks").mkdir()
    for lesson in LESSONS:
        notebook = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
        for cell in notebook.cells:  # what is there afterwards was made here
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / "notebooks" / f"{lesson}.ipynb")
    for name, settings in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    port = free_port()
    lab = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    lab += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    lab += ["--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    lab += [f"--ServerApp.root_dir={folder / 'notebooks'}"]
    own = {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(lab, env=os.environ | own, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(120):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{address}/api", timeout=2).close()
                    break
                assert process.poll() is None, (folder / "lab.log").read_text()
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder / "runtime", ignore_errors=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as address:
        yield address


def in_lesson(lesson, kind):
    """How many outputs of a kind the stored lesson has."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    return sum(kind in (o.output_type, *o.get("data", {})) for o in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_from_the_menu(address, browser, lesson):
    screen = {"width": 1400, "height": 1000}
    with watched_page(browser, only=" asked for ", viewport=screen) as page:
        # The first page of a new JupyterLab takes its time on a busy machine.
        page.goto(f"{address}/lab/tree/{lesson}.ipynb?reset", timeout=120_000)
        panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        panel.locator(".jp-Notebook").wait_for(timeout=60_000)
        idle = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
        panel.locator(idle).wait_for(timeout=60_000)
        panel.locator(".jp-Cell").first.click(timeout=180_000)
        # A folded cell has no prompt on the page; one that fails stops those below it.
        prompts = panel.locator(".jp-CodeCell .jp-InputPrompt", has_text="[")
        for _ in range(5):  # while JupyterLab still gets ready, it ignores its menu
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_timeout(3000)
            if any(text != "[ ]:" for text in prompts.all_inner_texts()):
                break

        # A cell that fails stops the run, and those below keep an empty prompt.
        number = len(prompts.all_inner_texts())
        done = re.compile(r"\[\d+\]:")
        until = time.monotonic() + 180
        while time.monotonic() < until:
            texts = prompts.all_inner_texts()
            if all(map(done.fullmatch, texts)):
                break
            time.sleep(0.5)
        assert all(map(done.fullmatch, texts)), f"{lesson} stopped: {texts}"
        assert number > 10
        # Those of folded cells at the end may still be on their way.
        pictures = panel.locator(".jp-RenderedImage img")
        kinds = ("image/png", "image/jpeg")
        expected = sum(in_lesson(lesson, kind) for kind in kinds)
        expect(pictures).to_have_count(expected, timeout=60_000)
        assert expected > 0
        failed = panel.locator('[data-mime-type="application/vnd.jupyter.error"]')
        assert failed.count() == in_lesson(lesson, "error")
        complaints = panel.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        assert complaints.all_inner_texts() == []

        for picture in pictures.all():  # JupyterLab does not show stored alt texts
            assert picture.evaluate("p => p.naturalWidth") > 100

        # MathJax leaves no dollars behind, and no formula that it could not read.
        panel.locator("mjx-container").first.wait_for(timeout=30_000)
        assert panel.locator("mjx-container").count() > 3
        assert panel.locator("mjx-merror, [data-mjx-error]").count() == 0
        for text in panel.locator(".jp-RenderedMarkdown").all_inner_texts():
            assert "$" not in text, text[:200]
        if "SCREENSHOTS" in os.environ:
            page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"lab_{lesson}.png")
