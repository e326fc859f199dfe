"""A role of PostgreSQL that may not do all: which right it lacks is said, and granting what is said is enough."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from kafka import KafkaProducer
from sqlalchemy.dialects import postgresql

from pipeline.errors import NoRightError
from pipeline.io import catalog_tables as tables
from pipeline.io.catalog import Catalog
from pipeline.io.desk.audit_log import Act, AuditFilter
from pipeline.io.desk.judging import prepare
from pipeline.io.desk.looks import NotRecordedError, record_look
from pipeline.io.desk.numbers import sha256_of_id
from pipeline.io.rewriting.annex import ANNEXES
from pipeline.judging import Judgement
from tests.commands import run_command
from tests.conftest import TopicFactory
from tests.lake_maker import LakeMaker, make_lake
from tests.rewrites import events_of
from tests.servers import KafkaServer
from tests.triage import serving

EVENT = {"event_time": "2026-03-01T12:00:00Z", "account_id": "acct_1", "model": "m"}
ROLE = "Half; role"
GRANTS_MAX = 30
NOW_US = 1_800_000_000_000_000


@pytest.fixture
def maker(tmp_path: Path, postgres_url: str) -> Iterator[LakeMaker]:
    with make_lake(tmp_path / "lake", [EVENT], catalog_url=postgres_url) as maker:
        as_owner(maker.catalog, f'CREATE ROLE "{ROLE}" LOGIN')
        try:
            yield maker
        finally:
            as_owner(maker.catalog, f'DROP OWNED BY "{ROLE}"', f'DROP ROLE "{ROLE}"')


def as_owner(catalog: Catalog, *statements: str) -> None:
    with catalog.transaction(write=True) as tx:
        for statement in statements:
            tx.exec_driver_sql(statement)


def url_of_role(maker: LakeMaker) -> str:
    return sa.make_url(maker.catalog_url).set(username=ROLE).render_as_string(hide_password=False)


def by_role(maker: LakeMaker, *arguments: str) -> tuple[int, str, str]:
    return run_command(*arguments, "--lake", str(maker.root), "--catalog", url_of_role(maker))


def without(maker: LakeMaker, rights: str, table: str) -> None:
    """Let the role do all but this."""
    as_owner(
        maker.catalog,
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{ROLE}"',
        f'REVOKE {rights} ON {table} FROM "{ROLE}"',
    )


def granted_of(error: str) -> str:
    (grant,) = re.findall(r'GRANT [A-Z, ]+ ON \w+ TO "[^"]+"', error)
    return str(grant)


VERDICT = ("verdict", "acct_1", "harvesting", "--why", "one frame", "--by", "ana")


def test_a_table_without_rights_is_named_with_what_to_grant(maker: LakeMaker) -> None:
    without(maker, "ALL", "audit_keys")
    code, _, error = by_role(maker, *VERDICT)
    assert code == 2
    assert f'the role "{ROLE}" may not SELECT the table audit_keys: GRANT SELECT ON audit_keys TO "{ROLE}".' in error
    assert "InsufficientPrivilege" not in error
    assert maker.catalog.desk.verdicts.find() == []
    as_owner(maker.catalog, granted_of(error))
    assert by_role(maker, *VERDICT)[0] == 0


def test_who_grants_what_is_said_one_after_the_other_gets_there(maker: LakeMaker) -> None:
    for _ in range(GRANTS_MAX):
        code, _, error = by_role(maker, *VERDICT)
        if code == 0:
            break
        assert code == 2
        as_owner(maker.catalog, granted_of(error))
    assert [verdict.account_id for verdict in maker.catalog.desk.verdicts.find()] == ["acct_1"]


def test_a_role_that_reads_alone_may_list_and_is_told_when_it_decides(maker: LakeMaker) -> None:
    as_owner(maker.catalog, f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{ROLE}"')
    assert by_role(maker, "alerts", "list")[0] == 0
    assert by_role(maker, "audit")[0] == 0
    code, _, error = by_role(maker, *VERDICT)
    assert code == 2
    assert f'the role "{ROLE}" may not ' in error
    assert "one that reads alone SELECT" in error


META = tables.meta
NEW = postgresql.insert(META).values(key="schema_version", value="0")


@pytest.mark.parametrize(
    ("statement", "may_not", "rights"),
    (
        (sa.select(META.c.value), "SELECT", "SELECT"),
        (sa.select(META.c.value).with_for_update(), "UPDATE", "SELECT, UPDATE"),
        (NEW.on_conflict_do_nothing(index_elements=["key"]), "INSERT", "SELECT, INSERT"),
        (
            NEW.on_conflict_do_update(index_elements=["key"], set_={"value": META.c.value}),
            "INSERT or UPDATE",
            "SELECT, INSERT, UPDATE",
        ),
        (sa.update(META).values(value=META.c.value), "UPDATE", "SELECT, UPDATE"),
        (sa.delete(META).where(META.c.key == "nothing"), "DELETE", "SELECT, DELETE"),
    ),
)
def test_what_is_granted_at_once_is_all_that_a_statement_needs(
    maker: LakeMaker, statement: sa.Executable, may_not: str, rights: str
) -> None:
    as_owner(maker.catalog, f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{ROLE}"')
    with contextlib.closing(Catalog.open(url_of_role(maker), create=False)) as catalog:
        as_owner(maker.catalog, f'REVOKE ALL ON meta FROM "{ROLE}"')
        with pytest.raises(NoRightError) as raised, catalog.transaction(write=True) as tx:
            tx.execute(statement)
        assert raised.value.said.startswith(
            f'the role "{ROLE}" may not {may_not} the table meta: GRANT {rights} ON meta TO "{ROLE}".'
        )
        as_owner(maker.catalog, granted_of(str(raised.value)))
        with catalog.transaction(write=True) as tx:
            tx.execute(statement)


def test_a_catalog_that_the_role_may_not_make_says_who_makes_it(maker: LakeMaker) -> None:
    as_owner(maker.catalog, "CREATE SCHEMA elsewhere", f'ALTER ROLE "{ROLE}" SET search_path = elsewhere')
    try:
        code, _, error = by_role(maker, "backfill", "--rejects")
        assert (code, "the tables are made, and brought up to date, by the role that owns them" in error) == (2, True)
        as_owner(maker.catalog, f'GRANT USAGE ON SCHEMA elsewhere TO "{ROLE}"')
        code, _, error = by_role(maker, "backfill", "--rejects")
        assert (code, "the tables are made, and brought up to date, by the role that owns them" in error) == (2, True)
    finally:
        as_owner(maker.catalog, "DROP SCHEMA elsewhere")


def test_a_lacking_right_refuses_no_judgement(maker: LakeMaker) -> None:
    """A line of a file is not wrong for it, and no verdict of a topic is passed over."""
    without(maker, "ALL", "alerts")
    with contextlib.closing(Catalog.open(url_of_role(maker), create=False)) as catalog:
        judgement = Judgement("acct_1", "harvesting", "one frame", "ana")
        with pytest.raises(NoRightError, match="GRANT SELECT ON alerts"):
            prepare(maker.lake, catalog, [judgement], NOW_US)
    file = maker.root.parent / "verdicts.csv"
    file.write_text("account_id,decision,why,by\nacct_1,harvesting,one frame,ana\n")
    code, _, error = by_role(maker, "verdict", "load", "--csv", str(file))
    assert (code, "GRANT SELECT ON alerts" in error, "wrong" in error) == (2, True, False)


def test_a_topics_verdicts_wait_for_the_right_that_is_lacking(
    maker: LakeMaker, kafka: KafkaServer, topic: TopicFactory
) -> None:
    without(maker, "ALL", "alerts")
    name = topic()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    said = {"account_id": "acct_1", "decision": "harvesting", "why": "one frame", "by": "case-system"}
    producer.send(name, json.dumps(said).encode())
    producer.close()
    listen = ("verdict", "listen", "--topic", name, "--bootstrap", kafka.bootstrap, "--once", "--log-level", "warning")
    code, _, error = by_role(maker, *listen)
    assert (code, "GRANT SELECT ON alerts" in error) == (2, True)
    assert maker.catalog.desk.topics.read(name) == {}
    assert maker.catalog.desk.audit.records(AuditFilter(action="verdict.refused")) == []
    as_owner(maker.catalog, granted_of(error))
    assert by_role(maker, *listen)[1].startswith("1 verdict given, ")
    assert [verdict.account_id for verdict in maker.catalog.desk.verdicts.find()] == ["acct_1"]


def test_rows_that_were_read_for_a_replacement_are_kept_while_a_right_is_lacking(maker: LakeMaker) -> None:
    file = maker.root.parent / "new.ndjson"
    file.write_bytes(orjson.dumps({**EVENT, "account_id": "acct_2"}) + b"\n")
    command = ("backfill", "--no-score", "--replace", "--from", "2026-03-01", "--to", "2026-03-02", str(file))
    without(maker, "UPDATE", "files")
    code, _, error = by_role(maker, *command)
    assert (code, "GRANT SELECT, UPDATE ON files" in error) == (2, True)
    (annex,) = (maker.root / ANNEXES).iterdir()
    assert list(annex.rglob("*.parquet"))
    as_owner(maker.catalog, granted_of(error))
    code, _, error = by_role(maker, *command)
    assert (code, error) == (0, "")
    assert [row["account_id"] for rows in events_of(maker.root, maker.catalog).values() for row in rows] == ["acct_2"]


@pytest.mark.parametrize("lacking", ("alerts", "verdicts"))
def test_the_page_blames_nobody_who_looks_at_it_and_does_not_say_where_the_catalog_is(
    maker: LakeMaker, lacking: str
) -> None:
    without(maker, "ALL", lacking)
    url = url_of_role(maker)
    with serving(maker.root, "--catalog", url) as running:
        ana = running.visitor("Ana")
        answer = ana.get(f"/accounts/{sha256_of_id('acct_1')}")
        assert (answer.status, "Stillwatch may not do that" in answer.text) == (500, True)
        assert "postgresql" not in answer.text
        assert "GRANT" not in answer.text
        running.end()
        assert f"GRANT SELECT ON {lacking}" in "".join(running.logged)


def test_why_texts_are_not_shown_says_what_to_grant_and_not_where_the_catalog_is(maker: LakeMaker) -> None:
    without(maker, "INSERT", "audit_log")
    with (
        contextlib.closing(Catalog.open(url_of_role(maker), create=False)) as catalog,
        pytest.raises(NotRecordedError, match="GRANT SELECT, INSERT ON audit_log") as raised,
    ):
        record_look(catalog, Act("content.seen", "ana", "account", "acct_1"), NOW_US)
    assert "postgresql" not in str(raised.value)
