"""Networks in SQL: what every address of a network begins with."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.io.dossier.rows import network_prefix, network_sql


def network(address: str) -> str:
    ((found,),) = duckdb.execute(f"SELECT {network_sql('address')} FROM (SELECT $1 AS address)", [address]).fetchall()
    return str(found)


@settings(max_examples=100, deadline=None)
@given(st.text("0123456789abcdef.:/", min_size=1, max_size=20))
@example("10.1.2.3")
@example("10.1.2.0/24")
@example("2001:db8:1:2::7")
@example("2001:db8:1::/48")
@example("::1")
@example("::ffff:10.1.2.3")
@example("a keyed hash")
def test_every_address_begins_with_the_prefix_of_its_network(address: str) -> None:
    assert address.startswith(network_prefix(network(address)))


@pytest.mark.parametrize(
    ("address", "prefix"), (("10.1.2.3", "10.1.2."), ("2001:db8:1:2::7", "2001:db8:1"), ("9f86d081", "9f86d081"))
)
def test_the_prefix_of_a_network_leaves_the_last_part_of_addresses_out(address: str, prefix: str) -> None:
    assert network_prefix(network(address)) == prefix
