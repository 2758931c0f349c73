"""Bytes of an image file to RGB pixels, whatever kind of file it is; and back, for records."""

import io
import re
import warnings
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

PILLOWS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as `warnings.filters` holds it

# A binary PPM as `encode` writes it: its pixels follow, 3 bytes each, and nothing else.
PPM = re.compile(rb"P6\n([1-9]\d{0,8}) ([1-9]\d{0,8})\n255\n")
# A marker of a JPEG file that ends a scan or begins a segment: not a byte of 255, nor a restart.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
SCAN, END = b"\xda", b"\xd9"
MOST_SCANS = 100  # each costs a pass over all pixels, in a file of 100 bytes more; cameras write 10
QUALITY = 95  # of JPEG records, in Pillow's scale: the highest it recommends

Encoding = Literal["jpeg", "raw"]


class UnreadableImage(ValueError):
    """A record that holds no usable image; the message gives the reason, not the file."""


def decode(encoded: bytes | memoryview) -> np.ndarray:
    """Return the picture as a viewer would show it: uint8 [H, W, 3], RGB, upright by its EXIF tag.

    What is transparent is laid over white, as a page shows it: the colors hidden there are
    arbitrary. 16-bit gray is scaled to 8 bits. Of several frames the first counts; ICC profiles are
    ignored, as in 2012. The array may be read-only: the pixels of a raw record are not copied.
    Raises UnreadableImage for what Pillow cannot read to its end.
    """
    if not encoded:
        raise UnreadableImage("the file is empty (0 bytes)")
    if (pixels := _raw(encoded)) is not None:
        return pixels
    _ignore_pillows_warnings()
    encoded = bytes(encoded)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _refuse_bomb(image.size)
            _refuse_program(image)
            _refuse_endless(encoded)
            image.load()
            return np.asarray(_rgb(_upright(image)))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"suspiciously many pixels ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"no image format known to Pillow ({len(encoded)} bytes)") from error
    except Exception as error:  # Pillow's plugins raise anything for damaged files
        raise UnreadableImage(f"damaged: {error or type(error).__name__}") from error


def size_of(encoded: bytes) -> tuple[int, int] | None:
    """Return width and height as the file states them; None where it states none."""
    _ignore_pillows_warnings()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.size
    except Exception:  # noqa: BLE001  (whoever decodes the file says what is wrong)
        return None


def encode(image: np.ndarray, encoding: Encoding) -> bytes:
    """Return the file that `decode` reads back, of an image uint8 [H, W, 3].

    raw: a binary PPM, exact, at the cost of no decoding. jpeg: a sixth of that, and not exact.
    """
    height, width = image.shape[:2]
    if encoding == "raw":
        return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _raw(encoded: bytes | memoryview) -> np.ndarray | None:
    """Return the pixels of a whole PPM as `encode` writes it; anything else is left to Pillow."""
    header = PPM.match(encoded)
    if not header:
        return None
    width, height = int(header[1]), int(header[2])
    if len(encoded) != header.end() + height * width * 3:
        return None
    _refuse_bomb((width, height))
    return np.frombuffer(encoded, np.uint8, offset=header.end()).reshape(height, width, 3)


def _ignore_pillows_warnings() -> None:
    """Ignore warnings of files read all the same (corrupt EXIF), and of sizes refused below.

    Not by `catch_warnings`, which is not safe among threads, nor once at import, which the next
    `catch_warnings` around a program (as in tests) undoes: a warning made an error costs the image.
    """
    if PILLOWS not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _refuse_bomb(size: tuple[int, int]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise UnreadableImage(f"suspiciously many pixels ({size[0]} x {size[1]}, limit {limit})")


def _refuse_program(image: Image.Image) -> None:
    """Refuse what Pillow would hand to Ghostscript, to be run for as long as it likes."""
    if image.format == "EPS":
        raise UnreadableImage("a PostScript program, which is not run")


def _refuse_endless(encoded: bytes) -> None:
    """Refuse a JPEG of so many scans that a small file takes minutes."""
    if not encoded.startswith(b"\xff\xd8"):
        return
    # By numpy: `bytes.count` takes a twentieth of the time that a photograph takes to decode.
    octets = np.frombuffer(encoded, np.uint8)
    if np.count_nonzero((octets[:-1] == 0xFF) & (octets[1:] == SCAN[0])) <= MOST_SCANS:
        return  # nearly always; the count may be too high, by what lies in or behind the picture
    scans, place = 0, 2
    while (marker := MARKER.search(encoded, place)) and marker[1] != END:
        scans += marker[1] == SCAN
        length = int.from_bytes(encoded[marker.end() : marker.end() + 2], "big")
        place = marker.end() + max(length, 2)
    if scans > MOST_SCANS:
        raise UnreadableImage(f"suspiciously many scans ({scans}, limit {MOST_SCANS})")


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Most pictures are, and `exif_transpose` would copy them.
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image if upright else ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (a broken EXIF block does not say which side is up)
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels, of which nobody says what white is")
    if image.mode == "I" or image.mode.startswith("I;16"):
        gray = np.asarray(image).clip(0, 65535).astype(np.uint32)
        image = Image.fromarray(((gray + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies
