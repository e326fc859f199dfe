"""The catalog's tables of what was sent where: version 6."""

from __future__ import annotations

import sqlalchemy as sa

from pipeline.io.catalog_tables import META

delivery_log = sa.Table(
    "delivery_log",
    META,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("alert_id", sa.String, nullable=False, index=True),
    sa.Column("routed_at_us", sa.BigInteger, nullable=False),
)
"""All alerts that are to be sent, in one order; each sink has its place in it."""

delivery_sinks = sa.Table(
    "delivery_sinks",
    META,
    sa.Column("sink", sa.String, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.String, nullable=False),  # empty: nobody
    sa.Column("until_us", sa.BigInteger, nullable=False),
    sa.Column("marks", sa.BigInteger, nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),  # all before it are done
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("refusals", sa.Integer, nullable=False),
    sa.Column("head", sa.String, nullable=False),  # what was tried and failed
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("unreachable", sa.Integer, nullable=False),
    sa.Column("next_try_us", sa.BigInteger, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("error_at_us", sa.BigInteger),
    sa.Column("sent_at_us", sa.BigInteger),
    sa.Column("digest_at_us", sa.BigInteger),
    sa.Column("allowance", sa.Double, nullable=False),
    sa.Column("allowance_at_us", sa.BigInteger, nullable=False),
    sa.Column("sent", sa.BigInteger, nullable=False),
    sa.Column("digested", sa.BigInteger, nullable=False),
)
delivery_asides = sa.Table(
    "delivery_asides",
    META,
    sa.Column("sink", sa.String, primary_key=True),
    sa.Column("alert_id", sa.String, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # dead, replay, suppressed
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Index("delivery_asides_by_state", "sink", "state", "seq"),
)
"""What a sink's place in the log does not tell: alerts that stepped aside."""

delivery_digests = sa.Table(
    "delivery_digests",
    META,
    sa.Column("digest_id", sa.String, primary_key=True),
    sa.Column("sink", sa.String, nullable=False),
    sa.Column("first_seq", sa.BigInteger, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("alerts", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # open, sent, dead
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("done_at_us", sa.BigInteger),
    sa.Index("delivery_digests_by_state", "sink", "state", "first_seq"),
)
