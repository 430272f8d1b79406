"""download_data and get_foodvision_mini against a server on this computer only."""

import builtins
import errno
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import small_files
from serving import make_zip, serving

from vit_course import data

FILES = {
    f"{part}/{kind}/{i}.jpg": f"{part} {kind} {i} ".encode() * 400
    for part in ("train", "test")
    for kind in ("pizza", "steak", "sushi")
    for i in range(3)
}


ZIP = make_zip(FILES)


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too; a folder's content is b''."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def holds(folder: Path, files: dict[str, bytes] = FILES) -> bool:
    return {k: v for k, v in tree(folder).items() if v} == files


def write_files(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def running_server():
    with serving() as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.seen = []
    running_server.answers = {"/food.zip": ZIP}
    running_server.release = threading.Event()
    yield running_server
    running_server.release.set()


@pytest.fixture
def closed_url():
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty working directory, no network, no waiting between two attempts."""
    real = socket.getaddrinfo

    def only_here(host, *args, **kwargs):
        assert host == "127.0.0.1", f"a test asked for {host}"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    quick = SimpleNamespace(time=time.time, sleep=lambda seconds: None)
    monkeypatch.setattr(data, "time", quick)
    monkeypatch.chdir(tmp_path)


def get(source: str, **options) -> Path:
    options = {"progress": False, "timeout": 5, **options}
    return data.download_data(source, "food", **options)


def fails(source: str, cause: str, **options) -> RuntimeError:
    """Checks the error, and that nothing of the failed download is left."""
    with pytest.raises(RuntimeError) as caught:
        get(source, **options)
    message = str(caught.value)
    assert source in message and "data/food" in message
    assert cause in message
    assert caught.value.__cause__ is not None
    assert tree(Path("data")) == {}
    return caught.value


# What works


def test_first_call_downloads_and_second_skips(server, capsys):
    call = {
        "source": f"{server.url}/food.zip",
        "destination": "pizza_steak_sushi",
    }  # as in older notebooks
    folder = data.download_data(**call)
    assert folder == Path("data") / "pizza_steak_sushi"
    assert holds(folder)
    Path("plain").mkdir()
    assert folder.stat().st_mode == Path("plain").stat().st_mode  # others may read it
    assert os.listdir("data") == ["pizza_steak_sushi"]  # the zip is gone
    assert "100%" in capsys.readouterr().err
    assert data.download_data(**call) == folder
    assert "there already" in capsys.readouterr().out
    assert server.seen == ["GET /food.zip"]


def test_source_is_kept_on_request(server):
    folder = get(f"{server.url}/food.zip", remove_source=False)
    assert holds(folder)
    assert sorted(os.listdir("data")) == ["food", "food.zip"]
    assert Path("data/food.zip").read_bytes() == ZIP


def test_nested_destination_root_and_quiet_progress(server, capsys):
    url = f"{server.url}/food.zip"
    folder = data.download_data(url, "a/b", root="elsewhere", progress=False)
    assert folder == Path("elsewhere/a/b") and holds(folder)
    assert not Path("data").exists()
    assert capsys.readouterr() == ("", "")


def test_empty_folder_does_not_count(server):
    Path("data/food").mkdir(parents=True)
    assert holds(get(f"{server.url}/food.zip"))


def test_right_checksum(server):
    digest = hashlib.sha256(ZIP).hexdigest()
    assert holds(get(f"{server.url}/food.zip", sha256=digest.upper()))


@pytest.mark.parametrize("fault", [500, 503, 429, 408])
def test_passing_fault_is_tried_again(server, fault):
    server.answers["/food.zip"] = [fault, fault, ZIP]
    assert holds(get(f"{server.url}/food.zip"))
    assert len(server.seen) == 3


def test_broken_connection_is_tried_again(server):
    server.answers["/food.zip"] = [half, ZIP]
    assert holds(get(f"{server.url}/food.zip"))


# What fails


def half(handler):
    """Promises the whole archive and hangs up after half of it."""
    handler.begin(len(ZIP))
    handler.wfile.write(ZIP[: len(ZIP) // 2])


def half_then_silence(handler):
    half(handler)
    handler.wfile.flush()
    handler.server.release.wait(20)


def silence(handler):
    handler.server.release.wait(20)


def test_404_is_not_tried_again(server):
    fails(f"{server.url}/missing.zip", "404 Not Found")
    assert len(server.seen) == 1


def test_lasting_fault_ends(server):
    server.answers["/food.zip"] = 503
    fails(f"{server.url}/food.zip", "503 Service Unavailable")
    assert len(server.seen) == 3


@pytest.mark.parametrize("stalls", [silence, half_then_silence])
def test_time_out(server, stalls):
    server.answers["/food.zip"] = stalls
    start = time.monotonic()
    fails(f"{server.url}/food.zip", "in time", timeout=0.2, retries=1)
    assert time.monotonic() - start < 5
    assert len(server.seen) == 2


def test_truncated_body(server):
    server.answers["/food.zip"] = half
    fails(f"{server.url}/food.zip", "the connection broke off")
    assert len(server.seen) == 3


def test_refused_connection(closed_url):
    fails(f"{closed_url}/food.zip", "no connection")


def test_wrong_checksum(server):
    found, wanted = hashlib.sha256(ZIP).hexdigest(), "0" * 64
    error = fails(f"{server.url}/food.zip", "sha256", sha256=wanted)
    assert found[:12] in str(error) and wanted[:12] in str(error)


@pytest.mark.parametrize(
    "body", [b"<html>Sign in to this network</html>", b"", ZIP[:-30], make_zip({})]
)
def test_not_a_whole_zip(server, body):
    server.answers["/food.zip"] = body
    fails(f"{server.url}/food.zip", "zip")


def test_damaged_member(server):
    server.answers["/food.zip"] = ZIP.replace(b"test sushi 1", b"test sushi X")
    fails(f"{server.url}/food.zip", "CRC")


def link(name: str, target: str) -> bytes:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return make_zip([("train/pizza/0.jpg", b"good"), (member, target)])


UNSAFE = {
    "parent": make_zip({"good.jpg": b"good", "../evil.jpg": b"evil"}),
    "parent inside": make_zip({"good.jpg": b"good", "train/../../evil.jpg": b"evil"}),
    "backslashes": make_zip({"good.jpg": b"good", "train\\..\\..\\evil.jpg": b"evil"}),
    "absolute": make_zip({"good.jpg": b"good", "/evil.jpg": b"evil"}),
    "drive": make_zip({"good.jpg": b"good", "C:evil.jpg": b"evil"}),
    "share": make_zip({"good.jpg": b"good", "\\\\host\\evil.jpg": b"evil"}),
    "symlink": link("train/evil.jpg", "../../.."),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_unsafe_archive_is_refused_before_writing(server, kind, tmp_path, monkeypatch):
    server.answers["/food.zip"] = UNSAFE[kind]
    monkeypatch.setattr(
        zipfile.ZipFile, "extractall", lambda *args: pytest.fail("began to write")
    )
    error = fails(f"{server.url}/food.zip", "unsafe member")
    assert "evil.jpg" in str(error)
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("module", ["pooch.downloaders", "zipfile"])
def test_full_disk(server, module, monkeypatch):
    opened = []

    def open_on_a_full_disk(path, mode):
        opened.append(path)
        # Of the pictures, the first two still fit.
        fits = module == "zipfile" and len(opened) < 3
        return builtins.open(path if fits else "/dev/full", mode)

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.open", open_on_a_full_disk, raising=False)
        fails(f"{server.url}/food.zip", "No space left on device")
    assert len(opened) == (3 if module == "zipfile" else 1)
    assert holds(get(f"{server.url}/food.zip"))


@pytest.mark.parametrize("step", ["download", "unpacking"])
def test_write_that_fails_half_way(server, step):
    if step == "unpacking":  # a small zip with a large member
        large = make_zip([("zeros.bin", bytes(3 << 20))], zipfile.ZIP_DEFLATED)
    else:
        large = make_zip([("noise.bin", os.urandom(3 << 20))])
    server.answers["/food.zip"] = large
    with small_files(1 << 20):
        fails(f"{server.url}/food.zip", "File too large")


def test_unwritable_root(server):
    Path("data").write_text("a file where the folder should be")
    with pytest.raises(RuntimeError, match="data/food"):
        get(f"{server.url}/food.zip")
    assert Path("data").read_text().startswith("a file")
    assert server.seen == []


def test_rename_that_fails(server, monkeypatch):
    def refuse(path, target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "rename", refuse)
    fails(f"{server.url}/food.zip", "Permission denied")


def test_interrupt_leaves_nothing(server, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "extractall", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(f"{server.url}/food.zip")
    assert tree(Path("data")) == {}


@pytest.mark.parametrize(
    "source", ["", "food.zip", "ftp://127.0.0.1/a.zip", "file:///a.zip", "http://"]
)
def test_bad_source(source):
    with pytest.raises(ValueError, match="source must be"):
        data.download_data(source, "food")
    assert not Path("data").exists()


@pytest.mark.parametrize(
    "destination",
    ["", ".", "..", "../food", "a/../../b", "/food", "C:\\food", "a\\..\\b"],
)
def test_bad_destination(destination):
    with pytest.raises(ValueError, match="destination must lie inside data"):
        data.download_data("http://127.0.0.1/food.zip", destination)
    assert not Path("data").exists()


# Killed processes, and several at once

LIGHT_START = """
    import sys, time
    from vit_course import data
"""


def start(
    code: str, *args: str, home: str | None = None, **environ
) -> subprocess.Popen:
    home = home or str(Path(data.__file__).parents[1])
    code = textwrap.dedent(LIGHT_START) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": home, **environ},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL


def wait_for(condition) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "nothing happened for 20 seconds"
        time.sleep(0.01)


def check_after_kill(server) -> None:
    """The next call starts anew; what the dead process left goes a day later."""
    (leftover,) = Path("data").iterdir()  # hidden, and no folder called food
    server.answers["/food.zip"] = ZIP
    assert holds(get(f"{server.url}/food.zip"))
    assert leftover.exists()  # for all we know a running process is at work there
    os.utime(leftover, (time.time() - 25 * 3600,) * 2)
    shutil.rmtree("data/food")
    assert holds(get(f"{server.url}/food.zip"))
    assert os.listdir("data") == ["food"]


DOWNLOAD = "data.download_data(sys.argv[1], 'food', progress=False)"


def test_killed_during_the_download(server):
    server.answers["/food.zip"] = half_then_silence
    process = start(DOWNLOAD, f"{server.url}/food.zip")
    arriving = Path("data").rglob
    wait_for(lambda: any(path.stat().st_size > 1000 for path in arriving("*.zip")))
    kill(process)
    check_after_kill(server)


def test_killed_while_unpacking(server):
    slow = """
        import shutil
        copy = shutil.copyfileobj
        def copy_slowly(source, target, *rest):
            copy(source, target, *rest)
            target.flush()
            if target.name.endswith("steak/1.jpg"):
                print("half-way", flush=True)
                time.sleep(60)
        shutil.copyfileobj = copy_slowly
    """
    code = textwrap.dedent(slow) + DOWNLOAD
    process = start(code, f"{server.url}/food.zip")
    assert process.stdout.readline() == "half-way\n"
    kill(process)
    unpacked = [name for name in tree(Path("data")) if name.endswith(".jpg")]
    assert len(unpacked) == 5
    check_after_kill(server)


def test_two_processes_at_once(server):
    both = threading.Barrier(2)

    def answer(handler):
        both.wait(20)
        handler.begin(len(ZIP))
        handler.wfile.write(ZIP)

    server.answers["/food.zip"] = answer
    processes = [start(DOWNLOAD, f"{server.url}/food.zip") for _ in range(2)]
    for process in processes:
        process.communicate(timeout=30)
    assert [process.returncode for process in processes] == [0, 0]
    assert holds(Path("data/food"))
    assert os.listdir("data") == ["food"]


def test_another_process_was_quicker(server, monkeypatch):
    real = zipfile.ZipFile.extractall

    def extract_after_the_other(archive, path):
        write_files(Path("data/food"))
        real(archive, path)

    monkeypatch.setattr(zipfile.ZipFile, "extractall", extract_after_the_other)
    assert holds(get(f"{server.url}/food.zip"))
    assert os.listdir("data") == ["food"]


# FoodVision Mini


@pytest.fixture
def course(server, monkeypatch, tmp_path):
    """A course in a folder of its own, whose download comes from the test's server."""
    for name in ("VIT_COURSE_DATA", "VIT_COURSE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "course"
    write_files(folder / "images" / "foodvision_mini")
    server.answers = {"/pizza_steak_sushi.zip": ZIP}
    monkeypatch.setattr(data, "_DATA", folder / "data")
    monkeypatch.setattr(data, "_IMAGES", folder / "images")
    monkeypatch.setattr(data, "_URL", server.url)
    monkeypatch.setattr(data, "_SHA256", hashlib.sha256(ZIP).hexdigest())
    monkeypatch.setattr(data, "_failures", [])
    return folder


@pytest.fixture
def one_line(capsys):
    def read() -> str:
        out = capsys.readouterr().out
        assert out.startswith("FoodVision Mini: ") and out.count("\n") == 1
        assert not re.search(r"(^|[\s'\"(])/", out), f"an absolute path: {out}"
        return out

    return read


def rendered(course: Path) -> Path:
    return course / "images" / "foodvision_mini"


def test_offline(course, server, monkeypatch, one_line):
    monkeypatch.setenv("VIT_COURSE_OFFLINE", "1")
    write_files(course / "data" / "pizza_steak_sushi")  # even if they are there
    assert data.get_foodvision_mini() == rendered(course)
    assert one_line() == (
        "FoodVision Mini: the rendered set that ships with the course "
        "(VIT_COURSE_OFFLINE is set)\n"
    )
    assert server.seen == []


@pytest.mark.parametrize("unset", ["", "0"])
def test_photographs_are_downloaded_once(course, server, monkeypatch, one_line, unset):
    monkeypatch.setenv("VIT_COURSE_OFFLINE", unset)
    folder = course / "data" / "pizza_steak_sushi"
    assert data.get_foodvision_mini() == folder
    line = one_line()
    assert "photographs" in line and holds(folder)
    assert os.listdir(course / "data") == ["pizza_steak_sushi"]
    server.seen.clear()
    assert data.get_foodvision_mini() == folder
    assert one_line() == line
    assert server.seen == []


@pytest.mark.filterwarnings("error")  # such as a traceback of the thread
def test_refused_connection_falls_back(course, monkeypatch, closed_url, one_line):
    monkeypatch.setattr(data, "_URL", closed_url)
    assert data.get_foodvision_mini() == rendered(course)
    assert "rendered set" in (line := one_line())
    assert "(no connection to the server)" in line


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (404, "404 Not Found"),
        (503, "503 Service Unavailable"),
        (half, "the connection broke off"),
        (b"<html>Sign in</html>", "sha256"),
    ],
)
def test_failed_download_falls_back_once(course, server, one_line, answer, reason):
    server.answers["/pizza_steak_sushi.zip"] = answer
    assert data.get_foodvision_mini() == rendered(course)
    assert reason in one_line()
    assert tree(course / "data") == {}
    assert len(server.seen) <= 3  # a HEAD and at most two GETs
    server.seen.clear()
    assert data.get_foodvision_mini() == rendered(course)
    assert reason in one_line()
    assert server.seen == []


def test_one_retry(course, server, one_line):
    zip_url = "/pizza_steak_sushi.zip"
    server.answers[zip_url] = [ZIP, 503, ZIP]  # to the HEAD, then to two GETs
    assert data.get_foodvision_mini() == course / "data" / "pizza_steak_sushi"
    assert server.seen == [f"HEAD {zip_url}", f"GET {zip_url}", f"GET {zip_url}"]


@pytest.mark.parametrize("where", ["name look-up", "answer"])
def test_swallowed_packets_cost_seconds(course, server, monkeypatch, one_line, where):
    if where == "answer":
        server.answers["/pizza_steak_sushi.zip"] = silence
    else:

        def swallow(*args, **kwargs):
            server.release.wait(20)
            raise socket.gaierror("no answer")

        monkeypatch.setattr(socket, "getaddrinfo", swallow)
    assert data._PATIENCE <= 8
    monkeypatch.setattr(data, "_PATIENCE", 0.3)
    begin = time.monotonic()
    assert data.get_foodvision_mini() == rendered(course)
    assert time.monotonic() - begin < 5
    assert "(the server did not respond in time)" in one_line()


def test_unwritable_data_falls_back(course, one_line):
    (course / "data").write_text("a file where the folder should be")
    assert data.get_foodvision_mini() == rendered(course)
    assert "File exists" in one_line()


def test_own_folder(course, server, monkeypatch, tmp_path, one_line):
    own = write_files(tmp_path / "own")
    monkeypatch.setenv("VIT_COURSE_DATA", str(own))
    monkeypatch.setenv("VIT_COURSE_OFFLINE", "1")
    assert data.get_foodvision_mini() == own
    assert "own, the images that VIT_COURSE_DATA names" in one_line()
    assert server.seen == []


def test_own_folder_typed_beside_the_makefile(course, monkeypatch, tmp_path, one_line):
    """Jupyter runs the lessons in notebooks/, where a relative path leads nowhere."""
    own = write_files(course / "own")
    (course / "notebooks").mkdir()
    monkeypatch.chdir(course / "notebooks")
    monkeypatch.setattr(data, "_HERE", course)
    monkeypatch.setenv("VIT_COURSE_DATA", "own")
    assert data.get_foodvision_mini() == own
    monkeypatch.setenv("VIT_COURSE_DATA", "../own")
    assert data.get_foodvision_mini() == own


def test_own_nested_folder(course, monkeypatch, tmp_path, one_line):
    own = write_files(tmp_path / "own" / "inner").parent
    (own / "__MACOSX").mkdir()
    (own / "README").write_text("beside them")
    monkeypatch.setenv("VIT_COURSE_DATA", str(own))
    assert data.get_foodvision_mini() == own / "inner"


@pytest.mark.parametrize("inside", ["", "inner/"])
def test_own_zip_is_unpacked_once(course, monkeypatch, tmp_path, one_line, inside):
    archive = tmp_path / "own.zip"
    archive.write_bytes(make_zip({inside + name: FILES[name] for name in FILES}))
    monkeypatch.setenv("VIT_COURSE_DATA", str(archive))
    folder = data.get_foodvision_mini()
    assert holds(folder) and folder.is_relative_to(course / "data")
    assert "own.zip" in one_line()
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZipFile", lambda *args: pytest.fail("unpacked again"))
        assert data.get_foodvision_mini() == folder
    other = {inside + name: b"other " + FILES[name] for name in FILES}
    archive.write_bytes(make_zip(other))
    changed = data.get_foodvision_mini()
    assert changed != folder
    assert (changed / "train/pizza/0.jpg").read_bytes().startswith(b"other ")


def without(part: str) -> dict[str, bytes]:
    return {name: FILES[name] for name in FILES if not name.startswith(part)}


WRONG = {
    "missing": None,
    "no test": without("test"),
    "no train": without("train"),
    "no classes": {"train/0.jpg": b"0", "test/0.jpg": b"0"},
    "two levels down": {f"a/b/{name}": FILES[name] for name in FILES},
    "other classes in test": without("test/sushi"),
    "empty": {},
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("packed", [False, True])
def test_own_pictures_wrong(course, monkeypatch, tmp_path, capsys, wrong, packed):
    own = tmp_path / ("own.zip" if packed else "own")
    if WRONG[wrong] is not None and packed:
        own.write_bytes(make_zip(WRONG[wrong]))
    elif WRONG[wrong] is not None:
        own.mkdir()
        write_files(own, WRONG[wrong])
    monkeypatch.setenv("VIT_COURSE_DATA", str(own))
    with pytest.raises(
        ValueError, match="expected a folder or zip with train and test"
    ):
        data.get_foodvision_mini()
    with pytest.raises(ValueError, match=str(own)):
        data.get_foodvision_mini()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("body", [b"not a zip", *UNSAFE.values()])
def test_own_zip_that_cannot_be_unpacked(course, monkeypatch, tmp_path, body):
    own = tmp_path / "own.zip"
    own.write_bytes(body)
    monkeypatch.setenv("VIT_COURSE_DATA", str(own))
    with pytest.raises(ValueError, match=f"{own}: .*zip"):
        data.get_foodvision_mini()
    assert tree(course / "data") == {}
    assert list(tmp_path.rglob("*evil*")) == []


def test_places_in_a_clone():
    root = Path(data.__file__).parents[1]
    assert data._DATA == root / "data"
    assert data._IMAGES == root / "images"


def test_places_in_a_wheel(tmp_path):
    site = tmp_path / "site-packages"
    pictures = write_files(site / "going_modular" / "images" / "foodvision_mini")
    shutil.copytree(Path(data.__file__).parent, site / "vit_course")
    code = "print(data.get_foodvision_mini(), data._DATA)"
    process = start(code, home=str(site), VIT_COURSE_OFFLINE="1", VIT_COURSE_DATA="")
    out, _ = process.communicate(timeout=20)
    assert out.splitlines()[1] == f"{pictures} data"
