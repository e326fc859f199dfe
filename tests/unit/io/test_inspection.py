"""`verify` finds each kind of damage, names it, and calls nothing else damage."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import FileEntry
from pipeline.io.inspection import Inspection, inspect
from tests.lake_maker import LakeMaker

P0 = Partition("llm-access", 0)


def event(account: str, hour: int = 12, prompt: str | None = "hi") -> dict[str, object]:
    return {"event_time": f"2026-03-01T{hour:02d}:00:00Z", "account_id": account, "model": "m", "prompt": prompt}


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    """Three commits of two hours, with rejects; two partitions."""
    maker = LakeMaker(tmp_path / "lake")
    maker.append([event("a"), event("b", 13), b"{broken"])
    maker.append([event("a"), event("c")])
    maker.append([event("d", prompt=None)])
    maker.append([event("e")], partition=1)
    yield maker
    maker.close()


def seen(maker: LakeMaker, *, quick: bool = False) -> Inspection:
    return inspect(maker.lake, maker.catalog, quick=quick)


def kinds(inspection: Inspection) -> set[str]:
    return {finding.kind for finding in inspection.errors}


def first(maker: LakeMaker, table: str) -> FileEntry:
    return next(file for file in maker.catalog.live_files() if file.table_name == table)


def execute(maker: LakeMaker, *statements: str) -> None:
    engine = sa.create_engine(maker.catalog_url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_sound_lake_is_clean_and_counted(maker: LakeMaker) -> None:
    found = seen(maker)
    assert (found.errors, found.notes) == ([], [])
    assert (found.partitions, found.commits, found.events, found.rejects) == (2, 4, 6, 1)
    assert found.files == len(maker.catalog.live_files())
    assert found.bytes == sum(path.stat().st_size for path in maker.root.rglob("*.parquet"))


def test_an_empty_lake_is_clean(tmp_path: Path) -> None:
    maker = LakeMaker(tmp_path / "lake")
    assert seen(maker) == Inspection()
    maker.close()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


FILE_DAMAGE: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "removed": (Path.unlink, {"missing"}),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-20]), {"size"}),
    "one bit": (_flip, {"checksum"}),
    "replaced by a folder": (lambda path: (path.unlink(), path.mkdir())[0], {"unreadable"}),
}


@pytest.mark.parametrize("table", ("access", "content", "rejects"))
@pytest.mark.parametrize("damage", FILE_DAMAGE)
def test_a_damaged_file_is_named(maker: LakeMaker, table: str, damage: str) -> None:
    act, expected = FILE_DAMAGE[damage]
    file = first(maker, table)
    act(maker.root / file.path)
    found = seen(maker)
    assert expected <= kinds(found)
    assert file.path in {finding.subject for finding in found.errors if finding.kind in expected}


def test_quick_hashes_nothing_but_still_compares_sizes(maker: LakeMaker) -> None:
    _flip(maker.root / first(maker, "rejects").path)
    assert "checksum" not in kinds(seen(maker, quick=True))
    (maker.root / first(maker, "access").path).write_bytes(b"short")
    assert "size" in kinds(seen(maker, quick=True))


def test_a_file_of_another_commit_in_its_place_is_seen_by_its_footer(maker: LakeMaker) -> None:
    """Bytes, size and hash agree with the catalog; only the footer tells."""
    one, other = [file for file in maker.catalog.live_files("access") if file.hour == 12][:2]
    shutil.copy(maker.root / other.path, maker.root / one.path)
    execute(maker, f"UPDATE files SET bytes = {other.bytes}, sha256 = '{other.sha256}' WHERE path = '{one.path}'")
    found = seen(maker)
    assert {"footer", "doubled", "stray rows"} <= kinds(found)


def test_a_file_with_rows_of_other_offsets_is_seen(maker: LakeMaker) -> None:
    """A rewritten file whose footer is right but whose rows are another commit's."""
    file = first(maker, "rejects")
    path = maker.root / file.path
    rows = pq.read_table(path, partitioning=None)
    wrong = rows.set_column(rows.schema.get_field_index("offset"), rows.schema.field("offset"), [[77]])
    pq.write_table(wrong, path)
    new = dataclasses.replace(file, bytes=path.stat().st_size)
    execute(maker, f"UPDATE files SET bytes = {new.bytes} WHERE path = '{file.path}'")
    assert "stray rows" in kinds(seen(maker, quick=True))


def test_rows_missing_from_a_file_are_counted(maker: LakeMaker) -> None:
    execute(maker, "UPDATE commits SET events = events + 1 WHERE first_offset = 3")
    assert {"rows", "footer"} <= kinds(seen(maker))
    execute(maker, "UPDATE files SET rows = rows + 1 WHERE table_name = 'rejects'")
    assert sum(finding.kind == "rows" for finding in seen(maker).errors) == 3, "the commit, the file, and the first one"


def test_an_orphan_is_named(maker: LakeMaker) -> None:
    file = first(maker, "access")
    copy = (maker.root / file.path).with_name("copy.parquet")
    shutil.copy(maker.root / file.path, copy)
    found = seen(maker)
    assert kinds(found) == {"orphan", "doubled"}
    assert copy.relative_to(maker.root).as_posix() in {finding.subject for finding in found.errors}


def test_an_offset_that_a_backfill_landed_beside_the_live_job_is_seen(maker: LakeMaker) -> None:
    """The range has a topic of its own, but its offsets are those of the same log."""
    event = {"event_time": "2026-03-01T00:00:00Z", "account_id": "a", "model": "m"}
    maker.append([event], topic="past:7:elsewhere")
    assert seen(maker).errors == []
    maker.append([event], topic="elsewhere")
    assert [(one.kind, one.subject, one.detail) for one in seen(maker).errors] == [
        ("doubled", "elsewhere-0", "offset 0 is there 2 times")
    ]


@pytest.mark.parametrize(
    ("statements", "expected"),
    (
        (["UPDATE commits SET next_offset = next_offset + 1 WHERE first_offset = 0 AND partition = 0"], "overlap"),
        (["UPDATE commits SET next_offset = next_offset - 1 WHERE first_offset = 0 AND partition = 0"], "gap"),
        (["UPDATE offsets SET next_offset = next_offset + 5 WHERE partition = 0"], "gap"),
        (["UPDATE offsets SET next_offset = next_offset - 1 WHERE partition = 0"], "offset"),
        (["DELETE FROM offsets WHERE partition = 1"], "offset"),
        (["UPDATE files SET state = 'pending' WHERE table_name = 'content'"], "half live"),
        (["DELETE FROM files WHERE table_name = 'rejects'"], "orphan"),
        (["UPDATE files SET table_name = 'elsewhere' WHERE table_name = 'rejects'"], "schema"),
    ),
)
def test_a_damaged_catalog_is_seen(maker: LakeMaker, statements: list[str], expected: str) -> None:
    execute(maker, *statements)
    assert expected in kinds(seen(maker))


def test_an_accepted_hole_is_no_gap_and_an_open_one_is_a_note(maker: LakeMaker) -> None:
    hole = maker.catalog.note_hole(P0, 6, 9, now_us=1)
    found = seen(maker)
    assert found.errors == []
    assert [(note.kind, note.subject) for note in found.notes] == [("hole", "llm-access:0:6-8")]
    maker.catalog.accept_hole(hole, now_us=2)
    assert (seen(maker).errors, seen(maker).notes) == ([], [])


def test_a_commit_that_is_not_shown_yet_is_a_note(maker: LakeMaker) -> None:
    maker.append([event("z")], publish=False)
    found = seen(maker)
    assert found.errors == []
    assert {note.kind for note in found.notes} == {"pending"}


def test_a_pending_file_may_be_in_either_place_but_must_be_in_one(maker: LakeMaker) -> None:
    files = maker.append([event("z", prompt=None)], publish=False)
    (commit,) = maker.catalog.pending()
    staged = maker.lake.staged_path(commit, files[0].path)
    staged.parent.mkdir(parents=True)
    (maker.root / files[0].path).rename(staged)
    found = seen(maker)
    assert (found.errors, {note.kind for note in found.notes}) == ([], {"pending"}), "half way into its place"
    staged.unlink()
    assert kinds(seen(maker)) == {"missing"}


def test_staged_files_of_no_commit_are_a_note(maker: LakeMaker) -> None:
    staged = maker.root / "_staging" / "llm-access-0" / ("0" * 32) / first(maker, "access").path
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"half")
    found = seen(maker)
    assert found.errors == []
    assert [(note.kind, note.subject) for note in found.notes] == [("staged", "0" * 32)]


def test_it_is_right_while_a_worker_writes(tmp_path: Path) -> None:
    """Inspections in a loop beside a worker in another thread: no error, ever."""
    maker = LakeMaker(tmp_path / "lake")
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(40):
                maker.append([event(f"account-{number}"), b"{broken", event("b", 13)])
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    inspections = 0
    while not done.is_set():
        assert seen(maker).errors == []
        inspections += 1
    writer.join()
    assert inspections > 1
    assert (seen(maker).events, seen(maker).notes) == (80, [])
    maker.close()


def test_a_mark_excuses_only_what_its_own_table_lacks(maker: LakeMaker) -> None:
    """A commit of which no file is left had events: a mark of `content` does not tell where they are."""
    alone = next(file for file in maker.catalog.live_files("access") if file.rows == 1 and "-1-" in file.path)
    (maker.root / alone.path).unlink()
    for file in maker.catalog.live_files("content"):
        if "-1-" in file.path:
            (maker.root / file.path).unlink()
    execute(
        maker, "DELETE FROM files WHERE path LIKE '%access-1-%'",
        "INSERT INTO retention (table_name, before) VALUES ('content', '2027-01-01T00')",
    )  # fmt: skip
    found = seen(maker)
    assert [(error.kind, "table access has 0 of its rows, expected 1" in error.detail) for error in found.errors] == [
        ("rows", True)
    ]
    execute(maker, "INSERT INTO retention (table_name, before) VALUES ('access', '2027-01-01T00')")
    found = seen(maker)
    assert found.errors == []
    assert [note.kind for note in found.notes] == ["retained"]
