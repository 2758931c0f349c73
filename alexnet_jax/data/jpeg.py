"""Baseline JPEG files, read by libjpeg-turbo directly: Pillow's pixels in less time.

Pillow reads all other kinds, and reports what is wrong with damaged ones.
"""

import dataclasses
import sys
import threading

import numpy as np
import simplejpeg

MAX_REUSED = 2**20  # bytes; threads should not keep the memory of large photographs

START = b"\xff\xd8\xff"  # of every JPEG file that Pillow accepts
END = b"\xff\xd9"
# Second bytes of markers (ITU-T T.81, table B.1).
_FRAME, _HUFFMAN, _SCAN, _QUANTIZATION, _RESTART = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD
_COMMENT, _JFIF, _EXIF, _PROFILE, _ADOBE = 0xFE, 0xE0, 0xE1, 0xE2, 0xEE
_ICC = b"ICC_PROFILE\0"
# The shortest segments that Pillow takes for what they say they are, and reads.
_MIN_LENGTHS = {_JFIF: 16, _PROFILE: 2 + len(_ICC) + 2, _ADOBE: 14}
_SKIPPED = {_HUFFMAN, _QUANTIZATION, _RESTART, _COMMENT, *_MIN_LENGTHS}


@dataclasses.dataclass(frozen=True)
class Header:
    """What precedes the pixels of a baseline JPEG of three colors in one scan."""

    size: tuple[int, int]  # width and height, as in Pillow
    has_metadata: bool  # EXIF or XMP, which may ask for a rotation


def read_header(encoded: bytes | memoryview) -> Header | None:
    """Return the header of a JPEG that libjpeg-turbo reads as Pillow does; None for others.

    Others are progressive, gray, CMYK, of 12 bits, in several scans, or have segments that a
    photograph rarely has. Whether the pixels are damaged is not known yet, but a file without an
    end is not read twice.
    """
    if encoded[:3] != START or encoded[-2:] != END:
        return None
    size, has_metadata, position = None, False, 2
    while True:
        segment = bytes(encoded[position : position + 20])
        if len(segment) < 10 or segment[0] != 0xFF:
            return None
        marker, length = segment[1], segment[2] << 8 | segment[3]
        if marker == _FRAME:
            # 8 bits, three colors of three bytes each, once.
            if size or (length, segment[4], segment[9]) != (17, 8, 3):
                return None
            size = segment[7] << 8 | segment[8], segment[5] << 8 | segment[6]
        elif marker == _SCAN:
            # All three colors: with fewer, other scans follow, of any number.
            if not size or (length, segment[4]) != (12, 3):
                return None
            return Header(size, has_metadata)
        elif marker == _EXIF:
            has_metadata = True
        elif marker not in _SKIPPED or length < _MIN_LENGTHS.get(marker, 2):
            return None
        elif marker == _PROFILE and segment[4:16] != _ICC:
            return None  # such as an index of several pictures
        position += 2 + length


class _Last(threading.local):
    """The memory that a thread decoded to last."""

    memory = np.empty(0, np.uint8)


_last = _Last()


def _memory(size: int) -> np.ndarray:
    """Return memory for `size` bytes that nothing else refers to.

    Records of one size are decoded to the same memory while it is in the processor's caches, unless
    the pixels before are still in use: every array that shows them refers to it.
    """
    if size > MAX_REUSED:
        return np.empty(size, np.uint8)
    # Two references are expected: of `_last` and of the argument itself.
    if _last.memory.size != size or sys.getrefcount(_last.memory) > 2:
        _last.memory = np.empty(size, np.uint8)
    return _last.memory


def decode_baseline(encoded: bytes | memoryview, header: Header) -> np.ndarray | None:
    """Return the pixels, uint8 [H, W, 3], RGB; None if the file is damaged or cut off."""
    width, height = header.size
    try:
        # strict: what libjpeg would guess at is left to Pillow, too.
        return simplejpeg.decode_jpeg(encoded, buffer=_memory(width * height * 3), strict=True)
    except (ValueError, RuntimeError):
        return None
