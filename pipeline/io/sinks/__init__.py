"""The sinks themselves: a file, a topic, and three kinds of servers that are spoken to by HTTP."""

from __future__ import annotations

from pipeline.config import Settings
from pipeline.delivery.ports import Sink
from pipeline.delivery.sinks import FileSink, KafkaSink, SinkSettings, SlackSink, WebhookSink
from pipeline.ports import Clock

__all__ = ["open_sink"]


def open_sink(name: str, sink: SinkSettings, settings: Settings, clock: Clock) -> Sink:
    """Prepare a sink; nothing is connected yet.

    Args:
        name: of its table.
        sink: its table.
        settings: all settings, for what a sink takes from them.
        clock: for time stamps.

    Raises:
        ConfigError: a secret is not there, or a setting cannot be.
    """
    # each kind brings its own library
    if isinstance(sink, FileSink):
        from pipeline.io.sinks.file import File  # noqa: PLC0415

        return File(sink, clock)
    if isinstance(sink, KafkaSink):
        from pipeline.io.sinks.kafka import Topic  # noqa: PLC0415

        return Topic(name, sink, settings, clock)
    from pipeline.io.sinks.pagerduty import Pagerduty  # noqa: PLC0415
    from pipeline.io.sinks.slack import Slack  # noqa: PLC0415
    from pipeline.io.sinks.webhook import Webhook  # noqa: PLC0415

    if isinstance(sink, WebhookSink):
        return Webhook(name, sink, clock)
    return Slack(name, sink, clock) if isinstance(sink, SlackSink) else Pagerduty(name, sink, clock)
