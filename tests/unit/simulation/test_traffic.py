"""A simulation is repeatable, complete, in time order, and of the shape of the canonical event."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import islice, pairwise
from typing import Any

import orjson
import pytest

from pipeline.errors import ConfigError
from pipeline.simulation import Event, Label, Simulation
from pipeline.simulation.attack import POOL_SIZES, SINGLE_VARIANTS
from pipeline.simulation.benign import POPULATIONS
from pipeline.simulation.harvest import FAMILIES
from pipeline.simulation.identity import COUNTRIES

START = datetime(2026, 3, 2, tzinfo=UTC)
TEXT = (str,)
OPTIONAL_TEXT = (str, type(None))
WHOLE = (int,)
OPTIONAL_WHOLE = (int, type(None))
OPTIONAL_NUMBER = (float, type(None))
# The canonical event: every key in its order, with the types that its values may have.
FIELDS: dict[str, tuple[type, ...]] = {
    "event_time": TEXT, "request_id": TEXT, "account_id": TEXT, "org_id": TEXT, "api_key_id": TEXT, "client_ip": TEXT,
    "asn": WHOLE, "country": TEXT, "user_agent": TEXT, "tls_ja4": TEXT, "operation": TEXT, "model": TEXT,
    "status": WHOLE, "stream": (bool,), "temperature": OPTIONAL_NUMBER, "top_p": OPTIONAL_NUMBER,
    "max_tokens": OPTIONAL_WHOLE, "n": WHOLE, "seed": OPTIONAL_WHOLE, "logprobs": (bool,), "tool_count": WHOLE,
    "message_count": WHOLE, "conversation_id": OPTIONAL_TEXT, "input_tokens": WHOLE, "output_tokens": WHOLE,
    "reasoning_tokens": WHOLE, "cached_input_tokens": WHOLE, "latency_ms": WHOLE, "finish_reason": OPTIONAL_TEXT,
    "system_prompt": OPTIONAL_TEXT, "prompt": TEXT, "response": OPTIONAL_TEXT,
}  # fmt: skip
EVENT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def default() -> Simulation:
    """The simulation at its default size, but for the number of hours."""
    return Simulation(seed=11, start=START, hours=24)


@pytest.fixture(scope="module")
def events(default: Simulation) -> list[Event]:
    return list(default.events())


@pytest.fixture(scope="module")
def label_of(default: Simulation) -> dict[str, Label]:
    return {label.account_id: label for label in default.labels}


def by_account(events: list[Event]) -> dict[str, list[Event]]:
    grouped = defaultdict(list)
    for event in events:
        grouped[event["account_id"]].append(event)
    return grouped


def digest(simulation: Simulation) -> str:
    lines = hashlib.sha256()
    for event in simulation.events():
        lines.update(orjson.dumps(event))
    for label in simulation.labels:
        lines.update(repr(label).encode())
    for account in simulation.accounts:
        lines.update(repr(account).encode())
    return lines.hexdigest()


def small(seed: int = 5, **changes: Any) -> Simulation:
    return Simulation(**{"seed": seed, "accounts": 60, "start": START, "hours": 3, **changes})


def test_another_process_with_another_hash_seed_makes_the_same_traffic() -> None:
    program = f"import runpy; this = runpy.run_path({__file__!r}); print(this['digest'](this['small']()))"
    for hash_seed in ("0", "4242"):
        told = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == digest(small())


def test_reading_twice_or_in_part_gives_the_same_events() -> None:
    simulation = small()
    whole = list(simulation.events())

    half_read = simulation.events()
    begun = list(islice(half_read, len(whole) // 2))
    other = list(simulation.events())

    assert begun + list(half_read) == whole
    assert other == whole


def test_another_seed_makes_other_traffic() -> None:
    assert digest(small(5)) != digest(small(6))


def test_a_longer_simulation_without_a_plan_begins_the_same() -> None:
    endless = small(hours=None, span_hours=3)
    whole = list(small().events())

    assert list(islice(endless.events(), len(whole))) == whole


def test_events_come_in_time_order_within_the_time_asked_for(events: list[Event]) -> None:
    times = [event["event_time"] for event in events]

    assert all(earlier <= later for earlier, later in pairwise(times))
    assert times[0] >= "2026-03-02T00:00:00.000Z"
    assert times[-1] < "2026-03-03T00:00:00.000Z"


def test_every_event_has_every_field_in_its_type(events: list[Event]) -> None:
    for event in events:
        assert list(event) == list(FIELDS)
        for name, value in event.items():
            assert type(value) in FIELDS[name], (name, value)


def test_values_are_possible_ones(events: list[Event]) -> None:
    countries = {country.code for country in COUNTRIES}
    for event in events:
        assert EVENT_TIME.fullmatch(event["event_time"])
        assert re.fullmatch(r"acct_[0-9a-f]{12}", event["account_id"])
        assert event["prompt"].strip()
        assert ip_address(event["client_ip"]).is_reserved
        assert 64512 <= event["asn"] <= 65534
        assert event["country"] in countries
        assert 0 <= event["cached_input_tokens"] <= event["input_tokens"]
        assert 0 <= event["reasoning_tokens"] <= event["output_tokens"]
        assert event["latency_ms"] > 0
        assert event["message_count"] >= 1 + (event["system_prompt"] is not None)
        if event["status"] == 200:
            assert event["output_tokens"] > 0
            assert event["finish_reason"] in {"stop", "length", "tool_calls"}
        else:
            assert event["output_tokens"] == 0
            assert event["finish_reason"] is None


def test_request_ids_are_unique(events: list[Event]) -> None:
    assert len({event["request_id"] for event in events}) == len(events)


def test_labels_and_accounts_cover_exactly_the_accounts(default: Simulation, events: list[Event]) -> None:
    labelled = [label.account_id for label in default.labels]

    assert len(set(labelled)) == len(labelled) == 1400
    assert labelled == [account.account_id for account in default.accounts]
    assert {event["account_id"] for event in events} <= set(labelled)


def test_every_population_variant_and_family_sends_at_default_size(
    events: list[Event], label_of: dict[str, Label]
) -> None:
    seen = [label_of[account] for account in by_account(events)]

    assert {label.population for label in seen} == {population.name for population in POPULATIONS} | {"attack"}
    assert {label.variant for label in seen} == {"", *SINGLE_VARIANTS, *POOL_SIZES}
    assert {label.family for label in seen} == {"", *FAMILIES}


def test_the_attack_share_is_kept_and_pools_have_their_size(default: Simulation) -> None:
    pools = Counter(label.pool_id for label in default.labels if label.pool_id)
    sizes = {label.pool_id: POOL_SIZES[label.variant] for label in default.labels if label.pool_id}

    assert sum(label.label == "attack" for label in default.labels) == 210
    assert pools == sizes
    assert len(pools) >= 2


def test_pools_take_disjoint_shards_of_one_data_set(events: list[Event], default: Simulation) -> None:
    sent = by_account([event for event in events if event["status"] == 200])
    pools = defaultdict(list)
    for label in default.labels:
        if label.variant == "hydra":
            pools[label.pool_id].append(label.account_id)
    for members in pools.values():
        prompts = Counter(prompt for account in members for prompt in {event["prompt"] for event in sent[account]})
        shared = sum(1 for count in prompts.values() if count > 1)
        assert len(prompts) > 200
        assert shared <= 0.03 * len(prompts)


def test_variants_send_what_their_names_say() -> None:
    two_days = Simulation(seed=11, accounts=500, start=START, hours=48)
    counts = Counter(event["account_id"] for event in two_days.events() if event["status"] == 200)
    by_variant = defaultdict(list)
    for label in two_days.labels:
        by_variant[label.variant or label.population].append(counts[label.account_id])

    assert all(5 <= count <= 41 for count in by_variant["hydra"])
    assert min(by_variant["drip"]) >= 5
    assert sorted(by_variant["drip"])[len(by_variant["drip"]) // 2] <= 40
    assert sorted(by_variant["loud"])[len(by_variant["loud"]) // 2] > 300
    assert sorted(by_variant["people"])[len(by_variant["people"]) // 2] < 20


def test_hidden_harvests_are_single_questions_between_the_conversations_of_others() -> None:
    relays = Simulation(seed=11, accounts=400, start=START, hours=48, attack_share=0.2, variants=("mixed",))
    harvesters = {label.account_id for label in relays.labels if label.label == "attack"}
    conversations: dict[str, Counter[str | None]] = defaultdict(Counter)
    for event in relays.events():
        if event["account_id"] in harvesters and event["status"] == 200:
            conversations[event["account_id"]][event["conversation_id"]] += 1
    naming = [found for found in conversations.values() if None not in found]
    assert len(naming) > 5, "a gateway that names the others' conversations names these too"
    for found in naming:
        alone = sum(count == 1 for count in found.values())
        assert 0.1 < alone / sum(found.values()) < 0.7
        assert max(found.values()) > 1


@pytest.mark.parametrize("variants", (("loud",), ("hydra",), ("drip", "paced"), ("hydra", "drip")))
@pytest.mark.parametrize("accounts", (10, 37, 400))
def test_only_the_variants_asked_for_take_part(variants: tuple[str, ...], accounts: int) -> None:
    simulation = small(accounts=accounts, attack_share=0.5, hours=0.5, variants=variants)
    hidden_as = [label.variant for label in simulation.labels if label.label == "attack"]
    assert len(hidden_as) == round(accounts * 0.5)
    assert set(hidden_as) <= set(variants)
    assert set(hidden_as) == set(variants) or accounts < 100


def test_harvesters_and_customers_overlap_in_what_is_not_content(
    events: list[Event], default: Simulation, label_of: dict[str, Label]
) -> None:
    for name in ("user_agent", "tls_ja4", "asn", "temperature", "max_tokens", "model", "country"):
        values: dict[str, set[Any]] = {"benign": set(), "attack": set()}
        for event in events:
            values[label_of[event["account_id"]].label].add(event[name])
        shared = values["benign"] & values["attack"]
        assert len(shared) >= 0.6 * len(values["attack"]), name
    young = Counter(
        label.label
        for account, label in zip(default.accounts, default.labels, strict=True)
        if account.created_at >= "2026-02-23"
    )
    assert min(young["benign"], young["attack"]) > 50


def test_people_follow_the_sun(events: list[Event], label_of: dict[str, Label]) -> None:
    japan = [
        int(event["event_time"][11:13])
        for event in events
        if event["country"] == "JP" and label_of[event["account_id"]].population == "people"
    ]
    night = sum(hour in range(16, 22) for hour in japan)  # 1 to 7 in the morning there

    assert len(japan) > 100
    assert night < 0.12 * len(japan)


@pytest.mark.parametrize("accounts", (10, 11, 37, 100, 400))
@pytest.mark.parametrize("attack_share", (0.0, 0.15, 1.0))
def test_any_size_gives_the_number_of_accounts_asked_for(accounts: int, attack_share: float) -> None:
    simulation = small(accounts=accounts, attack_share=attack_share, hours=0.5)

    assert len({account.account_id for account in simulation.accounts}) == accounts
    assert sum(label.label == "attack" for label in simulation.labels) == round(accounts * attack_share)
    assert len(list(simulation.events())) > 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    (
        ({"accounts": 9}, "at least 10 accounts"),
        ({"hours": 0}, "hours"),
        ({"hours": -1}, "hours"),
        ({"hours": float("nan")}, "hours"),
        ({"attack_share": 1.1}, "attack share"),
        ({"variants": ("loud", "quiet")}, "'quiet'.*loud, paced"),
        ({"start": datetime(2026, 3, 2)}, "time zone"),  # noqa: DTZ001 - that is the mistake
    ),
)
def test_impossible_arguments_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        small(**change)
