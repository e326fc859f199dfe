"""`stillwatch sql`: what it prints in every form, what it refuses, its prompt, and the page that describes it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from jobs.sql import sql
from jobs.sql_output import CELL_CHARS_MAX, distinct
from pipeline.config import CATALOG_FILE
from pipeline.decisions import AllowEntry
from pipeline.errors import ConfigError, RetryableError
from pipeline.harmless import harmless
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.judging import judge
from pipeline.io.views.tables import VIEWS, brief
from pipeline.judging import Judgement
from tests.lake_maker import make_lake
from tests.stages import stand_ins
from tests.unit.jobs.terminal import PROGRAM, ROOT, TIMEOUT_S, at_terminal

PAGE = ROOT / "docs" / "sql.md"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egnp.exe\u2066"

Run = Callable[..., Result]


def events() -> list[dict[str, object] | bytes]:
    """Three days of three accounts, with all that the queries of the page look at; a prompt that attacks the terminal."""
    found: list[dict[str, object] | bytes] = []
    for day in (1, 2, 3):
        for number in range(12):
            account = number % 4 if day == 3 else number % 3
            found.append(
                {
                    "event_time": f"2026-03-{day:02}T{number * 2:02}:00:{number % 2:02}Z",
                    "request_id": f"r{day}-{number}",
                    "account_id": f"acct_{account}",
                    "org_id": f"org_{account}",
                    "model": "small",
                    "tls_ja4": "t13d1516h2",
                    "user_agent": "python",
                    "message_count": 1,
                    "temperature": 0.5,
                    "max_tokens": 256,
                    "output_tokens": 100 * number,
                    "prompt_prefix_hash": "5f1e",
                    "prompt": f"Solve the following problem step by step, please: {number}",
                    "response": HOSTILE if number == 1 else f'Größe, 名前 "{number}"\nnext',
                    "vendor_field": {"a": number},
                }
            )
        found.append(b'{"event_time": "yesterday\xff\x1b[0m"}')
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql") / "lake"
    with make_lake(folder, events(), rows_per_commit=20, watch=stand_ins()) as maker:
        now_us = SystemClock().now_us()
        alerted = maker.catalog.alerts()[0].entity_id
        judge(maker.lake, maker.catalog, Judgement(alerted, "harvesting", "one frame", "ana"), now_us)
        entry = AllowEntry("e" * 32, "rule", "risk_high", "", "sales", "pilot", now_us, "ana", now_us + 10**12)
        maker.catalog.desk.exceptions.add(entry)
        return folder


@pytest.fixture
def run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command on the lake, in an empty folder; an error other than an exit is raised."""
    app = typer.Typer()
    app.command()(sql)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--lake", str(root), *arguments], input=text, catch_exceptions=False)

    return invoke


# ---- forms


def test_a_table_has_names_rows_and_their_count(run: Run) -> None:
    result = run("SELECT account_id, count(*) AS n, NULL AS x FROM access GROUP BY ALL ORDER BY ALL")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "account_id |  n | x",
        "-----------+----+-----",
        "acct_0     | 11 | NULL",
        "acct_1     | 11 | NULL",
        "acct_2     | 11 | NULL",
        "acct_3     |  3 | NULL",
        "(4 rows)",
    ]


def test_a_table_shows_some_rows_and_counts_all(run: Run) -> None:
    assert run("FROM range(1000000)").stdout.splitlines()[-1] == "(40 of 1,000,000 rows; --max-rows 0 shows all)"
    assert len(run("FROM range(1000)", "--max-rows", "3").stdout.splitlines()) == 2 + 3 + 1
    assert run("FROM range(1000)", "--max-rows", "0").stdout.splitlines()[-2:] == ["  999", "(1,000 rows)"]
    assert run("FROM range(0)").stdout.splitlines() == ["range", "-----", "(0 rows)"]
    assert run("FROM range(1)").stdout.splitlines()[-1] == "(1 row)"


def test_a_table_writes_out_what_a_terminal_would_obey(run: Run) -> None:
    result = run(
        "SELECT response, chr(27) || '[31m' AS \"a\x1b[2Jb\" FROM content WHERE dt = '2026-03-02' AND hour = 2"
    )
    assert result.stdout.splitlines()[2].split(" | ") == [
        r"\u001b]0;owned\u0007\u001b[2J\u009b31m\r\u202egnp.exe\u2066",
        r"\u001b[31m",
    ]
    assert re.search("[^\n -~]", result.stdout) is None


def test_a_table_counts_the_cells_of_wide_letters(run: Run) -> None:
    lines = run("SELECT '名前' AS a, 1 AS b UNION ALL SELECT 'abcde', 2 ORDER BY b").stdout.splitlines()
    assert lines[:4] == ["a     | b", "------+--", "名前  | 1", "abcde | 2"]


def test_a_long_value_is_cut_in_a_table_and_nowhere_else(run: Run) -> None:
    query = "SELECT repeat('x', 5000) AS a"
    assert run(query).stdout.splitlines()[2] == "x" * (CELL_CHARS_MAX - 1) + "…"
    assert run(query, "--format", "csv").stdout.splitlines() == ["a", "x" * 5000]


def test_csv_is_complete_and_reads_back(run: Run) -> None:
    query = "SELECT event_time, response, NULL AS nothing, '' AS empty, 'a,\"b\"' AS q, [1, 2] AS l, 0.1::DECIMAL(4, 2) AS d FROM events ORDER BY 1"
    result = run(query, "--format", "csv")
    rows = list(csv.reader(io.StringIO(result.stdout, newline="")))
    assert rows[0] == ["event_time", "response", "nothing", "empty", "q", "l", "d"]
    assert len(rows) == 37
    assert rows[1] == ["2026-03-01 00:00:00+00", 'Größe, 名前 "0"\nnext', "", "", 'a,"b"', "[1, 2]", "0.10"]
    assert rows[2][1] == HOSTILE
    assert ',,"","a,""b"""' in result.stdout


@pytest.mark.parametrize("form", ("json", "ndjson"))
def test_json_is_complete_and_reads_back(run: Run, form: str) -> None:
    query = """
        SELECT event_time, dt, response, extra::JSON AS extra, count(*) OVER () AS n, 'nan'::DOUBLE AS nan, ['inf'::DOUBLE] AS inf,
               NULL AS nothing, {'a': [1, NULL]} AS nested, 170141183460469231731687303715884105727 AS huge, 1.50 AS d,
               '\\x00a'::BLOB AS bytes, INTERVAL 1 DAY AS i, 1 AS x, 2 AS x, 3 AS x_1, true AS yes
        FROM events ORDER BY event_time"""
    text = run(query, "--format", form).stdout
    rows = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 36
    assert rows[1] == {
        "event_time": "2026-03-01T02:00:01.000000Z",
        "dt": "2026-03-01",
        "response": HOSTILE,
        "extra": {"vendor_field": {"a": 1}},
        "n": 36,
        "nan": None,
        "inf": [None],
        "nothing": None,
        "nested": {"a": [1, None]},
        "huge": 170141183460469231731687303715884105727,
        "d": 1.5,
        "bytes": "\\x00a",
        "i": "1 day",
        "x": 1,
        "x_2": 2,
        "x_1": 3,
        "yes": True,
    }


def test_json_of_no_rows(run: Run) -> None:
    assert run("FROM access WHERE false", "--format", "json").stdout == "[]\n"
    assert run("FROM access WHERE false", "--format", "ndjson").stdout == ""
    assert run("FROM access WHERE false", "--format", "csv").stdout.count("\n") == 1


def test_parquet_is_complete_and_reads_back(run: Run, tmp_path: Path) -> None:
    query = (
        "SELECT event_time, dt, prompt, sum(output_tokens) OVER () AS s, 1 AS x, 2 AS x FROM events ORDER BY event_time"
    )
    assert run(query, "--out", "rows.parquet").exit_code == 0
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert len(rows) == 36
    assert rows[0]["event_time"] == datetime(2026, 3, 1, tzinfo=UTC)
    assert rows[0]["dt"] == date(2026, 3, 1)
    assert (int(rows[0]["s"]), rows[0]["x"], rows[0]["x_1"]) == (19800, 1, 2)


def test_many_rows_come_in_row_groups(run: Run, tmp_path: Path) -> None:
    assert run("FROM range(300000)", "--out", "rows.parquet").exit_code == 0
    assert pq.read_metadata(tmp_path / "rows.parquet").num_row_groups == 3
    assert duckdb.sql(f"SELECT count(*), max(range) FROM '{tmp_path}/rows.parquet'").fetchall() == [(300000, 299999)]


def test_parquet_says_which_type_it_does_not_know(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Parquet has no such type .*CAST the column to VARCHAR"):
        run("SELECT INTERVAL 1 DAY", "--out", "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_shown_as_it_is(run: Run) -> None:
    text = run("EXPLAIN SELECT count(*) FROM access WHERE dt = '2026-03-02'").stdout
    assert "Read Parquet" in text
    assert "\\n" not in text
    assert "row)" not in text


@pytest.mark.parametrize(
    ("name", "form"), (("x.csv", "csv"), ("x.JSON", "json"), ("x.ndjson", "ndjson"), ("x.txt", "table"))
)
def test_out_takes_its_form_from_the_suffix_and_replaces(run: Run, tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / name).write_text("former")
    result = run("SELECT 1 AS a", "--out", name)
    assert result.stdout == ""
    assert (tmp_path / name).read_text() == run("SELECT 1 AS a", "--format", form).stdout
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ("x.cvs", "x"))
def test_a_file_whose_form_nobody_said_is_not_written(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"use one of the suffixes|Use one of the suffixes"):
        run("SELECT 1 AS a", "--out", name)
    assert list(tmp_path.iterdir()) == []


def test_a_table_in_a_file_is_complete(run: Run, tmp_path: Path) -> None:
    run("SELECT range AS n FROM range(100)", "--out", "x.txt")
    assert "99" in (tmp_path / "x.txt").read_text().split()
    run("SELECT range AS n FROM range(100)", "--out", "x.txt", "--max-rows", "5")
    assert "99" not in (tmp_path / "x.txt").read_text().split()


def test_out_stays_as_it_was_when_the_query_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("former")
    with pytest.raises(ConfigError, match="Could not convert"):
        run("SELECT (CASE range WHEN 50000 THEN 'x' ELSE '1' END)::INT FROM range(60000)", "--out", "x.csv")
    with pytest.raises(ConfigError, match=r"--out nowhere/x\.csv: No such file"):
        run("SELECT 1", "--out", "nowhere/x.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.csv", "former")]


# ---- queries, and what is refused


def test_a_query_comes_from_standard_input(run: Run) -> None:
    assert run("--format", "csv", text="SELECT 'from stdin' AS a;\n").stdout == "a\nfrom stdin\n"
    assert run("-", "--format", "csv", text="SELECT 2 AS a").stdout == "a\n2\n"


def test_a_script_gives_a_table_for_each_query(run: Run) -> None:
    assert run(text="SELECT 1 AS a; -- and\nSELECT 2 AS b;").stdout == "a\n-\n1\n(1 row)\n\nb\n-\n2\n(1 row)\n"


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    (
        (("SELECT 1; SELECT 2", "--format", "csv"), None, "--format csv takes one query, not 2"),
        ((), "  ", "there is no query"),
        (("/* nothing */",), None, "there is no query"),
        (("SELEC 1",), None, "(?s)Parser Error: .*SELEC 1\n"),
        (("SELECT nope FROM access",), None, '(?s)Referenced column "nope" not found.*LINE 1: SELECT nope'),
        (("COPY access TO 'x.csv'",), None, "^COPY is refused: stillwatch sql only reads"),
        (("SELECT 1", "--export", "x.duckdb"), None, "--export takes neither"),
        (("--export", "x.duckdb", "--out", "x.csv"), None, "--export takes neither"),
        (("SELECT 1", "--catalog", "sqlite:////nowhere/catalog.db"), None, "there is no catalog"),
        (("SELECT 1", "--lake", "nowhere"), None, "there is no such folder; `stillwatch run` or `backfill` makes it"),
    ),
)
def test_what_is_wrong_is_said_in_words(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], text: str | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        run(*arguments, text=text)
    assert raised.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_quotes_a_value_is_harmless(run: Run) -> None:
    with pytest.raises(ConfigError) as raised:
        run("SELECT response::INTEGER FROM content WHERE dt = '2026-03-02' AND hour = 2")
    assert "owned" in str(raised.value)
    assert re.search("[^\n -~]", str(raised.value)) is None


def test_a_query_with_a_postgres_catalog(tmp_path: Path, postgres_url: str, run: Run) -> None:
    with make_lake(tmp_path / "other", events()[:5], catalog_url=postgres_url):
        query = "SELECT count(*) AS a FROM events, lake_offsets"
        assert run(query, "--lake", "other", "--catalog", postgres_url, "--format", "csv").stdout == "a\n5\n"


def test_a_catalog_that_does_not_answer_is_no_fault_of_the_query(run: Run) -> None:
    with pytest.raises(RetryableError):
        run("SELECT 1", "--catalog", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")


def test_the_views_are_exported(run: Run, tmp_path: Path) -> None:
    result = run("--export", "views.duckdb")
    assert re.fullmatch(r"views\.duckdb: views over \d+ files, as the lake is now; open it read-only\n", result.stderr)
    with duckdb.connect(str(tmp_path / "views.duckdb"), read_only=True) as client:
        assert client.execute("SELECT count(*), count(prompt) FROM events").fetchall() == [(36, 36)]


@pytest.mark.parametrize(
    ("names", "expected"), ((["a", "b"], ["a", "b"]), (["x", "x", "x_1"], ["x", "x_2", "x_1"]), ([], []))
)
def test_names_become_distinct(names: list[str], expected: list[str]) -> None:
    assert distinct(names) == expected


def test_harmless_text_keeps_what_people_write() -> None:
    assert harmless("Größe 名前 🎉 e\u0301 \\x") == "Größe 名前 🎉 e\u0301 \\x"
    assert (
        harmless("a\nb\tc\x00\x7f\x85\u200b\ufeff\U000e0041")
        == "a\\nb\\tc\\u0000\\u007f\\u0085\\u200b\\ufeff\\U000e0041"
    )
    assert harmless("a\nb\x1b", keep="\n") == "a\nb\\u001b"


# ---- at a terminal, and in pipes


def test_a_table_fits_the_terminal(root: Path) -> None:
    query = "SELECT account_id, prompt, prompt AS again, output_tokens FROM events WHERE dt = '2026-03-02' ORDER BY event_time LIMIT 3"
    lines = at_terminal(root, query, columns=70).splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) == 70
    assert lines[2].startswith("acct_0     | Solve the follow")
    assert lines[2].count("…") == 2


def test_rows_that_cannot_fit_are_shown_one_by_one(root: Path) -> None:
    lines = at_terminal(
        root, "FROM events WHERE dt = '2026-03-02' ORDER BY event_time LIMIT 2", columns=80
    ).splitlines()
    assert lines[0] == "--- row 1"
    assert lines[1] == "event_time           | 2026-03-02 00:00:00+00"
    assert len(lines) == 2 * (len(VIEWS["events"].columns) + 1) + 1
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("form", ("table", "csv", "json", "ndjson"))
def test_no_form_lets_a_value_command_the_terminal(root: Path, form: str) -> None:
    text = at_terminal(root, "SELECT response, 1 FROM content WHERE dt = '2026-03-02'", "--format", form, columns=300)
    assert "owned" in text
    assert "名前" in text
    assert not set("\x1b\x07\x9b\r\u202e\u2066") & set(text)


def test_parquet_is_not_for_a_terminal(root: Path) -> None:
    with pytest.raises(AssertionError, match="Parquet is no text for a terminal"):
        at_terminal(root, "SELECT 1", "--format", "parquet")


def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    """As in `| head`; more than any pipe holds is still to come."""
    for form in ("csv", "json", "table"):
        query = "SELECT range, repeat('x', 100) FROM range(500000)"
        command = [sys.executable, "-c", PROGRAM, "--lake", str(root), query, "--format", form, "--max-rows", "0"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
            assert (process.wait(TIMEOUT_S), said) == (0, b"")


def test_parquet_goes_into_a_pipe(root: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, "--lake", str(root), "FROM access", "--format", "parquet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=TIMEOUT_S)
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 36


# ---- the page


def queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("query", queries())
def test_queries_of_the_page_run_and_find_something(run: Run, tmp_path: Path, query: str) -> None:
    (tmp_path / "suspects.csv").write_text("account_id,why\nacct_1,asked\n")
    result = run(query)
    assert result.exit_code == 0
    assert re.search(r"^\(\d+ rows?\)$", result.stdout, re.MULTILINE)
    assert "(0 rows)" not in result.stdout


def views_page() -> str:
    """The last part of the page, from the views themselves."""
    lines = []
    for view in VIEWS.values():
        lines += [f"### `{view.name}`", "", f"A row: {view.about}.", ""]
        if view.name == "events":
            lines += ["Columns: " + ", ".join(f"`{column}`" for column in view.columns.names) + ".", ""]
            continue
        lines += ["| column | type | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{column}` | {brief(kind)} | {meaning} |" for column, kind, meaning in view.described()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def test_the_page_has_every_view_and_column() -> None:
    """On failure the message holds the right text."""
    assert len(queries()) >= 15
    assert PAGE.read_text(encoding="utf-8").endswith("## Views and columns\n\n" + views_page()), views_page()


# ---- the record of looks at stored text


def looks(root: Path) -> list[tuple[str, str, object]]:
    with contextlib.closing(Catalog.open(sqlite_url(root / CATALOG_FILE), create=False)) as catalog:
        records = catalog.desk.audit.records(AuditFilter(action="content"))
    return [(one.action, one.actor, one.details.get("views")) for one in reversed(records)]


def test_a_look_at_stored_text_is_recorded_and_no_other_query_is(run: Run, root: Path, tmp_path: Path) -> None:
    before = len(looks(root))
    run("SELECT count(*) FROM access")
    run("SELECT account_id FROM account_windows LIMIT 1")
    assert looks(root)[before:] == []
    run("SELECT prompt FROM content LIMIT 1", "--by", "ana")
    run("WITH x AS (SELECT response FROM events) SELECT count(*) FROM x JOIN content ON true", "--by", "ben")
    run("--export", str(tmp_path / "views.duckdb"), "--by", "eve")
    assert looks(root)[before:] == [
        ("content.queried", "ana", ["content"]),
        ("content.queried", "ben", ["content", "events"]),
        ("content.exported", "eve", None),
    ]


@pytest.mark.parametrize(
    ("query", "is_look"),
    (
        ("SELECT error_type, count(*) FROM rejects GROUP BY ALL", False),
        ("SELECT count(*) FROM rejects", False),
        ("SELECT topic FROM (SELECT raw, topic FROM rejects)", False),
        ("FROM rejects", True),
        ("SELECT octet_length(r) FROM (SELECT raw AS r FROM rejects)", True),
        ("SELECT count(*) FROM rejects WHERE raw = 'x'::BLOB", True),
        ("SELECT count(*) FROM rejects AS a JOIN rejects AS b ON a.raw = b.raw", True),
        ("WITH x AS (SELECT * FROM rejects) SELECT count(DISTINCT raw) FROM x", True),
    ),
)
def test_the_bytes_of_rejects_are_stored_text(run: Run, root: Path, query: str, is_look: bool) -> None:
    before = len(looks(root))
    run(query, "--by", "ana")
    assert looks(root)[before:] == ([("content.queried", "ana", ["rejects"])] if is_look else [])


def test_a_look_that_cannot_be_recorded_is_refused(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = looks(root)
    monkeypatch.setattr("pipeline.io.catalog.cannot_write", lambda _url: True)
    for words in (("SELECT prompt FROM content LIMIT 1",), ("--export", str(tmp_path / "views.duckdb"))):
        with pytest.raises(
            ConfigError,
            match="the record cannot be written: the catalog cannot be written from here; a query that leaves",
        ):
            run(*words)
    assert not (tmp_path / "views.duckdb").exists()
    assert run("SELECT count(*) FROM access").exit_code == 0
    assert looks(root) == before
