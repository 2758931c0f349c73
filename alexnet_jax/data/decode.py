"""Bytes of an image file to RGB pixels, whatever kind of file it is."""

import io
import re
import warnings

import numpy as np
from PIL import Image, ImageOps

PILLOWS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as `warnings.filters` holds it


class UnreadableImage(ValueError):
    """A record that holds no usable image; the message gives the reason, not the file."""


def decode(encoded: bytes) -> np.ndarray:
    """Return the picture as a viewer would show it: uint8 [H, W, 3], RGB, upright by its EXIF tag.

    What is transparent is laid over white, as a page shows it: the colours hidden there are
    arbitrary. 16-bit grey is scaled to 8 bits. Of several frames the first counts; ICC profiles are
    ignored, as in 2012. Raises UnreadableImage for what Pillow cannot read to its end.
    """
    if not encoded:
        raise UnreadableImage("the file is empty (0 bytes)")
    _ignore_pillows_warnings()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _refuse_bomb(image.size)
            image.load()
            return np.array(_rgb(_upright(image)))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"suspiciously many pixels ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"no image format known to Pillow ({len(encoded)} bytes)") from error
    except Exception as error:  # Pillow's plugins raise anything for damaged files
        raise UnreadableImage(f"damaged: {error or type(error).__name__}") from error


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


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (a broken EXIF block does not say which side is up)
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels, of which nobody says what white is")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).clip(0, 65535).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
