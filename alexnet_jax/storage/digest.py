"""Digests of values, of bytes and of files, SHA-256 unless another is named."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `parts`, values as JSON knows them."""
    return bytes_sha256([json.dumps(parts).encode()])[:16]


def bytes_sha256(parts: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of bytes in several parts, 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    return file_digest(path, "sha256")


def file_digest(path: Path, algorithm: str) -> str:
    """Return the digest of a file by an algorithm of `hashlib`, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
