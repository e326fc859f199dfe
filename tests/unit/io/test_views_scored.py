"""Views of what was found about accounts: scored windows and alerts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.alerts import alerts_table
from pipeline.features import NAMES
from pipeline.io.views.export import export
from tests.lake_maker import LakeMaker, make_lake
from tests.stages import stand_ins
from tests.unit.io.views_lake import rows_of, session_on, three_days


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    with make_lake(tmp_path / "lake", three_days(), rows_per_commit=7, watch=stand_ins()) as maker:
        yield maker


def test_alerts_are_those_of_the_catalog(maker: LakeMaker) -> None:
    with session_on(maker.root) as session:
        query = f"SELECT alert_id, reasons[1], features['{NAMES[0]}'], versions['rules'] FROM alerts ORDER BY raised_at DESC, 1"
        assert rows_of(session, query) == [
            (alert.alert_id, alert.reasons[0], alert.features[NAMES[0]], "1") for alert in maker.catalog.alerts()
        ]
    assert maker.catalog.alerts()


def test_windows_have_features_by_name_and_are_pruned_by_hour(maker: LakeMaker) -> None:
    with session_on(maker.root) as session:
        found = rows_of(
            session, f"SELECT features.{NAMES[0]} = exchanges, kind, reasons[1].feature FROM account_windows"
        )
        assert {row[0] for row in found} == {True}
        assert {row[1] for row in found} == {"tick", "count"}
        assert {row[2] for row in found} == {None, NAMES[1]}
        files = session.files("SELECT count(*) FROM account_windows WHERE scored_at >= '2026-03-03'")
        assert files
        assert all("account_windows/dt=2026-03-03" in path for path in files)


def test_windows_of_other_features_are_read_by_name(maker: LakeMaker) -> None:
    """A feature that is no more is left out, one that an old file lacks is null."""
    path = min((maker.root / "account_windows").rglob("*.parquet"))
    table = pq.read_table(path, partitioning=None)
    ones = pa.array([1.5] * len(table), pa.float32())
    features = pa.StructArray.from_arrays([ones, ones], [NAMES[0], "gone"])
    at = table.schema.get_field_index("features")
    pq.write_table(table.set_column(at, "features", features), path, store_schema=False)
    query = (
        f"SELECT DISTINCT features.{NAMES[0]}, features.{NAMES[1]} FROM account_windows WHERE features.{NAMES[0]} = 1.5"
    )
    with session_on(maker.root) as session:
        assert rows_of(session, query) == [(1.5, None)]
    export(maker.lake, maker.catalog, maker.root.parent / "views.duckdb")
    with duckdb.connect(str(maker.root.parent / "views.duckdb"), read_only=True) as other:
        assert other.execute(query).fetchall() == [(1.5, None)]


def test_an_export_has_windows_and_alerts(maker: LakeMaker) -> None:
    export(maker.lake, maker.catalog, maker.root.parent / "views.duckdb")
    with (
        duckdb.connect(str(maker.root.parent / "views.duckdb"), read_only=True) as other,
        session_on(maker.root) as session,
    ):
        for query in (
            "SELECT * EXCLUDE (scored_at, first_seen) FROM account_windows",
            "SELECT * EXCLUDE (window_start, raised_at, first_seen) FROM alerts",
        ):
            theirs = other.sql(query).to_arrow_table().to_pylist()
            with session.run(query) as result:
                ours = pa.Table.from_batches(result.batches, result.schema).to_pylist()
            assert sorted(map(repr, theirs)) == sorted(map(repr, ours))


def test_files_of_alerts_hold_them_whole(maker: LakeMaker) -> None:
    paths = sorted((maker.root / "alerts").rglob("*.parquet"))
    found = pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths]).sort_by("alert_id")
    expected = alerts_table(maker.catalog.alerts()).sort_by("alert_id")
    assert found.to_pylist() == expected.to_pylist()
