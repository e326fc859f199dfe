"""Rewrites whose grace period had not ended when the catalog went: new files below `_rewrites`, former ones in place.

A footer does not say whether its rewrite was swapped.  It does not matter: what was written in whole holds the same
rows as what it was made of, but for those that somebody had asked to erase.  So a rewrite is *taken over* where

* each of its files can be read, and all are of one table and hour,
* they hold or leave out all rows of the files that they were made of, and each of these is there: a replacement whose
  rows are in its annex only is not, and goes on from there,
* rewritten files that they were made of count, too: else they would leave out what such a replacement let go,
* no other that counts stands for the same files.  Of two such, that which others were made of was swapped, and counts;
  else that which leaves out more rows.

The catalog lists it as swapped, and what it was made of as retired, so that settling goes on as if nothing had
happened.  Others are left: what they were made of counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.counted import counted
from pipeline.io.lake import REWRITES, Lake
from pipeline.io.rewriting.found import FoundRewritten, Sorted, sort_out
from pipeline.io.rewriting.held import Place
from pipeline.io.rewriting.settling import rewrite_folders
from pipeline.io.rewriting.writing import REWRITTEN


class Of(NamedTuple):
    """Which file that a commit made."""

    commit_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A rewrite that has a folder, and no file in a table.

    Attributes:
        rewrite_id: its folder's name.
        files: that could be read.
        unreadable: paths of the others.
    """

    rewrite_id: str
    files: tuple[FoundRewritten, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def erased(self) -> int:
        """Rows that it leaves out."""
        return sum(source.erased for file in self.files for source in file.said.sources)

    @property
    def file_ids(self) -> set[str]:
        """Of its files."""
        return {file.said.file_id for file in self.files}

    @property
    def replaces(self) -> set[str]:
        """Ids of the rewritten files that it was made of."""
        return {file_id for file in self.files for file_id in file.said.replaces}

    def in_words(self) -> str:
        """What it is, for people."""
        name = f"{REWRITES}/{self.rewrite_id}"
        if self.unreadable:
            return f"{name}: {counted(len(self.unreadable), 'file')} cannot be read"
        tables = ", ".join(sorted({file.place.table for file in self.files}))
        return f"{name}: {tables}" + (f", {counted(self.erased, 'row')} left out" if self.erased else "")


@dataclass(slots=True)
class TakenOver:
    """What was decided.

    Attributes:
        rewrites: that are taken over.
        left: that are not.
        files: rewritten files that count, with those in their tables, and what they hold.
        replaced: rewritten files that were there and are replaced by others.
    """

    rewrites: list[Unsettled] = field(default_factory=list)
    left: list[Unsettled] = field(default_factory=list)
    files: Sorted = field(default_factory=Sorted)
    replaced: list[FoundRewritten] = field(default_factory=list)

    def made_of(self, rewrite: Unsettled, made: Mapping[Of, str], settled: Sorted) -> list[str]:
        """Paths of the files that a rewrite stands for: rewritten ones, and those that commits made.

        Args:
            rewrite: one that is taken over.
            made: files that commits made and that are there.
            settled: rewritten files in their tables.
        """
        former = [file for file in self.replaced if file.said.file_id in rewrite.replaces]
        others = set(_sources(former)) | set(_held(settled))
        return [file.path for file in former] + [
            made[source] for source in dict.fromkeys(_sources(rewrite.files)) if source in made and source not in others
        ]


def unsettled_paths(lake: Lake, settled: Collection[str]) -> dict[str, list[Path]]:
    """Files of rewrites of which none has got its name in its table, by their rewrite.

    Args:
        lake: the files.
        settled: names of the rewritten files that stand in their tables.
    """
    found = {}
    for folder in rewrite_folders(lake):
        there = sorted((lake.root / REWRITES / folder).rglob(f"{REWRITTEN}*.parquet"))
        paths = [path.relative_to(lake.root) for path in there]
        if paths and not any(path.name in settled for path in paths):
            found[folder] = paths
    return found


def take_over(settled: Sorted, rewrites: Iterable[Unsettled], made: Collection[Of]) -> TakenOver:
    """Decide which rewrites count.

    Args:
        settled: rewritten files in their tables, as they count without any of these.
        rewrites: each once.
        made: files that commits made and that are there.
    """
    taken = TakenOver()
    known = {*made, *_held(settled)}
    whole: dict[Place, list[Unsettled]] = defaultdict(list)
    for rewrite in rewrites:
        places = {file.place for file in rewrite.files}
        if len(places) == 1 and not rewrite.unreadable and known.issuperset(_sources(rewrite.files)):
            whole[places.pop()].append(rewrite)
        else:
            taken.left.append(rewrite)
    for place, of_place in whole.items():
        _take_over_place([file for file in settled.kept if file.place == place], of_place, taken)
    every = [*settled.kept, *(file for rewrite in taken.rewrites for file in rewrite.files)]
    taken.files = sort_out(every)
    kept = {file.said.file_id for file in taken.files.kept}
    taken.replaced = [file for file in every if file.said.file_id not in kept]
    return taken


def _take_over_place(kept: Sequence[FoundRewritten], rewrites: Sequence[Unsettled], taken: TakenOver) -> None:
    """One after the other: one may be made of another's files, and counts once that one does."""
    replaced = {file_id for rewrite in rewrites for file_id in rewrite.replaces}
    waiting = sorted(rewrites, key=lambda one: (not (one.file_ids & replaced), -one.erased, one.rewrite_id))
    files = list(kept)
    went_on = True
    while went_on:
        went_on = False
        for rewrite in list(waiting):
            if _fits(files, rewrite):
                files += rewrite.files
                taken.rewrites.append(rewrite)
                waiting.remove(rewrite)
                went_on = True
    taken.left += waiting


def _fits(files: Sequence[FoundRewritten], rewrite: Unsettled) -> bool:
    """Whether a rewrite's files count beside others, and none of those ceases to, but for those that it replaces."""
    if not rewrite.replaces <= {file.said.file_id for file in files}:
        return False
    every = [*files, *rewrite.files]
    kept = {file.said.file_id for file in sort_out(every).kept}
    replaced = {file_id for file in every for file_id in file.said.replaces}
    return all(file.said.file_id in kept or file.said.file_id in replaced for file in every)


def _sources(files: Iterable[FoundRewritten]) -> Iterator[Of]:
    for file in files:
        for source in file.said.sources:
            yield Of(source.made.commit.commit_id, file.place)


def _held(files: Sorted) -> Iterator[Of]:
    for commit_id, fate in files.fates.of.items():
        for place in fate.held:
            yield Of(commit_id, place)
