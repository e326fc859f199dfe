"""Account: how new it is for what it does, and whom it shares its means with.  All of it null without an accounts feed."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.features.clock import DAY
from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import View
from pipeline.features.folding import Views
from pipeline.features.hashing import keys
from pipeline.features.integers import Floats, log2, ratio
from pipeline.features.panes import Panes

_AGENCIES: Final = "NSA/CISA/FBI AA26-251A, September 2026: new subscriptions at once at maximum use"
_GRAPH: Final = "signal 3; Anthropic, OpenAI and Google reports of 2025 and 2026: pools of accounts behind one payer"


def _feature(
    name: str, unit: str, definition: str, words: str, signals: tuple[int, ...], source: str = _AGENCIES
) -> Feature:
    return Feature(name, "account", unit, definition, signals, source, words)


_FEATURES: Final = (
    _feature("account_age", "log2(1 + days)", "time from created_at to the account's clock, at least 0", "age of the account", (4,)),
    _feature(
        "requests_per_day_of_age", "log2(1 + requests a day)",
        "requests of the present life / days since created_at, at least one day", "requests per day since it was made", (4,),
    ),
    _feature(
        "tokens_per_day_of_age", "log2(1 + tokens a day)", "output tokens in the 24 h view / days since created_at, at least one day",
        "answer tokens of the last day against the age of the account", (4,),
    ),
    _feature(
        "plan_tokens_ratio", "log2", "log2 of (1 + output tokens in the 24 h view) / (1 + what is typical of the plan a day): as the operator names it, else the 95th percentile over the plan's accounts of the partition in the 24 h view, renewed every 16,384 records; null before that, or while the plan has under 20 accounts at work",
        "answer tokens of the last day against what is typical of the plan", (5,),
    ),
    _feature("plan_share", "share", "accounts of the feed on the account's plan / accounts with a plan", "share of all accounts on its plan", (5,)),
    _feature("payment_accounts", "log2 of accounts", "accounts of the feed with the same payment fingerprint, itself among them", "accounts that pay by the same means", (3,), _GRAPH),
    _feature("domain_accounts", "log2 of accounts", "accounts of the feed with the same e-mail domain, itself among them; null for domains where anybody gets an address", "accounts of the same e-mail domain", (3,), _GRAPH),
    _feature("org_accounts", "log2 of accounts", "accounts of the feed of the same organisation, itself among them", "accounts of the same organisation", (3,), _GRAPH),
    _feature("verified", "0 or 1", "its identity was verified", "verified identity", (4,)),
    _feature(
        "home_country_used_7d", "0 or 1", "the sign-up country's bit is set among the client countries of the 7 d view; null unless both are known",
        "used from the country it signed up in", (15,),
    ),
)  # fmt: skip


def _contribute(events: Events, panes: Panes) -> None:
    """Nothing: this family reads what the others keep."""


def _compute(views: Views) -> dict[str, Floats]:
    facts = views.facts
    if facts is None:
        return {feature.name: np.full(len(views), np.nan) for feature in _FEATURES}
    age = np.maximum((views.clock - facts.created) / DAY, 0)
    tokens = np.where(views.day("answered") > 0, views.day("output_tokens").astype(np.float64), np.nan)
    return {
        "account_age": log2(1 + age),
        "requests_per_day_of_age": log2(1 + views.seq / np.maximum(age, 1)),
        "tokens_per_day_of_age": log2(1 + tokens / np.maximum(age, 1)),
        "plan_tokens_ratio": log2(ratio(1 + tokens, 1 + facts.plan_tokens)),
        "plan_share": facts.plan_share,
        "payment_accounts": log2(facts.payment_accounts),
        "domain_accounts": log2(facts.domain_accounts),
        "org_accounts": log2(facts.org_accounts),
        "verified": facts.verified,
        "home_country_used_7d": _home_used(views, facts.country),
    }


def _home_used(views: Views, countries: list[str | None]) -> Floats:
    seen = views.cells(View.WEEK, "countries_seen")[:, 0]
    different = sorted({country or "" for country in countries})
    hashed = dict(zip(different, keys(different).tolist(), strict=True))
    home = np.array([hashed[country or ""] for country in countries], np.uint64)
    used = (seen >> (home & np.uint64(63))) & np.uint64(1)
    known = (seen != 0) & np.array([country is not None for country in countries], np.bool_)
    return np.where(known, used.astype(np.float64), np.nan)


FAMILY: Final = Family("account", _FEATURES, (), _contribute, _compute)
