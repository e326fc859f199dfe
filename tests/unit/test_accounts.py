"""The accounts feed: what it says, and what is said of a line that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.accounts import Accounts
from pipeline.errors import ConfigError

TWO = b'{"account_id": "a", "created_at": "2026-03-01T12:00:00+01:00", "unknown": [1]}\n\n{"account_id": "b", "verified": false}\n'


def test_a_feed_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "accounts.ndjson"
    path.write_bytes(TWO)
    accounts = Accounts.load(path)
    assert len(accounts) == 2
    facts = accounts.facts(["b", "a", "stranger"])
    assert facts.created[1] == 1_772_362_800_000
    assert np.isnan(facts.created[[0, 2]]).all()
    assert facts.verified[0] == 0
    assert facts.country == [None, None, None]


def test_the_later_of_two_records_counts() -> None:
    lines = [b'{"account_id": "a", "country": "DE"}', b'{"account_id": "a", "country": "FR"}']
    assert Accounts.of_lines(lines, "feed").facts(["a"]).country == ["FR"]


def test_an_empty_feed_knows_nobody() -> None:
    facts = Accounts([]).facts(["a"])
    assert np.isnan(facts.plan_share[0])


@pytest.mark.parametrize(
    ("line", "wrong"),
    (
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"org_id": "o"}', "no account_id"),
        (b'{"account_id": null}', "no account_id"),
        (b'{"account_id": ""}', "account_id is empty"),
        (b'{"account_id": 7}', "account_id is not a text"),
        (b'{"account_id": "a", "verified": "yes"}', "verified is not true or false"),
        (b'{"account_id": "a", "created_at": "2026-03-01T12:00:00"}', "created_at is not a time with a zone"),
        (b'{"account_id": "a", "created_at": "yesterday"}', "created_at is not a time with a zone"),
    ),
)
def test_a_wrong_line_is_named(line: bytes, wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"^feed, line 2: {wrong}"):
        Accounts.of_lines([b'{"account_id": "x"}', line], "feed")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.ndjson: No such file"):
        Accounts.load(tmp_path / "none.ndjson")
