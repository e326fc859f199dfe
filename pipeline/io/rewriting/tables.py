"""The catalog's tables of rewrites and of retention: version 5."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from pipeline.io.catalog_tables import META, file_columns

WRITING: Final = "writing"
SWAPPED: Final = "swapped"
SETTLED: Final = "settled"

rewrites = sa.Table(
    "rewrites",
    META,
    sa.Column("rewrite_id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # writing, swapped, settled
    sa.Column("changed_at_us", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.String, nullable=False),
)
rewrite_inputs = sa.Table(
    "rewrite_inputs",
    META,
    sa.Column("rewrite_id", sa.String, primary_key=True),
    sa.Column("path", sa.String, primary_key=True),
)
rewritten_files = sa.Table(
    "rewritten_files",
    META,
    sa.Column("file_id", sa.String, primary_key=True),
    sa.Column("rewrite_id", sa.String, nullable=False, index=True),
    sa.Column("path", sa.String, nullable=False, unique=True),
    *file_columns(),
    sa.Column("state", sa.String, nullable=False),  # live, retired
    sa.Index("rewritten_files_by_hour", "table_name", "state", "dt", "hour"),
)
rewritten_spans = sa.Table(
    "rewritten_spans",
    META,
    sa.Column("file_id", sa.String, primary_key=True),
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("first_offset", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Index("rewritten_spans_by_offset", "topic", "partition", "next_offset"),
)
retention = sa.Table(
    "retention",
    META,
    sa.Column("table_name", sa.String, primary_key=True),
    sa.Column("before", sa.String, nullable=False),  # YYYY-MM-DDTHH
)
