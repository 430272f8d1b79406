"""Where the images of the course come from; use it through `helper_functions`."""

import os
import shutil
import stat
import textwrap
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from threading import Thread, Timer
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests

__all__ = ["download_data", "find_pictures", "get_foodvision_mini", "limited"]

_HERE = Path(__file__).resolve().parent.parent
_IN_CLONE = (_HERE / "pyproject.toml").is_file()  # otherwise installed from a wheel
_DATA = _HERE / "data" if _IN_CLONE else Path("data")
_IMAGES = _HERE / "images" if _IN_CLONE else _HERE / "going_modular" / "images"
_URL = "https://github.com/mrdbourke/pytorch-deep-learning/raw/main/data"
_SHA256 = "5e9596fcc939a32996e59bbed8ec690ae39203bbcbc08292a92d44e4c4a27652"
_PATIENCE = 6  # seconds to wait for the first response of a server
_SECONDS, _MEGABYTES = 3600, 20_000  # of one download, at most
_failures: list[str] = []  # why this process could not have the photographs


def _in_words(error: BaseException) -> str:
    """Says what went wrong, short and without a path."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if "timed out" in str(error):
        return "the server did not respond in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    return getattr(error, "strerror", None) or textwrap.shorten(str(error), 300)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _work_folder(root: Path) -> TemporaryDirectory:
    """Makes a folder for what is unfinished; one of a killed process goes in a day."""
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob(".unfinished-*"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - old.stat().st_mtime > 24 * 3600:
                shutil.rmtree(old)
    return TemporaryDirectory(dir=root, prefix=".unfinished-")


def limited(seconds: float, megabytes: float) -> dict:
    """Hooks of requests that end a response which takes too long or is too large.

    Its own time-out is for each piece, and nothing bounds what it unpacks.
    """

    def begin(response: requests.Response, *args, **kwargs) -> None:
        def end() -> None:
            with suppress(Exception):  # it may just have come to its end
                response.raw.shutdown()

        def pieces(*args: Any, **kwargs: Any) -> Iterator:
            left = megabytes * 1e6
            for piece in read(*args, **kwargs):
                if (left := left - len(piece)) < 0:
                    problem = f"it is larger than {megabytes:g} MB"
                    raise requests.RequestException(problem, response=response)
                yield piece
            timer.cancel()

        timer = Timer(seconds, end)
        timer.daemon = True
        timer.start()
        read, response.iter_content = response.iter_content, pieces

    return {"response": begin}


def _fetch(url: str, file: Path, timeout, retries: int, progress: bool) -> None:
    """Downloads a file, again after a transient error: no response, 408, 429, 5xx."""
    how = {"timeout": timeout, "hooks": limited(_SECONDS, _MEGABYTES)}
    download = pooch.HTTPDownloader(progress, chunk_size=2**14, **how)
    for attempt in range(retries + 1):
        try:
            download(url, str(file), None)
            return
        except requests.RequestException as error:
            status = getattr(error.response, "status_code", 500)
            if attempt == retries or (status < 500 and status not in (408, 429)):
                raise
            time.sleep(2**attempt / 2)


def _unpack(archive: Path, folder: Path, work: Path) -> None:
    """Unpacks in `work` and renames, so that `folder` is never half there."""
    with zipfile.ZipFile(archive) as file:
        if not file.namelist():
            raise ValueError("the zip is empty")
        for member in file.infolist():
            path = PureWindowsPath(member.filename)  # knows drives and both slashes
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            if is_link or path.anchor or ".." in path.parts:
                raise ValueError(f"the zip has an unsafe member, {member.filename}")
        members = [member for member in file.infolist() if not member.is_dir()]
        size = sum(member.file_size for member in members)
        if size > 10**8 + 20 * archive.stat().st_size:  # images hardly shrink
            raise ValueError(f"the zip would become {size / 1e9:.1f} GB")
        file.extractall(work / "unpacked")
    files = [path for path in (work / "unpacked").rglob("*") if path.is_file()]
    if len(files) < len(members):  # one has replaced another
        raise ValueError("the zip has two members of one name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        folder.rmdir()  # goes only if it is empty
    try:
        (work / "unpacked").rename(folder)
    except OSError:
        if not _is_filled(folder):  # otherwise another process was quicker
            raise


def download_data(
    source: str,
    destination: str,
    remove_source: bool = True,
    *,
    sha256: str | None = None,
    timeout: float | tuple[float, float] = (5, 30),
    retries: int = 2,
    progress: bool = True,
    root: str | Path = "data",
) -> Path:
    """Downloads a zip and unpacks it to `root / destination`, unless that is there.

    Args:
        source: the zip's URL, http or https.
        destination: the folder's name.
        remove_source: False keeps the zip, as `destination.zip`.
        sha256: what the zip must hash to; None accepts any.
        timeout: seconds to wait for the connection, and for each piece.
        retries: how often to try again after a transient error.
        progress: whether to draw a progress bar.
        root: by default `data` in the working directory, as in older notebooks.

    Raises:
        ValueError: an invalid URL or destination.
        RuntimeError: the download failed; nothing of it is left.
    """
    address, path = urlsplit(source), PureWindowsPath(destination)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"source must be an http or https address, got {source!r}")
    if path.anchor or not path.parts or ".." in path.parts:
        raise ValueError(f"destination must lie inside {root}, got {destination!r}")
    folder = Path(root, *path.parts)
    if _is_filled(folder):
        print(f"{folder} is there already, so nothing is downloaded.")
        return folder
    try:
        with _work_folder(Path(root)) as work:
            archive = Path(work, "archive.zip")
            _fetch(source, archive, timeout, retries, progress)
            found = pooch.file_hash(str(archive))
            if sha256 and found != sha256.lower():
                raise ValueError(f"its sha256 is {found[:12]}…, not {sha256[:12]}…")
            _unpack(archive, folder, Path(work))
            if not remove_source:
                archive.replace(folder.with_name(f"{folder.name}.zip"))
    except Exception as error:
        why = _in_words(error)
        raise RuntimeError(f"could not download {source} to {folder}: {why}") from error
    return folder


def _knock(url: str) -> None:
    with suppress(requests.RequestException):
        requests.head(url, timeout=60, allow_redirects=True)


def _download_photographs(folder: Path) -> str:
    """Tries once in a process; returns nothing, or why that failed."""
    url, options = f"{_URL}/{folder.name}.zip", {"timeout": (3, 10), "retries": 1}
    if not _failures:
        # In a thread, as no time-out of requests covers the look-up of a name.
        first_contact = Thread(target=_knock, args=[url], daemon=True)
        first_contact.start()
        first_contact.join(_PATIENCE)
        try:
            if first_contact.is_alive():
                raise RuntimeError("the server did not respond in time")
            download_data(url, folder.name, sha256=_SHA256, root=_DATA, **options)
            return ""
        except RuntimeError as error:
            _failures.append(_in_words(error.__cause__ or error))
    return _failures[0]


def _classes(folder: Path) -> set[str]:
    """Names of class folders: not those that macOS and Jupyter leave behind."""
    return {kind.name for kind in folder.glob("[!.]*/")} - {"__MACOSX"}


def _image_folder(path: Path) -> Path:
    folder = path
    if path.is_file():
        size, changed = path.stat().st_size, path.stat().st_mtime_ns
        folder = _DATA / f"{path.stem}-{size}-{changed}"
        if not _is_filled(folder):
            with _work_folder(_DATA) as work:
                _unpack(path, folder, Path(work))
    for place in [folder, *sorted(folder.iterdir())]:
        train = _classes(place / "train")
        if train and train == _classes(place / "test"):
            return place.resolve()
    raise ValueError("no train and test that hold the same class folders")


def find_pictures(source: str | Path) -> Path:
    """Returns the folder with `train` and `test` in a folder or zip.

    They lie at its top or one folder down; a zip is unpacked once, to `data`.

    Raises:
        ValueError: there is no such folder, or `train` and `test` are not in it.
    """
    try:
        return _image_folder(Path(source))
    except Exception as error:
        expected = (
            "a folder or zip with train and test, in each a folder for each class"
        )
        raise ValueError(
            f"{source}: {_in_words(error)}; expected {expected}"
        ) from error


def get_foodvision_mini() -> Path:
    """Returns a folder with `train` and `test` of FoodVision Mini, and prints which.

    The photographs, downloaded once to `data` beside this file (from a wheel: in the
    working directory); the rendered set without a network or with VIT_COURSE_OFFLINE=1;
    or the folder or zip that VIT_COURSE_DATA names.

    Raises:
        ValueError: there is no such folder, or `train` and `test` are not in it.
    """
    own = os.environ.get("VIT_COURSE_DATA", "")
    path, reason = _DATA / "pizza_steak_sushi", ""
    which = "the photographs in data/pizza_steak_sushi"
    if own:
        path = Path(own).expanduser()
        # Jupyter runs in notebooks/, the variable was typed beside the Makefile.
        path = (path if path.exists() else _HERE / path).resolve()
        which = f"{path.name}, the images that VIT_COURSE_DATA names"
    elif os.environ.get("VIT_COURSE_OFFLINE", "") not in ("", "0"):
        reason = "VIT_COURSE_OFFLINE is set"
    elif not _is_filled(path):
        reason = _download_photographs(path)
    if reason:
        path = _IMAGES / "foodvision_mini"
        which = f"the rendered set that ships with the course ({reason})"
    folder = find_pictures(path)
    print(f"FoodVision Mini: {which}")
    return folder
