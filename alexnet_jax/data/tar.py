"""The files in a tar archive, by offset and size, without unpacking it.

Python's tarfile reads each single header well, and is used for that. It follows whatever a header
claims: a negative size leads back to an earlier member, for ever, and a name may have gigabytes.
"""

import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: everything in an archive is padded to a multiple
MAX_EXTENSION = 2**20  # bytes of a header that extends another: names, times, attributes
MAX_EXTENSIONS = 16  # of one member; there are up to 3

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENSIONS = (*_PAX, *_LONG, tarfile.XGLTYPE)
_WITHOUT_DATA = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


class Member(NamedTuple):
    """A regular file in an archive."""

    name: str
    offset: int  # bytes from the start of the archive
    size: int  # bytes


def regular_files(file: IO[bytes], start: int, size: int) -> Iterator[Member]:
    """Yield the regular files of the archive of `size` bytes at `start` in a file.

    Links, folders and devices are passed over. Names are as they are in the archive.

    Raises:
        tarfile.ReadError: the archive is damaged or incomplete, or has sparse files.
    """
    position, header_start, extensions = 0, 0, 0
    overrides: dict[str, str] = {}  # what the next header means, by the names of pax
    while True:
        block = _read(file, start, position, BLOCK, size)
        if not block.strip(b"\0"):
            if extensions:
                raise tarfile.ReadError(f"no file after the header at byte {header_start:,}")
            return
        member = _parse(block, position)
        position += BLOCK
        if member.type in _EXTENSIONS:
            extensions += 1
            if extensions > MAX_EXTENSIONS or not 0 <= member.size <= MAX_EXTENSION:
                raise tarfile.ReadError(f"too long a header at byte {header_start:,}")
            data = _read(file, start, position, member.size, size)
            overrides |= _overrides(member.type, data)
            position += _padded(member.size)
            continue
        name, length = overrides.get("path", member.name), _length(overrides, member)
        is_sparse = any(key.startswith("GNU.sparse") for key in overrides)
        if is_sparse or member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{name[:200]} is a sparse file, which is not read")
        if not 0 <= length <= size - position:
            raise tarfile.ReadError(
                f"{name[:200]} would have {length:,} bytes, and {size - position:,} are left"
            )
        if member.isreg() and not name.endswith("/"):
            yield Member(name, position, length)
        if member.type not in _WITHOUT_DATA:
            position += _padded(length)
        header_start, extensions, overrides = position, 0, {}


def _read(file: IO[bytes], start: int, position: int, number: int, size: int) -> bytes:
    file.seek(start + position)
    data = file.read(number) if position + number <= size else b""
    if len(data) < number:
        raise tarfile.ReadError(f"its end is missing, after byte {position:,}")
    return data


def _parse(block: bytes, position: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise tarfile.ReadError(f"damaged header at byte {position:,}") from error


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _length(overrides: dict[str, str], member: tarfile.TarInfo) -> int:
    text = overrides.get("size")
    if text is None:
        return member.size
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise tarfile.ReadError(f"{member.name} has the size {text[:20]!r}")
    return int(text)


def _overrides(type: bytes, data: bytes) -> dict[str, str]:
    """Return what an extension says about the member after it, by the names of pax."""
    if type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _decode(data.partition(b"\0")[0])}
    if type not in _PAX:  # the target of a link, or what holds for all: times, comments
        return {}
    overrides, position = {}, 0
    while position < len(data.rstrip(b"\0")):
        # "30 mtime=1350244992.023960108\n": the number counts the whole record.
        digits = data[position : position + 20].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = data[position + len(digits) + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if position + length > len(data) or not equals or not record.endswith(b"\n"):
            raise tarfile.ReadError("a damaged pax header")
        overrides[_decode(key)] = _decode(value[:-1])
        position += length
    return overrides


def _decode(text: bytes) -> str:
    return text.decode(errors="surrogateescape")
