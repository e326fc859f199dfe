"""What a rewrite asks of a catalog; one suite, run on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid

import pytest
import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.commits import Commit, FileEntry
from pipeline.errors import FencedError, SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.rewriting.ledger import SETTLED, SWAPPED, WRITING, RewriteLedger
from pipeline.io.rewriting.ledger_rows import InGrace, Output, Span

P0, P1 = Partition("access", 0), Partition("access", 1)
THREADS = 6


@pytest.fixture
def ledger(catalog: Catalog) -> RewriteLedger:
    return RewriteLedger(catalog, "test:1")


def landed(catalog: Catalog, partition: Partition, first: int, following: int) -> tuple[Commit, FileEntry]:
    """A published commit of one file."""
    commit = Commit(
        uuid.uuid4().hex, partition, first, following, following - first, 0, 1_780_000_000_000_000, "test:1"
    )
    path = f"access/dt=2026-03-01/hour=00/{commit.commit_id}.parquet"
    file = FileEntry(path, "access", "2026-03-01", 0, commit.events, 100, "0" * 64, 0, 59)
    catalog.commit(commit, catalog.start_at(partition, first).epoch, [file])
    catalog.publish(commit.commit_id)
    return commit, file


def output_of(rewrite_id: str, *spans: Span, rows: int = 20) -> Output:
    file_id = uuid.uuid4().hex
    path = f"_rewrites/{rewrite_id}/access/dt=2026-03-01/hour=00/rewritten-{file_id}.parquet"
    return Output(file_id, FileEntry(path, "access", "2026-03-01", 0, rows, 150, "1" * 64, 0, 59), spans)


def test_a_swap_shows_outputs_for_inputs_to_readers_and_to_a_replay(catalog: Catalog, ledger: RewriteLedger) -> None:
    made = [landed(catalog, partition, first, first + 10) for partition in (P0, P1) for first in (0, 10, 20)]
    inputs = [file for commit, file in made if commit.first_offset < 20]
    rewrite_id = ledger.begin("compact", 1)
    output = output_of(rewrite_id, Span(P0, 0, 20), Span(P1, 0, 20))
    ledger.swap(rewrite_id, inputs, [output], 2)
    rest = [file for commit, file in made if commit.first_offset == 20]
    assert sorted(catalog.live_files(), key=str) == sorted([*rest, output.file], key=str)
    assert catalog.live_files("access", (60, None)) == []
    of_p0 = [commit for commit, _ in made if commit.partition == P0]
    assert catalog.files_of(of_p0[:1]) == [output.file]
    assert set(catalog.files_of(of_p0)) == {output.file, rest[0]}
    assert catalog.files_of(of_p0[2:]) == [rest[0]]
    manifest = catalog.manifest()
    assert manifest.rewritten == [output.file]
    assert set(manifest.retired) == {file.path for file in inputs}
    (rewrite,) = ledger.due((SWAPPED,), 2)
    assert set(rewrite.inputs) == {file.path for file in inputs}


def test_a_swap_that_is_done_again_changes_nothing(catalog: Catalog, ledger: RewriteLedger) -> None:
    _, file = landed(catalog, P0, 0, 10)
    rewrite_id = ledger.begin("compact", 1)
    output = output_of(rewrite_id, Span(P0, 0, 10))
    for _ in range(2):
        ledger.swap(rewrite_id, [file], [output], 2)
    assert catalog.live_files() == [output.file]


def test_of_two_swaps_of_one_file_one_wins(catalog: Catalog, ledger: RewriteLedger) -> None:
    """Whatever else they are of."""
    files = [landed(catalog, P0, first, first + 10)[1] for first in (0, 10, 20)]
    ids = [ledger.begin("compact", 1) for _ in range(THREADS)]
    outputs = [output_of(rewrite_id, Span(P0, 0, 30)) for rewrite_id in ids]
    won: list[int] = []
    start = threading.Barrier(THREADS)

    def swap(number: int) -> None:
        start.wait()
        with contextlib.suppress(FencedError):
            ledger.swap(ids[number], files[number % 2 :], [outputs[number]], 2)
            won.append(number)

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    left = files[: won[0] % 2]
    assert set(catalog.live_files()) == {outputs[won[0]].file, *left}


def test_a_rewrite_that_was_forgotten_cannot_swap(catalog: Catalog, ledger: RewriteLedger) -> None:
    _, file = landed(catalog, P0, 0, 10)
    rewrite_id = ledger.begin("compact", 1)
    (rewrite,) = ledger.due((WRITING,), 1)
    assert ledger.forget(rewrite)
    with pytest.raises(FencedError, match="given up"):
        ledger.swap(rewrite_id, [file], [output_of(rewrite_id, Span(P0, 0, 10))], 2)
    assert catalog.live_files() == [file]
    assert not ledger.forget(rewrite)


def test_settling_gives_final_paths_and_forgets_inputs_once(catalog: Catalog, ledger: RewriteLedger) -> None:
    """Also in a rewrite that has taken the output for its input meanwhile."""
    commit, file = landed(catalog, P0, 0, 10)
    first = ledger.begin("compact", 1)
    output = output_of(first, Span(P0, 0, 10))
    ledger.swap(first, [file], [output], 2)
    second = ledger.begin("erase", 3)
    other = output_of(second, Span(P0, 0, 10))
    ledger.swap(second, [output.file], [other], 4)
    assert ledger.makers_of(second) == [first]
    rewrite = ledger.find(first)
    assert rewrite is not None
    final = {output.file_id: "access/final.parquet"}
    for _ in range(2):
        ledger.settle(rewrite, final, 5)
    assert ledger.makers_of(second) == []
    later = ledger.find(second)
    assert later is not None
    assert later.inputs == ("access/final.parquet",)
    assert catalog.manifest().retired == ["access/final.parquet"]
    ledger.settle(later, {other.file_id: "access/other.parquet"}, 6)
    assert catalog.manifest().retired == []
    assert (
        catalog.live_files()
        == catalog.files_of([commit])
        == [dataclasses.replace(other.file, path="access/other.parquet")]
    )
    assert [rewrite.rewrite_id for rewrite in ledger.due((SETTLED,), 6)] == [first, second]


def test_a_catalog_made_anew_lists_rewrites_that_are_to_be_settled(catalog: Catalog, ledger: RewriteLedger) -> None:
    """One made of commits' files, and one made of its output."""
    commit = Commit(uuid.uuid4().hex, P0, 0, 20, 20, 0, 1_780_000_000_000_000, "test:1")
    file = FileEntry("access/made.parquet", "access", "2026-03-01", 0, 20, 100, "0" * 64, 0, 59)
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    merged, erased = output_of(first, Span(P0, 0, 20)), output_of(second, Span(P0, 0, 20), rows=19)
    in_grace = InGrace(
        inputs={first: [file.path], second: [merged.file.path]},
        made_by={merged.file_id: first, erased.file_id: second},
        former=[(commit.commit_id, file)],
        former_outputs=[merged],
    )
    catalog.replace_all({P0: 20}, [(commit, [])], 5, rewritten=[erased], in_grace=in_grace)
    assert catalog.live_files() == catalog.files_of([commit]) == [erased.file]
    assert sorted(catalog.manifest().retired) == sorted([file.path, merged.file.path])
    assert {rewrite.rewrite_id for rewrite in ledger.due((SWAPPED,), 5)} == {first, second}
    assert ledger.due((SWAPPED,), 4) == []
    assert ledger.makers_of(second) == [first]
    for rewrite_id, output, final in ((first, merged, "access/merged.parquet"), (second, erased, "access/end.parquet")):
        rewrite = ledger.find(rewrite_id)
        assert rewrite is not None
        ledger.settle(rewrite, {output.file_id: final}, 6)
    assert catalog.live_files() == [dataclasses.replace(erased.file, path="access/end.parquet")]
    assert catalog.manifest().retired == []


def test_marks_only_rise(catalog: Catalog, ledger: RewriteLedger) -> None:
    for number, before in enumerate(("2026-03-01T05", "2026-03-02T00", "2026-03-01T23")):
        _, file = landed(catalog, P0, number * 10, number * 10 + 10)
        ledger.swap(ledger.begin("retain", 1), [file], [], 2, {"access": before})
    assert ledger.marks() == catalog.manifest().marks == {"access": "2026-03-02T00"}


@pytest.mark.parametrize("version", (3, 4))
def test_an_older_catalog_keeps_all_and_gets_the_new_tables(url: str, catalog: Catalog, version: int) -> None:
    _, file = landed(catalog, P0, 0, 10)
    catalog.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for name in ("rewrites", "rewrite_inputs", "rewritten_files", "rewritten_spans", "retention"):
            connection.exec_driver_sql(f"DROP TABLE {name}")
        connection.exec_driver_sql(f"UPDATE meta SET value = '{version}' WHERE key = 'schema_version'")
    engine.dispose()
    with pytest.raises(SchemaError, match=f"has version {version}"):
        Catalog.open(url, create=False)
    with contextlib.closing(Catalog.open(url, create=True)) as migrated:
        assert migrated.live_files() == [file]
        ledger = RewriteLedger(migrated, "test:1")
        rewrite_id = ledger.begin("compact", 1)
        output = output_of(rewrite_id, Span(P0, 0, 10))
        ledger.swap(rewrite_id, [file], [output], 2)
        assert migrated.live_files() == [output.file]
