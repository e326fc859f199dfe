"""`[sinks.NAME]` of the settings: where alerts are sent, each kind of sink with its own fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import pydantic

from pipeline.alerts import Severity
from pipeline.delivery.ports import Wanted

PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_OWN: Final = "STILLWATCH_"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_SAID_TYPES: Final = (
    "string_type",
    "int_type",
    "int_parsing",
    "greater_than_equal",
    "less_than_equal",
    "literal_error",
)
_IN_CLEAR: Final = ("secret", "routing_key", "token", "password", "key")


class _Sink(pydantic.BaseModel):
    """What every kind has."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    severities: tuple[Severity, ...] = ()
    """Only alerts of these severities; empty: of all."""

    rules: tuple[str, ...] = ()
    """Only alerts of these rules; empty: of all."""

    rate_per_minute: int = pydantic.Field(0, ge=0, le=1_000_000)
    """Messages a minute at most; when more alerts wait than that, one digest stands for all of them. 0: no limit."""

    timeout_s: float = pydantic.Field(10.0, gt=0, le=300)
    """How long one message may take, from the connection to the end of the answer."""

    retries: int = pydantic.Field(10, ge=0)
    """After so many tries that the sink failed at, an alert is dead; while nothing answers, they are not counted."""

    give_up_after_s: float = pydantic.Field(86_400.0, gt=0)
    """An alert that waits for so long is dead at its next failure."""

    link: str = ""
    """Where people look at an alert, with `{alert_id}` in it; empty: the message names the command."""


class _Secretive(_Sink):
    secret_env: str = ""
    """Name of the environment variable that holds the secret; not one that begins with STILLWATCH_."""

    secret_file: str = ""
    """File that holds the secret, and nothing else."""

    @pydantic.model_validator(mode="after")
    def _has_secret(self) -> Self:
        if bool(self.secret_env) == bool(self.secret_file):
            raise ValueError("its secret comes from one of secret_env and secret_file")
        if self.secret_env.upper().startswith(_OWN):
            raise ValueError(f"secret_env must not begin with {_OWN}: such variables are settings")
        return self


def checked_url(url: str, *, allow_http: bool) -> str:
    """The URL, if alerts may be sent there.

    Args:
        url: as it was configured.
        allow_http: also without encryption.

    Raises:
        ValueError: they may not.  The message does not hold the URL.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is no number
    except ValueError:
        raise ValueError("url is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url is no URL of the form https://host/path")
    if parts.username or parts.password:
        raise ValueError("url holds a user name or password in the clear; the signature authenticates the sender")
    if parts.scheme == "http" and not (allow_http or parts.hostname in _LOOPBACK):
        raise ValueError(
            "url begins with http://, so anyone between could read the alerts; allow_http = true allows it"
        )
    return url


class FileSink(_Sink):
    """Lines of JSON at the end of a file."""

    type: Literal["file"]
    path: str = pydantic.Field(min_length=1)
    """The file; it is made where there is none, its folder is not."""

    format: Literal["native", "ocsf"] = "native"
    """Stillwatch's own form, or OCSF Detection Finding."""


class KafkaSink(_Sink):
    """OCSF Detection Findings on a topic."""

    type: Literal["kafka"]
    topic: str = pydantic.Field(min_length=1)
    """The topic, which has to be there."""

    bootstrap: str = ""
    """Brokers to ask first; empty: those of the access log."""

    kafka: dict[str, str | int | float | bool] = {}
    """Settings of the Kafka client, above those of `[kafka]`."""

    format: Literal["native", "ocsf"] = "ocsf"
    """OCSF Detection Finding, or Stillwatch's own form."""

    @pydantic.model_validator(mode="after")
    def _no_secret_in_clear(self) -> Self:
        for name in self.kafka:
            if "password" in name:
                raise ValueError(f"kafka.{name} is not read from a sink: give it as STILLWATCH_KAFKA__{name.upper()}")
        return self


class WebhookSink(_Secretive):
    """A signed POST to a server of one's own."""

    type: Literal["webhook"]
    url: str
    """Where to."""

    allow_http: bool = False
    """Whether the URL may be http:// to another machine."""

    ca_file: str = ""
    """Certificates that the server's is checked against; empty: those of the system."""

    format: Literal["native", "ocsf"] = "native"
    """Stillwatch's own form, or OCSF Detection Finding."""

    @pydantic.model_validator(mode="after")
    def _has_url(self) -> Self:
        checked_url(self.url, allow_http=self.allow_http)
        return self


class SlackSink(_Secretive):
    """An incoming webhook of Slack; its URL is the secret."""

    type: Literal["slack"]
    rate_per_minute: int = pydantic.Field(20, ge=0, le=1_000_000)
    """Messages a minute at most; when more alerts wait than that, one digest stands for all of them. 0: no limit."""


class PagerdutySink(_Secretive):
    """Events API v2 of PagerDuty; the integration's routing key is the secret."""

    type: Literal["pagerduty"]
    url: str = PAGERDUTY_URL
    """Where to; another for the service region EU."""

    rate_per_minute: int = pydantic.Field(20, ge=0, le=1_000_000)
    """Messages a minute at most; when more alerts wait than that, one digest stands for all of them. 0: no limit."""

    @pydantic.model_validator(mode="after")
    def _has_url(self) -> Self:
        checked_url(self.url, allow_http=False)
        return self


SinkSettings = FileSink | KafkaSink | WebhookSink | SlackSink | PagerdutySink
KINDS: Final[Mapping[str, type[_Sink]]] = {
    "file": FileSink, "kafka": KafkaSink, "webhook": WebhookSink, "slack": SlackSink, "pagerduty": PagerdutySink,
}  # fmt: skip


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a sink's name is of lower-case letters, digits, - and _, and begins with a letter")
    return name


SinkName = Annotated[str, pydantic.AfterValidator(_named)]
SinkTable = Annotated[SinkSettings, pydantic.Field(discriminator="type")]


def in_words(error: Mapping[str, Any]) -> str:
    """What pydantic found wrong in a sink, in one line that shows no value that may be a secret.

    Args:
        error: one of `ValidationError.errors()`, whose place begins with `sinks`.
    """
    place = [str(part) for part in error["loc"][1:]]
    name, rest = (place[0] if place else ""), place[1:]
    kind = KINDS.get(rest[0]) if rest else None
    where = ".".join(["sinks", name, *(rest[1:] if kind else rest)]).rstrip(".")
    if error["type"] == "extra_forbidden" and kind is not None:
        return f"setting {where} is unknown{_hint(rest[-1], kind)}; known: {', '.join(kind.model_fields)}"
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return f"setting {where}.type: expected one of {', '.join(KINDS)}"
    if rest and rest[-1] == "[key]":
        where = f"sinks.{name!r}"
    said = str(error["msg"]).removeprefix("Value error, ")
    shown = f" (got {error['input']!r})" if error["type"] in _SAID_TYPES[1:] and rest[-1:] != ["url"] else ""
    return f"setting {where}: {said}{shown}"


def _hint(field: str, kind: type[_Sink]) -> str:
    if field in _IN_CLEAR or (field == "url" and kind is SlackSink):
        return ": a secret is not written into the settings, but into what secret_env or secret_file names"
    close = difflib.get_close_matches(field, kind.model_fields, n=1)
    return f", did you mean {close[0]}?" if close else ""


def path_of(sink: FileSink) -> Path:
    """Its file."""
    return Path(sink.path).expanduser()


def wanted_of(sink: SinkSettings) -> Wanted:
    """Which alerts a sink gets."""
    return Wanted(sink.severities, sink.rules)


def wanted_by(sinks: Mapping[str, SinkSettings]) -> dict[str, Wanted]:
    """Which alerts each sink gets, by its name."""
    return {name: wanted_of(sink) for name, sink in sinks.items()}
