"""Labels from a file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.backtesting.labels import checked
from pipeline.errors import ConfigError


def read_labels(path: Path) -> pl.DataFrame:
    """Read who is known to harvest, from CSV with a header.

    Returns:
        See `pipeline.backtesting.labels.checked`.

    Raises:
        ConfigError: the file cannot be read, or not be used.
    """
    if not path.is_file():
        raise ConfigError(f"--labels {path}: no such file")
    try:
        given = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"--labels {path}: cannot be read as CSV: {str(error).splitlines()[0]}") from error
    return checked(given, str(path))
