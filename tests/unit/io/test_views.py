"""The views of a lake: what they hold, which files a query opens, and that nothing can be written."""

from __future__ import annotations

import _thread
import contextlib
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.batch import Partition
from pipeline.config import read_settings
from pipeline.errors import ConfigError, SchemaError
from pipeline.events import TABLE_SCHEMAS
from pipeline.io.views.export import export
from pipeline.io.views.pruning import OPTIMIZERS
from pipeline.io.views.session import Session
from pipeline.io.views.tables import FILE_VIEWS, SQL_TYPES, VIEWS
from tests.lake_maker import LakeMaker, make_lake

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")
HOURS = (0, 5, 23)

Rows = list[tuple[Any, ...]]


def event(event_time: str, number: int = 0, **fields: object) -> dict[str, object]:
    return {
        "event_time": event_time,
        "request_id": f"r{number}",
        "account_id": f"acct_{number % 3}",
        "model": "small",
        "output_tokens": number,
        **fields,
    }


def three_days() -> list[dict[str, object] | bytes]:
    """Nine hours of four events, the first of each without text; a record a day that is none."""
    payloads: list[dict[str, object] | bytes] = []
    for day in DAYS:
        for hour in HOURS:
            for minute in range(4):
                text = {"prompt": f"p{len(payloads)}"} if minute else {}
                payloads.append(event(f"{day}T{hour:02}:{minute * 15:02}:00Z", len(payloads), **text))
        payloads.append(event(f"{day}T12:00:00Z", len(payloads), output_tokens=-1))
    return payloads


@contextlib.contextmanager
def session_on(root: Path) -> Iterator[Session]:
    with Session.open(read_settings(None, lake=str(root))) as session:
        yield session


def rows_of(session: Session, sql: str, *, prune: bool = True) -> Rows:
    with session.run(sql, prune=prune) as result:
        found = [zip(*(column.to_pylist() for column in batch.columns), strict=True) for batch in result.batches]
    return [row for batch in found for row in batch]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three days, in commits that go across hours; not to be changed."""
    folder = tmp_path_factory.mktemp("views") / "lake"
    with make_lake(folder, three_days(), rows_per_commit=7):
        return folder


@pytest.fixture(scope="module")
def session(root: Path) -> Iterator[Session]:
    with session_on(root) as opened:
        yield opened


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    """The same lake, to be changed."""
    return Path(shutil.copytree(root, tmp_path / "lake"))


def test_views_hold_what_was_landed(session: Session) -> None:
    assert rows_of(session, "SELECT count(*), count(DISTINCT request_id) FROM access") == [(36, 36)]
    assert rows_of(session, "SELECT count(*), count(prompt) FROM content") == [(27, 27)]
    assert rows_of(session, "SELECT count(*), min(field) FROM rejects") == [(3, "output_tokens")]
    assert rows_of(session, "SELECT count(*), count(prompt), sum(output_tokens)::BIGINT FROM events") == [(36, 27, 666)]


def test_events_are_access_and_content_of_the_same_record(session: Session) -> None:
    rows = rows_of(session, "SELECT output_tokens, prompt, hour FROM events WHERE dt = '2026-03-02' ORDER BY event_time")
    assert rows[:4] == [(13, None, 0), (14, "p14", 0), (15, "p15", 0), (16, "p16", 0)]


def test_dt_and_hour_are_those_of_the_path(session: Session, root: Path) -> None:
    with duckdb.connect() as plain:
        for table in FILE_VIEWS:
            by_path = f"SELECT \"offset\", dt, hour::INTEGER AS hour FROM read_parquet('{root}/{table}/**/*.parquet', hive_partitioning = true)"
            assert sorted(rows_of(session, f'SELECT "offset", dt, hour FROM {table}')) == sorted(plain.execute(by_path).fetchall())


def test_a_reject_without_kafka_time_is_of_the_first_hour_of_1970(tmp_path: Path) -> None:
    with make_lake(tmp_path / "lake") as maker:
        maker.append([b"not JSON"], kafka_ms=-1)
        with session_on(maker.root) as session:
            query = "SELECT kafka_time, dt::VARCHAR, hour FROM rejects"
            assert rows_of(session, query) == [(None, "1970-01-01", 0)]
            assert rows_of(session, f"{query} WHERE dt = '1970-01-01'") == [(None, "1970-01-01", 0)]
            assert rows_of(session, f"{query} WHERE kafka_time IS NULL") == [(None, "1970-01-01", 0)]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_without_files_is_empty_and_has_its_columns(tmp_path: Path, name: str) -> None:
    with make_lake(tmp_path / "lake"), session_on(tmp_path / "lake") as session:
        assert rows_of(session, f"SELECT * FROM {name}") == []
        described = [row[:2] for row in rows_of(session, f"DESCRIBE {name}")]
        assert described == [(column, kind) for column, kind, _ in VIEWS[name].described()]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_with_files_has_its_columns(session: Session, name: str) -> None:
    with session.run(f"SELECT * FROM {name}") as result:
        assert list(zip(result.names, result.types, strict=True)) == [(c, kind) for c, kind, _ in VIEWS[name].described()]


def test_every_arrow_type_of_the_schemas_has_an_sql_type() -> None:
    assert {field.type for schema in TABLE_SCHEMAS.values() for field in schema} <= SQL_TYPES.keys()


def test_catalog_views_say_what_the_catalog_says(session: Session, root: Path) -> None:
    files = rows_of(session, "SELECT path, rows, bytes FROM lake_files")
    assert sum(rows for _, rows, _ in files) == 36 + 27 + 3
    assert all((root / path).stat().st_size == size for path, _, size in files)
    assert rows_of(session, "FROM lake_offsets") == [("llm-access", 0, 39)]
    assert rows_of(session, "SELECT min(first_offset), max(next_offset), sum(events)::INT, sum(rejects)::INT FROM lake_commits") == [
        (0, 39, 36, 3)
    ]  # fmt: skip


def test_holes_are_shown(tmp_path: Path) -> None:
    with make_lake(tmp_path / "lake", [event("2026-03-01T00:00:00Z")]) as maker, session_on(maker.root) as session:
        hole = maker.catalog.note_hole(Partition("llm-access", 0), 1, 5, now_us=0)
        assert rows_of(session, "FROM lake_holes") == [("llm-access", 0, 1, 5, False)]
        maker.catalog.accept_hole(hole, now_us=0)
        assert rows_of(session, "FROM lake_holes") == [("llm-access", 0, 1, 5, True)]


def test_a_commit_that_is_not_published_is_not_seen(tmp_path: Path) -> None:
    with make_lake(tmp_path / "lake", [event("2026-03-01T00:00:00Z", 1)]) as maker, session_on(maker.root) as session:
        maker.append([event("2026-03-01T00:00:00Z", 2)], publish=False)
        assert rows_of(session, "SELECT request_id FROM access") == [("r1",)]
        maker.append([event("2026-03-01T00:00:00Z", 3)])
        assert rows_of(session, "SELECT request_id FROM access ORDER BY 1") == [("r1",), ("r3",)]


def test_old_and_newer_files_have_the_columns_of_today(copied: Path) -> None:
    """Files that lack a column, have a narrower type, or a column that nobody knows yet."""
    first, second, *_ = sorted((copied / "access").rglob("*.parquet"))
    old = pq.read_table(first)
    narrow = old.drop_columns(["country"]).set_column(
        old.schema.get_field_index("output_tokens"), "output_tokens", old["output_tokens"].cast(pa.int32())
    )
    pq.write_table(narrow.drop_columns(["country"]) if "country" in narrow.column_names else narrow, first)
    new = pq.read_table(second)
    pq.write_table(new.append_column("invented", pa.array(["x"] * len(new))).select(["invented", *new.column_names]), second)
    with session_on(copied) as session:
        assert rows_of(session, "SELECT count(*), count(country), sum(output_tokens)::BIGINT FROM access") == [(36, 0, 666)]
        with session.run("FROM events") as result:
            assert list(result.names) == VIEWS["events"].columns.names


def test_a_lake_may_stand_below_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "dt=1999-01-01" / "it's [a-b] *" / "model=x"
    root.mkdir(parents=True)
    with make_lake(root / "lake", three_days()), session_on(root / "lake") as session:
        query = "SELECT count(*), min(model), min(dt)::VARCHAR FROM events"
        assert rows_of(session, query) == [(36, "small", "2026-03-01")]


# ---- pruning

ONE_DAY = (
    "FROM access WHERE dt = '2026-03-02'",
    "FROM access WHERE dt = DATE '2026-03-02' AND hour IN (5, 23) AND model = 'small'",
    "FROM access WHERE dt IN ('2026-03-02', '2026-03-09')",
    "FROM access WHERE dt BETWEEN '2026-03-02' AND '2026-03-02'",
    "FROM access WHERE dt > '2026-03-01' AND NOT dt >= '2026-03-03'",
    "FROM access WHERE dt::VARCHAR LIKE '%-02' AND dayofweek(dt) = 1",
    "FROM access WHERE (dt, hour) IN (('2026-03-02', 5), ('2026-03-02', 23))",
    "FROM access WHERE dt = '2026-03-02' AND random() >= 0",
    "FROM access WHERE event_time >= '2026-03-02' AND event_time < '2026-03-03'",
    "FROM access WHERE '2026-03-02' <= event_time AND TIMESTAMP '2026-03-03' > event_time",
    "FROM access WHERE event_time BETWEEN '2026-03-02 00:00:00+00' AND '2026-03-02 23:59:59+00'",
    "FROM access WHERE event_time >= TIMESTAMPTZ '2026-03-03' - INTERVAL 1 DAY AND event_time < DATE '2026-03-03'",
    "FROM access WHERE event_time IN ('2026-03-02T05:15:00Z', '2026-03-02T23:00:00Z')",
    "FROM access WHERE event_time = '2026-03-02T07:15:00+02:00'",
    "FROM access WHERE event_time::DATE = '2026-03-02'",
    "FROM access WHERE date_trunc('day', event_time) = '2026-03-02'",
    "FROM access WHERE time_bucket(INTERVAL 6 HOUR, event_time) = '2026-03-02T18:00:00Z'",
    "FROM access WHERE event_time AT TIME ZONE 'UTC' BETWEEN '2026-03-02' AND '2026-03-02 23:00:00'",
    "FROM access WHERE epoch_ms(event_time) // 1 >= 0 AND epoch(event_time) BETWEEN 1772409600 AND 1772495999",
    "FROM access WHERE event_time - INTERVAL 1 DAY BETWEEN '2026-03-01' AND '2026-03-01 23:59:00'",
    "FROM access WHERE (dt = '2026-03-02' AND hour = 5) OR (event_time > '2026-03-02T22:00Z' AND dt < '2026-03-03')",
    "FROM access WHERE account_id = 'optional: it''s' AND dt = '2026-03-02' OR dt = '2026-03-02'",
    "FROM content WHERE dt = '2026-03-02'",
    "FROM content WHERE event_time::DATE = '2026-03-02' AND prompt LIKE 'p%'",
    "FROM events WHERE dt = '2026-03-02'",
    "FROM events WHERE event_time >= '2026-03-02' AND event_time < '2026-03-03' AND prompt IS NOT NULL",
    "FROM events WHERE date_trunc('day', event_time) = '2026-03-02' AND hour IN (5, 23, 7)",
    "FROM events WHERE event_time::DATE = '2026-03-02' ORDER BY event_time DESC LIMIT 3",
    "FROM rejects WHERE dt = '2026-03-02'",
    "FROM rejects WHERE kafka_time >= '2026-03-02' AND kafka_time < '2026-03-03'",
    "SELECT count(*) FROM access WHERE dt = '2026-03-02'",
    "SELECT hour, count(*) FROM events WHERE dt = '2026-03-02' GROUP BY ALL",
    "SELECT * FROM access AS a JOIN access AS b USING (account_id, dt) WHERE a.dt = '2026-03-02'",
    "SELECT * FROM access AS a JOIN access AS b ON a.hour = b.hour WHERE a.dt = '2026-03-02' AND b.event_time::DATE = a.dt AND b.dt = a.dt",
    "SELECT a.*, prompt FROM access AS a LEFT JOIN content AS c ON a.\"offset\" = c.\"offset\" AND c.dt = '2026-03-02' WHERE a.dt = '2026-03-02'",
    "SELECT * FROM events AS a JOIN events AS b ON a.account_id = b.account_id WHERE a.dt = '2026-03-02' AND b.dt = '2026-03-02'",
    "WITH day AS (SELECT * FROM access) SELECT count(*) FROM day WHERE dt = '2026-03-02'",
    "WITH day AS MATERIALIZED (SELECT * FROM access) SELECT count(*) FROM day AS a, day AS b WHERE a.dt = '2026-03-02' AND b.dt = '2026-03-02'",
    "SELECT * FROM (SELECT *, event_time::DATE AS day FROM access) WHERE day = '2026-03-02'",
    "SELECT * FROM (SELECT model AS dt, dt AS day FROM access) WHERE day = '2026-03-02' AND dt <> '2026-03-01'",
    "SELECT * FROM access WHERE dt = '2026-03-02' AND account_id IN (SELECT account_id FROM content WHERE dt = '2026-03-02')",
    "SELECT * FROM access AS a WHERE dt = '2026-03-02' AND NOT EXISTS (SELECT 1 FROM content AS c WHERE c.\"offset\" = a.\"offset\" AND c.dt = '2026-03-02')",
    "SELECT (SELECT max(event_time) FROM content WHERE dt = '2026-03-02'), * FROM access WHERE dt = '2026-03-02'",
    "SELECT * FROM (SELECT *, count(*) OVER (PARTITION BY dt) FROM access) WHERE dt = '2026-03-02'",
    "SELECT * FROM access WHERE dt = '2026-03-02' QUALIFY row_number() OVER (PARTITION BY account_id ORDER BY event_time) = 1",
    "SELECT model FROM access WHERE dt = '2026-03-02' UNION ALL SELECT prompt FROM content WHERE dt = '2026-03-02'",
    "SELECT dt, count(*) FROM access GROUP BY dt HAVING dt = '2026-03-02'",
    "PIVOT (FROM access WHERE dt = '2026-03-02') ON account_id USING count(*) GROUP BY hour",
    "SUMMARIZE SELECT event_time, model FROM access WHERE dt = '2026-03-02'",
    "EXPLAIN ANALYZE SELECT count(*) FROM events WHERE dt = '2026-03-02'",
    "/* Ångström; */ EXPLAIN (ANALYZE) SELECT count(*) FROM events WHERE dt = '2026-03-02'",
)  # fmt: skip


@pytest.mark.parametrize("damage", ["garbage", "deleted"])
@pytest.mark.parametrize("query", ONE_DAY)
def test_a_query_over_one_day_opens_no_other_days_file(session: Session, copied: Path, query: str, damage: str) -> None:
    others = [path for path in copied.rglob("*.parquet") if "dt=2026-03-02" not in str(path)]
    assert len(others) > 10
    for path in others:
        path.unlink()
        if damage == "garbage":
            path.write_bytes(b"PAR1 no longer")
    with session_on(copied) as damaged:
        rows = rows_of(damaged, query)
    if "EXPLAIN" not in query:
        assert sorted(map(repr, rows)) == sorted(map(repr, rows_of(session, query, prune=False)))
        assert rows


@pytest.mark.parametrize("damage", ["garbage", "deleted"])
def test_a_query_over_all_days_says_which_file_is_broken(copied: Path, damage: str) -> None:
    """So the tests above show something: what they damage is not readable."""
    path = min((copied / "access").rglob("*.parquet"))
    path.unlink()
    if damage == "garbage":
        path.write_bytes(b"PAR1 no longer")
    with session_on(copied) as session:
        with pytest.raises(SchemaError, match=r"(?s)dt=2026-03-01.*maintain verify"):
            rows_of(session, "SELECT min(model) FROM access")
        assert rows_of(session, "SELECT count(*) FROM access WHERE dt = '2026-03-03'") == [(12,)]


@pytest.mark.parametrize(
    "condition",
    [
        "event_time > now() - INTERVAL 3 HOUR",
        "event_time BETWEEN now() - INTERVAL '3 hours' AND now() + INTERVAL 1 HOUR",
        "event_time >= get_current_timestamp() - to_hours(3)",
        "event_time > now() - INTERVAL 3 HOUR AND event_time < now() AND dt >= current_date - 1",
    ],
)
def test_the_present_prunes(tmp_path: Path, condition: str) -> None:
    now = datetime.now(UTC)
    moments = [now - timedelta(days=3), now - timedelta(hours=7), now - timedelta(minutes=1)]
    payloads = [event(moment.isoformat(), number, prompt="x") for number, moment in enumerate(moments)]
    with make_lake(tmp_path / "lake", payloads, rows_per_commit=1) as maker, session_on(maker.root) as session:
        for path in rows_of(session, "SELECT path FROM lake_files WHERE time_max < now() - INTERVAL 6 HOUR"):
            (maker.root / path[0]).write_bytes(b"PAR1 no longer")
        assert rows_of(session, f"SELECT request_id FROM events WHERE {condition}") == [("r2",)]


@pytest.mark.parametrize(
    ("condition", "files"),
    [
        ("dt = '2026-03-01'", 3),
        ("dt = '2026-03-01' OR hour = 23", 5),
        ("dt = '2026-03-01' AND hour = 5", 1),
        ("NOT (dt = '2026-03-01' OR dt = '2026-03-02')", 3),
        ("dt = '2026-03-01' OR output_tokens > 3", 9),
        ("NOT (event_time > '2026-03-02')", 4),
        ("hour % 2 = 0", 3),
        ("hour IS NULL", 0),
        ("false", 9),
        ("dt IS NOT NULL", 9),
        ("event_time >= '2026-03-03T23:46:00Z'", 0),
        ("event_time > '2026-03-03T23:45:00Z'", 0),
        ("event_time >= '2026-03-03T23:45:00Z'", 1),
        ("event_time < '2026-03-01'", 0),
        ("event_time <= '2026-03-01'", 1),
        ("year(event_time) = 2026", 9),
        ("year(event_time) < 2026", 0),
        ("hour(event_time) = 5", 9),
        ("event_time AT TIME ZONE 'Europe/Berlin' < '2026-03-01 00:30:00'", 9),
        ("event_time IS NOT DISTINCT FROM '2026-03-01'::TIMESTAMPTZ", 9),
        ("dt > (random() * 0)::INTEGER + DATE '2026-03-01'", 9),
        ("event_time > (SELECT max(event_time) FROM content)", 9),
    ],
)
def test_files_picked(tmp_path_factory: pytest.TempPathFactory, condition: str, files: int) -> None:
    """How many of nine hours' files a condition leaves; what is not understood excludes nothing."""
    folder = tmp_path_factory.getbasetemp() / "hours"
    if not folder.exists():
        events = [payload for payload in three_days() if not isinstance(payload, bytes) and payload["output_tokens"] != -1]
        with make_lake(folder, events):
            pass
    with session_on(folder) as session:
        picked = [path for path in session.files(f"FROM access WHERE {condition}") if path.startswith("access/")]
    assert len(picked) == files


def test_tables_that_a_query_does_not_read_are_not_opened(copied: Path) -> None:
    for path in (copied / "content").rglob("*.parquet"):
        path.unlink()
    with session_on(copied) as session:
        assert rows_of(session, "SELECT count(*) FROM access") == [(36,)]
        assert session.files("SELECT 1") == []
        assert session.files("FROM lake_files") == []


def test_duckdb_knows_the_optimizers_that_move_filters() -> None:
    """One that is renamed in a later release would silently stop to run, and pruning with it."""
    with duckdb.connect() as plain:
        assert {name for (name,) in plain.execute("SELECT name FROM duckdb_optimizers()").fetchall()} >= OPTIMIZERS


MOMENTS = st.sampled_from(
    [f"{day} {hour}" for day in ("2026-02-28", *DAYS, "2026-03-04") for hour in ("00:00:00", "05:15:00", "05:20:00", "23:45:00")]
)  # fmt: skip
SIGNS = st.sampled_from(["=", "<", "<=", ">", ">=", "<>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])


@st.composite
def atoms(draw: st.DrawFn) -> str:
    sign, moment, other, number = draw(SIGNS), draw(MOMENTS), draw(MOMENTS), draw(st.integers(0, 24))
    day = moment[:10]
    forms = [
        f"@event_time {sign} '{moment}'",
        f"TIMESTAMPTZ '{moment}+00' {sign} @event_time",
        f"@event_time {sign} TIMESTAMP '{moment}' - INTERVAL {number} HOUR",
        f"@event_time - INTERVAL {number} HOUR {sign} '{moment}'",
        f"@event_time + INTERVAL 1 MONTH {sign} '{moment}'",
        f"@event_time BETWEEN '{moment}' AND '{other}'",
        f"@event_time NOT BETWEEN '{moment}' AND '{other}'",
        f"@event_time IN ('{moment}', '{other}', '2026-03-02 05:30:00')",
        f"@event_time NOT IN ('{moment}', '{other}')",
        f"@event_time::DATE {sign} '{day}'",
        f"@event_time::VARCHAR {sign} '{moment}'",
        f"date_trunc('day', @event_time) {sign} '{moment}'",
        f"date_trunc('hour', @event_time) {sign} '{moment}'",
        f"time_bucket(INTERVAL 7 HOUR, @event_time) {sign} '{moment}'",
        f"(@event_time AT TIME ZONE 'UTC') {sign} '{moment}'",
        f"(@event_time AT TIME ZONE 'America/New_York') {sign} '{moment}'",
        f"epoch_ms(@event_time) {sign} epoch_ms(TIMESTAMP '{moment}')",
        f"hour(@event_time) {sign} {number}",
        f"@dt {sign} '{day}'",
        f"@dt + {number} {sign} DATE '{day}'",
        f"@dt IN ('{day}', '2026-03-02')",
        f"@dt BETWEEN '{day}' AND '{other[:10]}'",
        f"@dt::VARCHAR LIKE '%{number:02}'",
        f"dayofweek(@dt) {sign} {number % 7}",
        f"@hour {sign} {number}",
        f"@hour IN (5, {number})",
        f"@hour % 5 = {number % 5}",
        f"(@dt, @hour) IN (('{day}', 5), ('2026-03-02', {number}))",
        f"CASE WHEN @hour = 5 THEN @dt = '{day}' ELSE @event_time < '{moment}' END",
        f"coalesce(@dt = '{day}', false)",
        f"@account_id = 'acct_{number % 4}'",
        f'@"offset" {sign} {number}',
        "@event_time IS NULL",
        "random() >= 0",
        f"@dt > DATE '{day}' + (random() * 0)::INTEGER",
    ]
    return draw(st.sampled_from(forms))


CONDITIONS = st.recursive(
    atoms(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda one: f"(NOT {one})"),
    ),
    max_leaves=4,
)

SHAPES = (
    "SELECT count(*), sum(output_tokens)::BIGINT, min(event_time)::VARCHAR FROM access a WHERE {a}",
    "SELECT count(*), min(prompt), max(dt) FROM content a WHERE {a}",
    "SELECT count(*), min(prompt), max(output_tokens), count(prompt) FROM events a WHERE {a}",
    "SELECT a.request_id, b.request_id FROM access a JOIN access b USING (account_id) WHERE {a} AND {b}",
    "SELECT a.request_id, b.prompt FROM access a LEFT JOIN content b ON a.\"offset\" = b.\"offset\" AND {b} WHERE {a}",
    "SELECT a.request_id, b.prompt FROM access a LEFT JOIN content b ON a.dt = b.dt AND a.\"offset\" = b.\"offset\" WHERE {a} AND {b}",
    "SELECT a.request_id, b.prompt FROM access a FULL JOIN content b ON a.\"offset\" = b.\"offset\" AND {b} WHERE {a}",
    "SELECT a.request_id, b.request_id FROM events a JOIN events b ON a.account_id = b.account_id AND a.event_time < b.event_time WHERE {a} AND {b}",
    "WITH x AS (SELECT * FROM access a WHERE {a}) SELECT count(*) FROM x a, x b WHERE a.account_id = b.account_id AND {b}",
    "WITH x AS MATERIALIZED (FROM events) SELECT (SELECT count(*) FROM x a WHERE {a}), (SELECT min(prompt) FROM x b WHERE {b})",
    "WITH x AS (FROM access) SELECT count(*), 1 FROM x a WHERE {a} UNION ALL SELECT count(*), 2 FROM x b WHERE {b}",
    "SELECT request_id FROM access a WHERE {a} AND account_id IN (SELECT account_id FROM content b WHERE {b})",
    "SELECT request_id FROM access a WHERE {a} AND \"offset\" NOT IN (SELECT \"offset\" FROM content b WHERE {b})",
    "SELECT request_id FROM access a WHERE {a} OR EXISTS (SELECT 1 FROM content b WHERE b.\"offset\" = a.\"offset\" AND {b})",
    "SELECT request_id, (SELECT count(*) FROM content b WHERE b.account_id = a.account_id AND {b}) FROM access a WHERE {a}",
    "SELECT request_id, n FROM access a, LATERAL (SELECT count(*) AS n FROM access b WHERE b.dt = a.dt AND {b}) WHERE {a}",
    "SELECT \"offset\" FROM access a WHERE {a} EXCEPT SELECT \"offset\" FROM content b WHERE {b}",
    "SELECT request_id FROM access a WHERE {a} INTERSECT SELECT request_id FROM events b WHERE {b}",
    "FROM (SELECT *, count(*) OVER (PARTITION BY dt) AS n FROM access) a SELECT request_id, n WHERE {a}",
    "FROM (SELECT *, count(*) OVER (PARTITION BY account_id) AS n FROM access b WHERE {b}) a SELECT request_id, n WHERE {a}",
    "FROM (SELECT event_time - INTERVAL 1 DAY AS event_time, dt - 1 AS dt, (hour + 1) % 24 AS hour, account_id, \"offset\" FROM events) a SELECT count(*) WHERE {a}",
    "FROM (SELECT kafka_time AS event_time, dt, hour, topic AS account_id, \"offset\" FROM rejects) a SELECT count(*) WHERE {a}",
    "SELECT dt, hour, count(*) AS n FROM access a WHERE {a} GROUP BY ALL HAVING count(*) > 1",
    "SELECT dt, count(*) FILTER (WHERE {a}) FROM access a GROUP BY dt",
    "SELECT request_id FROM events a WHERE {a} QUALIFY row_number() OVER (PARTITION BY a.account_id ORDER BY event_time) = 1",
    "SELECT request_id FROM access a WHERE {a} ORDER BY event_time DESC, request_id LIMIT 5",
    "SELECT DISTINCT ON (account_id) account_id, event_time::VARCHAR FROM access a WHERE {a} ORDER BY account_id, event_time",
    "SELECT a.request_id, b.prompt FROM access a ASOF JOIN content b ON a.account_id = b.account_id AND a.event_time >= b.event_time WHERE {a} AND {b}",
    "PIVOT (SELECT dt, account_id, hour FROM access a WHERE {a}) ON account_id USING count(*) GROUP BY dt",
    "SELECT a.n, b.n FROM (SELECT count(*) AS n FROM access a WHERE {a}) a, (SELECT count(*) AS n FROM rejects b WHERE b.dt = '2026-03-02') b",
    "WITH RECURSIVE r AS (SELECT account_id, 0 AS n FROM access a WHERE {a} UNION SELECT b.account_id, n + 1 FROM r JOIN access b USING (account_id) WHERE n < 2 AND {b}) SELECT * FROM r",
)  # fmt: skip


@given(shape=st.sampled_from(SHAPES), a=CONDITIONS, b=CONDITIONS)
@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_pruning_never_changes_an_answer(session: Session, shape: str, a: str, b: str) -> None:
    query = shape.format(a=a.replace("@", "a."), b=b.replace("@", "b."))
    assert sorted(map(repr, rows_of(session, query))) == sorted(map(repr, rows_of(session, query, prune=False)))


# ---- read-only

REFUSED = (
    "COPY access TO 'stolen.csv'",
    "COPY (SELECT 1) TO 'stolen.parquet'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'stolen.csv'",
    "WITH x AS (COPY (SELECT 1) TO 'stolen.csv') FROM x",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO 'stolen.csv') FROM x",
    "WITH x AS (COPY (SELECT 1) TO 'stolen.csv') PIVOT x ON Count",
    "EXPLAIN WITH x AS (COPY (SELECT 1) TO 'stolen.csv') PIVOT x ON Count",
    "WITH x AS MATERIALIZED (cOpY (SELECT 1) TO 'stolen.csv') FROM (PIVOT x ON Count)",
    "FROM query('WITH x AS (COPY (SELECT 1) TO ''stolen.csv'') FROM x')",
    "FROM query('COPY (SELECT 1) TO ''stolen.csv''')",
    "WITH x AS (INSERT INTO access BY NAME SELECT 'a' AS account_id RETURNING *) FROM x",
    "WITH x AS (DELETE FROM lake_files RETURNING *) FROM x",
    "FROM enable_logging(storage = 'file', storage_config = {'path': 'stolen'})",
    "CALL enable_logging('QueryLog', storage = 'file', storage_config = {'path': 'stolen'})",
    "ATTACH 'stolen.db'",
    "CREATE TABLE stolen AS SELECT 1",
    "CREATE TEMP TABLE stolen AS SELECT 1",
    "CREATE MACRO stolen() AS 1",
    "EXPORT DATABASE 'stolen'",
    "INSERT INTO access BY NAME SELECT 'a' AS account_id",
    "DELETE FROM access",
    "UPDATE access SET model = ''",
    "DROP VIEW events",
    "INSTALL httpfs",
    "LOAD httpfs",
    "UPDATE EXTENSIONS",
    "FROM 'https://127.0.0.1:1/x.parquet'",
    "SET threads = 1",
    "SET lock_configuration = false",
    "SET disabled_optimizers = ''",
    "RESET temp_directory",
    "PRAGMA enable_profiling",
    "USE memory",
    "BEGIN",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "VACUUM",
    "CHECKPOINT",
)


@pytest.mark.parametrize("query", REFUSED)
def test_nothing_is_written(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if "catalog.db" not in path.name)
    with session_on(copied) as session:
        with pytest.raises(ConfigError):
            rows_of(session, query)
        assert sorted(path for path in tmp_path.rglob("*") if "catalog.db" not in path.name) == before
        assert rows_of(session, "SELECT count(*) FROM events WHERE dt = '2026-03-01'") == [(12,)]


def test_a_refusal_says_what_and_why(session: Session) -> None:
    with pytest.raises(ConfigError, match=r"^COPY is refused: stillwatch sql only reads: SELECT, .*--out FILE"):
        rows_of(session, "-- a remark\nCOPY access TO 'x'")
    with pytest.raises(ConfigError, match=r"it would write \(COPY_TO_FILE\): stillwatch sql only reads"):
        rows_of(session, "WITH x AS (COPY (SELECT 1) TO 'stolen.csv') FROM x")


def test_an_error_shows_the_line_that_the_user_wrote(session: Session) -> None:
    with pytest.raises(ConfigError, match=r"(?s)\"nope\" not found.*LINE 2: SELECT nope$"):
        with contextlib.suppress(StopIteration):
            try:
                rows_of(session, "-- first\nSELECT nope\nFROM access")
            except ConfigError as error:
                raise ConfigError(str(error).rpartition("\n")[0]) from None


def test_an_error_while_rows_are_read_is_the_users(session: Session) -> None:
    with pytest.raises(ConfigError, match="Could not convert string 'small'"):
        rows_of(session, "SELECT model::INTEGER FROM access")
    assert rows_of(session, "SELECT 1") == [(1,)]


def test_a_list_of_the_users_own_can_be_joined(session: Session, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("account,why\nacct_1,asked\n")
    query = f"SELECT count(*) FROM access JOIN read_csv('{tmp_path}/mine.csv') ON account_id = account WHERE dt = '2026-03-01'"
    assert rows_of(session, query) == [(4,)]


def test_variables_of_this_program_are_no_tables(session: Session) -> None:
    settings_table = pa.table({"secret": [1]})
    assert len(settings_table) == 1
    with pytest.raises(ConfigError, match="settings_table"):
        rows_of(session, "FROM settings_table")


def test_the_time_zone_is_utc(session: Session) -> None:
    assert rows_of(session, "SELECT current_setting('TimeZone'), TIMESTAMPTZ '2026-03-01'::VARCHAR") == [
        ("UTC", "2026-03-01 00:00:00+00")
    ]  # fmt: skip


def test_now_is_one_moment_from_plan_to_end(session: Session) -> None:
    assert rows_of(session, "SELECT now() = now() AND count(*) = 0 FROM access WHERE event_time = now()") == [(True,)]


def test_a_result_that_is_left_half_read_does_no_harm(session: Session) -> None:
    with session.run("SELECT a.request_id FROM access a, access b, access c, access d") as result:
        assert next(result.batches).num_rows
    assert rows_of(session, "SELECT 1") == [(1,)]


def test_a_query_can_be_interrupted(session: Session) -> None:
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        rows_of(session, "SELECT count(*), sum(hash(a.range * b.range)) FROM range(1000000000) a, range(1000000) b")
    timer.join()
    assert rows_of(session, "SELECT count(*) FROM access") == [(36,)]


def test_no_catalog_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"), session_on(tmp_path / "lake"):
        pass
    (tmp_path / "lake").mkdir()
    with pytest.raises(ConfigError, match="there is no catalog"), session_on(tmp_path / "lake"):
        pass
    assert list((tmp_path / "lake").iterdir()) == []


def test_readers_never_see_part_of_a_commit(tmp_path: Path) -> None:
    """While a writer commits: each commit has an event in each of three hours and its text."""
    moments = [f"2026-03-01T{hour:02}:00:00Z" for hour in (1, 2, 3)]
    done = threading.Event()

    def write(maker: LakeMaker) -> None:
        for _ in range(40):
            maker.append([event(moment, prompt="x") for moment in moments])
        done.set()

    with make_lake(tmp_path / "lake") as maker, session_on(maker.root) as session:
        writer = threading.Thread(target=write, args=(maker,))
        writer.start()
        seen, last = [0], False
        while not last:
            last = done.is_set()
            query = "SELECT (SELECT count(*) FROM access), (SELECT count(*) FROM content), count(prompt), max(next_offset) FROM events, lake_offsets"
            [(access, content, texts, offset)] = rows_of(session, query)
            assert access == content == texts
            assert access % 3 == 0
            assert access <= (offset or 0)
            assert access >= seen[-1]
            seen.append(access)
        writer.join()
    assert seen[-1] == 120
    assert len(set(seen)) > 3


# ---- export


@pytest.fixture
def exported(copied: Path, tmp_path: Path) -> tuple[LakeMaker, Path]:
    maker = LakeMaker(copied)
    target = tmp_path / "views.duckdb"
    assert export(maker.lake, maker.catalog, target) == len(maker.catalog.live_files())
    return maker, target


def ask(target: Path, query: str) -> Rows:
    with duckdb.connect(str(target), read_only=True) as client:
        return client.execute(query).fetchall()


@pytest.mark.parametrize("name", VIEWS)
def test_an_export_has_the_same_views(exported: tuple[LakeMaker, Path], session: Session, name: str) -> None:
    columns = [f'"{column}"::VARCHAR' for column, kind, _ in VIEWS[name].described() if "TIME ZONE" not in kind]
    query = f"SELECT {', '.join(columns)} FROM {name}"
    assert sorted(map(repr, ask(exported[1], query))) == sorted(map(repr, rows_of(session, query)))
    assert [row[:2] for row in ask(exported[1], f"DESCRIBE {name}")] == [(c, kind) for c, kind, _ in VIEWS[name].described()]


@pytest.mark.parametrize("name", ["access", "content", "events", "rejects"])
def test_another_client_opens_one_days_files_for_one_day(exported: tuple[LakeMaker, Path], session: Session, name: str) -> None:
    maker, target = exported
    # DuckDB reads the first file of each view to learn its columns; any other stays closed.
    keep = {min((maker.root / table).rglob("*.parquet")) for table in FILE_VIEWS}
    for path in maker.root.rglob("*.parquet"):
        if path not in keep and "dt=2026-03-02" not in str(path):
            path.write_bytes(b"PAR1 no longer")
    query = f"SELECT count(*), min(hour), max(hour) FROM {name} WHERE dt = '2026-03-02'"
    assert ask(target, query) == rows_of(session, query)
    with pytest.raises(duckdb.Error):
        ask(target, f'SELECT max("offset"), min(topic) FROM {name}')


def test_an_export_is_of_its_moment_and_a_new_one_replaces_it(exported: tuple[LakeMaker, Path]) -> None:
    maker, target = exported
    maker.append([event("2026-03-09T00:00:00Z")])
    assert ask(target, "SELECT count(*) FROM access") == [(36,)]
    export(maker.lake, maker.catalog, target)
    assert ask(target, "SELECT count(*) FROM access") == [(37,)]
    assert [path.name for path in target.parent.iterdir() if path.is_file()] == ["views.duckdb"]


def test_an_export_reads_files_of_all_ages(copied: Path, tmp_path: Path) -> None:
    old = min((copied / "access").rglob("*.parquet"))
    rows = pq.read_table(old)
    pq.write_table(rows.drop_columns(["country", "output_tokens"]).append_column("output_tokens", rows["output_tokens"].cast(pa.int32())), old)
    with contextlib.closing(LakeMaker(copied)) as maker:
        export(maker.lake, maker.catalog, tmp_path / "views.duckdb")
    query = "SELECT count(*), count(country), sum(output_tokens)::BIGINT FROM events"
    assert ask(tmp_path / "views.duckdb", query) == [(36, 0, 666)]


def test_an_export_replaces_nothing_else(exported: tuple[LakeMaker, Path], tmp_path: Path) -> None:
    maker, _ = exported
    other, text = tmp_path / "other.duckdb", tmp_path / "notes.txt"
    with duckdb.connect(str(other)) as client:
        client.execute("CREATE TABLE mine AS SELECT 1 AS x")
    text.write_text("mine")
    for target in (other, text, tmp_path, tmp_path / "nowhere" / "x.duckdb"):
        with pytest.raises(ConfigError, match=r"^--export "):
            export(maker.lake, maker.catalog, target)
    assert ask(other, "FROM mine") == [(1,)]
    assert text.read_text() == "mine"


def test_a_lake_below_a_folder_that_reads_like_a_column_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "model=x").mkdir()
    with make_lake(tmp_path / "model=x" / "lake", three_days()) as maker:
        with pytest.raises(ConfigError, match="below model=x"):
            export(maker.lake, maker.catalog, tmp_path / "views.duckdb")

