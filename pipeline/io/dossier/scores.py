"""An account's scores as they were stored, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.dossier import Measure, Notable, ScoredMoment
from pipeline.dossier.measures import measures_of
from pipeline.dossier.notable import Place, notable
from pipeline.features import FEATURES, FEATURES_HASH, NAMES
from pipeline.io.dossier.rows import Row, hour_sql, rows_of
from pipeline.io.views.session import Session
from pipeline.scoring.explain import Explainer
from pipeline.scoring.model_files import read_population
from pipeline.scoring.scores import TOP
from pipeline.sql_text import literal

HISTORY_MAX: Final = 5_000
"""Scores that are read, the latest: of an account that is scored every hour, seven months."""

_COLUMN: Final = {name: place for place, name in enumerate(NAMES)}


@dataclass(frozen=True, slots=True)
class Scored:
    """What there is.

    Attributes:
        history: scores in order.
        first_seen_us: when the account's present life began.
        notable: scores worth a look.
        measures: features of the last score.
        versions: of the last score.
    """

    history: tuple[ScoredMoment, ...] = ()
    first_seen_us: int | None = None
    notable: tuple[Notable, ...] = ()
    measures: tuple[Measure, ...] = ()
    versions: str = ""


NOTHING: Final = Scored()


def read_scores(session: Session, account_id: str, alerted: Mapping[Place, str], models: Path | None) -> Scored:
    """Read them.

    Args:
        session: on the lake.
        account_id: whose.
        alerted: names of rules that raised an alert, by time and offset of the score.
        models: folder of the models whose honest accounts the features are compared with; None: those that ship.

    Raises:
        ConfigError: the models are not such.
    """
    rows = rows_of(
        session,
        f"""
        SELECT epoch_us(scored_at) AS scored_at_us, kind, exchanges, output_tokens, risk, "offset",
               epoch_us(first_seen) AS first_seen_us
        FROM account_windows WHERE account_id = {literal(account_id)}
        ORDER BY scored_at DESC, topic DESC, "partition" DESC, "offset" DESC, kind DESC LIMIT {HISTORY_MAX}""",  # noqa: S608  # the id is quoted
    )
    if not rows:
        return NOTHING
    rows.reverse()
    names = ("scored_at_us", "kind", "exchanges", "output_tokens", "risk", "offset")
    history = tuple(ScoredMoment(**{name: row[name] for name in names}) for row in rows)
    worth = notable(history, alerted)
    whole = _whole(session, account_id, [history[place] for place, _ in worth])
    last = whole.get(_key(history[-1]), {})
    population = read_population(models, NAMES, FEATURES_HASH)
    explainer = Explainer(
        NAMES, [feature.words for feature in FEATURES], population, [feature.unit for feature in FEATURES]
    )
    return Scored(
        history=history,
        first_seen_us=rows[-1]["first_seen_us"],
        notable=tuple(
            Notable(history[place], why, _sentences(whole.get(_key(history[place]), {}).get("reasons", ()), explainer))
            for place, why in worth
        ),
        measures=measures_of(last.get("features") or {}, population),
        versions=last.get("versions", ""),
    )


def _key(moment: ScoredMoment) -> tuple[int, int, str]:
    return moment.scored_at_us, moment.offset, moment.kind


def _whole(session: Session, account_id: str, moments: Sequence[ScoredMoment]) -> dict[tuple[int, int, str], Row]:
    """Features and reasons of some scores alone: a hundred columns of all of them would take long."""
    hours = " OR ".join(sorted({hour_sql(moment.scored_at_us) for moment in moments}))
    offsets = ", ".join(sorted({str(moment.offset) for moment in moments}))
    rows = rows_of(
        session,
        f"""
        SELECT epoch_us(scored_at) AS scored_at_us, "offset", kind, features, reasons, versions FROM account_windows
        WHERE account_id = {literal(account_id)} AND ({hours}) AND "offset" IN ({offsets})
        ORDER BY topic, "partition" """,  # noqa: S608  # numbers, and the id quoted
    )
    return {(row["scored_at_us"], row["offset"], row["kind"]): row for row in rows}


def _sentences(reasons: Sequence[Mapping[str, Any]], explainer: Explainer) -> tuple[str, ...]:
    """Reasons as they were stored, in the sentences that alerts have."""
    known = [reason for reason in reasons if reason["feature"] in _COLUMN][:TOP]
    values = np.full(len(NAMES), np.nan, np.float32)
    top, contribution = np.full(TOP, -1, np.int16), np.zeros(TOP, np.float32)
    for place, reason in enumerate(known):
        column = _COLUMN[reason["feature"]]
        values[column] = np.nan if reason["value"] is None else reason["value"]
        top[place], contribution[place] = column, reason["contribution"]
    return tuple(reason.words for reason in explainer.reasons(values, top, contribution))
