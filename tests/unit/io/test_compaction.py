"""Compaction: no row changes, whoever reads, and whatever happens meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import LakeDamagedError
from pipeline.features import NAMES
from pipeline.io.catalog import Catalog
from pipeline.io.inspection import inspect
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting import compaction
from pipeline.io.rewriting.compaction import Compacted, Compactor
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.settling import tidy
from pipeline.io.rewriting.writing import Limits
from pipeline.io.views.export import export
from pipeline.io.views.session import Session
from pipeline.lake_tables import TABLES
from tests.lake_maker import LakeMaker
from tests.rewrites import (
    NOW_US,
    TABLE_NAMES,
    StandingClock,
    assert_sound,
    compact_all,
    content_by_glob,
    content_of,
    events_of,
    many_commits,
    payloads,
)
from tests.unit.io.views_lake import rows_of, session_on

HOUR_S = 3600


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    with many_commits(tmp_path / "lake") as maker:
        yield maker


def ledger_of(maker: LakeMaker) -> RewriteLedger:
    return RewriteLedger(maker.catalog, "tests")


def settle_all(maker: LakeMaker) -> None:
    """Let all grace periods pass."""
    for _ in range(2):
        tidy(maker.lake, ledger_of(maker), NOW_US, 0)


def test_every_reader_finds_the_same_before_and_after(maker: LakeMaker) -> None:
    rows, by_glob = content_of(maker.root, maker.catalog_url), content_by_glob(maker.root)
    events = events_of(maker.root, maker.catalog)
    files = len(maker.catalog.live_files())
    done = compact_all(maker.root, maker.catalog)
    assert (done.files, done.new_files) == (files, len(maker.catalog.live_files()))
    assert done.new_files == len({(file.table_name, file.dt, file.hour) for file in maker.catalog.live_files()})
    for step in ("swapped", "settled", "finished"):
        assert content_of(maker.root, maker.catalog_url) == rows, step
        assert content_by_glob(maker.root) == by_glob, step
        assert events_of(maker.root, maker.catalog) == events, step
        assert_sound(maker.root, maker.catalog)
        tidy(maker.lake, ledger_of(maker), NOW_US, 0)
    assert not list((maker.root / "_rewrites").iterdir())


def test_rows_are_sorted_and_the_columns_are_those_that_were_there(maker: LakeMaker) -> None:
    schemas = {
        file.table_name: pq.read_schema(maker.root / file.path).remove_metadata() for file in maker.catalog.live_files()
    }
    compact_all(maker.root, maker.catalog)
    for file in maker.catalog.live_files():
        table = pq.read_table(maker.root / file.path, partitioning=None)
        assert pq.read_schema(maker.root / file.path).remove_metadata() == schemas[file.table_name]
        keys = list(zip(*(table[name].to_pylist() for name in TABLES[file.table_name].order), strict=True))
        assert keys == sorted(keys)
        times = table[TABLES[file.table_name].time].cast(pa.int64()).to_pylist()
        assert (file.time_min_us, file.time_max_us, file.rows) == (min(times), max(times), len(times))


def test_a_query_that_has_begun_finds_its_files_until_the_grace_period_ends(maker: LakeMaker) -> None:
    with contextlib.closing(Session(maker.lake, Catalog.open(maker.catalog_url, create=False))) as session:
        before = [maker.root / path for path in session.files("SELECT * FROM access")]
        compact_all(maker.root, maker.catalog)
        between = [maker.root / path for path in session.files("SELECT * FROM access")]
        tidy(maker.lake, ledger_of(maker), NOW_US + 10**9, HOUR_S)
        assert all(path.exists() for path in (*before, *between))
        tidy(maker.lake, ledger_of(maker), NOW_US + 4 * 10**9, HOUR_S)
        assert all(path.exists() for path in between)
        assert not any(path.exists() for path in before)


def test_a_second_compactor_changes_nothing(maker: LakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has planned the same hours, and is slower."""
    rows = content_of(maker.root, maker.catalog_url)
    slow = Compactor(maker.lake, maker.catalog, ledger_of(maker), StandingClock())
    groups = slow.groups(Limits(), HOUR_S, TABLE_NAMES)
    write_outputs = compaction.write_outputs

    def overtaken(*arguments: object) -> object:
        written = write_outputs(*arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        compact_all(maker.root, maker.catalog)
        return written

    monkeypatch.setattr(compaction, "write_outputs", overtaken)
    done = Compacted()
    for group in groups:
        slow.compact(group, Limits(), done)
    assert (done.files, done.passed_over) == (0, len(groups))
    assert content_of(maker.root, maker.catalog_url) == rows
    assert len(list((maker.root / "_rewrites").iterdir())) == len(groups), "what the slower one wrote is gone"
    settle_all(maker)
    assert_sound(maker.root, maker.catalog)


def test_a_compactor_that_was_given_up_for_dead_is_fenced(maker: LakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    write_outputs = compaction.write_outputs

    def swept(*arguments: object) -> object:
        written = write_outputs(*arguments)  # type: ignore[arg-type]
        assert tidy(maker.lake, ledger_of(maker), NOW_US + 4 * 10**9, HOUR_S).given_up == 1
        return written

    monkeypatch.setattr(compaction, "write_outputs", swept)
    rows = content_of(maker.root, maker.catalog_url)
    assert compact_all(maker.root, maker.catalog).files == 0
    assert content_of(maker.root, maker.catalog_url) == rows
    assert_sound(maker.root, maker.catalog)


def test_late_rows_are_put_to_the_others_by_the_next_run(maker: LakeMaker) -> None:
    compact_all(maker.root, maker.catalog)
    maker.append(payloads(9))
    rows, by_glob = content_of(maker.root, maker.catalog_url), content_by_glob(maker.root)
    assert compact_all(maker.root, maker.catalog).files
    assert content_of(maker.root, maker.catalog_url) == rows
    settle_all(maker)
    assert content_by_glob(maker.root) == by_glob
    assert_sound(maker.root, maker.catalog)


def test_an_unsettled_rewrite_that_is_rewritten_again_never_doubles_a_glob(maker: LakeMaker) -> None:
    by_glob = content_by_glob(maker.root)
    first = StandingClock()
    compact_all(maker.root, maker.catalog, clock=first)
    late = maker.append(payloads(9))
    extra = sum(file.rows for file in late if file.table_name == "access")
    compact_all(maker.root, maker.catalog, clock=StandingClock(NOW_US + 60 * 10**6))
    for moment in (NOW_US + HOUR_S * 10**6, NOW_US + 2 * HOUR_S * 10**6, NOW_US + 4 * HOUR_S * 10**6):
        tidy(maker.lake, ledger_of(maker), moment, HOUR_S)
        found = content_by_glob(maker.root)
        assert max(found["access"].values()) == 1
        assert sum(found["access"].values()) == sum(by_glob["access"].values()) + extra
        assert_sound(maker.root, maker.catalog)


def test_files_of_other_columns_are_not_merged_with_each_other(maker: LakeMaker) -> None:
    """A feature that an older release had must not be lost."""
    path = min(file.path for file in maker.catalog.live_files("account_windows"))
    table = pq.read_table(maker.root / path, partitioning=None)
    footer = table.schema.metadata
    ones = pa.array([1.5] * len(table), pa.float32())
    features = pa.StructArray.from_arrays([ones, ones], [NAMES[0], "gone"])
    changed = table.set_column(table.schema.get_field_index("features"), "features", features)
    pq.write_table(changed.replace_schema_metadata(footer), maker.root / path, store_schema=False)
    compact_all(maker.root, maker.catalog)
    assert path in {file.path for file in maker.catalog.live_files("account_windows")}
    kept = pq.read_table(maker.root / path, partitioning=None)["features"].combine_chunks()
    assert kept.field("gone").to_pylist() == [1.5] * len(table)


def test_files_are_ended_at_the_target_size(tmp_path: Path) -> None:
    with many_commits(tmp_path / "lake", commits=30) as maker:
        rows, events = content_of(maker.root, maker.catalog_url), events_of(maker.root, maker.catalog)
        compact_all(maker.root, maker.catalog, Limits(file_bytes=20_000))
        by_place: dict[tuple[str, int], int] = {}
        for file in maker.catalog.live_files("access"):
            by_place[file.dt, file.hour] = by_place.get((file.dt, file.hour), 0) + 1
        assert content_of(maker.root, maker.catalog_url) == rows
        assert events_of(maker.root, maker.catalog) == events
        settle_all(maker)
        assert_sound(maker.root, maker.catalog)


def test_open_hours_and_large_files_are_left_alone(maker: LakeMaker) -> None:
    at_13_30 = StandingClock(1_772_371_800_000_000)
    compact_all(maker.root, maker.catalog, clock=at_13_30)
    assert not (maker.root / "_rewrites").exists() or not list((maker.root / "_rewrites").iterdir())
    size = min(file.bytes for file in maker.catalog.live_files())
    assert compact_all(maker.root, maker.catalog, Limits(file_bytes=size)).files == 0


def test_a_damaged_file_stops_only_its_hour(maker: LakeMaker) -> None:
    broken = maker.catalog.live_files("access")[0]
    (maker.root / broken.path).write_bytes(b"no Parquet")
    done = compact_all(maker.root, maker.catalog)
    assert len(done.damaged) == 1
    assert broken.path in done.damaged[0]
    assert done.new_files == len({(file.table_name, file.hour) for file in maker.catalog.live_files()}) - 1


def test_verify_names_a_rewritten_file_that_is_gone_or_lacks_rows(maker: LakeMaker) -> None:
    compact_all(maker.root, maker.catalog)
    settle_all(maker)
    file = maker.catalog.live_files("access")[0]
    (maker.root / file.path).rename(maker.root / "aside")
    errors = inspect(maker.lake, maker.catalog).errors
    assert {"missing", "rows"} <= {error.kind for error in errors}
    assert file.path in {error.subject for error in errors}
    (maker.root / "aside").rename(maker.root / file.path)
    assert_sound(maker.root, maker.catalog)


@pytest.mark.parametrize("steps", (0, 1, 2))
def test_a_lost_catalog_is_made_anew_from_merged_files(maker: LakeMaker, tmp_path: Path, steps: int) -> None:
    rows, alerts = content_of(maker.root, maker.catalog_url), maker.catalog.alerts()
    events = events_of(maker.root, maker.catalog)
    compact_all(maker.root, maker.catalog)
    for _ in range(steps):
        tidy(maker.lake, ledger_of(maker), NOW_US, 0)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    rebuild(maker.lake, url, plan_of(maker.lake), now_us=1)
    assert content_of(maker.root, url) == rows
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert catalog.alerts() == alerts
        assert events_of(maker.root, catalog) == events
        assert_sound(maker.root, catalog)


def test_confined_queries_and_exports_read_files_that_are_not_settled(maker: LakeMaker, tmp_path: Path) -> None:
    query = "SELECT account_id, count(*), max(hour) FROM access WHERE dt = '2026-03-01' GROUP BY ALL ORDER BY ALL"
    with session_on(maker.root) as session:
        before = rows_of(session, query)
    compact_all(maker.root, maker.catalog)
    with session_on(maker.root, query_files=False) as session:
        assert rows_of(session, query) == before
    export(maker.lake, maker.catalog, tmp_path / "views.duckdb")
    with duckdb.connect(str(tmp_path / "views.duckdb"), read_only=True) as exported:
        assert exported.execute(query).fetchall() == before


def test_a_damaged_merged_file_is_not_passed_over_by_a_rebuild(maker: LakeMaker) -> None:
    """Its commits would come back as empty ones, and what they landed would be lost without a word."""
    compact_all(maker.root, maker.catalog)
    settle_all(maker)
    merged = next(path for path in (maker.root / "access").rglob("rewritten-*.parquet"))
    merged.write_bytes(merged.read_bytes()[:100])
    with pytest.raises(LakeDamagedError, match="holds rows of many commits"):
        plan_of(maker.lake)
