"""What a database says of a full disk is asked back as such."""

import pytest
import sqlalchemy as sa

from pipeline.errors import RetryableError
from pipeline.io.catalog_errors import in_words


def test_a_full_disk_is_asked_for() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x BLOB)")
        connection.exec_driver_sql("PRAGMA max_page_count = 4")  # SQLite says then what it says of a full disk
        with pytest.raises(sa.exc.OperationalError) as full:
            connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")
    said = in_words(full.value, engine.url)
    assert isinstance(said, RetryableError)
    assert str(said) == "catalog sqlite://: database or disk is full; is the disk full?"
