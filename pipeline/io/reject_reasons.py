"""Why records of some topics were rejected, as the lake has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipeline.batch import Partition
from pipeline.io.catalog import Catalog
from pipeline.io.rewriting.chosen import batches_of
from pipeline.io.rewriting.writing import by_partition

_NAMES: Final = ("topic", "partition", "offset", "reason")
_ENDLESS: Final = 1 << 62


def reasons_since(
    root: Path, catalog: Catalog, topics: Collection[str], before: Mapping[Partition, int]
) -> Counter[str]:
    """How often which reason was given since the catalog stood elsewhere.

    Args:
        root: of the lake.
        catalog: which files there are.
        topics: of the rejects.
        before: offsets then; what lies before them does not count.

    Raises:
        SchemaError: a file is missing or broken.
    """
    found: Counter[str] = Counter()
    first = min((before.get(at, 0) for at in catalog.offsets() if at.topic in topics), default=0)
    for file in catalog.live_files("rejects"):
        for rows in batches_of(root, file.path, _NAMES, (first, _ENDLESS)):
            offsets = rows["offset"].to_numpy()
            for partition, mine in by_partition(rows):
                if partition.topic in topics:
                    new = mine & (offsets >= before.get(partition, 0))
                    found.update(rows["reason"].filter(pa.array(new)).to_pylist())
    return found
