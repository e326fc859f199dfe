"""Files are staged out of sight, placed once, swept when nobody can commit them, and say in their footers what they are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.batch import Partition
from pipeline.commits import Commit, FileEntry
from pipeline.decode import Decoder
from pipeline.errors import ConfigError, RetryableError, SchemaError
from pipeline.io.footers import commit_of, read_footer
from pipeline.io.inspection import sha256_of
from pipeline.io.lake import Lake, offset_in
from pipeline.io.parquet_files import ROW_GROUP_ROWS
from pipeline.lake_tables import TABLE_SCHEMAS
from pipeline.land import Section, sections
from tests.fakes import records_of

P0 = Partition("llm-access", 0)
ROOT = Path(__file__).parents[3]
DECODER = Decoder()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"), create=True)


def made_of(count: int, partition: Partition = P0, first: int = 0) -> tuple[Commit, list[Section]]:
    """A commit of so many records over two hours, every tenth of them broken, every other with text."""
    records: dict[int, tuple[bytes | None, int]] = {}
    for number in range(count):
        row = {
            "event_time": f"2026-03-01T{12 + number % 2}:00:{number % 60:02d}Z",
            "account_id": f"account-{number % 100:03d}",
            "model": "m",
            "prompt": "hello" if number % 2 else None,
        }
        records[first + number] = (
            b"{broken at all" if number % 10 == 9 else orjson.dumps(row),
            1_772_373_600_000,
        )  # 14:00
    decoded = DECODER.decode(records_of(partition, records, first + count))
    commit = Commit(
        uuid.uuid4().hex,
        partition,
        first,
        first + count,
        len(decoded.events),
        len(decoded.rejects),
        1_780_000_000_000_000,
        "w:1",
    )
    return commit, list(sections([decoded]))


def tree(lake: Lake) -> set[str]:
    return {path.relative_to(lake.root).as_posix() for path in lake.root.rglob("*") if path.is_file()}


def globbed(lake: Lake) -> int:
    """Rows that a plain glob over the tables reads."""
    total = 0
    for table in TABLE_SCHEMAS:
        with contextlib.suppress(duckdb.IOException), duckdb.connect() as connection:  # no file at all
            query = f"SELECT count(*) FROM read_parquet('{lake.root}/{table}/**/*.parquet')"
            total += connection.execute(query).fetchall()[0][0]
    return total


# ---- the way of a file


def test_staged_files_are_out_of_sight_of_every_glob_over_the_tables(lake: Lake) -> None:
    commit, cut = made_of(40)
    files = lake.stage(commit, cut)
    assert globbed(lake) == 0
    assert list(lake.final_files()) == []
    assert len(list(lake.staged_files())) == len(files) == len(cut)
    lake.place(commit, files)
    assert globbed(lake) == sum(file.rows for file in files)
    assert tree(lake) == {file.path for file in files}


def test_placing_again_changes_nothing(lake: Lake) -> None:
    commit, cut = made_of(40)
    files = lake.stage(commit, cut)
    lake.place(commit, files)
    before = {path: (lake.root / path).stat().st_mtime_ns for path in tree(lake)}
    lake.place(commit, files)
    assert {path: (lake.root / path).stat().st_mtime_ns for path in tree(lake)} == before


def test_placing_goes_on_where_a_crash_stopped_it(lake: Lake) -> None:
    commit, cut = made_of(40)
    files = lake.stage(commit, cut)
    first = lake.root / files[0].path
    first.parent.mkdir(parents=True)
    lake.staged_path(commit, files[0].path).rename(first)
    lake.place(commit, files)
    assert tree(lake) == {file.path for file in files}


def test_a_committed_file_that_is_nowhere_is_an_error_that_names_it(lake: Lake) -> None:
    commit, cut = made_of(40)
    files = lake.stage(commit, cut)
    lake.staged_path(commit, files[1].path).unlink()
    with pytest.raises(SchemaError, match=files[1].path):
        lake.place(commit, files)


def test_staging_again_after_discarding_gives_the_same_bytes(lake: Lake) -> None:
    commit, cut = made_of(40)
    files = lake.stage(commit, cut)
    lake.discard(commit)
    assert tree(lake) == set()
    assert lake.stage(commit, cut) == files


def test_sweeping_takes_what_was_named_and_nothing_else(lake: Lake) -> None:
    old, mine, other = made_of(10), made_of(10), made_of(10, Partition("llm-access", 1))
    lake.stage(*old)
    named = lake.leftovers(P0)
    for commit, cut in (mine, other):
        lake.stage(commit, cut)
    assert named == [old[0].commit_id]
    assert lake.sweep(P0, named) == 1
    assert lake.sweep(P0, named) == 0
    assert lake.leftovers(P0) == [mine[0].commit_id]
    assert lake.leftovers(Partition("llm-access", 1)) == [other[0].commit_id]
    assert lake.leftovers(Partition("never", 0)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    (("t" * 200 + "a", "t" * 200 + "b"), (".x", "x"), ("a/../b", "a_.._b"), ("..", "__")),
)
def test_topics_whose_names_look_alike_do_not_sweep_each_other(lake: Lake, one: str, other: str) -> None:
    commit, cut = made_of(10, Partition(one, 0))
    files = lake.stage(commit, cut)
    assert lake.leftovers(Partition(other, 0)) == []
    lake.place(commit, files)
    assert tree(lake) == {file.path for file in files}, "inside the lake"
    assert all(len(part) <= 255 for file in files for part in Path(file.path).parts)


def test_names_tell_partition_and_offset(lake: Lake) -> None:
    files = lake.stage(*made_of(10, Partition("a-b-3", 12), first=77))
    assert {offset_in(Path(file.path).name) for file in files} == {("a-b-3-12", 77)}
    assert offset_in("else.parquet") is None


def test_a_lake_is_made_only_when_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Lake.open(str(tmp_path / "none"), create=False)
    with pytest.raises(ConfigError, match="object storage"):
        Lake.open("s3://bucket/lake", create=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file"):
        Lake.open(str(tmp_path / "file" / "lake"), create=True)


# ---- what is in a file


def placed(lake: Lake, count: int) -> tuple[Commit, list[FileEntry]]:
    commit, cut = made_of(count)
    files = lake.stage(commit, cut)
    lake.place(commit, files)
    return commit, files


def test_entries_and_footers_say_what_the_file_is(lake: Lake) -> None:
    commit, files = placed(lake, 40)
    assert {file.table_name for file in files} == {"access", "content", "rejects"}
    indexes = []
    for file in files:
        path = lake.root / file.path
        footer, metadata = read_footer(path)
        assert commit_of(footer) == commit
        assert (footer["table"], footer["files"], footer["format"]) == (file.table_name, len(files), 1)
        indexes.append(footer["file"])
        assert metadata.num_rows == file.rows
        assert path.stat().st_size == file.bytes
        with path.open("rb") as content:
            assert sha256_of(content) == file.sha256
        assert pq.read_schema(path).remove_metadata().equals(TABLE_SCHEMAS[file.table_name])
        assert file.path.startswith(f"{file.table_name}/dt={file.dt}/hour={file.hour:02d}/")
    assert sorted(indexes) == list(range(len(files)))


def test_a_file_of_somebody_else_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(SchemaError, match=r"other\.parquet"):
        read_footer(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(SchemaError, match=r"other\.parquet"):
        read_footer(path)


def test_files_are_sorted_compressed_and_indexed(lake: Lake) -> None:
    _, files = placed(lake, 2_000)
    for file in files:
        metadata = pq.read_metadata(lake.root / file.path)
        group = metadata.row_group(0)
        names = [metadata.schema.column(number).name for number in range(metadata.num_columns)]
        for number in range(metadata.num_columns):
            column = group.column(number)
            assert column.compression == "ZSTD"
            assert column.has_offset_index
            # Least and greatest values are kept where they tell something: not of texts that are in no order.
            unsorted = column.physical_type == "BYTE_ARRAY" and names[number] not in ("account_id", "raw")
            assert column.has_column_index != unsorted
        order = ["offset"] if file.table_name == "rejects" else ["account_id", "event_time", "offset"]
        assert [names[key.column_index] for key in group.sorting_columns] == order
        rows = pq.read_table(lake.root / file.path, columns=order, partitioning=None).to_pylist()
        keys = [tuple(row.values()) for row in rows]
        assert keys == sorted(keys)


def test_an_account_that_is_not_there_costs_no_row_group(lake: Lake) -> None:
    """The Bloom filter rules it out where minimum and maximum cannot."""
    _, files = placed(lake, 2_000)
    (path,) = [lake.root / file.path for file in files if file.table_name == "access" and file.hour == 12]
    with duckdb.connect() as connection:
        query = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, 'account_id', ?)"
        there = connection.execute(query, [str(path), "account-050"]).fetchall()
        absent = connection.execute(query, [str(path), "account-050x"]).fetchall()
    assert there == [(False,)]
    assert absent == [(True,)]


def test_row_groups_are_bounded(lake: Lake) -> None:
    rows = ROW_GROUP_ROWS + 10
    table = pa.table({field.name: pa.nulls(rows, field.type) for field in TABLE_SCHEMAS["rejects"]})
    table = table.set_column(table.schema.get_field_index("offset"), "offset", pa.array(range(rows), pa.int64()))
    section = Section("rejects", "2026-03-01", 12, table, None, None)
    commit = Commit(uuid.uuid4().hex, P0, 0, rows, 0, rows, 0, "w")
    (file,) = lake.stage(commit, [section])
    metadata = pq.read_metadata(lake.staged_path(commit, file.path))
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [ROW_GROUP_ROWS, 10]


# ---- a disk that is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 256 kB: a file system of its own where this test may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    ) if sys.platform == "linux" and os.geteuid() == 0 else None  # fmt: skip
    if mount is None or mount.returncode:
        pytest.skip("mounting needs root; to run this test, run it as root with CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_behind_and_works_again_when_there_is_room(small_disk: Path) -> None:
    lake = Lake.open(str(small_disk / "lake"), create=True)
    (small_disk / "ballast").write_bytes(b"x" * 230_000)
    commit, cut = made_of(2_000)
    with pytest.raises(RetryableError, match="No space left"):
        lake.stage(commit, cut)
    assert tree(lake) == set()
    (small_disk / "ballast").unlink()
    lake.place(commit, lake.stage(commit, cut))
    assert globbed(lake) > 0


FILE_SIZE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from pipeline.errors import RetryableError
from pipeline.io.lake import Lake
from tests.unit.io.test_lake import made_of, tree

lake = Lake.open(sys.argv[1], create=True)
commit, cut = made_of(2_000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))
try:
    lake.stage(commit, cut)
except RetryableError as error:
    print("retry:", error)
assert tree(lake) == set()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
lake.place(commit, lake.stage(commit, cut))
print("placed", len(tree(lake)))
"""


def test_a_file_that_may_not_grow_is_to_be_tried_again(tmp_path: Path) -> None:
    """A quota, as any user can have one."""
    done = subprocess.run(
        [sys.executable, "-c", FILE_SIZE_LIMIT, str(tmp_path / "lake")],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == ""
    assert "retry:" in done.stdout
    assert "File too large" in done.stdout
    assert "placed 4" in done.stdout
