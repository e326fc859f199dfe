"""The order of it all: what the dossier of an account is made of, and that whoever looks at texts is on record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from pipeline.dossier import Bucket, Dossier, Inferred, LookedThrough, Sample, Seen, Shared, SignUp, Texts
from pipeline.dossier.dossier import SharedKind, TextState
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.desk.audit_log import Act
from pipeline.io.desk.looks import NotRecordedError, record_look
from pipeline.io.dossier import feed as feeds
from pipeline.io.dossier import log, neighbours
from pipeline.io.dossier.desk import read_alerts, read_decided, with_alerted
from pipeline.io.dossier.near import near_ids
from pipeline.io.dossier.scores import Scored, read_scores
from pipeline.io.rewriting.ledger_rows import marks_in
from pipeline.io.views.session import Session
from pipeline.io.views.spelling import as_in_lake

_NEAR_SAID: Final = 5


class UnknownAccountError(ConfigError):
    """Nothing at all is known of an account.

    Attributes:
        account_id: as it was asked for.
        near: ids that are like it and known.
    """

    def __init__(self, account_id: str, near: tuple[str, ...]) -> None:
        super().__init__("nothing is known of this account")
        self.account_id, self.near = account_id, near


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be in a dossier.

    Attributes:
        now_us: wall clock.
        by: who looks: goes on record where texts are shown.
        where: how they look: `command`, `page`; goes on record, too.
        texts: show the texts of sample requests.
        feed: the accounts feed; None: there is none.
        models: folder of the models whose honest accounts features are compared with; None: those that ship.
        look_back_us: how far back from its last request neighbours are looked for; None: a day, and not through more
            requests than `neighbours.REQUESTS_MAX`.
    """

    now_us: int
    by: str
    where: str = "command"
    texts: bool = True
    feed: Path | None = None
    models: Path | None = None
    look_back_us: int | None = None


def read_dossier(
    session: Session, catalog: Catalog, account_id: str, wanted: Wanted, aside: Callable[[], Session] | None = None
) -> Dossier:
    """All that is known of one account.  Writes nothing but, where texts are shown, who looked at whose.

    Args:
        session: on the lake; not used by anybody else meanwhile.
        catalog: of the same lake.
        account_id: whose; anything, it may be as odd as strangers make it; see `as_in_lake`.
        wanted: what is to be in it.
        aside: opens another session on the same lake; then scores are read while the log is.

    Raises:
        UnknownAccountError: nothing is known of it, anywhere.
        ConfigError: feed or models cannot be read.
        RetryableError: the catalog does not answer.
        SchemaError: a file of the lake is missing or broken.
    """
    if not _can_be_an_id(account_id):
        raise UnknownAccountError(account_id, ())
    with session.one_moment():
        account_id = as_in_lake(session, account_id)
        sign_up, shared, alone = (
            feeds.read_sign_up(wanted.feed, account_id) if wanted.feed else (None, [], [])
        )  # fmt: skip
        alerts, more = read_alerts(catalog, account_id)
        alerted = {(one.alert.raised_at_us, one.alert.offset): one.alert.rule for one in reversed(alerts)}
        with _meanwhile(session, aside, lambda one: read_scores(one, account_id, alerted, wanted.models)) as scores:
            logged = log.read_activity(session, account_id, max(log.USED_BACK_US, wanted.look_back_us or 0))
            scored = scores()
        orgs = [used.value for used in logged.activity.used["organisation"]]
        if sign_up and sign_up.org_id and sign_up.org_id not in orgs:
            orgs.append(sign_up.org_id)
        decided = read_decided(catalog, account_id, orgs, (raised.alert.rule for raised in alerts))
        if not (sign_up or logged.hours or alerts or scored.history or decided.verdicts or decided.exceptions):
            raise UnknownAccountError(account_id, tuple(near_ids(session, account_id)[:_NEAR_SAID]))
        samples, texts = _samples(session, catalog, account_id, logged.hours, wanted)
        looked = _looked(session, logged.latest_us, wanted)
        if looked:
            of_log, alone_in_log = neighbours.read_neighbours(session, account_id, logged.activity, looked)
            shared, alone = [*shared, *of_log], [*alone, *alone_in_log]
    return Dossier(
        account_id,
        wanted.now_us,
        _seen(wanted, logged, sign_up, (samples, texts), (with_alerted(catalog, shared), alone, looked)),
        Inferred(
            risk=scored.history[-1].risk if scored.history else None,
            first_seen_us=scored.first_seen_us,
            history=scored.history,
            notable=scored.notable,
            measures=scored.measures,
            population=_population(wanted),
            alerts=alerts,
            alerts_more=more,
            versions=scored.versions,
        ),
        decided,
    )


@contextlib.contextmanager
def _meanwhile(
    session: Session, aside: Callable[[], Session] | None, read: Callable[[Session], Scored]
) -> Iterator[Callable[[], Scored]]:
    """Begin to read something in another session, of the same moment; gives what waits for it.

    Without another session it is read when it is asked for.
    """
    if aside is None:
        yield partial(read, session)
        return
    files, opened = session.live_files(), list[Session]()

    def work() -> Scored:
        with contextlib.closing(aside()) as other, other.one_moment(files):
            opened.append(other)
            return read(other)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(work)
        try:
            yield reading.result
        except BaseException:
            for other in opened:
                other.interrupt()  # nobody waits for it any more
            raise


def _seen(
    wanted: Wanted,
    logged: log.Logged,
    sign_up: SignUp | None,
    sampled: tuple[list[Sample], Texts],
    found: tuple[list[Shared], list[SharedKind], LookedThrough | None],
) -> Seen:
    buckets, bucket_us = log.timeline(logged.hours)
    return Seen(
        sign_up=sign_up,
        has_feed=wanted.feed is not None,
        activity=logged.activity,
        timeline=buckets,
        bucket_us=bucket_us,
        samples=tuple(sampled[0]),
        texts=sampled[1],
        shared=neighbours.in_order(found[0]),
        not_shared=tuple(found[1]),
        looked=found[2],
    )


def _samples(
    session: Session, catalog: Catalog, account_id: str, hours: tuple[Bucket, ...], wanted: Wanted
) -> tuple[list[Sample], Texts]:
    kept_since_us = _kept_since_us(catalog)
    samples = log.read_samples(session, account_id, hours, texts=wanted.texts, kept_since_us=kept_since_us)
    if not wanted.texts:
        return samples, Texts(shown=False, why_not="not asked for", kept_since_us=kept_since_us)
    count = sum(sample.text == "kept" for sample in samples)
    if not count:
        return samples, Texts(shown=False, why_not=_why_none(samples), kept_since_us=kept_since_us)
    act = Act("content.seen", wanted.by, "account", account_id, {"requests": count, "where": wanted.where})
    try:
        record_look(catalog, act, wanted.now_us)
    except (NotRecordedError, RetryableError) as error:
        return [_without_text(sample) for sample in samples], Texts(False, str(error), kept_since_us)
    return samples, Texts(shown=True, why_not="", kept_since_us=kept_since_us)


def _why_none(samples: list[Sample]) -> str:
    states: set[TextState] = {sample.text for sample in samples}
    if not samples:
        return "there are no requests"
    if states == {"expired"}:
        return "all of its requests are older than texts are kept"
    return "the gateway sent no text with them"


def _without_text(sample: Sample) -> Sample:
    state: TextState = "withheld" if sample.text == "kept" else sample.text
    return replace(sample, text=state, system_prompt=None, prompt=None, response=None)


def _kept_since_us(catalog: Catalog) -> int | None:
    """Texts from before are gone by retention."""
    with catalog.transaction() as tx:
        mark = marks_in(tx).get("content")
    return None if mark is None else int(datetime.strptime(mark, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()) * 10**6


def _looked(session: Session, latest_us: int | None, wanted: Wanted) -> LookedThrough | None:
    if latest_us is None:
        return None
    files = session.live_files()
    if wanted.look_back_us is not None:
        return neighbours.choose(files, latest_us, wanted.look_back_us, None)
    return neighbours.choose(files, latest_us, neighbours.LOOK_BACK_US, neighbours.REQUESTS_MAX)


def _population(wanted: Wanted) -> str:
    whose = "the models that ship" if wanted.models is None else f"the models in {wanted.models}"
    return f"the honest accounts that {whose} were trained on"


def _can_be_an_id(account_id: str) -> bool:
    """Whether any event could have it: it is not empty, and no surrogates, which bytes become that are no UTF-8."""
    return bool(account_id) and not any("\ud800" <= letter <= "\udfff" for letter in account_id)
