"""What a catalog says of a file, found out from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commits import FileEntry
from pipeline.io.digests import sha256_of
from pipeline.lake_tables import TABLES


def entry_of(path: Path, final: str) -> FileEntry:
    """Describe a file that can be read.

    Args:
        path: where it is.
        final: its path below the lake, in its table.
    """
    table, dt, hour = Path(final).parts[:3]
    column = TABLES[table].time
    with path.open("rb") as content:
        digest = sha256_of(content)
    times = pq.read_table(path, columns=[column], partitioning=None)[column]
    low, high = _span(times) if len(times) and times.null_count == 0 else (None, None)
    return FileEntry(
        path=final,
        table_name=table,
        dt=dt.removeprefix("dt="),
        hour=int(hour.removeprefix("hour=")),
        rows=len(times),
        bytes=path.stat().st_size,
        sha256=digest,
        time_min_us=low,
        time_max_us=high,
    )


def _span(times: pa.ChunkedArray) -> tuple[int, int]:
    ends: dict[str, Any] = pc.min_max(times.cast(pa.int64())).as_py()
    return int(ends["min"]), int(ends["max"])
