"""What the lake has stored of accounts: the row of features and scores of each at a moment, newest files first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.alerts import spellings
from pipeline.batch import Partition
from pipeline.commits import FileEntry
from pipeline.decisions import JudgedRow
from pipeline.errors import SchemaError
from pipeline.events import TIME
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake

_Found = TypeVar("_Found")

_WINDOWS: Final = "account_windows"
_FIRST_FILES: Final = 200
"""Files that are looked at first; each further look takes twice as many."""

_NEAR_FILES: Final = 200
_NEAR_CHARS_MAX: Final = 100
_NEAR_MAX: Final = 3
_NEAR_EDITS: Final = 2
_ATTEMPTS: Final = 3

_UNREADABLE: Final = (duckdb.Error, pa.ArrowInvalid, OSError)
"""What reading a file that is missing or broken ends in."""

_NEWEST_FIRST: Final = 'scored_at DESC, exchanges DESC, "offset" DESC, kind, topic, "partition"'
"""Two rows of one moment are told apart in the same way always."""


class UnreadRowsError(SchemaError):
    """A file of rows is missing or broken; what else is wrong, as a damaged catalog, is another `SchemaError`."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The newest row of an account that was stored at a moment.

    Attributes:
        account_id: as the lake has it.
        moment_us: of event time; None: now.
        partition: only rows of records that came by it; None: by any.
        offset_max: only rows that this record or an earlier one of the partition triggered; None: any.
    """

    account_id: str
    moment_us: int | None = None
    partition: Partition | None = None
    offset_max: int | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row stands."""

    path: str
    scored_at_us: int
    account_id: str
    offset: int
    kind: str
    partition: Partition


def rows_at(
    lake: Lake, catalog: Catalog, wanted: Sequence[Wanted], unread: dict[int, str] | None = None
) -> list[JudgedRow | None]:
    """For each that is wanted its row; None where there is none.

    Args:
        lake: where the rows are.
        catalog: which files there are.
        wanted: which rows.
        unread: where it is given, a file that is missing or broken is no error: this is filled with the first such file
            that may hold a row, by the row's number among those wanted, and that row is None.

    Raises:
        RetryableError: the catalog does not answer.
        SchemaError: the catalog is damaged.
        UnreadRowsError: a file of the lake is missing or broken, and may hold one of the rows.
    """
    if not wanted:
        return []
    try:
        return _while_files_move(lambda: _rows_at(lake, catalog, wanted))
    except UnreadRowsError:  # perhaps of a file that would not be needed, but was looked at beside others
        try:
            return _while_files_move(lambda: _rows_at(lake, catalog, wanted, at_once=1))
        except UnreadRowsError:
            if unread is None:
                raise
            return _rows_around(lake, catalog, wanted, unread)


def _rows_around(
    lake: Lake, catalog: Catalog, wanted: Sequence[Wanted], unread: dict[int, str]
) -> list[JudgedRow | None]:
    """Rows as far as files can be read: of none it is guessed what a broken file may have held in its place."""
    places: dict[int, _Place] = {}
    files = _files(catalog, wanted)
    for (file,), rest_until_us in _looks(files, 1):
        left = {
            number: one
            for number, one in enumerate(wanted)
            if number not in unread
            and not _is_settled(places.get(number), rest_until_us)
            and (one.moment_us is None or file.time_min_us is None or file.time_min_us <= one.moment_us)
        }
        try:
            _put_later(places, _places_in(lake, [file], left) if left else {})
        except _UNREADABLE:
            unread.update(dict.fromkeys(left, file.path))
    by_place: dict[_Place, list[int]] = {}
    for number, place in places.items():
        if number not in unread:
            by_place.setdefault(place, []).append(number)
    found: dict[int, JudgedRow] = {}
    for place, numbers in by_place.items():
        try:
            found |= dict.fromkeys(numbers, _rows_of({place})[place])
        except _UNREADABLE:
            unread |= dict.fromkeys(numbers, Path(place.path).relative_to(lake.root).as_posix())
    return [found.get(number) for number in range(len(wanted))]


def _files(catalog: Catalog, wanted: Sequence[Wanted]) -> list[FileEntry]:
    moments = [one.moment_us for one in wanted]
    latest = None if None in moments else max(moment for moment in moments if moment is not None)
    return _newest_first(catalog.live_files(_WINDOWS, (None, latest)))


def _put_later(places: dict[int, _Place], found: Mapping[int, _Place]) -> None:
    for number, place in found.items():
        if number not in places or place.scored_at_us > places[number].scored_at_us:
            places[number] = place


def _rows_at(
    lake: Lake, catalog: Catalog, wanted: Sequence[Wanted], at_once: int | None = None
) -> list[JudgedRow | None]:
    files = _files(catalog, wanted)
    places: dict[int, _Place] = {}
    for some, rest_until_us in _looks(files, at_once):
        left = {number: one for number, one in enumerate(wanted) if not _is_settled(places.get(number), rest_until_us)}
        if not left:
            break
        _put_later(places, _places_in(lake, some, left))
    rows = _rows_of(set(places.values()))
    return [rows[places[number]] if number in places else None for number in range(len(wanted))]


def _is_settled(place: _Place | None, rest_until_us: int) -> bool:
    """Whether no file that is left can hold a later row."""
    return place is not None and place.scored_at_us > rest_until_us


def _newest_first(files: Iterable[FileEntry]) -> list[FileEntry]:
    return sorted(files, key=lambda file: (file.time_max_us or 0, file.path), reverse=True)


def _looks(files: Sequence[FileEntry], at_once: int | None = None) -> Iterator[tuple[Sequence[FileEntry], int]]:
    """Files in portions that grow, or so many at once, each with the latest time that it and those after may hold."""
    start, count = 0, at_once or _FIRST_FILES
    while start < len(files):
        yield files[start : start + count], files[start].time_max_us or 0
        start, count = start + count, at_once or 2 * count


def _places_in(lake: Lake, files: Sequence[FileEntry], left: Mapping[int, Wanted]) -> dict[int, _Place]:
    """Where the newest rows stand, as far as these files have any."""
    rows = [
        (
            number, account, one.moment_us, one.partition.topic if one.partition else None,
            one.partition.number if one.partition else None, one.offset_max,
        )
        for number, one in left.items()
        for account in spellings(one.account_id)
    ]  # fmt: skip
    names = ("number", "account", "moment_us", "of_topic", "of_partition", "offset_max")
    kinds = (pa.int64(), pa.string(), pa.int64(), pa.string(), pa.int32(), pa.int64())
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    only = {row[1] for row in rows}
    query = (  # the words are our own, what others said is given as values
        "SELECT w.number, r.filename, epoch_us(r.scored_at), r.account_id, r.offset, r.kind, r.topic, r.partition "  # noqa: S608
        "FROM read_parquet($paths, filename = true, hive_partitioning = false) AS r "
        "JOIN wanted AS w ON r.account_id = w.account "
        "WHERE (w.moment_us IS NULL OR r.scored_at <= make_timestamptz(w.moment_us)) "
        "AND (w.of_topic IS NULL OR (r.topic = w.of_topic AND r.partition = w.of_partition)) "
        "AND (w.offset_max IS NULL OR r.offset <= w.offset_max) "
        # of one account DuckDB looks its row groups' statistics and Bloom filters up
        f"{'AND r.account_id = $only ' if len(only) == 1 else ''}"
        f"QUALIFY row_number() OVER (PARTITION BY w.number ORDER BY {_NEWEST_FIRST}) = 1"
    )
    given: dict[str, Any] = {"paths": [str(lake.root / file.path) for file in files]}
    if len(only) == 1:
        (given["only"],) = only
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("wanted", pa.table(columns, names=names))
        found = connection.execute(query, given).fetchall()
    return {
        number: _Place(path, at_us, account, offset, kind, Partition(topic, partition))
        for number, path, at_us, account, offset, kind, topic, partition in found
    }


def _rows_of(places: set[_Place]) -> dict[_Place, JudgedRow]:
    """The rows themselves, each file read once; features by the names that they had when they were stored."""
    by_path: dict[str, list[_Place]] = {}
    for place in places:
        by_path.setdefault(place.path, []).append(place)
    found: dict[_Place, JudgedRow] = {}
    for path, of_file in by_path.items():
        mine = pc.field("account_id").isin(pa.array({place.account_id for place in of_file}, pa.string()))
        names = ["account_id", "scored_at", "offset", "kind", "topic", "partition", "risk", "exchanges", "features"]
        rows = pq.read_table(path, columns=names, filters=mine, partitioning=None)
        rows = rows.set_column(1, "scored_at", rows["scored_at"].cast(TIME).cast(pa.int64()))
        for row in rows.to_pylist():
            where = Partition(row["topic"], row["partition"])
            place = _Place(path, row["scored_at"], row["account_id"], row["offset"], row["kind"], where)
            if place in places:
                numbers = {name: row[name] for name in ("offset", "risk", "features", "exchanges", "kind")}
                found[place] = JudgedRow(where, scored_at_us=row["scored_at"], **numbers)
    return found


def seen(lake: Lake, catalog: Catalog, accounts: Iterable[str]) -> set[str]:
    """Which of these accounts have an event in the lake.

    Raises:
        As `rows_at`.
    """
    wanted = {spelling: account for account in accounts for spelling in spellings(account)}
    if not wanted:
        return set()
    return {wanted[found] for found in _while_files_move(lambda: _seen(lake, catalog, sorted(wanted)))}


def _seen(lake: Lake, catalog: Catalog, wanted: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some, _ in _looks(_newest_first(catalog.live_files("access"))):
        left = [account for account in wanted if account not in found]
        if not left:
            break
        query = "SELECT DISTINCT account_id FROM read_parquet($paths, hive_partitioning = false) WHERE "
        query += "account_id = $only" if len(left) == 1 else "list_contains($left, account_id)"
        given = {"paths": [str(lake.root / file.path) for file in some]}
        with duckdb.connect() as connection:
            which = {"only": left[0]} if len(left) == 1 else {"left": left}
            found.update(account for (account,) in connection.execute(query, {**given, **which}).fetchall())
    return found


def near_names(lake: Lake, catalog: Catalog, account_id: str) -> list[str]:
    """Accounts among those scored last whose ids differ from one by case, spaces, or a letter or two.

    Raises:
        As `rows_at`.
    """
    if len(account_id) > _NEAR_CHARS_MAX:
        return []
    return _while_files_move(lambda: _near_names(lake, catalog, account_id))


def _near_names(lake: Lake, catalog: Catalog, account_id: str) -> list[str]:
    files = _newest_first(catalog.live_files(_WINDOWS))[:_NEAR_FILES]
    if not files:
        return []
    said = "lower(trim(account_id))"
    query = (
        "SELECT account_id FROM (SELECT DISTINCT account_id FROM read_parquet($paths, hive_partitioning = false)) "  # noqa: S608  # no text of others
        f"WHERE length(account_id) <= $chars AND damerau_levenshtein({said}, lower(trim($name))) <= $edits "
        f"ORDER BY damerau_levenshtein({said}, lower(trim($name))), account_id LIMIT $most"
    )
    given = {
        "paths": [str(lake.root / file.path) for file in files], "name": account_id, "chars": 2 * _NEAR_CHARS_MAX,
        "edits": min(_NEAR_EDITS, len(account_id) // 4), "most": _NEAR_MAX,
    }  # fmt: skip
    with duckdb.connect() as connection:
        return [name for (name,) in connection.execute(query, given).fetchall()]


def _while_files_move(look: Callable[[], _Found]) -> _Found:
    """Look again where files went meanwhile, as they do when they are merged."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return look()
        except _UNREADABLE as error:
            if attempt == _ATTEMPTS:
                said = " ".join(str(error).partition("\nLINE ")[0].split())  # and not our own SQL
                raise UnreadRowsError(f"{said}; `stillwatch maintain verify` says what is missing or broken") from error
    raise AssertionError
