"""The views of a lake: what they hold, that nothing can be written, and their export."""

from __future__ import annotations

import _thread
import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.batch import Partition
from pipeline.errors import ConfigError
from pipeline.io.views.export import export
from pipeline.io.views.session import Session
from pipeline.io.views.tables import VIEWS, sql_type
from pipeline.lake_tables import TABLE_SCHEMAS
from tests.lake_maker import LakeMaker, make_lake
from tests.unit.io.views_lake import Rows, event, rows_of, session_on, three_days

LANDED = ("access", "content", "rejects")
"""Tables that have files where nothing is scored."""


def bare(kind: str) -> str:
    """A type without the quotes that DuckDB writes around fields that are words of SQL."""
    return kind.replace('"', "")


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
    rows = rows_of(
        session, "SELECT output_tokens, prompt, hour FROM events WHERE dt = '2026-03-02' ORDER BY event_time"
    )
    assert rows[:4] == [(13, None, 0), (14, "p14", 0), (15, "p15", 0), (16, "p16", 0)]


def test_dt_and_hour_are_those_of_the_path(session: Session, root: Path) -> None:
    with duckdb.connect() as plain:
        for table in LANDED:
            by_path = f"SELECT \"offset\", dt, hour::INTEGER AS hour FROM read_parquet('{root}/{table}/**/*.parquet', hive_partitioning = true)"
            assert sorted(rows_of(session, f'SELECT "offset", dt, hour FROM {table}')) == sorted(
                plain.execute(by_path).fetchall()
            )


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
        described = [(column, bare(kind)) for column, kind, *_ in rows_of(session, f"DESCRIBE {name}")]
        assert described == [(column, kind) for column, kind, _ in VIEWS[name].described()]


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_with_files_has_its_columns(session: Session, name: str) -> None:
    with session.run(f"SELECT * FROM {name}") as result:
        assert list(zip(result.names, map(bare, result.types), strict=True)) == [
            (c, kind) for c, kind, _ in VIEWS[name].described()
        ]


def test_every_arrow_type_of_the_schemas_has_an_sql_type() -> None:
    assert all(sql_type(field.type) for schema in TABLE_SCHEMAS.values() for field in schema)


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
        assert rows_of(session, "FROM lake_holes") == [("llm-access", 0, 1, 5, "lost", False)]
        maker.catalog.accept_hole(hole, now_us=0)
        assert rows_of(session, "FROM lake_holes") == [("llm-access", 0, 1, 5, "lost", True)]


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
    pq.write_table(
        new.append_column("invented", pa.array(["x"] * len(new))).select(["invented", *new.column_names]), second
    )
    with session_on(copied) as session:
        assert rows_of(session, "SELECT count(*), count(country), sum(output_tokens)::BIGINT FROM access") == [
            (36, 0, 666)
        ]
        with session.run("FROM events") as result:
            assert list(result.names) == VIEWS["events"].columns.names


def test_a_lake_may_stand_below_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "dt=1999-01-01" / "it's [a-b] *" / "model=x"
    root.mkdir(parents=True)
    with make_lake(root / "lake", three_days()), session_on(root / "lake") as session:
        query = "SELECT count(*), min(model), min(dt)::VARCHAR FROM events"
        assert rows_of(session, query) == [(36, "small", "2026-03-01")]


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
    with pytest.raises(ConfigError, match=r'(?s)"nope" not found.*\nLINE 2: SELECT nope\n {15}\^{4}$'):
        rows_of(session, "-- first\nSELECT nope\nFROM access")


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
    assert signal.set_wakeup_fd(-1) == -1  # nobody listens any more


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
    assert [(column, bare(kind)) for column, kind, *_ in ask(exported[1], f"DESCRIBE {name}")] == [
        (c, kind) for c, kind, _ in VIEWS[name].described()
    ]


@pytest.mark.parametrize("name", ("access", "content", "events", "rejects"))
def test_another_client_opens_one_days_files_for_one_day(
    exported: tuple[LakeMaker, Path], session: Session, name: str
) -> None:
    maker, target = exported
    # DuckDB reads the first file of each view to learn its columns; any other stays closed.
    keep = {min((maker.root / table).rglob("*.parquet")) for table in LANDED}
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
    pq.write_table(
        rows.drop_columns(["country", "output_tokens"]).append_column(
            "output_tokens", rows["output_tokens"].cast(pa.int32())
        ),
        old,
    )
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
    with (
        make_lake(tmp_path / "model=x" / "lake", three_days()) as maker,
        pytest.raises(ConfigError, match="below model=x"),
    ):
        export(maker.lake, maker.catalog, tmp_path / "views.duckdb")
