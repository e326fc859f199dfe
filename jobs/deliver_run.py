"""The long-running part of `stillwatch deliver`: alerts get their places, and a thread for each sink sends."""

from __future__ import annotations

import os
import random
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from pipeline.config import Settings
from pipeline.delivery.parcels import RuleWords
from pipeline.delivery.ports import Step
from pipeline.delivery.retrying import Patience
from pipeline.delivery.sinks import SinkSettings, wanted_by, wanted_of
from pipeline.delivery.worker import IDLE_S, SinkWorker, Terms, Turn
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.sinks import open_sink
from pipeline.ports import Clock

TIMEOUTS_A_LEASE: Final = 4
"""A sink is held for longer than one message may take, by all that it may wait for."""

_CLOSE_S: Final = 20.0
"""How long a message that is under way may take when the process is to end; else it is sent again."""

_OVER: Final = ("idle", "failing", "held")

log = structlog.get_logger("deliver")


def check_sinks(settings: Settings) -> None:
    """See that there is something to send to.

    Raises:
        ConfigError: there is not, or a message may take longer than a sink is held.
    """
    if not settings.sinks:
        raise ConfigError(
            "no sink is configured: put a table [sinks.NAME] into the settings and name them with --config; "
            "docs/delivery.md has an example of each kind"
        )
    for name, sink in settings.sinks.items():
        if sink.timeout_s * TIMEOUTS_A_LEASE > settings.delivery_lease_s:
            raise ConfigError(_too_short(settings, name, sink))


def _too_short(settings: Settings, name: str, sink: SinkSettings) -> str:
    """Which of two settings that do not go together is to be changed, and to what."""
    lease_s = settings.delivery_lease_s
    needed_s = TIMEOUTS_A_LEASE * max(one.timeout_s for one in settings.sinks.values())
    most_s = lease_s / TIMEOUTS_A_LEASE
    whose = "as set" if "timeout_s" in sink.model_fields_set else "its default"
    return (
        f"setting delivery_lease_s: a sink is held for {lease_s:g} s at a time, and that must be at least "
        f"{TIMEOUTS_A_LEASE} times as long as a message to it may take; for sink {name} that is {sink.timeout_s:g} s "
        f"(timeout_s, {whose}): set delivery_lease_s = {needed_s:g}, or "
        f"timeout_s = {most_s:g} or less in [sinks.{name}]"
    )


def rule_words(settings: Settings) -> dict[str, RuleWords]:
    """What messages say of rules, by name."""
    from pipeline.watch import load_rules  # noqa: PLC0415  # what scores takes most of a second to import

    return {rule.name: RuleWords(rule.title, rule.atlas, rule.owner, rule.runbook) for rule in load_rules(settings)}


class Deliverer:
    """All sinks of the settings, and what they have in common."""

    def __init__(
        self, settings: Settings, ledger: Catalog, clock: Clock, stopping: Callable[[], bool], step: Step
    ) -> None:
        self._settings, self._ledger, self._clock = settings, ledger, clock
        self._over = False
        self._asked_to_stop = stopping
        self._wake = threading.Condition()
        self._failed: list[BaseException] = []
        rules = rule_words(settings)
        for name, sink in settings.sinks.items():
            for rule in sorted(set(sink.rules) - set(rules)):
                log.warning("a sink asks for a rule that there is not", sink=name, rule=rule)
        self._workers = [self._worker(name, sink, rules, step) for name, sink in settings.sinks.items()]

    def _worker(self, name: str, sink: SinkSettings, rules: dict[str, RuleWords], step: Step) -> SinkWorker:
        terms = Terms(
            wanted_of(sink), sink.rate_per_minute, Patience(sink.retries, sink.give_up_after_s),
            self._settings.delivery_lease_s, sink.link, rules,
        )  # fmt: skip
        holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        return SinkWorker(
            name, open_sink(name, sink, self._settings, self._clock), self._ledger.desk.deliveries, self._clock, terms,
            holder=holder, chance=random.SystemRandom().random, stopping=self._stopping, step=step,
        )  # fmt: skip

    def run(self, *, once: bool) -> None:
        """Deliver until somebody wants an end, or once all that waits was tried.

        Raises:
            RetryableError: the catalog failed for too long.
        """
        self._insist(lambda: self._ledger.desk.deliveries.register(self._settings.sinks, self._clock.now_us()))
        self._insist(self._route)
        threads = [
            threading.Thread(target=self._deliver, args=(one, once), name=one.name, daemon=True)
            for one in self._workers
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._stopping() and any(thread.is_alive() for thread in threads):
                if not once:
                    self._insist(self._route)
                self._sleep(IDLE_S)
        finally:
            self._over = True
            self._wake_all()
            for thread in threads:
                thread.join(_CLOSE_S)
        if self._failed:
            raise self._failed[0]

    def _stopping(self) -> bool:
        return self._over or self._asked_to_stop()

    def _route(self) -> None:
        while count := self._ledger.desk.deliveries.route(self._clock.now_us()):
            log.info("alerts to deliver", alerts=count)
            self._wake_all()
            if self._stopping():
                return

    def _deliver(self, worker: SinkWorker, once: bool) -> None:
        """A sink's thread: turn after turn."""
        try:
            eager = once
            while not self._stopping():
                turn = self._turn(worker, eager=eager)
                eager = False
                if once and turn.state in _OVER:
                    break
                self._sleep(turn.wait_s)
            worker.close()
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits for this one
            self._failed.append(error)
            self._over = True
            self._wake_all()

    def _turn(self, worker: SinkWorker, *, eager: bool) -> Turn:
        found: list[Turn] = []
        self._insist(lambda: found.append(worker.turn(eager=eager)))
        return found[0] if found else Turn("idle")

    def _insist(self, act: Callable[[], None]) -> None:
        """Do it, and again while the catalog does not answer, for as long as `retry_s` says or until the end."""
        until_s = self._clock.elapsed_s() + self._settings.retry_s
        while True:
            try:
                return act()
            except RetryableError as error:
                if self._clock.elapsed_s() >= until_s:
                    raise
                log.warning("waiting for the catalog", reason=str(error))
            if self._stopping():
                return None
            self._sleep(IDLE_S)

    def _sleep(self, seconds: float) -> None:
        if seconds > 0 and not self._stopping():
            with self._wake:
                self._wake.wait(seconds)

    def _wake_all(self) -> None:
        with self._wake:
            self._wake.notify_all()


def undelivered(settings: Settings, ledger: Catalog, names: Sequence[str]) -> int:
    """How many alerts still wait for these sinks."""
    wanted = wanted_by(settings.sinks)
    state = ledger.desk.delivery_records.state(wanted, 0)
    return sum(one.waiting for one in state.sinks if one.sink in names)
