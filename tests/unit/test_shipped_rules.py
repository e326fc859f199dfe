"""The rules that ship: they fit the features, and docs/rules.md says what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.features import FEATURES, NAMES
from pipeline.rules import Rule, read_rules
from pipeline.rules.rule_fields import RULE_FIELDS

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
RULES = read_rules(None, NAMES)

# Numbers of an account that each rule is about, and of an honest one near it.
ACCOUNTS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "risk_high": ({"risk": 0.97, "exchanges": 8}, {"risk": 0.97, "exchanges": 7}),
    "template_with_slot": (
        {"skeleton_top_share_7d": 0.98, "prompt_distinct_share_7d": 0.97, "exchanges": 600},
        {"skeleton_top_share_7d": 0.98, "prompt_distinct_share_7d": 0.2, "exchanges": 600},
    ),
    "one_shot_long_answers": (
        {"single_turn_share_7d": 1, "out_in_mean_7d": 3.1, "long_answer_share_7d": 0.6, "prompt_distinct_share_7d": 1, "exchanges": 256},
        {"single_turn_share_7d": 1, "out_in_mean_7d": -2, "long_answer_share_7d": 0, "prompt_distinct_share_7d": 1, "exchanges": 256},
    ),
    "no_pause": (
        {"hours_of_day_7d": 24, "longest_gap_7d": float(np.log2(1 + 3600)), "exchanges": 2000},
        {"hours_of_day_7d": 24, "longest_gap_7d": float(np.log2(1 + 7300)), "exchanges": 2000},
    ),
    "credentials_dispersed": (
        {"networks_per_key_hour_24h": 12, "agents_per_key_hour_24h": 4, "exchanges": 64},
        {"networks_per_key_hour_24h": 12, "agents_per_key_hour_24h": 1, "exchanges": 64},
    ),
    "payment_shared": (
        {"payment_accounts": float(np.log2(10)), "exchanges": 32},
        {"payment_accounts": float(np.log2(9)), "exchanges": 32},
    ),
    "reasoning_elicited": (
        {"reasoning_asked_share_7d": 0.95, "single_turn_share_7d": 1, "exchanges": 64},
        {"reasoning_asked_share_7d": 0.95, "single_turn_share_7d": 0.3, "exchanges": 64},
    ),
    "plan_exceeded": (
        {"plan_tokens_ratio": float(np.log2(10)), "exchanges": 64},
        {"plan_tokens_ratio": float(np.log2(9.9)), "exchanges": 64},
    ),
    "no_ramp": (
        {"account_age": float(np.log2(1 + 2.9)), "plan_tokens_ratio": float(np.log2(3.1)), "exchanges": 64},
        {"account_age": float(np.log2(1 + 3.1)), "plan_tokens_ratio": float(np.log2(3.1)), "exchanges": 64},
    ),
}  # fmt: skip


def fires(rule: Rule, account: dict[str, float]) -> bool:
    return bool(rule.condition.fires(lambda name: np.array([account.get(name, np.nan)], np.float32), 1)[0])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_fires_on_its_account_and_not_on_an_honest_one_near_it(rule: Rule) -> None:
    theirs, honest = ACCOUNTS[rule.name]
    assert fires(rule, theirs)
    assert not fires(rule, honest)
    assert set(theirs) == set(rule.condition.names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_rule_fires_where_one_of_its_numbers_is_unknown(rule: Rule) -> None:
    theirs, _ = ACCOUNTS[rule.name]
    for name in theirs:
        assert not fires(rule, {**theirs, name: np.nan})


def test_one_rule_is_live_and_it_is_the_one_on_the_risk() -> None:
    assert [rule.name for rule in RULES if rule.state == "live"] == ["risk_high"]
    assert [rule.name for rule in RULES if rule.withholds_learning] == ["risk_high"]


def shipped_table() -> str:
    """The table of docs/rules.md, from the file itself."""
    lines = [
        "| rule | version | state | severity | condition | silent for | ATLAS | blind spots |",
        "| " + " | ".join(["---"] * 8) + " |",
    ]
    for rule in RULES:
        cells = (
            f"`{rule.name}`: {rule.title}", rule.version, rule.state, rule.severity, f"`{rule.condition.filled}`",
            f"{rule.suppress_hours:g} h", ", ".join(rule.atlas), " ".join(rule.blind_spots.split()),
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def test_the_page_lists_the_rules_as_they_are() -> None:
    """On failure the message holds the right table."""
    assert shipped_table() in PAGE.read_text(encoding="utf-8"), shipped_table()


def test_the_page_lists_every_field_of_a_rule() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in RULE_FIELDS if f"\n| `{name}` | " not in page] == []


def test_features_have_words_for_reasons() -> None:
    used = {name for rule in RULES for name in rule.condition.names}
    assert all(feature.words for feature in FEATURES if feature.name in used)
