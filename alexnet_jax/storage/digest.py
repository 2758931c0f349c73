"""SHA-256 digests of values and of files."""

import hashlib
import json
from pathlib import Path


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `parts`, values as JSON knows them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
