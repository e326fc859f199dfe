"""Retention marks in the lake itself, so that a rebuilt catalog knows what is gone on purpose."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.errors import RetryableError, SchemaError

MARKS_FILE: Final = "_retention.json"


def read_marks(root: Path) -> dict[str, str]:
    """By table, the hour (`YYYY-MM-DDTHH`) below which it holds nothing.

    Raises:
        SchemaError: the file is damaged.
    """
    try:
        said = json.loads((root / MARKS_FILE).read_text(encoding="utf-8"))
        return {str(table): str(before) for table, before in said["before"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, AttributeError) as error:
        raise SchemaError(f"{root / MARKS_FILE}: not what `maintain retain` wrote ({error!r})") from error


def raise_marks(root: Path, marks: Mapping[str, str]) -> None:
    """Raise marks, for good when this returns; those that are higher stay.

    Raises:
        RetryableError: the disk is full or fails.
        SchemaError: the file that is there is damaged.
    """
    there = read_marks(root)
    higher = {table: max(before, there.get(table, "")) for table, before in marks.items()}
    temporary = root / f"{MARKS_FILE}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"before": {**there, **higher}}, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(root / MARKS_FILE)
        folder = os.open(root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RetryableError(f"lake {root}: {error.strerror or error}") from error
