"""Hashes under the catalog's own key: who knows what was hashed and has the key can check it; nobody else can guess it.

Ids of accounts are often easy to guess (a customer's number, an e-mail address), so their plain hashes can be looked up
by trying all of them.  The audit log keeps such hashes of ids for good, also of those that were erased.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from pipeline.alerts import without_nul
from pipeline.errors import SchemaError
from pipeline.io import catalog_tables
from pipeline.io.desk.tables import audit_keys

_NAME: Final = "audit"


@dataclass(frozen=True, slots=True)
class Key:
    """A catalog's key.

    Attributes:
        value: 32 bytes; shown to nobody.
    """

    value: bytes = field(repr=False)

    def hash(self, text: str) -> str:
        """HMAC-SHA256 of a text, in hex."""
        return hmac.new(self.value, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def hash_of_id(self, name: str) -> str:
        """By what the audit log says whom a record is about."""
        return self.hash(without_nul(name))


def make_key(tx: sa.Connection) -> None:
    """Make the key, unless there is one."""
    row = {"name": _NAME, "value": secrets.token_hex(32)}
    tx.execute(catalog_tables.insert(tx.engine, audit_keys).values(row).on_conflict_do_nothing())


def key_in(tx: sa.Connection) -> Key:
    """The catalog's key.

    Raises:
        SchemaError: somebody has removed it.
    """
    value = tx.execute(sa.select(audit_keys.c.value).where(audit_keys.c.name == _NAME)).scalar_one_or_none()
    if value is None:
        raise SchemaError(
            "the catalog's key for the audit log is gone from its table audit_keys: nothing can be put on record "
            "without it. The lake's copy of it is _desk/keys.ndjson; an older copy of the catalog has it, too"
        )
    return Key(bytes.fromhex(value))
