"""Downloads from servers and archives that mean harm: all of it, or nothing."""

import gzip
import stat
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from damage import IMAGES, TIMES, damaged, make_zip
from serving import serving

from going_modular import predictions
from vit_course import data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Duplicate name")]
PLACES = [f"{part}/{kind}" for part in ("train", "test") for kind in ("apple", "pear")]
FILES = [(f"{place}/{i}.png", IMAGES["png"]) for place in PLACES for i in range(2)]
ZIP, GZIP = make_zip(FILES), {"Content-Encoding": "gzip"}
LENGTHS = {"too long": 10**15, "too short": 30, "negative": -5, "no number": "many"}
LENGTHS |= {"drips for years": 10**9}
LINKS = {"in a circle": "/in a circle.png", "to a file": "file:///etc/passwd"}
LINKS |= {"to nowhere": "http://127.0.0.1:1/", "to nothing": "http://"}
HEADERS = {kind: {} for kind in ("plain", "endless", "drips")}
HEADERS |= {kind: GZIP for kind in ("gzip", "no gzip", "gzip bomb")}
HEADERS |= {kind: {"Content-Length": length} for kind, length in LENGTHS.items()}
HEADERS |= {kind: {"Location": link} for kind, link in LINKS.items()}
HEADERS |= {"no chunks": {"Transfer-Encoding": "chunked"}}
HEADERS |= {"many headers": {f"X-{i}": i for i in range(200)}}
HEADERS |= {"a long header": {"X": 10**6 * "x"}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        kind, _, ending = self.path.strip("/").replace("%20", " ").rpartition(".")
        self.send_response(302 if "Location" in HEADERS[kind] else 200)
        for header in HEADERS[kind].items():
            self.send_header(*map(str, header))
        self.end_headers()
        body = ZIP if ending == "zip" else IMAGES["png"]
        if kind.startswith("gzip"):
            body = gzip.compress(body if kind == "gzip" else bytes(10**8))
        if kind.startswith("drips"):
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                time.sleep(0.3)
        self.wfile.write(body)
        while kind == "endless":
            self.wfile.write(bytes(2**16))

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    with serving(Handler) as server:
        yield server.url


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Bounds that a test can wait for."""
    monkeypatch.setattr(data, "_SECONDS", 2)
    monkeypatch.setattr(data, "_MEGABYTES", 20)
    monkeypatch.setattr(data, "_DATA", tmp_path / "data")
    bounds = data.limited(2, 20)
    monkeypatch.setattr(predictions, "limited", lambda seconds, megabytes: bounds)


def is_whole(folder):
    return [(folder / name).read_bytes() for name, _ in FILES] == [b for _, b in FILES]


def ask(tally, root, kind, url):
    """Downloads an archive and an image; of an archive all is there, or nothing."""
    how = {"progress": False, "timeout": 2, "retries": 0, "root": root}
    get, promised = partial(data.download_data, **how), {"error": RuntimeError}
    done = tally.judge(kind, url, get, f"{url}.zip", "food", fits=is_whole, **promised)
    assert done or not list(root.glob("*"))
    return done, tally.judge(kind, url, predictions.read_image, f"{url}.png")


def test_hostile_servers(tmp_path, address, tally):
    for kind in HEADERS:
        done = ask(tally, tmp_path / kind, kind, f"{address}/{kind}")
        assert all(done) or kind not in ("plain", "gzip")


def test_a_proxy_that_is_not_there(tmp_path, monkeypatch, tally):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert not any(ask(tally, tmp_path, "proxy", "http://example.invalid/plain"))


def test_hostile_archives(tmp_path, tally):
    pipe = zipfile.ZipInfo("train/apple/pipe")
    pipe.external_attr = (stat.S_IFIFO | 0o666) << 16
    cases = {  # what is in the archive besides, and whether that is fine
        "bomb": (("x", bytes(15 * 10**7)), False),
        "twice": (FILES[0], False),
        "a file for a folder": (("train", b""), False),
        "a long name": (("x" * 300, b""), False),
        "differ in case": (("train/APPLE", b""), True),
        "odd names": (("train/apple/\n🍕 -.txt", b""), True),
        "a pipe": ((pipe, b""), True),
    }
    for kind, (more, fine) in cases.items():
        content = make_zip([*FILES, more], zipfile.ZIP_DEFLATED)
        (path := tmp_path / f"{kind}.zip").write_bytes(content)
        done = tally.judge(kind, path, data.find_pictures, path, fits=is_whole)
        assert bool(done) == fine == any((tmp_path / "data").glob(f"{kind}-*"))


def test_damaged_archives(tmp_path, tally):
    for i, _, content in damaged({"zip": ZIP}, 200 * TIMES):
        (path := tmp_path / f"{i}.zip").write_bytes(content)
        done = tally.judge(i, path, data.find_pictures, path, fits=is_whole)
        assert done or not any((tmp_path / "data").glob(f"{i}-*"))
