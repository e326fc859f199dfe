"""Lakes to look after, in tests: what is in them, whoever asks, and a clock that stands where a test wants it."""

from __future__ import annotations

import contextlib
import glob
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.batch import Partition
from pipeline.io.catalog import Catalog
from pipeline.io.inspection import inspect
from pipeline.io.lake import Lake
from pipeline.io.rewriting.compaction import Compacted, Compactor
from pipeline.io.rewriting.erasure import Eraser
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.retention import Retainer
from pipeline.io.rewriting.settling import tidy
from pipeline.io.rewriting.writing import Limits
from pipeline.io.views.session import Session
from pipeline.lake_tables import TABLES
from tests.lake_maker import LakeMaker
from tests.stages import stand_ins

NOW_US = 1_775_000_000_000_000
"""2026-03-31T23:33:20Z"""

DAYS_TO_13 = (NOW_US / 1e6 - 1_772_370_000) / 86_400
"""From 13:00 on 1 March 2026."""

TABLE_NAMES = tuple(TABLES)


@dataclass
class StandingClock:
    """A clock that a test moves."""

    now: int = NOW_US

    def now_us(self) -> int:
        return self.now

    def elapsed_s(self) -> float:
        return self.now / 1e6

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e6)


def payloads(seed: int, count: int = 40) -> list[Mapping[str, Any] | bytes]:
    """Events of seven accounts in two hours of 1 March 2026, texts and a field that nobody knows among them; a reject."""
    rows: list[Mapping[str, Any] | bytes] = [
        {
            "event_time": f"2026-03-01T{12 + number % 2}:{seed % 60:02d}:{number % 60:02d}Z",
            "account_id": f"acct_{(seed + number) % 7}",
            "model": "m",
            "output_tokens": number,
            **({"prompt": f"say {seed}-{number} \u00e9\u0000", "mood": "odd"} if number % 2 else {}),
        }
        for number in range(count)
    ]
    return [*rows[: count // 2], b'{"account_id": "acct_3", "broken', *rows[count // 2 :]]


@contextlib.contextmanager
def many_commits(root: Path, catalog_url: str | None = None, commits: int = 6) -> Iterator[LakeMaker]:
    """A scored lake of two partitions with many small files in the same hours."""
    with contextlib.closing(LakeMaker(root, catalog_url, stand_ins())) as maker:
        for number in range(commits):
            maker.append(payloads(number), partition=number % 2)
        yield maker


def content_of(root: Path, catalog_url: str) -> dict[str, Counter[str]]:
    """Every row of every table, as readers by the catalog see them."""
    with contextlib.closing(Session(Lake(root), Catalog.open(catalog_url, create=False))) as session:
        found = {}
        for table in TABLE_NAMES:
            with session.run(f"SELECT t::VARCHAR FROM {table} AS t") as result:
                found[table] = Counter(text for batch in result.batches for text in batch.column(0).to_pylist())
    return found


def content_by_glob(root: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """Topic, partition and offset of every row of every table, as a plain glob finds them."""
    found = {}
    for table in TABLE_NAMES:
        files = glob.glob(f"{glob.escape(str(root / table))}/**/*.parquet", recursive=True)  # noqa: PTH207
        query = 'SELECT topic, partition, "offset" FROM read_parquet(?, hive_partitioning = false)'
        found[table] = Counter(duckdb.execute(query, [files]).fetchall() if files else [])
    return found


def events_of(maker_root: Path, catalog: Catalog) -> dict[Partition, list[dict[str, Any]]]:
    """What a replay of everything would read, by partition; nothing must be missing."""
    found = {}
    for partition in catalog.offsets():
        commits = catalog.commits_since(partition, 0)
        landed = Lake(maker_root).read_events(commits, catalog.files_of(commits))
        assert landed.missing == ()
        found[partition] = landed.events.to_pylist()
    return found


def assert_sound(root: Path, catalog: Catalog) -> None:
    """Nothing is wrong with a lake."""
    assert inspect(Lake(root), catalog).errors == []


def compact_all(
    root: Path, catalog: Catalog, limits: Limits | None = None, clock: StandingClock | None = None
) -> Compacted:
    """Compact all that can be."""
    done = Compacted()
    compactor = Compactor(Lake(root), catalog, RewriteLedger(catalog, "tests"), clock or StandingClock())
    limits = limits or Limits()
    for group in compactor.groups(limits, 3600, TABLE_NAMES):
        compactor.compact(group, limits, done)
    return done


Step = Callable[[str], object]


def _compact(lake: Lake, catalog: Catalog, ledger: RewriteLedger, step: Step) -> None:
    """All of it, without a grace period."""
    done = Compacted()
    compactor = Compactor(lake, catalog, ledger, StandingClock(), step)
    for group in compactor.groups(Limits(), 3600, TABLE_NAMES):
        compactor.compact(group, Limits(), done)
    for _ in range(2):
        tidy(lake, ledger, NOW_US, 0, step)


def _retain(lake: Lake, catalog: Catalog, ledger: RewriteLedger, step: Step) -> None:
    """Content and events of the first of two hours, without a grace period."""
    retainer = Retainer(lake, catalog, ledger, StandingClock(), step)
    for table in ("content", "access"):
        retainer.retain(table, DAYS_TO_13)
    for _ in range(2):
        tidy(lake, ledger, NOW_US, 0, step)


ERASED = "acct_3"


def _erase(lake: Lake, catalog: Catalog, ledger: RewriteLedger, step: Step) -> None:
    assert Eraser(lake, catalog, ledger, StandingClock(), ERASED, step).erase().is_proven


WORK: dict[str, Callable[[Lake, Catalog, RewriteLedger, Step], None]] = {
    "compact": _compact,
    "retain": _retain,
    "erase": _erase,
}
"""What can be made to crash, by name; each does all that there is to do, and nothing where nothing is."""
