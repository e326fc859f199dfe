"""Which files a query over the views opens; that leaving out others never changes an answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SchemaError
from pipeline.io.views.pruning import OPTIMIZERS
from pipeline.io.views.session import Session
from tests.lake_maker import make_lake
from tests.unit.io.views_lake import DAYS, event, rows_of, session_on, three_days


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


@pytest.fixture(scope="module")
def second_day(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The same lake, the files of all days but one deleted: to name one to DuckDB is an error, opened or not."""
    folder = shutil.copytree(root, tmp_path_factory.mktemp("second_day") / "lake")
    others = [path for path in folder.rglob("*.parquet") if "dt=2026-03-02" not in str(path)]
    assert len(others) > 10
    for path in others:
        path.unlink()
    with session_on(folder) as opened:
        yield opened


@pytest.mark.parametrize("query", ONE_DAY)
def test_a_query_over_one_day_opens_no_other_days_file(session: Session, second_day: Session, query: str) -> None:
    rows = rows_of(second_day, query)
    if "EXPLAIN" not in query:
        assert sorted(map(repr, rows)) == sorted(map(repr, rows_of(session, query, prune=False)))
        assert rows


@pytest.mark.parametrize("damage", ("garbage", "deleted"))
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
    (
        "event_time > now() - INTERVAL 3 HOUR",
        "event_time BETWEEN now() - INTERVAL '3 hours' AND now() + INTERVAL 1 HOUR",
        "event_time >= get_current_timestamp() - to_hours(3)",
        "event_time > now() - INTERVAL 3 HOUR AND event_time < now() AND dt >= current_date - 1",
    ),
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
    (
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
    ),
)
def test_files_picked(tmp_path_factory: pytest.TempPathFactory, condition: str, files: int) -> None:
    """How many of nine hours' files a condition leaves; what is not understood excludes nothing."""
    folder = tmp_path_factory.getbasetemp() / "hours"
    if not folder.exists():
        events = [
            payload for payload in three_days() if not isinstance(payload, bytes) and payload["output_tokens"] != -1
        ]
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
    'SELECT a.request_id, b.prompt FROM access a LEFT JOIN content b ON a."offset" = b."offset" AND {b} WHERE {a}',
    'SELECT a.request_id, b.prompt FROM access a LEFT JOIN content b ON a.dt = b.dt AND a."offset" = b."offset" WHERE {a} AND {b}',
    'SELECT a.request_id, b.prompt FROM access a FULL JOIN content b ON a."offset" = b."offset" AND {b} WHERE {a}',
    "SELECT a.request_id, b.request_id FROM events a JOIN events b ON a.account_id = b.account_id AND a.event_time < b.event_time WHERE {a} AND {b}",
    "WITH x AS (SELECT * FROM access a WHERE {a}) SELECT count(*) FROM x a, x b WHERE a.account_id = b.account_id AND {b}",
    "WITH x AS MATERIALIZED (FROM events) SELECT (SELECT count(*) FROM x a WHERE {a}), (SELECT min(prompt) FROM x b WHERE {b})",
    "WITH x AS (FROM access) SELECT count(*), 1 FROM x a WHERE {a} UNION ALL SELECT count(*), 2 FROM x b WHERE {b}",
    "SELECT request_id FROM access a WHERE {a} AND account_id IN (SELECT account_id FROM content b WHERE {b})",
    'SELECT request_id FROM access a WHERE {a} AND "offset" NOT IN (SELECT "offset" FROM content b WHERE {b})',
    'SELECT request_id FROM access a WHERE {a} OR EXISTS (SELECT 1 FROM content b WHERE b."offset" = a."offset" AND {b})',
    "SELECT request_id, (SELECT count(*) FROM content b WHERE b.account_id = a.account_id AND {b}) FROM access a WHERE {a}",
    "SELECT request_id, many FROM access a, LATERAL (SELECT count(*) AS many FROM access b WHERE b.dt = a.dt AND {b}) WHERE {a}",
    'SELECT "offset" FROM access a WHERE {a} EXCEPT SELECT "offset" FROM content b WHERE {b}',
    "SELECT request_id FROM access a WHERE {a} INTERSECT SELECT request_id FROM events b WHERE {b}",
    "FROM (SELECT *, count(*) OVER (PARTITION BY dt) AS many FROM access) a SELECT request_id, many WHERE {a}",
    "FROM (SELECT *, count(*) OVER (PARTITION BY account_id) AS many FROM access b WHERE {b}) a SELECT request_id, many WHERE {a}",
    'FROM (SELECT event_time - INTERVAL 1 DAY AS event_time, dt - 1 AS dt, (hour + 1) % 24 AS hour, account_id, "offset" FROM events) a SELECT count(*) WHERE {a}',
    'FROM (SELECT kafka_time AS event_time, dt, hour, topic AS account_id, "offset" FROM rejects) a SELECT count(*) WHERE {a}',
    "SELECT dt, hour, count(*) AS many FROM access a WHERE {a} GROUP BY ALL HAVING count(*) > 1",
    "SELECT dt, count(*) FILTER (WHERE {a}) FROM access a GROUP BY dt",
    "SELECT request_id FROM events a WHERE {a} QUALIFY row_number() OVER (PARTITION BY a.account_id ORDER BY event_time) = 1",
    "SELECT request_id FROM access a WHERE {a} ORDER BY event_time DESC, request_id LIMIT 5",
    "SELECT DISTINCT ON (account_id) account_id, event_time::VARCHAR FROM access a WHERE {a} ORDER BY account_id, event_time",
    "SELECT a.request_id, b.prompt FROM access a ASOF JOIN content b ON a.account_id = b.account_id AND a.event_time >= b.event_time WHERE {a} AND {b}",
    "PIVOT (SELECT dt, account_id, hour FROM access a WHERE {a}) ON account_id USING count(*) GROUP BY dt",
    "SELECT a.many, b.many FROM (SELECT count(*) AS many FROM access a WHERE {a}) a, (SELECT count(*) AS many FROM rejects b WHERE b.dt = '2026-03-02') b",
    "WITH RECURSIVE r AS (SELECT account_id, 0 AS many FROM access a WHERE {a} UNION SELECT b.account_id, many + 1 FROM r JOIN access b USING (account_id) WHERE many < 2 AND {b}) SELECT * FROM r",
)  # fmt: skip


@given(shape=st.sampled_from(SHAPES), a=CONDITIONS, b=CONDITIONS)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_pruning_never_changes_an_answer(session: Session, shape: str, a: str, b: str) -> None:
    query = shape.format(a=a.replace("@", "a."), b=b.replace("@", "b."))
    assert sorted(map(repr, rows_of(session, query))) == sorted(map(repr, rows_of(session, query, prune=False)))
