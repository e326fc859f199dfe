"""Settings, read once: flags, then environment (`STILLWATCH_…`), then the file, then the defaults below."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
import pydantic_settings as ps

from pipeline.delivery import sinks as sink_settings
from pipeline.delivery.sinks import SinkName, SinkTable
from pipeline.errors import ConfigError

ENV_PREFIX: Final = "STILLWATCH_"
CATALOG_FILE: Final = "catalog.db"

_KAFKA: Final = "kafka__"
_OTHERS: Final = re.compile(
    # those of --config and --by, and those of this project's tests
    r"config|by|serve_token|test_\w+"
    # Kubernetes names every service to every container, so a service `stillwatch` or `stillwatch-sql` is not a typo:
    # https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    r"|(\w+_)?(service_host|service_port(_\w+)?|port(_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)?)"
)

KafkaValue = str | int | float | bool


class Settings(ps.BaseSettings):
    """All that the commands can be told.  Times in seconds, sizes in bytes."""

    model_config = ps.SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    bootstrap: str = ""
    """Kafka brokers to ask first, `HOST:PORT` with commas between."""

    topic: str = "llm-access"
    """Topic of the access log."""

    group: str = "stillwatch"
    """Consumer group; all workers of one lake share it. Another one later takes `--change-group` once."""

    group_instance_id: str = ""
    """Name of this worker for Kafka's static membership; empty: none."""

    kafka: dict[str, KafkaValue] = {}
    """Further settings of the Kafka client, by kafka-python's names: security_protocol, ssl_cafile, …"""

    start: Literal["earliest", "latest"] = "earliest"
    """Where a partition that was never read begins."""

    fetch: Literal["auto", "columnar", "stock"] = "auto"
    """How records are unpacked: `auto` takes the columnar path where the installed kafka-python allows it."""

    lake: str = "lake"
    """Folder of the Parquet files."""

    catalog: str = ""
    """SQLAlchemy URL of the catalog; empty: `catalog.db` in the lake."""

    file_rows_max: int = pydantic.Field(200_000, ge=1)
    """A partition's rows are written once this many are there, …"""

    file_bytes_max: int = pydantic.Field(128 << 20, ge=1 << 16)
    """… or once they take this much memory, …"""

    file_age_s: float = pydantic.Field(15.0, gt=0, le=3600)
    """… or once the first of them has waited this long."""

    buffer_bytes_max: int = pydantic.Field(512 << 20, ge=1 << 20)
    """All partitions' rows together; beyond it the largest partition is written first."""

    scoring: Literal["on", "off"] = "on"
    """Whether accounts are scored and alerts raised; `off`: records are landed only."""

    models: str = ""
    """Folder of trained models; empty: those that ship with Stillwatch."""

    rules: str = ""
    """Files of alert rules (TOML), with commas between; `shipped` stands for those that come with Stillwatch, as does
    nothing."""

    accounts: str = ""
    """Accounts feed, a file of JSON lines as schemas/accounts.v1.json has them; empty: none."""

    accounts_max: int = pydantic.Field(2_000_000, ge=1_000)
    """Accounts of a partition that are kept, 3.5 kB each (7 GB in all); of more, those silent longest are forgotten."""

    alert_age_s: float = pydantic.Field(1.0, ge=0, le=60)
    """A partition's rows are written once an alert among them has waited this long, however few they are."""

    snapshot_events: int = pydantic.Field(1_000_000, ge=1)
    """All that is known of a partition's accounts is kept as a snapshot after this many events, …"""

    snapshot_age_s: float = pydantic.Field(300.0, gt=0)
    """… or once the last snapshot is this old and anything has come since; and with a last commit that writes rows."""

    replay_events_max: int = pydantic.Field(2_000_000, ge=0)
    """Events that are replayed from the lake at most, on top of the last snapshot, when a partition is opened."""

    exception_days_max: int = pydantic.Field(90, ge=1, le=3650)
    """Days that an exception holds at most; whoever still needs it then makes another."""

    retry_s: float = pydantic.Field(300.0, ge=0)
    """How long brokers, lake or catalog may fail before the job stops; silent brokers have 10 s at least."""

    stop_s: float = pydantic.Field(8.0, gt=0)
    """How long a stopping job tries to write what it holds; what is not written stays in Kafka."""

    session_timeout_s: float = pydantic.Field(45.0, ge=1, le=1800)
    """Kafka gives a silent worker's partitions to others after this long."""

    delivery_lease_s: float = pydantic.Field(60.0, ge=1, le=3600)
    """A `stillwatch deliver` that died keeps its sinks from others for so long."""

    sinks: dict[SinkName, SinkTable] = {}
    """Where `stillwatch deliver` sends alerts: a table `[sinks.NAME]` each, as docs/delivery.md has them."""

    query_files: bool = True
    """Whether queries of `stillwatch sql` may read other files than the lake's, as `read_csv('mine.csv')` does."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[ps.BaseSettings],
        init_settings: ps.PydanticBaseSettingsSource,
        env_settings: ps.PydanticBaseSettingsSource,
        dotenv_settings: ps.PydanticBaseSettingsSource,
        file_secret_settings: ps.PydanticBaseSettingsSource,
    ) -> tuple[ps.PydanticBaseSettingsSource, ...]:
        """Flags and environment; `read_settings` puts the file below them."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @property
    def catalog_url(self) -> str:
        """URL of the catalog, the default made out."""
        from pipeline.io.catalog import sqlite_url  # noqa: PLC0415  # the default is a matter of the lake's layout

        return self.catalog or sqlite_url(Path(self.lake).expanduser().absolute() / CATALOG_FILE)


def read_settings(file: Path | None = None, **flags: Any) -> Settings:
    """Settle every setting.

    Args:
        file: TOML file with settings by their names; Kafka client settings in a table `[kafka]`.
        flags: what the command line said; None means it did not say.

    Raises:
        ConfigError: a setting is unknown or impossible, in the environment too, or the file cannot be read.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    from_file = {} if file is None else _read_file(file)
    in_environment = _environment()
    below = {name: value for name, value in from_file.items() if name not in in_environment}
    kafka = {**_kafka_table(below), **_kafka_settings(in_environment), **given.pop("kafka", {})}
    try:
        return Settings(**{**below, **given, "kafka": kafka})
    except pydantic.ValidationError as error:
        raise ConfigError(_in_words(error, file)) from None
    except ps.SettingsError as error:
        raise ConfigError(f"environment: {error}") from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: not TOML: {error}") from None


def _kafka_table(settings: dict[str, Any]) -> dict[str, Any]:
    table = settings.get("kafka", {})
    if not isinstance(table, dict):
        raise ConfigError("setting kafka: expected a table, as in [kafka]")
    return table


def _environment() -> dict[str, str]:
    """What the environment sets, by the settings' names.

    Raises:
        ConfigError: it sets something that there is not.
    """
    found = {key[len(ENV_PREFIX) :].lower(): key for key in os.environ if key.upper().startswith(ENV_PREFIX)}
    for name, key in sorted(found.items()):
        if name not in Settings.model_fields and not name.startswith(_KAFKA) and not _OTHERS.fullmatch(name):
            raise ConfigError(f"environment: {key} is no setting; {_known_like(name)}")
    return {name: os.environ[key] for name, key in found.items()}


def _known_like(name: str) -> str:
    close = difflib.get_close_matches(name, [*Settings.model_fields, "config"], n=1)
    if close:
        return f"did you mean {ENV_PREFIX}{close[0].upper()}?"
    known = ", ".join(setting.upper() for setting in (*Settings.model_fields, _KAFKA))
    return f"known after {ENV_PREFIX}: {known}…"


def _kafka_settings(environment: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(_KAFKA): value for name, value in environment.items() if name.startswith(_KAFKA)}


def _in_words(error: pydantic.ValidationError, file: Path | None) -> str:
    first = error.errors(include_url=False)[0]
    if first["loc"][:1] == ("sinks",) and len(first["loc"]) > 1:
        return sink_settings.in_words(first)
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        return f"setting {name} is unknown{f' (in {file})' if file else ''}; known: {known}"
    shown = "" if first["type"] == "missing" else f" (got {first['input']!r})"
    return f"setting {name}: {first['msg']}{shown}"
