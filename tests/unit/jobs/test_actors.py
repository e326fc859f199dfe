"""Who gives a command."""

from __future__ import annotations

import getpass

import pytest

from jobs.actors import actor
from pipeline.errors import ConfigError


def test_who_is_named_is_who_acts_and_else_the_user() -> None:
    assert actor(" Ana Önal ") == "Ana Önal"
    assert actor("  ") == getpass.getuser()


@pytest.mark.parametrize("said", ("a\x1b[31mb", "a\nb", "x" * 101))
def test_what_is_no_name_is_refused(said: str) -> None:
    with pytest.raises(ConfigError, match="--by"):
        actor(said)
