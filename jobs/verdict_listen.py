"""`stillwatch verdict listen`: wired, and run to its end."""

from __future__ import annotations

import structlog

from jobs.catalogs import opened
from jobs.run import Stop
from pipeline.config import Settings
from pipeline.io.clock import SystemClock
from pipeline.io.desk.verdict_topic import Heard, Wish, listen, listening
from pipeline.io.lake import Lake

log = structlog.get_logger("verdicts")


def job(settings: Settings, wish: Wish, *, once: bool) -> Heard:
    """Listen until a signal comes, or all is read.

    Args:
        settings: `topic` is the topic of verdicts.
        wish: how to listen.
        once: end when all is read that the topic held at the start.

    Returns:
        What came.
    """
    clock, stop, heard = SystemClock(), Stop(), Heard()
    lake = Lake.open(settings.lake, create=False)
    with opened(settings) as catalog:
        stop.listen()
        try:
            log.info("listening", topic=settings.topic, lake=str(lake.root))
            listen(
                lambda: listening(settings, lake, catalog, clock, wish, heard), lambda: bool(stop.reason), clock,
                once=once, retry_s=settings.retry_s,
            )  # fmt: skip
        finally:
            stop.unlisten()
    log.info("stopped", why=stop.reason or "done", given=heard.given, refused=heard.refused)
    return heard
