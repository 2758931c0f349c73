"""Image files: read them, decode them to RGB pixels, encode pixels for records."""

import io
import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from alexnet_jax.config import invalid
from alexnet_jax.data import formats, jpeg

# Pillow warns of files that are still read (corrupt EXIF) and of sizes that `_refuse_bomb` refuses.
_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as in `warnings.filters`

MAX_FILE_BYTES = 2**29  # a file is read whole; a photograph has about a hundredth of this

# A binary PPM as `encode` writes it: the header is followed by 3 bytes a pixel and nothing else.
PPM = re.compile(rb"P6\n([1-9]\d{0,8}) ([1-9]\d{0,8})\n255\n")
# A JPEG marker that ends a scan or begins a segment: not an escaped 255, not a restart marker.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
SCAN, END = b"\xda", b"\xd9"
MAX_SCANS = 100  # each is a pass over all pixels for 100 bytes of file; cameras write 10
_PNG_DEPTH = 24  # byte of a PNG file
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
JPEG_QUALITY = 95  # of JPEG records: the highest that Pillow recommends

Encoding = Literal["jpeg", "raw"]
Subsampling = Literal["4:4:4", "4:2:0"]  # of colors: one a pixel, or one for every 2 x 2 pixels
FULL_COLOR: Subsampling = "4:4:4"


class UnreadableImage(ValueError):
    """A record without a usable image; the message gives the reason, not the file."""


def decode(encoded: bytes | memoryview) -> np.ndarray:
    """Return an image file as a viewer shows it: uint8 [H, W, 3], RGB, upright by its EXIF tag.

    Transparent pixels are composited on white, as their hidden colors are arbitrary. Gray of 12 to
    32 bits is scaled to 8 bits. The first of several frames is used; ICC profiles are ignored, as
    in 2012. The array may be read-only: the pixels of a raw record are not copied.

    Raises:
        UnreadableImage: Pillow cannot read the file to its end, or it is unsafe to try.
    """
    if not encoded:
        raise UnreadableImage("the file is empty (0 bytes)")
    if (pixels := _decode_raw(encoded)) is not None:
        return pixels
    header = jpeg.read_header(encoded)
    if (
        header
        and not header.has_metadata
        and not _is_bomb(header.size)
        and (pixels := jpeg.decode_baseline(encoded, header)) is not None
    ):
        return pixels
    return _decode_by_pillow(bytes(encoded), header)


def _decode_by_pillow(encoded: bytes, header: jpeg.Header | None) -> np.ndarray:
    """Return the pixels of any file; `header` is that of a baseline JPEG, which may be turned."""
    _ignore_pillow_warnings()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _refuse_bomb(image.size)
            _refuse_postscript(image)
            _refuse_thumbnail(image, encoded)
            _refuse_many_scans(encoded)
            if (
                header
                and header.has_metadata
                and _is_upright(image)
                and (pixels := jpeg.decode_baseline(encoded, header)) is not None
            ):
                return pixels
            image.load()
            return np.asarray(_to_rgb(image, encoded))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"suspiciously many pixels ({error})") from error
    except Image.UnidentifiedImageError as error:
        if reason := formats.identify(encoded):
            raise UnreadableImage(reason) from error
        raise UnreadableImage(f"no image format known to Pillow ({len(encoded)} bytes)") from error
    except Exception as error:  # Pillow's plugins raise anything for damaged files
        raise UnreadableImage(f"damaged: {error or type(error).__name__}") from error


def size_of(encoded: bytes) -> tuple[int, int] | None:
    """Return width and height from the header of an image file; None if it cannot be read."""
    _ignore_pillow_warnings()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.size
    except Exception:  # noqa: BLE001  (`decode` reports what is wrong)
        return None


def _ignore_pillow_warnings() -> None:
    """Ignore Pillow's warnings in all threads, also after others have reset the filters.

    `warnings.catch_warnings` is not thread-safe, and leaving it elsewhere undoes a filter that was
    set inside, such as one set when this module is imported.
    """
    if _IGNORE_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def encode(image: np.ndarray, encoding: Encoding, subsampling: Subsampling = FULL_COLOR) -> bytes:
    """Return the file that `decode` reads back, of an image uint8 [H, W, 3].

    raw: a binary PPM, exact and read without decoding. jpeg: a sixth of the size, not exact; with
    colors for every pixel, or with `subsampling` for every 2 x 2 pixels, as Pillow would by itself.

    Raises:
        ValueError: raw images are to have fewer colors.
    """
    check_subsampling(encoding, subsampling)
    height, width = image.shape[:2]
    if encoding == "raw":
        return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=subsampling)
    return file.getvalue()


def check_subsampling(encoding: Encoding, subsampling: Subsampling) -> None:
    """Raise a ValueError if an encoding cannot have fewer colors than pixels."""
    if encoding != "jpeg" and subsampling != FULL_COLOR:
        rule = f"is of JPEG images, and encoding={encoding} keeps all colors"
        raise invalid("subsampling", subsampling, rule, "use encoding=jpeg, or leave it out")


def read_image(image: Path | str | np.ndarray) -> np.ndarray:
    """Return the image of a file, or the array itself, uint8 [H, W, 3]; ValueError otherwise."""
    if isinstance(image, np.ndarray):
        is_image = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if not is_image or not image.size:
            raise ValueError(
                f"an array of {image.dtype} {image.shape}: must be uint8 [H, W, 3] with at least "
                "one pixel; pass such an array, or the path of a file."
            )
        return image
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(
            f"{type(image).__name__}: must be an array, uint8 [H, W, 3], or the path of a file; "
            "np.asarray(image) may give such an array."
        )
    try:
        return open_image(Path(image))
    except UnreadableImage as error:
        raise ValueError(f"{image}: {error}; pass files that are images.") from error


def open_image(path: Path) -> np.ndarray:
    """Return the image of a file, uint8 [H, W, 3]; UnreadableImage gives the reason if it fails."""
    try:
        encoded = _read_file(path)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    return decode(encoded)


def _read_file(path: Path) -> bytes:
    """Return the content of a regular file; reading a pipe or a device might never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a regular file")
    check_file_size(status.st_size)
    return path.read_bytes()


def check_file_size(size: int) -> None:
    """Raise UnreadableImage for a file too large to be an image, of `size` bytes."""
    if size > MAX_FILE_BYTES:
        raise UnreadableImage(f"suspiciously large ({size:,} bytes, limit {MAX_FILE_BYTES:,})")


def _decode_raw(encoded: bytes | memoryview) -> np.ndarray | None:
    """Return the pixels of an intact PPM as `encode` writes it; None for any other file."""
    header = PPM.match(encoded)
    if not header:
        return None
    width, height = int(header[1]), int(header[2])
    if len(encoded) != header.end() + height * width * 3:
        return None
    _refuse_bomb((width, height))
    return np.frombuffer(encoded, np.uint8, offset=header.end()).reshape(height, width, 3)


def _is_bomb(size: tuple[int, int]) -> bool:
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and size[0] * size[1] > limit


def _refuse_bomb(size: tuple[int, int]) -> None:
    if _is_bomb(size):
        limit = Image.MAX_IMAGE_PIXELS
        raise UnreadableImage(f"suspiciously many pixels ({size[0]} x {size[1]}, limit {limit})")


def _refuse_postscript(image: Image.Image) -> None:
    """Refuse what Pillow would have Ghostscript execute, without a time limit."""
    if image.format == "EPS":
        raise UnreadableImage("a PostScript program, which is not executed")


def _refuse_thumbnail(image: Image.Image, encoded: bytes) -> None:
    """Refuse a raw photograph, of which Pillow would read the thumbnail."""
    if image.format == "TIFF" and formats.is_raw(encoded, _tags(image)):
        raise UnreadableImage(
            f"{formats.RAW}, of which only a thumbnail could be read; {formats.REMEDY}"
        )


def _refuse_many_scans(encoded: bytes) -> None:
    """Refuse a JPEG with so many scans that a small file takes minutes."""
    if not encoded.startswith(b"\xff\xd8"):
        return
    # By numpy, as `bytes.count` is slow.
    octets = np.frombuffer(encoded, np.uint8)
    if np.count_nonzero((octets[:-1] == 0xFF) & (octets[1:] == SCAN[0])) <= MAX_SCANS:
        return  # nearly always; this also counts bytes inside segments and after the image
    scans, position = 0, 2
    while (marker := MARKER.search(encoded, position)) and marker[1] != END:
        scans += marker[1] == SCAN
        length = int.from_bytes(encoded[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(length, 2)
    if scans > MAX_SCANS:
        raise UnreadableImage(f"suspiciously many scans ({scans}, limit {MAX_SCANS})")


def _is_upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # noqa: BLE001  (a corrupt EXIF block has no orientation)
        return True


def _upright(image: Image.Image) -> Image.Image:
    if _is_upright(image):
        return image  # most are, and `exif_transpose` would copy them
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (as above)
        return image


def _to_rgb(original: Image.Image, encoded: bytes) -> Image.Image:
    image = _upright(original)
    if image.mode in ("RGB", "RGBA", "LA") and _has_16_bits(original, encoded):
        # Pillow has left out the lower 8.
        _refuse_unused_bits(int(np.asarray(image.convert("RGB")).max()) << 8, 16)
    if image.mode == "F":
        raise UnreadableImage(
            f"floating-point pixels, whose range is unknown; {formats.REMEDY} of 8 or 16 bits"
        )
    if image.mode == "I" or image.mode.startswith("I;"):
        pixels = np.asarray(image)
        gray = _scale_gray(pixels, *_gray_bits(original))
        if (transparent := original.info.get("transparency")) is not None:
            gray[pixels == transparent] = 255
        image = Image.fromarray(gray)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # `convert` copies


def _scale_gray(pixels: np.ndarray, bits: int, inverted: bool) -> np.ndarray:
    """Return gray pixels [H, W] of more than 8 bits as uint8, white as 255."""
    white = 2**bits - 1
    # Pillow has unsigned pixels of 32 bits as signed ones.
    pixels = pixels.astype(np.uint32).astype(np.int64)
    _refuse_unused_bits(int(pixels.max()), bits)
    gray = (pixels * 255 + white // 2) // white
    return (255 - gray if inverted else gray).astype(np.uint8)


def _refuse_unused_bits(brightest: int, bits: int) -> None:
    """Refuse an image that would be dark because it has fewer bits than the file says."""
    used = brightest.bit_length()
    if 0 < used <= bits - 2:
        raise UnreadableImage(
            f"dark: its brightest pixel has {used} bits of the {bits} in the file, and white is "
            "unknown; scale it to 8 bits"
        )


def _has_16_bits(image: Image.Image, encoded: bytes) -> bool:
    """Return whether a color has 16 bits in the file."""
    if image.format == "PNG":
        return encoded[_PNG_DEPTH] == 16
    return image.format == "TIFF" and _tags(image).get(_BITS_PER_SAMPLE, (1,))[0] == 16


def _gray_bits(image: Image.Image) -> tuple[int, bool]:
    """Return the bits of a gray image that Pillow has not scaled, and whether 0 is white."""
    if image.format in ("PNG", "JPEG2000", "PPM"):  # Pillow scales the last two to 16 bits
        return 16, False
    if image.format != "TIFF":
        raise UnreadableImage(f"integer pixels of {image.format}, whose range is unknown")
    tags = _tags(image)
    bits = tags.get(_BITS_PER_SAMPLE, (1,))[0]
    if tags.get(_SAMPLE_FORMAT, (1,))[0] != 1:
        raise UnreadableImage(
            f"signed {bits}-bit pixels, whose black and white are unknown; {formats.REMEDY}"
        )
    return bits, tags.get(_PHOTOMETRIC) == 0


def _tags(image: Image.Image) -> dict[int, Any]:
    """Return the tags of a TIFF file."""
    return dict(getattr(image, "tag_v2", {}))
