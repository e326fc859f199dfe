"""Files that are no NDJSON are told from NDJSON with bad lines, and what the error says to do makes events of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.io.other_forms import check_form
from tests.commands import run_command

EVENTS: list[dict[str, Any]] = [
    {
        "event_time": f"2026-03-01T12:00:{at:02}Z", "account_id": f"00{at}", "model": "m", "request_id": str(at),
        "status": 200, "temperature": 0.5, "prompt": f'a, "{at}"\nb', "tools": [{"n": None}, "é"],
    }
    for at in range(20)
]  # fmt: skip
FLAT = [{name: value for name, value in event.items() if name != "tools"} for event in EVENTS]
LINES = b"".join(orjson.dumps(event) + b"\n" for event in EVENTS)
LONG = [{**event, "prompt": "x" * 200_000} for event in EVENTS]


def as_csv(separator: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(FLAT[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(FLAT)
    return out.getvalue().encode()


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        check_form(path)
    return str(caught.value)


ARRAYS = {
    "on one line": orjson.dumps(EVENTS),
    "a line each": b"[\n" + LINES.strip().replace(b"\n", b",\n") + b"\n]\n",
    "indented": json.dumps(EVENTS, indent=2).encode(),
    "with a mark": b"\xef\xbb\xbf" + json.dumps(EVENTS).encode(),
    "of one": json.dumps(EVENTS[:1], indent=1).encode(),
    "long, on one line": orjson.dumps(LONG),
    "long, a line each": b"[" + b",\n".join(map(orjson.dumps, LONG)) + b"]\n",
}


@pytest.mark.parametrize("form", ARRAYS)
def test_an_array_is_refused_and_what_the_error_says_makes_the_same_events(tmp_path: Path, form: str) -> None:
    path = tmp_path / "it's $1.json"
    path.write_bytes(ARRAYS[form])
    said = refused(path)
    assert "it looks like one JSON array" in said
    (command,) = re.findall(r"duckdb -c .*", said)
    duckdb.sql(shlex.split(command)[2])
    made = [orjson.loads(line) for line in (tmp_path / "it's $1.ndjson").read_bytes().splitlines()]
    assert made == orjson.loads(ARRAYS[form].removeprefix(b"\xef\xbb\xbf"))
    check_form(tmp_path / "it's $1.ndjson")


@pytest.mark.parametrize("name", ("a.csv", "a.ndjson", "a.csv.gz"))
@pytest.mark.parametrize("separator", (",", ";", "\t"))
def test_csv_is_refused_and_what_the_error_says_can_be_landed(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    content = as_csv(separator)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    said = refused(path)
    assert (
        "it looks like CSV, with the columns event_time, account_id, model, request_id, status, temperature, …" in said
    )
    (command,) = re.findall(r"duckdb -c .*", said)
    duckdb.sql(shlex.split(command)[2])
    lake = tmp_path / "lake"
    code, shown, error = run_command("backfill", "--no-score", "--lake", str(lake), str(tmp_path / "a.parquet"))
    assert code == 0, error
    assert "reject, " not in shown
    (events,) = duckdb.sql(f"SELECT count(*) FROM '{lake}/access/**/*.parquet' WHERE status = 200").fetchall()
    assert events == (20,)
    code, _, error = run_command("backfill", "--no-score", "--lake", str(lake), str(path))
    assert (code, "it looks like CSV" in error) == (2, True)


def test_csv_of_other_columns_is_told_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("when,who\n2026-03-01,a\n", encoding="utf-8")
    assert refused(path).endswith("name its columns as events' fields first, it has no event_time, account_id, model")
    path.rename(tmp_path / "a.ndjson")
    check_form(tmp_path / "a.ndjson")


BAD = (
    b"[", b"[1, 2]", b"[oops", b"event_time,account_id,model", b"{", b"]", b"oops]", b"null", b'"text"', b"\xff\xfe[",
    b"", b" ", b"[{}]", b"[[[", b"a,b,c", b"},",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(BAD), max_size=4),
    st.lists(st.sampled_from(BAD), max_size=4),
    st.integers(2, 20),
    st.sampled_from((b"\n", b"\r\n")),
)
def test_ndjson_with_bad_lines_is_ndjson(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], after: list[bytes], good: int, end: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bad.ndjson"
    path.write_bytes(end.join([*before, *LINES.splitlines()[:good], *after]))
    check_form(path)


def test_a_long_file_that_begins_as_an_array_and_does_not_end_as_one_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    begun = b"[" + b",\n".join(map(orjson.dumps, LONG))
    path.write_bytes(begun + b"\n")
    check_form(path)
    path.write_bytes(begun + b"\n] \n")
    assert "it looks like one JSON array" in refused(path)


def test_a_long_file_whose_first_and_last_lines_are_bad_is_ndjson(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"[oops\n" + b"\n".join(map(orjson.dumps, LONG)) + b"\noops]\n")
    check_form(path)
