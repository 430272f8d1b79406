"""Downloads from servers and archives that mean harm: all of it, or nothing."""

import gzip
import stat
import time
import zipfile
from functools import partial
from urllib.parse import quote

import pytest
from damage import IMAGES, TIMES, damaged
from serving import Handler, make_zip, serving

from going_modular import predictions
from vit_course import data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Duplicate name")]
PLACES = [f"{part}/{kind}" for part in ("train", "test") for kind in ("apple", "pear")]
FILES = [(f"{place}/{i}.png", IMAGES["png"]) for place in PLACES for i in range(2)]
ZIP = make_zip(FILES)
LENGTHS = {"too long": 10**15, "too short": 30, "negative": -5, "no number": "many"}
LENGTHS |= {"drips for years": 10**9}
LINKS = {"in a circle": "/in%20a%20circle.png", "to a file": "file:///etc/passwd"}
LINKS |= {"to nowhere": "http://127.0.0.1:1/", "to nothing": "http://"}
HEADERS = {kind: {} for kind in ("plain", "endless", "drips")}
HEADERS |= dict.fromkeys(("gzip", "no gzip", "gzip bomb"), {"Content-Encoding": "gzip"})
HEADERS |= {kind: {"Content-Length": length} for kind, length in LENGTHS.items()}
HEADERS |= {kind: {"Location": link} for kind, link in LINKS.items()}
HEADERS |= {"no chunks": {"Transfer-Encoding": "chunked"}}
HEADERS |= {"many headers": {f"X-{i}": i for i in range(200)}}
HEADERS |= {"a long header": {"X": 10**6 * "x"}}


def answer(handler, kind, body):
    handler.send_response(302 if "Location" in HEADERS[kind] else 200)
    for header in HEADERS[kind].items():
        handler.send_header(*map(str, header))
    handler.end_headers()
    if kind.startswith("gzip"):
        body = gzip.compress(body if kind == "gzip" else bytes(10**8))
    if kind.startswith("drips"):
        for i in range(len(body)):
            handler.wfile.write(body[i : i + 1])
            time.sleep(0.3)
    handler.wfile.write(body)
    while kind == "endless":
        handler.wfile.write(bytes(2**16))


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


def ask(tally, root, url):
    """Downloads an archive and an image; of an archive all is there, or nothing."""
    how = {"progress": False, "timeout": 2, "retries": 0, "root": root}
    get, promised = partial(data.download_data, **how), {"error": RuntimeError}
    done = tally.judge(url, get, f"{url}.zip", "food", fits=is_whole, **promised)
    assert done or not list(root.glob("*"))
    return done, tally.judge(url, predictions.read_image, f"{url}.png")


def test_hostile_servers(tmp_path, tally):
    with serving(Handler) as server:
        for kind in HEADERS:
            for ending, body in (("zip", ZIP), ("png", IMAGES["png"])):
                answers = partial(answer, kind=kind, body=body)
                server.answers[f"/{quote(kind)}.{ending}"] = answers
        for kind in HEADERS:
            done = ask(tally, tmp_path / kind, f"{server.url}/{quote(kind)}")
            assert all(done) or kind not in ("plain", "gzip")


def test_a_proxy_that_is_not_there(tmp_path, monkeypatch, tally):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert not any(ask(tally, tmp_path, "http://example.invalid/plain"))


PIPE = zipfile.ZipInfo("train/apple/pipe")
PIPE.external_attr = (stat.S_IFIFO | 0o666) << 16
ARCHIVES = {  # what is in the archive besides, and whether that is fine
    "bomb": (("x", bytes(15 * 10**7)), False),
    "twice": (FILES[0], False),
    "a file for a folder": (("train", b""), False),
    "a long name": (("x" * 300, b""), False),
    "differ in case": (("train/APPLE", b""), True),
    "odd names": (("train/apple/\n🍕 -.txt", b""), True),
    "a pipe": ((PIPE, b""), True),
}


def unpack(tally, path, content):
    path.write_bytes(content)
    done = tally.judge(path, data.find_pictures, path, fits=is_whole)
    assert bool(done) == any((path.parent / "data").glob(f"{path.stem}-*"))
    return done


def test_hostile_archives(tmp_path, tally):
    for kind, (more, fine) in ARCHIVES.items():
        content = make_zip([*FILES, more], zipfile.ZIP_DEFLATED)
        assert bool(unpack(tally, tmp_path / f"{kind}.zip", content)) == fine


def test_damaged_archives(tmp_path, tally):
    for i, (_, content) in enumerate(damaged({"zip": ZIP}, 200 * TIMES)):
        unpack(tally, tmp_path / f"{i}.zip", content)
