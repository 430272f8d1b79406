"""Makers of damaged files, and the tally of what came of them."""

import io
import os
import resource
import struct
import time
import zipfile
import zlib

import numpy as np
from PIL import Image

TIMES = int(os.environ.get("FAULTS", "1"))  # so many times as many cases
SECONDS, MEGABYTES = 30, 2500  # that a case may take, on a busy machine


def memory() -> float:
    """Most megabytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Tally:
    """Counts cases: right, refused by a sentence that names what it is about, wrong."""

    def __init__(self) -> None:
        self.tried = self.right = self.refused = 0
        self.wrong, self.memory = [], memory()

    def add(self, case, fits: bool, said: str = "", name: object = "") -> None:
        """Adds a case: what came of it fits, or its error `said` names `name`."""
        sentence = str(name) in said and "Traceback" not in said and len(said) < 2000
        self.tried += 1
        self.refused += bool(said and sentence)
        self.right += bool(fits and not said)
        if not (sentence if said else fits):
            self.wrong.append(f"{case}: {said[-500:] or 'another result'}")

    def judge(self, case, name, call, *args, error=ValueError, fits=lambda made: True):
        """Calls; returns what comes of it, or None after an error of that kind."""
        began, result, said, promised = time.monotonic(), None, "", error
        try:
            result = call(*args)
        except promised as error:
            said = str(error)
        except BaseException as error:
            said = f"Traceback: {error!r}"
        if time.monotonic() - began > SECONDS or memory() - self.memory > MEGABYTES:
            said = "Traceback: none, but too much time or memory"
        self.add(case, bool(said) or fits(result), said, name)
        return result


def damaged(wholes: dict[str, bytes], count: int):
    """Yields (number, name, content), seeded, of each name in turn.

    Cut, blanked, with the head of another, or with bits flipped, early on or anywhere.
    """
    x, names = np.random.default_rng(0), list(wholes)
    for i in range(count):
        name, how = names[i % len(names)], int(x.integers(5))
        content, size = bytearray(wholes[name]), len(wholes[name])
        begin, end = sorted(int(place) for place in x.integers(size, size=2))
        if how == 0:
            del content[end:]
        elif how == 1:
            content[begin:end] = bytes(end - begin)
        elif how == 2:
            content[:24] = wholes[names[int(x.integers(len(names)))]][:24]
        else:
            for place in x.integers((150, size)[how - 3], size=x.integers(1, 9)):
                content[place % size] ^= 1 << int(x.integers(8))
        yield i, name, bytes(content)


def encoded(image: Image.Image, kind: str, orientation: int = 1, **options) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(file, kind, exif=exif, **options)
    return file.getvalue()


rows, columns = np.mgrid[0:40, 0:48]
PIXELS = np.stack([5 * columns, 6 * rows, 60 + columns + rows], 2).astype(np.uint8)
SMOOTH, DEEP = Image.fromarray(PIXELS), Image.fromarray((1600 * rows).astype("u2"))
FORMATS = {name: name for name in ("png", "gif", "bmp", "tiff", "webp", "ppm")}
IMAGES = {name: encoded(SMOOTH, kind) for name, kind in FORMATS.items()} | {
    "jpg": encoded(SMOOTH, "jpeg", orientation=6),
    "jpeg": encoded(SMOOTH, "jpeg", progressive=True),
    "16.png": encoded(DEEP, "png"),
    "gif": encoded(SMOOTH, "gif", save_all=True, append_images=[SMOOTH.rotate(90)]),
    "tif": encoded(SMOOTH, "tiff", compression="tiff_lzw"),
}


def bombs(side: int = 30_000) -> dict[str, bytes]:
    """Whole files but for headers that promise 900 megapixels."""
    made = {name: bytearray(IMAGES[name]) for name in ("png", "bmp", "gif")}
    made["png"][16:24] = struct.pack(">II", side, side)
    made["png"][29:33] = zlib.crc32(made["png"][12:29]).to_bytes(4, "big")
    made["bmp"][18:26] = struct.pack("<ii", side, side)
    made["gif"][6:10] = struct.pack("<HH", side, side)
    return made | {"ppm": b"P6 %d %d 255\n" % (side, side) + bytes(1000)}


def dataset(folder):
    """Two classes of noise, light and dark, 9 images each to train with, 3 to test."""
    x = np.random.default_rng(0)
    for part, count in (("train", 9), ("test", 3)):
        for kind, low in (("apple", 0), ("pear", 100)):
            (folder / part / kind).mkdir(parents=True)
            for i in range(count):
                pixels = x.integers(low, low + 156, (20, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / kind / f"{i}.png")
    return folder


def make_zip(members, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of (name, content)."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()
