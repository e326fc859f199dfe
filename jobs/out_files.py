"""Files that commands are told to write."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import ConfigError


@contextlib.contextmanager
def replacing(path: Path, flag: str) -> Iterator[BinaryIO]:
    """A file that stands at its path once it is complete, and not before.

    Args:
        path: of the file; one that is there is replaced.
        flag: that named it, for the error.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
