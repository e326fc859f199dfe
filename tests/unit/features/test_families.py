"""Each family: made-up requests in, the numbers worked out by hand out; null where the inputs are absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from pipeline.accounts import Accounts
from pipeline.features import FAMILIES, NAMES
from pipeline.features.engine import AccountStates
from pipeline.features.identity import _networks
from pipeline.features.oneshot import simhashes
from pipeline.features.sharing import Sharing
from tests.unit.features.logs import DAY_MS, FRAME, HOUR_MS, START_MS, log, nasty, without

NULL = float("nan")


def last_row(events: pa.Table, feed: Accounts | None = None) -> dict[str, float]:
    rows = AccountStates(FAMILIES, feed, sharing=Sharing(block=8)).step(events)
    return dict(zip(NAMES, rows.values[-1].tolist(), strict=True))


def log2(x: float) -> float:
    return float(np.log2(x))


EIGHT: dict[str, Any] = {
    "message_count": [1, 1, 1, 1, 1, 1, 3, None],
    "conversation_id": [None, None, None, None, "c", None, None, None],
    "cached_input_tokens": [0, 0, 0, 50, None, None, None, None],
    "tool_count": [0, 0, 0, 2, None, None, None, None],
    "stream": [True, False, False, False, None, None, None, None],
    "status": [200] * 6 + [429, 500],
    "finish_reason": ["stop"] * 4 + ["length", "content_filter", None, None],
    "reasoning_tokens": [0, 5, None, None, None, None, None, None],
    "input_tokens": [100] * 8,
    "output_tokens": [1000] * 4 + [0] * 4,
    "latency_ms": [255] * 8,
    "prompt": [
        "Translate: one",
        "Translate: two",
        "Translate: six",
        'Say "a" 1!',
        'Say "b" 2!',
        'Say "c" 33!',
        None,
        "Translate: two",
    ],
}
FEED = Accounts(
    [
        {"account_id": "a", "created_at": "2026-02-26T12:00:00Z", "plan": "pro", "payment_fingerprint": "p", "email_domain": "gmail.com", "org_id": "o", "country": "DE", "verified": True},
        {"account_id": "b", "plan": "pro", "payment_fingerprint": "p", "email_domain": "x.example", "org_id": "o"},
        {"account_id": "c", "plan": "free", "payment_fingerprint": "p", "email_domain": "X.example", "org_id": "o"},
        {"account_id": "d", "payment_fingerprint": "p"},
    ],
    {"pro": 999.0},
)  # fmt: skip

GOLDEN: dict[str, tuple[pa.Table, dict[str, float]]] = {
    "volume": (
        log(8, times_ms=[START_MS + 1000 * i for i in (0, 1, 2, 3, 4, 5, 6, 13)], output_tokens=[1] * 7 + [None]),
        {
            "requests_24h": log2(9), "requests_7d": log2(9), "output_tokens_24h": 3.0, "output_tokens_7d": 3.0,
            "gap_fast_7d": 6 / 7, "gap_fast_24h": 6 / 7,
            # gaps in milliseconds: six of 1000, one of 7000
            "burstiness_7d": (np.std([1000] * 6 + [7000]) - 13000 / 7) / (np.std([1000] * 6 + [7000]) + 13000 / 7),
        },
    ),
    "rhythm": (
        # 12:00 to 19:00, one an hour, on a Sunday; what others do moves the watermark on
        log(
            8 * 17, account_id=(["z"] * 16 + ["a"]) * 8,
            times_ms=[START_MS + HOUR_MS * hour for hour in range(8) for _ in range(17)],
        ),
        {
            "hours_of_day_7d": 8, "quiet_run_7d": 16, "longest_gap_7d": log2(3601), "longest_gap_share_7d": 1 / 7,
            "hour_entropy_7d": 3.0, "weekday_entropy_7d": 0.0, "active_hours_7d": 8 / 9,
        },
    ),
    "shape": (
        log(8, **EIGHT),
        {
            "single_turn_share_7d": 6 / 7, "conversation_share_7d": 1 / 4, "cached_share_7d": 1 / 4, "tools_share_7d": 1 / 4,
            "streaming_share_7d": 1 / 4, "long_answer_share_7d": 1 / 2, "cut_off_share_7d": 1 / 6, "filtered_share_7d": 1 / 6,
            "error_share_7d": 1 / 4, "reasoned_share_7d": 1 / 2, "latency_mean_7d": 8.0, "latency_spread_7d": 0.0,
            "input_spread_7d": 0.0, "output_per_input_7d": log2(5), "cached_token_share_7d": 50 / 400,
        },
    ),
    "parameters": (
        log(8, temperature=[0.0] * 6 + [None, None], model=["m"] * 4 + ["n"] * 4, max_tokens=[7] * 8),
        {
            "temperature_top_share_7d": 6 / 8, "temperature_distinct_7d": 2, "max_tokens_top_share_7d": 1.0,
            "max_tokens_distinct_7d": 1, "model_top_share_7d": 1 / 2, "model_distinct_7d": 2, "settings_top_share_7d": 1 / 2,
            "settings_distinct_7d": 3, "top_p_top_share_7d": NULL, "top_p_distinct_7d": NULL, "system_prompt_distinct_7d": NULL,
        },
    ),
    "template": (
        log(8, **EIGHT),
        {
            # Seven prompts, six of them distinct; two skeletons: 'Translate_' and 'Say _ _!'.  Among 32 registers, six take
            # such a share that seven are estimated.
            "prompt_distinct_share_7d": 6 / 7, "prefix32_distinct_share_7d": 1.0, "suffix_distinct_share_7d": 1.0,
            "skeleton_distinct_share_7d": 2 / 7, "skeleton_top_share_7d": 4 / 7, "outline_distinct_share_7d": 2 / 7,
            "outline_top_share_7d": 4 / 7, "prompts_per_frame_7d": log2(6 / 7),
        },
    ),
    "oneshot": (
        # First turns are all but the fourth and the fifth (which offers tools); nobody follows up 0, 1, 5 and 6.
        log(
            8, times_ms=[START_MS + ms for ms in (0, 1023, 1100, 1200, 1300, 5118, 6141, 6200)],
            message_count=[1, 1, 1, 3, 1, 1, 1, 1], tool_count=[0, 0, 0, 0, 2, None, 0, 0],
            output_tokens=[3, 127, 0, 0, 0, 1023, None, 0], input_tokens=[7, 7, 0, 0, 0, 63, 7, 0],
            temperature=[0.0] * 5 + [0.5, 0.0, 0.5], prompt=["a" * length for length in (7, 15, 9, 9, 9, 31, 63, 9)],
        ),
        {
            "oneshots_7d": log2(5), "oneshot_share_7d": 4 / 8, "oneshot_of_first_7d": 4 / 6, "followups_per_first_7d": log2(3 / 7),
            "oneshot_short_7d": 1 / 3, "oneshot_long_7d": 2 / 3, "oneshot_settings_top_7d": 3 / 4, "oneshot_similarity_7d": 1.0,
            "oneshot_output_mean_7d": np.mean([2, 7, 10]), "oneshot_output_spread_7d": np.std([2, 7, 10]),
            "oneshot_input_mean_7d": np.mean([3, 3, 6, 3]), "oneshot_input_spread_7d": np.std([3, 3, 6, 3]),
            "oneshot_out_in_mean_7d": np.mean([-1, 4, 4]), "oneshot_out_in_spread_7d": np.std([-1, 4, 4]),
            "oneshot_prompt_mean_7d": np.mean([3, 4, 5, 6]), "oneshot_prompt_spread_7d": np.std([3, 4, 5, 6]),
            "oneshot_gap_mean_7d": np.mean([10, 12, 10]), "oneshot_gap_spread_7d": np.std([10, 12, 10]),
            "oneshot_output_apart_7d": np.mean([2, 7, 10]) - np.mean([2, 7, 0, 0, 0, 10, 0]),
            "oneshot_output_wider_7d": np.std([2, 7, 10]) - np.std([2, 7, 0, 0, 0, 10, 0]),
            "oneshot_input_apart_7d": np.mean([3, 3, 6, 3]) - np.mean([3, 3, 0, 0, 0, 6, 3, 0]),
            "oneshot_input_wider_7d": np.std([3, 3, 6, 3]) - np.std([3, 3, 0, 0, 0, 6, 3, 0]),
            "oneshot_out_in_apart_7d": np.mean([-1, 4, 4]) - np.mean([-1, 4, 0, 0, 0, 4, 0]),
            "oneshot_out_in_wider_7d": np.std([-1, 4, 4]) - np.std([-1, 4, 0, 0, 0, 4, 0]),
            "oneshot_prompt_apart_7d": np.mean([3, 4, 5, 6]) - np.mean([3, 4, 3.25, 3.25, 3.25, 5, 6, 3.25]),
            "oneshot_prompt_wider_7d": np.std([3, 4, 5, 6]) - np.std([3, 4, 3.25, 3.25, 3.25, 5, 6, 3.25]),
        },
    ),
    "spread": (
        # A whole block of two others, then eight requests, of which four are like theirs; log2 of 3 is on a line: 1.5
        log(
            16, account_id=["b"] * 4 + ["c"] * 4 + ["a"] * 8, message_count=[1] * 16, system_prompt=["Be kind."] * 16,
            prompt=["Translate: first one here"] * 4 + ["Translate: first but other!"] * 4
            + ["Translate: first one here"] * 4 + ["Unheard of"] * 4,
        ),
        {
            "prompt_accounts_7d": 1 / 2, "opening_accounts_7d": 1.5 / 2, "ending_accounts_7d": 1 / 2, "outline_accounts_7d": 1 / 2,
            "system_accounts_7d": 1.5, "prompt_shared_7d": 1 / 2, "opening_shared_7d": 1 / 2, "ending_shared_7d": 1 / 2,
            "outline_shared_7d": 1 / 2, "system_shared_7d": 1.0, "frame_sharded_7d": 0.0,
        },
    ),
    "elicitation": (
        log(
            8,
            prompt=[
                "Solve it and SHOW YOUR REASONING.", "Объясни шаг за шагом.", "请逐步思考", "On a scale from one to ten: 7?",
                "Generate the list.", "x" * 900 + " in a neutral tone", "x" * 600 + " step by step " + "x" * 600, None,
            ],
        ),
        {"reasoning_asked_share_7d": 3 / 7, "grading_asked_share_7d": 1 / 7, "rewriting_asked_share_7d": 1 / 7},
    ),
    "release": (
        # "m" from the start, two days of it; then "n" twice, of which one is an error, and "m" again
        log(
            72, account_id=["w", "x", "y", "z"] * 16 + ["a"] * 8, model=["m"] * 64 + ["m", "n", "n", "n", "m", "m", "m", "m"],
            status=[200] * 65 + [500] + [200] * 6,
            times_ms=[START_MS + 1000 * i for i in range(32)] + [START_MS + 2 * DAY_MS + 1000 * i for i in range(40)],
        ),
        {"new_model_share_24h": 2 / 7, "new_model_share_7d": 2 / 7},
    ),
    "identity": (
        log(
            8, client_ip=["10.0.2.1", "10.0.2.200", "10.0.1.1", "2001:db8:1::5", "2001:db8:1:7::6", "ab12", "keyed-hash", None],
            country=["DE"] * 7 + ["FR"], asn=[1, 1, 1, 2, None, None, None, None], user_agent=["curl"] * 8,
            api_key_id=["k"] * 8,
        ),
        {
            "networks_7d": 5, "countries_7d": 2, "asns_7d": 2, "agents_7d": 1, "keys_7d": 1, "tls_7d": NULL,
            "networks_per_key_hour_24h": 5, "agents_per_key_hour_24h": 1,
        },
    ),
    "account": (
        # three days and seven seconds old
        log(8, country=["DE"] * 8, output_tokens=[125] * 8),
        {
            "account_age": log2(1 + 3 + 7000 / DAY_MS), "requests_per_day_of_age": log2(1 + 8 / (3 + 7000 / DAY_MS)),
            "tokens_per_day_of_age": log2(1 + 1000 / (3 + 7000 / DAY_MS)), "plan_tokens_ratio": log2(1.001), "plan_share": 2 / 3,
            "payment_accounts": 2.0, "domain_accounts": NULL, "org_accounts": log2(3), "verified": 1, "home_country_used_7d": 1,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", GOLDEN)
def test_numbers_are_those_worked_out_by_hand(family: str) -> None:
    events, expected = GOLDEN[family]
    found = last_row(events, FEED)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-4, nan_ok=True)


def test_every_family_has_its_numbers_worked_out() -> None:
    assert {family.name for family in FAMILIES} == GOLDEN.keys()


def test_what_others_send_in_an_unfinished_block_is_not_seen_yet() -> None:
    events, _ = GOLDEN["spread"]
    rows = AccountStates(FAMILIES, sharing=Sharing(block=17)).step(events)
    found = dict(zip(NAMES, rows.values[-1].tolist(), strict=True))
    assert found["system_shared_7d"] == found["prompt_shared_7d"] == 0


def test_one_is_not_among_the_others() -> None:
    """Alone with a prompt, however often it was sent in blocks before."""
    found = last_row(log(32, message_count=1, prompt="Translate: first", system_prompt="Be kind."))
    assert found["prompt_shared_7d"] == found["system_accounts_7d"] == 0


@pytest.mark.parametrize(
    ("others", "prompts", "sharded"),
    (
        (7, [f"{FRAME}{i}" for i in range(8)], 1.0),
        (6, [f"{FRAME}{i}" for i in range(8)], 0.0),  # one customer's accounts, perhaps
        (7, [f"{FRAME}0"] * 8, 0.0),  # a question that everybody asks
        (7, [f"{FRAME}{i}" for i in range(2)] + ["Short"] * 6, 2 / 8),
        (7, [FRAME[:100]] * 8, 0.0),  # the whole of a shorter text
    ),
)
def test_a_frame_that_many_accounts_fill_anew(others: int, prompts: list[str], sharded: float) -> None:
    """Others send eight texts each: their own, or the same as everybody's if these repeat."""
    theirs = prompts if len(set(prompts)) == 1 else None
    sent = [(f"b{b}", (theirs or [f"{FRAME}{b} {i}" for i in range(8)])[i]) for b in range(others) for i in range(8)]
    events = sent + [("a", prompt) for prompt in prompts]
    accounts, texts = zip(*events, strict=True)
    found = last_row(log(len(events), account_id=list(accounts), prompt=list(texts), message_count=1))
    assert found["frame_sharded_7d"] == pytest.approx(sharded)


def test_without_texts_frames_are_unknown() -> None:
    assert np.isnan(last_row(log(8, prompt_hash="h", prompt_prefix_hash="f", message_count=1))["frame_sharded_7d"])


def test_simhashes_of_like_texts_are_near() -> None:
    texts = [
        "Translate this sentence into French: the cat sat on the mat",
        "Translate this sentence into French: a dog ran home",
        "Why does my build fail with a linker error on macOS?",
        "",
    ]
    one, like, unlike, none = simhashes(pl.Series(texts)).tolist()
    assert (one ^ like).bit_count() < 16 < (one ^ unlike).bit_count()
    assert none == 0
    alone = simhashes(pl.Series(texts[1:2])).tolist()
    assert alone == [like], "what stands beside a text plays no part"


NEEDS = {
    "output_tokens": ["output_tokens_1h", "output_tokens_7d", "output_mean_7d", "out_in_mean_7d", "long_answer_share_7d", "output_per_input_7d"],
    "input_tokens": ["input_mean_7d", "input_spread_7d", "out_in_spread_7d", "cached_token_share_7d"],
    "message_count": ["single_turn_share_7d"],
    "conversation_id": ["conversation_share_7d"],
    "cached_input_tokens": ["cached_share_7d", "cached_token_share_7d"],
    "tool_count": ["tools_share_7d"],
    "stream": ["streaming_share_7d"],
    "status": ["error_share_7d"],
    "finish_reason": ["cut_off_share_7d", "filtered_share_7d"],
    "latency_ms": ["latency_mean_7d", "latency_spread_7d"],
    "temperature": ["temperature_top_share_7d", "temperature_distinct_7d"],
    "max_tokens": ["max_tokens_top_share_7d"],
    "client_ip": ["networks_7d", "network_top_share_7d", "networks_per_key_hour_24h"],
    "country": ["countries_7d", "home_country_used_7d"],
    "asn": ["asns_7d"],
    "user_agent": ["agents_7d", "agents_per_key_hour_24h"],
    "tls_ja4": ["tls_7d"],
    "api_key_id": ["keys_7d"],
    "model": ["new_model_share_7d"],
    "prompt": ["reasoning_asked_share_7d", "grading_asked_share_7d", "rewriting_asked_share_7d", "prompt_mean_7d", "suffix_top_share_7d", "outline_top_share_7d", "skeleton_distinct_share_7d", "prefix16_top_share_7d"],
}  # fmt: skip


@pytest.mark.parametrize("column", NEEDS)
def test_what_is_not_logged_is_null_and_nothing_else_changes(column: str) -> None:
    events = nasty(400, 30)
    whole = AccountStates(FAMILIES, FEED).step(events)
    rows = AccountStates(FAMILIES, FEED).step(without(events, column))
    for name in NEEDS[column]:
        assert np.isnan(rows.values[:, NAMES.index(name)]).all(), name
    assert rows.offset.tolist() == whole.offset.tolist()
    for name in ("requests_7d", "hour_entropy_7d", "gap_mean_7d"):
        at = NAMES.index(name)
        assert rows.values[:, at].tobytes() == whole.values[:, at].tobytes()


def test_without_a_feed_all_of_the_account_is_null() -> None:
    found = last_row(log(8, country="DE", output_tokens=5))
    names = [feature.name for family in FAMILIES if family.name == "account" for feature in family.features]
    assert all(np.isnan(found[name]) for name in names)
    stranger = last_row(log(8, country="DE", output_tokens=5, account_id="nobody"), FEED)
    assert all(np.isnan(stranger[name]) for name in names)


def test_fingerprints_take_the_place_of_texts() -> None:
    texts = ["p", "q", "p", "q", "p", "q", "p", "r"]
    found = last_row(
        log(8, prompt_hash=texts, prompt_prefix_hash="f", prompt_skeleton_hash="s", system_prompt_hash="y")
    )
    assert found["prompt_distinct_share_7d"] == pytest.approx(3 / 8)
    assert found["prefix16_top_share_7d"] == found["skeleton_top_share_7d"] == found["system_prompt_top_share_7d"] == 1
    assert np.isnan(found["suffix_top_share_7d"])


def test_near_unique_filling_of_one_frame() -> None:
    """Many prompts, one frame: all distinct, one opening, one skeleton."""
    found = last_row(log(512, prompt=[f"Translate this sentence into French: number {i} of many" for i in range(512)]))
    assert found["prompt_distinct_share_7d"] > 0.7
    assert found["prefix32_distinct_share_7d"] < 0.01
    assert found["skeleton_top_share_7d"] == 1
    assert found["prompts_per_frame_7d"] > 8


def test_shares_stay_right_for_loud_accounts() -> None:
    """Cells of 16 bits do not fill up: mixes are thinned by the account's own number of events."""
    count = 200_000
    models = ["m"] * (count * 9 // 10) + ["n"] * (count // 10)
    order = np.random.default_rng(0).permutation(count)
    found = last_row(
        log(count, times_ms=[START_MS + i for i in range(count)], model=[models[i] for i in order.tolist()])
    )
    assert found["model_top_share_7d"] == pytest.approx(0.9, abs=0.01)


def test_old_days_leave_the_views() -> None:
    """A day later the 24 h view holds the new events alone; a week of silence later all views do."""
    times = [START_MS + i for i in range(8)] + [START_MS + 2 * DAY_MS + i for i in range(28)]
    found = last_row(log(36, account_id=["a"] * 8 + ["b"] * 20 + ["a"] * 8, times_ms=times))
    assert found["requests_24h"] == pytest.approx(log2(9))
    assert found["requests_7d"] == pytest.approx(log2(17))
    times = [START_MS + i for i in range(8)] + [START_MS + 8 * DAY_MS + i for i in range(40)]
    rows = AccountStates(FAMILIES).step(log(48, account_id=["a"] * 8 + ["b"] * 20 + ["a"] * 20, times_ms=times))
    assert [n for name, n in zip(rows.account_id, rows.exchanges.tolist(), strict=True) if name == "a"] == [8, 8, 16]
    assert rows.values[-1, NAMES.index("requests_7d")] == pytest.approx(log2(17))


def test_networks_are_what_addresses_begin_with() -> None:
    """Mapped addresses, names and other things that gateways write are among them; a text may be empty or missing."""
    addresses = {
        "10.1.2.3": "10.1.2.", "255.255.255.255": "255.255.255.", "10.1.2.": "10.1.2.", "1": "1", "": "", "a.b": "a.b",
        "2001:db8:1:2::7": "2001:db8:1", "::1": "::1", "::ffff:10.1.2.3": "::ffff", "a:b": "a:b", "fe80::1.2": "fe80::1.2",
        "h\u00f6st.7": "h\u00f6st.", "0f" * 20: "0f" * 20, None: None,
    }  # fmt: skip
    found = _networks(pl.Series(list(addresses), dtype=pl.String))
    assert found.cast(pl.String).to_list() == list(addresses.values())
    assert _networks(pl.Series([None, None], dtype=pl.String)).to_list() == [None, None]
