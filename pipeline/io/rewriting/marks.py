"""Retention marks in the lake itself, so that a rebuilt catalog knows what is gone on purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.errors import RetryableError, SchemaError
from pipeline.io.durable import replace_for_good

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
    content = json.dumps({"before": {**there, **higher}}, sort_keys=True)
    try:
        replace_for_good(root / MARKS_FILE, content.encode(), root)
    except OSError as error:
        raise RetryableError(f"lake {root}: {error.strerror or error}") from error
