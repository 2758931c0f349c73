"""Image formats that are not read, by suffix and by content, so that messages can name them."""

import re
from collections.abc import Mapping
from typing import Any

# Formats of photographs that Pillow does not read, or of which it reads a thumbnail (raw ones).
RAW = "a camera's raw format"
_RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc"),
    *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl"),
    *(".sr2", ".srf", ".srw", ".x3f"),
)
UNREAD_SUFFIXES = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "HEIC"),
    **dict.fromkeys(_RAW_SUFFIXES, RAW),
    **dict.fromkeys((".hdp", ".jxr", ".wdp"), "JPEG XR"),
    **dict.fromkeys((".afphoto", ".clip", ".kra", ".psb", ".xcf"), "an image editor's format"),
    **dict.fromkeys((".ai", ".svg", ".svgz"), "vector graphics"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".mha", ".mhd", ".nii"), "a medical volume"),
    ".bpg": "BPG",
    ".exr": "OpenEXR",
    ".flif": "FLIF",
    ".hdr": "Radiance HDR",
    ".jxl": "JPEG XL",
}
REMEDY = "convert to JPEG or PNG"

# Contents: a pattern at the start of the file, and what such a file is.
_IMAGES = {
    rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)": "HEIC",
    rb".{4}ftypavi[fs]": "AVIF",
    rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|FOVb|\0MRM": RAW,
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL",
    rb"II\xbc": "JPEG XR",
    rb"8BP[BS]|gimp xcf": "an image editor's format",
    rb"BPG\xfb": "BPG",
    rb"\x76\x2f\x31\x01": "OpenEXR",
    rb"#\?(RADIANCE|RGBE)": "Radiance HDR",
    rb".{128}DICM": "DICOM",
    rb"\s*(<\?xml.{0,400}?)?<svg": "vector graphics",
}
_OTHERS = {
    rb".{4}ftyp|RIFF.{4}AVI |\x1aE\xdf\xa3|FLV\x01|OggS": "a video",
    rb"%PDF": "a PDF file",
    rb"\s*<(!DOCTYPE )?html": "a web page; download the image again",
    rb"version https://git-lfs": "a pointer of Git LFS; run git lfs pull",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf": "an archive; unpack it",
    rb"\x89HDF": "an HDF5 file",
}
_REASONS = [
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), reason)
    for pattern, reason in (
        *(
            (pattern, f"{name}, a format that is not read; {REMEDY}")
            for pattern, name in _IMAGES.items()
        ),
        *((pattern, f"no image but {name}") for pattern, name in _OTHERS.items()),
    )
]
_CR2 = slice(8, 10)  # Canon's mark in a TIFF file
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706  # TIFF tags


def suffix(name: str) -> str:
    """Return the ending of a file name in lower case, with its dot; "" if it has none."""
    stem, dot, ending = name.rpartition(".")
    return f"{dot}{ending}".lower() if stem else ""


def identify(encoded: bytes) -> str:
    """Return why a file is not read as an image, by its first bytes; "" if they are unknown."""
    return next((reason for pattern, reason in _REASONS if pattern.match(encoded[:1024])), "")


def is_raw(encoded: bytes, tags: Mapping[int, Any]) -> bool:
    """Return whether a TIFF file is a camera's raw file, whose first image is a thumbnail.

    `tags` are those of its first image.
    """
    is_reduced = bool(int(tags.get(_SUBFILE_TYPE, 0)) & 1)
    return is_reduced or _DNG_VERSION in tags or encoded[_CR2] == b"CR"
