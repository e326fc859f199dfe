"""Where a sink's secret comes from: a variable of the environment, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

from pipeline.errors import ConfigError

_CHARS_MAX: Final = 4096


class Secretive(Protocol):
    """Settings that name a secret."""

    @property
    def secret_env(self) -> str:
        """Name of a variable."""

    @property
    def secret_file(self) -> str:
        """Name of a file."""


def secret_of(name: str, sink: Secretive) -> str:
    """The secret, without space around it.

    Args:
        name: of the sink.
        sink: its settings.

    Raises:
        ConfigError: it is not there.  The message does not hold it.
    """
    if sink.secret_env:
        found, where = os.environ.get(sink.secret_env, ""), f"the environment variable {sink.secret_env}"
    else:
        path = Path(sink.secret_file).expanduser()
        where = f"the file {path}"
        try:
            with path.open(encoding="utf-8") as file:
                found = file.read(_CHARS_MAX + 1)
        except OSError as error:
            raise ConfigError(f"sinks.{name}: the secret is to come from {where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"sinks.{name}: the secret is to come from {where}, which is no text") from None
    secret = found.strip()
    if not secret:
        raise ConfigError(f"sinks.{name}: the secret is to come from {where}, which is empty or not set")
    if len(secret) > _CHARS_MAX or not secret.isprintable() or " " in secret:
        raise ConfigError(f"sinks.{name}: what {where} holds is no secret: one line without spaces is expected")
    return secret
