"""What a lake is made of, by its catalog; no file is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.commits import FileEntry
from pipeline.io.catalog import Catalog
from pipeline.io.rewriting.compaction import closed_groups
from pipeline.io.rewriting.ledger import SETTLED, SWAPPED, RewriteLedger
from pipeline.io.rewriting.writing import Limits
from pipeline.lake_tables import TABLES


@dataclass(frozen=True, slots=True)
class TableStats:
    """One table.

    Attributes:
        table: its name.
        files: that readers see.
        rows: in them.
        bytes: of them.
        hours: that have any.
        first: the first of these, as `YYYY-MM-DDTHH`; empty where there is none.
        last: the last.
        files_median: of an hour.
        to_merge: files that `maintain compact` would merge.
        before: hours below it are gone because they were too old; empty: none are.
    """

    table: str
    files: int
    rows: int
    bytes: int
    hours: int
    first: str
    last: str
    files_median: int
    to_merge: int
    before: str


@dataclass(frozen=True, slots=True)
class LakeStats:
    """A lake.

    Attributes:
        tables: one each.
        commits: in the catalog.
        partitions: in the catalog.
        snapshots: of all partitions.
        snapshot_bytes: of these.
        waiting: rewrites whose replaced files are still there.
        replaced: files that readers see no more and that are still there.
    """

    tables: tuple[TableStats, ...]
    commits: int
    partitions: int
    snapshots: int
    snapshot_bytes: int
    waiting: int
    replaced: int


def lake_stats(catalog: Catalog, ledger: RewriteLedger, limits: Limits, now_us: int, closed_s: float) -> LakeStats:
    """Count.

    Args:
        catalog: of the lake.
        ledger: of its rewrites.
        limits: of compaction.
        now_us: wall clock.
        closed_s: how long an hour must be over before it is compacted.
    """
    manifest = catalog.manifest()
    files = manifest.files()
    return LakeStats(
        tuple(
            _table_stats(name, [file for file in files if file.table_name == name], manifest.marks.get(name, ""),
                         limits, (now_us, closed_s))
            for name in TABLES
        ),
        commits=len(manifest.commits), partitions=len(manifest.offsets), snapshots=len(manifest.snapshots),
        snapshot_bytes=sum(snapshot.bytes for snapshot in manifest.snapshots),
        waiting=len(ledger.due((SWAPPED, SETTLED), now_us)), replaced=len(manifest.retired),
    )  # fmt: skip


def _table_stats(
    name: str, files: Sequence[FileEntry], before: str, limits: Limits, when: tuple[int, float]
) -> TableStats:
    counts: dict[str, int] = {}
    for file in files:
        hour = f"{file.dt}T{file.hour:02d}"
        counts[hour] = counts.get(hour, 0) + 1
    ordered = sorted(counts.values())
    return TableStats(
        name, len(files), sum(file.rows for file in files), sum(file.bytes for file in files), len(counts),
        min(counts, default=""), max(counts, default=""), ordered[len(ordered) // 2] if ordered else 0,
        sum(len(group.files) for group in closed_groups(files, limits, *when)), before,
    )  # fmt: skip
