"""SHA-256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO, Final

_CHUNK_BYTES: Final = 1 << 20


def sha256_of(content: BinaryIO) -> str:
    """SHA-256 of a file's bytes from where it stands, in hex."""
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as content:
        return sha256_of(content)
