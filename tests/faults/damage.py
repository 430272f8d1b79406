"""Files to try: damaged, turned, and far too large."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

TIMES = int(os.environ.get("FAULTS", "1"))  # so many times as many cases


def damaged(wholes, count):
    """Yields (name, content), seeded, of each of the whole files in turn.

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
        yield name, bytes(content)


def encoded(image, kind, orientation=1, **options):
    """Bytes of an image file."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(file, kind, exif=exif, **options)
    return file.getvalue()


rows, columns = np.mgrid[0:40, 0:48]
PIXELS = np.stack([5 * columns, 6 * rows, 60 + columns + rows], 2).astype(np.uint8)
SMOOTH, DEEP = Image.fromarray(PIXELS), Image.fromarray((1600 * rows).astype("u2"))
IMAGES = {kind: encoded(SMOOTH, kind) for kind in ("png", "bmp", "tiff", "webp", "ppm")}
IMAGES |= {
    "gif": encoded(SMOOTH, "gif", save_all=True, append_images=[SMOOTH.rotate(90)]),
    "jpg": encoded(SMOOTH, "jpeg", orientation=6),
    "jpeg": encoded(SMOOTH, "jpeg", progressive=True),
    "16.png": encoded(DEEP, "png"),
    "tif": encoded(SMOOTH, "tiff", compression="tiff_lzw"),
}


def bombs(side=30_000):
    """Whole files but for headers that promise 900 megapixels."""
    made = {name: bytearray(IMAGES[name]) for name in ("png", "bmp", "gif")}
    made["png"][16:24] = struct.pack(">II", side, side)
    made["png"][29:33] = zlib.crc32(made["png"][12:29]).to_bytes(4, "big")
    made["bmp"][18:26] = struct.pack("<ii", side, side)
    made["gif"][6:10] = struct.pack("<HH", side, side)
    return made | {"ppm": b"P6 %d %d 255\n" % (side, side) + bytes(1000)}
