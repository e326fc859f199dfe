"""The catalog's tables, and how their rows become the words of the commit protocol."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from pipeline.batch import Partition
from pipeline.commits import LOST, Commit, FileEntry, Hole

SCHEMA_VERSION: Final = 7
"""Version of the tables below.  A newer Stillwatch migrates; an older one refuses."""

MIGRATIONS: Final = {
    1: (
        "ALTER TABLE offsets ADD COLUMN topic_id VARCHAR NOT NULL DEFAULT ''",
        "ALTER TABLE offsets ADD COLUMN leader_epoch INTEGER NOT NULL DEFAULT -1",
        "ALTER TABLE holes ADD COLUMN kind VARCHAR NOT NULL DEFAULT 'lost'",
    ),
    2: (),  # three new tables
    3: (),  # the new tables of `pipeline.io.source_book`
    4: (),  # the new tables of `pipeline.io.rewriting.tables`
    5: (),  # the new tables of `pipeline.io.desk`, which takes the table `audit` over
    6: (),  # `COLUMNS_SINCE_6`
}
"""What makes a version the next one, apart from tables that are new.  Both databases read these alike."""

COLUMNS_SINCE_6: Final = {
    "verdict_marks": {"copied": "BOOLEAN NOT NULL DEFAULT FALSE"},
    "audit_subjects": {"id_sha256": "VARCHAR NOT NULL DEFAULT ''"},
}
"""Columns that tables of the desk have got since; catalogs of before version 6 get these tables whole."""


def file_columns() -> list[sa.Column[Any]]:
    """What is listed of a file beside its path: `FileEntry`, for every table that lists files."""
    return [
        sa.Column("table_name", sa.String, nullable=False),
        sa.Column("dt", sa.String, nullable=False),
        sa.Column("hour", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("time_min_us", sa.BigInteger),
        sa.Column("time_max_us", sa.BigInteger),
    ]


META = sa.MetaData()
meta = sa.Table(
    "meta", META, sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
)
offsets = sa.Table(
    "offsets",
    META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("topic_id", sa.String, nullable=False, server_default=""),
    sa.Column("leader_epoch", sa.Integer, nullable=False, server_default="-1"),
)
topics = sa.Table(
    "topics",
    META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("consumer_group", sa.String, nullable=False),
    sa.Column("since_us", sa.BigInteger, nullable=False),
)
commits = sa.Table(
    "commits",
    META,
    sa.Column("commit_id", sa.String, primary_key=True),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("first_offset", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("rejects", sa.BigInteger, nullable=False),
    sa.Column("committed_at_us", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.String, nullable=False),
    sa.UniqueConstraint("topic", "partition", "first_offset", name="commits_do_not_overlap"),
    sa.CheckConstraint("next_offset > first_offset", name="commits_move_forward"),
)
files = sa.Table(
    "files",
    META,
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("commit_id", sa.String, sa.ForeignKey("commits.commit_id"), nullable=False, index=True),
    *file_columns(),
    sa.Column("state", sa.String, nullable=False),
    sa.Index("files_by_hour", "table_name", "state", "dt", "hour"),
)
holes = sa.Table(
    "holes",
    META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("first_offset", sa.BigInteger, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, primary_key=True),
    sa.Column("noticed_at_us", sa.BigInteger, nullable=False),
    sa.Column("accepted_at_us", sa.BigInteger),
    sa.Column("kind", sa.String, nullable=False, server_default=LOST),
)

snapshots = sa.Table(
    "snapshots",
    META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, primary_key=True),
    sa.Column("commit_id", sa.String, nullable=False, index=True),
    sa.Column("path", sa.String, nullable=False, unique=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("format", sa.Integer, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String, nullable=False),
)
alerts = sa.Table(
    "alerts",
    META,
    sa.Column("alert_id", sa.String, primary_key=True),
    sa.Column("rule", sa.String, nullable=False),
    sa.Column("rule_version", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("entity_type", sa.String, nullable=False),
    sa.Column("entity_id", sa.String, nullable=False),
    sa.Column("window_start_us", sa.BigInteger, nullable=False),
    sa.Column("raised_at_us", sa.BigInteger, nullable=False),
    sa.Column("first_seen_us", sa.BigInteger, nullable=False),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("exchanges", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("risk", sa.Double),
    sa.Column("reasons", sa.Text, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("commit_id", sa.String, nullable=False),
    sa.Column("entity_sha256", sa.String, nullable=False),  # PostgreSQL's indexes hold no ids of 10 kB
    sa.Index("alerts_by_time", "raised_at_us"),
    sa.Index("alerts_by_entity", "entity_sha256"),
)
outbox = sa.Table(
    "outbox",
    META,
    sa.Column("alert_id", sa.String, sa.ForeignKey("alerts.alert_id"), primary_key=True),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)


def insert(engine: sa.Engine, table: sa.Table) -> Any:
    """INSERT in the dialect that knows ON CONFLICT; both spell it the same way."""
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # takes a moment to load, and most read alone

    return postgresql.insert(table)


def key_of(partition: Partition) -> dict[str, Any]:
    """A partition as the columns that name it."""
    return {"topic": partition.topic, "partition": partition.number}


def span_of(hole: Hole) -> dict[str, Any]:
    """A hole as the columns that say where it is and of which kind."""
    return {
        **key_of(hole.partition),
        "first_offset": hole.first_offset,
        "next_offset": hole.next_offset,
        "kind": hole.kind,
    }


def all_offsets(tx: sa.Connection) -> dict[Partition, int]:
    """Where reading goes on, for every partition ever read."""
    rows = tx.execute(sa.select(offsets).order_by(offsets.c.topic, offsets.c.partition))
    return {Partition(row.topic, row.partition): row.next_offset for row in rows}


def all_commits(tx: sa.Connection) -> list[Commit]:
    """Every commit, by partition and offset."""
    query = sa.select(commits).order_by(commits.c.topic, commits.c.partition, commits.c.first_offset)
    return [commit_of(row) for row in tx.execute(query).mappings()]


def commit_with_id(tx: sa.Connection, commit_id: str) -> Commit:
    """The commit of an id, which must be there."""
    return commit_of(tx.execute(sa.select(commits).where(commits.c.commit_id == commit_id)).mappings().one())


def all_holes(tx: sa.Connection) -> list[Hole]:
    """Every hole that was ever noticed, by partition and offset."""
    rows = tx.execute(sa.select(holes).order_by(holes.c.topic, holes.c.partition, holes.c.first_offset))
    return [
        Hole(
            Partition(row.topic, row.partition), row.first_offset, row.next_offset,
            accepted=row.accepted_at_us is not None, kind=row.kind,
        )
        for row in rows
    ]  # fmt: skip


def of(table: sa.Table, partition: Partition) -> list[sa.ColumnElement[bool]]:
    """What selects a partition's rows of a table."""
    return [table.c.topic == partition.topic, table.c.partition == partition.number]


def live_of(table: sa.Table, state: str = "live") -> sa.Select[Any]:
    """SELECT of a table's files in a state, their columns as `FileEntry` has them; of commits' or of others'."""
    return sa.select(*(table.c[name] for name in FileEntry.__slots__)).where(table.c.state == state)


def file_of(row: Any) -> FileEntry:
    """A row of `files`."""
    return FileEntry(**{name: row[name] for name in FileEntry.__slots__})


def commit_of(row: Any) -> Commit:
    """A row of `commits`."""
    names = [name for name in Commit.__slots__ if name != "partition"]
    return Commit(partition=Partition(row["topic"], row["partition"]), **{name: row[name] for name in names})
