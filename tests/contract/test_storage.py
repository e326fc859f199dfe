"""What the stream asks of the lake's files; one suite, run on the fake in memory and on the real lake."""

from __future__ import annotations

import hashlib
import os
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import orjson
import pytest

from pipeline.batch import Decoded, Partition
from pipeline.commits import SNAPSHOTS, Commit, FileEntry
from pipeline.decode import Decoder
from pipeline.errors import RetryableError, SchemaError
from pipeline.io.lake import Lake
from pipeline.lake_tables import TABLE_SCHEMAS
from pipeline.land import Section, sections
from pipeline.ports import Storage
from tests.fakes import FakeLake, records_of

P0, P1, NEVER = Partition("access", 0), Partition("access", 1), Partition("never", 0)
DECODER = Decoder()


class Place(Protocol):
    """A storage with all that is behind it."""

    def storage(self) -> Storage:
        """A worker's hold on it; each call as another worker has it."""

    def visible(self) -> dict[str, bytes]:
        """What a glob over the tables finds: content by path."""

    def lose(self, commit: Commit, file: FileEntry) -> None:
        """Let a staged file vanish."""

    def close(self, name: str) -> None:
        """From now on nothing can be written below a table's name, or `_staging`."""

    def damage(self, path: str) -> None:
        """Cut the last byte off a placed file."""

    def remove(self, path: str) -> None:
        """Take a placed file away."""

    def open(self, name: str) -> None:
        """It can be again."""


class InMemory:
    def __init__(self, _folder: Path) -> None:
        self._lake = FakeLake()

    def storage(self) -> Storage:
        return FakeLake(self._lake.staged, self._lake.placed, self._lake.closed)

    def visible(self) -> dict[str, bytes]:
        return {path: content for path, content in self._lake.placed.items() if not path.startswith(SNAPSHOTS)}

    def damage(self, path: str) -> None:
        self._lake.placed[path] = self._lake.placed[path][:-1]

    def remove(self, path: str) -> None:
        del self._lake.placed[path]

    def lose(self, commit: Commit, file: FileEntry) -> None:
        del self._lake.staged[commit.partition][commit.commit_id][file.path]

    def close(self, name: str) -> None:
        self._lake.closed.add(name)

    def open(self, name: str) -> None:
        self._lake.closed.remove(name)


class OnDisk:
    def __init__(self, folder: Path) -> None:
        self._root = folder / "lake"

    def storage(self) -> Storage:
        return Lake.open(str(self._root), create=not self._root.exists())

    def visible(self) -> dict[str, bytes]:
        found = [path for table in TABLE_SCHEMAS for path in self._root.glob(f"{table}/**/*.parquet")]
        return {path.relative_to(self._root).as_posix(): path.read_bytes() for path in found}

    def damage(self, path: str) -> None:
        os.truncate(self._root / path, (self._root / path).stat().st_size - 1)

    def remove(self, path: str) -> None:
        (self._root / path).unlink()

    def lose(self, commit: Commit, file: FileEntry) -> None:
        Lake(self._root).staged_path(commit, file.path).unlink()

    def close(self, name: str) -> None:
        """A file where the folder should be stops even root."""
        folder = self._root / name
        if folder.exists():
            folder.rename(folder.with_name(f"{name}-aside"))
        folder.touch()

    def open(self, name: str) -> None:
        folder = self._root / name
        folder.unlink()
        aside = folder.with_name(f"{name}-aside")
        if aside.exists():
            aside.rename(folder)


PLACES: dict[str, Callable[[Path], Place]] = {"memory": InMemory, "disk": OnDisk}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return PLACES[request.param](tmp_path)


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.storage()


def decoded_of(count: int, partition: Partition = P0) -> Decoded:
    records: dict[int, tuple[bytes | None, int]] = {}
    for number in range(count):
        row = {"event_time": f"2026-03-01T{12 + number % 2}:00:00Z", "account_id": "a", "model": "m", "prompt": "hello"}
        records[number] = (b"{broken" if number % 10 == 9 else orjson.dumps(row), 1_772_373_600_000)
    return DECODER.decode(records_of(partition, records, count))


def made_of(count: int, partition: Partition = P0, commit_id: str = "") -> tuple[Commit, list[Section]]:
    """A commit over two hours, with rows in every table from ten records on."""
    decoded = decoded_of(count, partition)
    counts = len(decoded.events), len(decoded.rejects)
    commit = Commit(commit_id or uuid.uuid4().hex, partition, 0, count, *counts, 1_780_000_000_000_000, "w:1")
    return commit, list(sections([decoded]))


def test_the_fake_and_the_lake_are_what_the_port_describes(place: Place) -> None:
    names = [name for name in vars(Storage) if not name.startswith("_")]
    assert len(names) == 10
    assert all(callable(getattr(place.storage(), name)) for name in names)


def test_entries_say_what_was_staged(storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    assert [(file.table_name, file.dt, file.hour, file.rows, file.time_min_us, file.time_max_us) for file in files] == [
        (section.table, section.dt, section.hour, len(section.rows), section.time_min_us, section.time_max_us)
        for section in cut
    ]
    assert len({file.path for file in files}) == len(files) == 5
    assert all(file.path.startswith(f"{file.table_name}/dt={file.dt}/hour={file.hour:02d}/") for file in files)


def test_nothing_staged_is_visible_and_all_that_is_placed(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    assert place.visible() == {}
    assert list(storage.leftovers(P0)) == [commit.commit_id]
    storage.place(commit, files)
    assert {path: len(content) for path, content in place.visible().items()} == {
        file.path: file.bytes for file in files
    }
    assert list(storage.leftovers(P0)) == []


def test_placing_again_changes_nothing(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    storage.place(commit, files)
    before = place.visible()
    storage.place(commit, files)
    place.storage().place(commit, files)
    assert place.visible() == before


def test_the_next_owner_places_what_another_staged(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    heir = place.storage()
    assert list(heir.leftovers(P0)) == [commit.commit_id]
    heir.place(commit, files)
    assert place.visible().keys() == {file.path for file in files}


def test_placing_goes_on_where_a_failure_stopped_it(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    place.close("content")
    with pytest.raises(RetryableError):
        storage.place(commit, files)
    assert 0 < len(place.visible()) < len(files)
    assert list(storage.leftovers(P0)) == [commit.commit_id]
    place.open("content")
    storage.place(commit, files)
    assert place.visible().keys() == {file.path for file in files}
    assert list(storage.leftovers(P0)) == []


def test_a_committed_file_that_is_nowhere_is_named(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    place.lose(commit, files[1])
    with pytest.raises(SchemaError, match=files[1].path):
        storage.place(commit, files)


def test_what_cannot_be_staged_leaves_nothing_and_can_be_staged_later(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    place.close("_staging")
    with pytest.raises(RetryableError):
        storage.stage(commit, cut)
    with pytest.raises(RetryableError):
        storage.leftovers(P0)
    place.open("_staging")
    assert list(storage.leftovers(P0)) == []
    storage.place(commit, storage.stage(commit, cut))
    assert len(place.visible()) == len(cut)


def test_discarding_leaves_nothing_staged_and_touches_nothing_placed(place: Place, storage: Storage) -> None:
    placed, cut = made_of(40)
    storage.place(placed, storage.stage(placed, cut))
    before = place.visible()
    commit, cut = made_of(20)
    files = storage.stage(commit, cut)
    for discarded in (commit, commit, placed):
        storage.discard(discarded)
        assert list(storage.leftovers(P0)) == []
        assert place.visible() == before
    assert storage.stage(commit, cut) == files, "the same rows are the same files again"


def test_sweeping_takes_what_was_named_and_nothing_else(place: Place, storage: Storage) -> None:
    old, older, mine, other = made_of(10), made_of(10), made_of(10), made_of(10, P1)
    for commit, cut in (old, older):
        storage.stage(commit, cut)
    named = list(storage.leftovers(P0))
    assert named == sorted([old[0].commit_id, older[0].commit_id])
    for commit, cut in (mine, other):
        storage.stage(commit, cut)
    heir = place.storage()
    assert heir.sweep(P1, named) == 0
    assert heir.sweep(P0, [*named, "0" * 32]) == 2
    assert heir.sweep(P0, named) == 0
    assert list(storage.leftovers(P0)) == [mine[0].commit_id]
    assert list(storage.leftovers(P1)) == [other[0].commit_id]
    assert (list(storage.leftovers(NEVER)), storage.sweep(NEVER, named)) == ([], 0)


def test_sweeping_a_placed_commit_takes_nothing_from_readers(place: Place, storage: Storage) -> None:
    commit, cut = made_of(10)
    storage.place(commit, storage.stage(commit, cut))
    before = place.visible()
    assert storage.sweep(P0, [commit.commit_id]) == 0
    assert place.visible() == before != {}


def test_a_commit_without_rows_has_no_files(place: Place, storage: Storage) -> None:
    commit = Commit(uuid.uuid4().hex, P0, 0, 5, 0, 0, 0, "w:1")
    assert storage.stage(commit, []) == []
    storage.place(commit, [])
    assert place.visible() == {}
    assert list(storage.leftovers(P0)) == []


def test_a_snapshot_is_staged_placed_and_read_like_other_files(place: Place, storage: Storage) -> None:
    commit, cut = made_of(10)
    files, entry = storage.stage(commit, cut), storage.stage_snapshot(commit, b"body")
    assert storage.stage_snapshot(commit, b"body") == entry, "after a failure it is staged anew"
    assert (entry.partition, entry.next_offset, entry.bytes) == (P0, 10, 4)
    assert entry.sha256 == hashlib.sha256(b"body").hexdigest()
    assert entry.path.startswith(f"{SNAPSHOTS}/")
    assert storage.snapshot_paths(P0) == []
    for owner in (storage, place.storage(), storage):
        owner.place(commit, [*files, entry])
        assert list(owner.snapshot_paths(P0)) == [entry.path]
        assert owner.read_snapshot(entry) == b"body"
    assert list(storage.snapshot_paths(P1)) == []
    assert place.visible().keys() == {file.path for file in files}, "no glob over a table sees it"


def test_what_is_placed_of_snapshots_is_removed_by_name(place: Place, storage: Storage) -> None:
    entries = []
    for number in range(3):
        commit, _ = made_of(10 + number)
        entries.append(storage.stage_snapshot(commit, b"%d" % number))
        storage.place(commit, [entries[-1]])
    storage.remove_snapshots([entries[0].path, "snapshots/access-0/none.snapshot"])
    assert sorted(storage.snapshot_paths(P0)) == sorted(entry.path for entry in entries[1:])
    commit, cut = made_of(10)
    files, entry = storage.stage(commit, cut), storage.stage_snapshot(commit, b"gone")
    storage.place(commit, [*files, entry])
    storage.remove_snapshots([entry.path])
    storage.place(commit, [*files, entry])  # by a zombie: the snapshot is needless by now, and that is no error
    with pytest.raises(SchemaError, match="is gone"):
        storage.read_snapshot(entry)


def test_a_snapshot_that_was_cut_is_refused(place: Place, storage: Storage) -> None:
    commit, _ = made_of(10)
    entry = storage.stage_snapshot(commit, b"body")
    storage.place(commit, [entry])
    place.damage(entry.path)
    with pytest.raises(SchemaError, match="3 bytes, expected 4"):
        storage.read_snapshot(entry)


def test_discarding_and_sweeping_take_the_staged_snapshot(place: Place, storage: Storage) -> None:
    for forget in (storage.discard, lambda commit: storage.sweep(P0, [commit.commit_id])):
        commit, _ = made_of(10)
        storage.stage_snapshot(commit, b"body")
        forget(commit)
        assert list(storage.leftovers(P0)) == []
        assert list(storage.snapshot_paths(P0)) == []


def test_events_are_read_back_as_they_were_decoded(storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    storage.place(commit, files)
    landed = storage.read_events([commit], files)
    assert landed.missing == ()
    assert landed.events.equals(decoded_of(40).events)


def test_events_whose_files_are_gone_are_named_and_the_others_read(place: Place, storage: Storage) -> None:
    commit, cut = made_of(40)
    files = storage.stage(commit, cut)
    storage.place(commit, files)
    expected = decoded_of(40).events
    text = next(file for file in files if file.table_name == "content")
    place.remove(text.path)
    landed = storage.read_events([commit], files)
    assert list(landed.missing) == [text.path]
    assert landed.events["offset"].equals(expected["offset"])
    assert landed.events["prompt"].null_count == text.rows
    access = next(file for file in files if file.table_name == "access")
    place.remove(access.path)
    landed = storage.read_events([commit], files)
    assert sorted(landed.missing) == sorted([text.path, access.path])
    assert len(landed.events) == len(expected) - access.rows


@pytest.mark.parametrize("seed", range(3))
def test_the_fake_answers_as_the_lake_does(seed: int, tmp_path: Path) -> None:
    """Any steps of two workers: the same outcome, the same staged, as many files of each table and hour visible."""
    rng = random.Random(seed)
    places = [InMemory(tmp_path), OnDisk(tmp_path)]
    workers = [[place.storage() for place in places] for _ in range(2)]
    commits = [made_of(rng.randint(1, 12), rng.choice([P0, P1]), f"{number:032x}") for number in range(4)]
    aside = [InMemory(tmp_path).storage(), OnDisk(tmp_path / "aside").storage()]
    # What the catalog would list, also of commits that were swept since.
    listed = [[storage.stage(commit, cut) for storage in aside] for commit, cut in commits]
    for _ in range(60):
        storages, number = rng.choice(workers), rng.randrange(len(commits))
        step = rng.choice(["stage", "place", "discard", "sweep"])
        commit, cut = commits[number]
        outcomes = [
            outcome(storage, step, commit, cut, files) for storage, files in zip(storages, listed[number], strict=True)
        ]
        assert outcomes[0] == outcomes[1], step
        seen = [sorted(path.rpartition("/")[0] for path in place.visible()) for place in places]
        assert seen[0] == seen[1], step
    assert seen[0]


def outcome(storage: Storage, step: str, commit: Commit, cut: list[Section], files: list[FileEntry]) -> object:
    """What a step gives, or how it fails, and what is staged afterwards."""
    answer: object = None
    try:
        if step == "stage":
            storage.discard(commit)  # nobody stages a commit twice
            answer = len(storage.stage(commit, cut))
        elif step == "place":
            storage.place(commit, files)
        elif step == "discard":
            storage.discard(commit)
        else:
            answer = storage.sweep(commit.partition, [commit.commit_id])
    except (RetryableError, SchemaError) as error:
        answer = type(error)
    return answer, list(storage.leftovers(P0)), list(storage.leftovers(P1))
