"""What became of the rows of each file that a commit made, as the footers of all files tell together.

The law: rows in place + rows in rewritten files + rows erased = rows landed, or else the hour is below the table's
retention mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.commits import Commit, FileEntry
from pipeline.counted import counted
from pipeline.io.footers import Made, Rewritten, Source, joined_sources
from pipeline.lake_tables import NO_TIME_DAY


class Place(NamedTuple):
    """A table and an hour: of each a commit makes one file at most."""

    table: str
    dt: str
    hour: int


@dataclass(slots=True)
class Fate:
    """What became of the files of one commit.

    Attributes:
        made: what one of its footers said; None where none is left.
        in_place: rows of the files that it made and that are there, by their place.
        held: what rewritten files hold of the others.
    """

    made: Made | None = None
    in_place: dict[Place, int] = field(default_factory=dict)
    held: dict[Place, Source] = field(default_factory=dict)

    def rows(self, table: str) -> int:
        """Rows of a table that are there, and those that were erased."""
        there = sum(rows for place, rows in self.in_place.items() if place.table == table)
        return there + sum(source.rows + source.erased for place, source in self.held.items() if place.table == table)

    def retained(self, marks: Mapping[str, str]) -> dict[Place, int]:
        """Its files that are gone because they were too old, with the rows that they had."""
        hours = self.made.hours if self.made else ()
        known = {*self.in_place, *self.held}
        return {
            place: hour.rows
            for hour in hours
            for place in [Place(hour.table, hour.dt, hour.hour)]
            if place not in known and is_below(place, marks)
        }

    def lost(self, marks: Mapping[str, str]) -> list[str]:
        """Where the law does not hold, in words."""
        gone = self.retained(marks)
        found = []
        for hour in self.made.hours if self.made else ():
            place = Place(hour.table, hour.dt, hour.hour)
            held = self.held.get(place)
            rows = self.in_place.get(place, held.rows + held.erased if held else 0)
            if rows != hour.rows and place not in gone:
                where = f"{hour.table}/dt={hour.dt}/hour={hour.hour:02d}"
                found.append(f"of {counted(hour.rows, 'row')} that it landed in {where}, files have {rows}")
        return found


class Fates:
    """Of all commits."""

    def __init__(self) -> None:
        self.of: dict[str, Fate] = {}

    def add_made(self, made: Made, place: Place, rows: int) -> None:
        """A file that a commit made is there."""
        fate = self.of.setdefault(made.commit.commit_id, Fate())
        fate.made = fate.made or made
        fate.in_place[place] = rows

    def add_rewritten(self, files: Iterable[tuple[Place, Rewritten]]) -> None:
        """All rewritten files that are there, at once."""
        by_place: dict[Place, list[Rewritten]] = {}
        for place, file in files:
            by_place.setdefault(place, []).append(file)
        for place, of_place in by_place.items():
            for commit_id, source in joined_sources(of_place).items():
                fate = self.of.setdefault(commit_id, Fate())
                fate.made = fate.made or source.made
                fate.held[place] = source

    def commit(self, commit_id: str) -> Commit | None:
        """A commit as footers tell it."""
        made = self.of[commit_id].made if commit_id in self.of else None
        return made.commit if made else None


def rows_below(files: Iterable[FileEntry], marks: Mapping[str, str]) -> dict[str, int]:
    """Rows of files whose hours are too old to be kept, by table; those without a time are as old as their commits."""
    found: dict[str, int] = {}
    for file in files:
        if file.dt != NO_TIME_DAY and is_below(Place(file.table_name, file.dt, file.hour), marks):
            found[file.table_name] = found.get(file.table_name, 0) + file.rows
    return found


def is_below(place: Place, marks: Mapping[str, str]) -> bool:
    """Whether a table holds nothing of an hour any more because it is too old."""
    return f"{place.dt}T{place.hour:02d}" < marks.get(place.table, "")
