"""A browser and a server on 127.0.0.1 for the tests of the site and of JupyterLab."""

import contextlib
import functools
import http.server
import shutil
import threading

import pytest
from playwright.sync_api import Error, sync_playwright

# As root, as in most containers, Chromium starts only without its sandbox; the others
# keep it from asking its maker for news.
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def chromium():
    """Chromium from the system, or else the one that Playwright has fetched."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        except Error as error:
            pytest.fail(
                "these tests need Chromium: `apt-get install chromium`, or "
                f"`.venv/bin/playwright install chromium`\n{error}",
                pytrace=False,
            )
        yield browser
        browser.close()


@contextlib.contextmanager
def watched_page(browser, only="", **options):
    """Yields a page; fails if something went wrong while it was open.

    `only` stands in the faults that count, such as " asked for " another server.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    faults = []
    at_home = ("http://127.0.0.1", "file:", "data:", "blob:", "ws://127.0.0.1")

    def request(request):
        if not request.url.startswith(at_home):
            faults.append(f"{page.url} asked for {request.url}")

    def message(message):
        if message.type == "error":
            faults.append(f"{page.url}: {message.text}")

    page.on("request", request)
    page.on("console", message)
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    yield page
    context.close()
    faults = [fault for fault in faults if only in fault]
    assert not faults, "\n".join(faults[:20])


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@contextlib.contextmanager
def server(folder):
    """Serves a folder; yields its address."""
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{httpd.server_address[1]}"
        finally:  # else the thread would spin when a test has failed
            httpd.shutdown()
