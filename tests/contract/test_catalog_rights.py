"""A role of PostgreSQL that may not do all: which right it lacks is said, and granting what is said is enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.io.catalog import Catalog
from tests.commands import run_command
from tests.lake_maker import LakeMaker, make_lake

EVENT = {"event_time": "2026-03-01T12:00:00Z", "account_id": "acct_1", "model": "m"}
ROLE = "Half; role"
GRANTS_MAX = 30


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


def by_role(maker: LakeMaker, *arguments: str) -> tuple[int, str, str]:
    url = sa.make_url(maker.catalog_url).set(username=ROLE).render_as_string(hide_password=False)
    return run_command(*arguments, "--lake", str(maker.root), "--catalog", url)


def granted_of(error: str) -> str:
    (grant,) = re.findall(r'GRANT [A-Z, ]+ ON \w+ TO "[^"]+"', error)
    return str(grant)


VERDICT = ("verdict", "acct_1", "harvesting", "--why", "one frame", "--by", "ana")


def test_a_table_without_rights_is_named_with_what_to_grant(maker: LakeMaker) -> None:
    as_owner(
        maker.catalog,
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{ROLE}"',
        f'REVOKE ALL ON audit_keys FROM "{ROLE}"',
    )
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
