"""Each form of a message: what it says, its limits, and that strangers' words are only shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import ocsf_json_schema
import pytest

from pipeline.delivery import ocsf, pagerduty, signing, slack
from pipeline.delivery.native import as_native, to_json
from pipeline.delivery.parcels import AlertParcel, Parcel
from pipeline.errors import ConfigError
from tests.parcels import HOSTILE, HOSTILE_PARCELS, NOW_US, alert, digest, parcel

ALL = (parcel(), AlertParcel(alert(risk=None), test=True), digest(), *HOSTILE_PARCELS)


@pytest.fixture(scope="module")
def finding() -> jsonschema.Draft202012Validator:
    """OCSF's own Detection Finding; it allows no attribute that it does not name."""
    schema = ocsf_json_schema.get_ocsf_schema(ocsf.VERSION)
    made = ocsf_json_schema.OcsfJsonSchemaEmbedded(schema).get_class_schema("detection_finding")
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize("one", ALL)
def test_a_finding_is_what_ocsf_says_it_is(finding: jsonschema.Draft202012Validator, one: Parcel) -> None:
    said = json.loads(to_json(ocsf.as_finding(one, NOW_US)))
    assert [error.message for error in finding.iter_errors(said)] == []
    assert (said["class_uid"], said["metadata"]["version"]) == (2004, "1.8.0")
    assert said["finding_info"]["uid"] == one.key


def test_the_schema_of_findings_refuses_what_is_none(finding: jsonschema.Draft202012Validator) -> None:
    said = ocsf.as_finding(parcel(), NOW_US)
    for wrong in ({**said, "severity_id": "high"}, {**said, "made_up": 1}, {**said, "finding_info": {"title": "t"}}):
        assert not finding.is_valid(wrong)


def test_a_finding_has_the_attributes_that_responders_look_for() -> None:
    said = ocsf.as_finding(parcel(), NOW_US)
    assert said["severity_id"] == 4
    assert said["is_alert"] is True
    assert (said["confidence_score"], said["risk_score"]) == (95, 95)
    info = said["finding_info"]
    assert info["analytic"] == {"type_id": 1, "type": "Rule", "name": "risk_high", "version": "2"}
    assert [attack["technique"]["uid"] for attack in info["attacks"]] == ["AML.T0024", "AML.T0040"]
    assert info["attacks"][0]["sub_technique"]["uid"] == "AML.T0024.002"
    assert info["last_seen_time"] - info["first_seen_time"] == 3_600_000
    assert json.loads(said["evidences"][0]["data"])["up_to_offset"] == 1234
    assert "confidence_score" not in ocsf.as_finding(AlertParcel(alert(risk=None)), NOW_US)


@pytest.mark.parametrize("one", ALL)
def test_every_form_is_ascii_json_without_numbers_that_json_lacks(one: Parcel) -> None:
    forms: list[dict[str, Any]] = [
        as_native(one), ocsf.as_finding(one, NOW_US), slack.as_message(one), pagerduty.as_event(one, "k" * 32),
    ]  # fmt: skip
    for form in forms:
        said = to_json(form)
        assert said.isascii()
        assert b"\n" not in said
        assert json.loads(said, parse_constant=pytest.fail)


def test_native_has_the_whole_alert_and_what_the_rule_says() -> None:
    said = as_native(parcel(entity_id=HOSTILE))
    assert next(iter(said)) == "type"
    assert (said["type"], said["alert_id"], said["entity_id"]) == ("alert", f"{1:032x}", HOSTILE)
    assert (said["title"], said["owner"], said["link"]) == (
        "The risk is high", "trust-and-safety", "https://triage.example/alerts/1",
    )  # fmt: skip
    assert said["features"] == {"single_turn_share_7d": 0.98, "longest_gap_7d": None, "odd": None}
    assert said["command"] == f"stillwatch alerts show {1:032x}"


def test_a_digest_says_how_many_and_how_to_see_them_all() -> None:
    for text in (to_json(as_native(digest())), to_json(slack.as_message(digest()))):
        assert b"stillwatch alerts list --since 2026-05-28T20:26:40Z --limit 0" in text
        assert b"acct_2" in text
    assert as_native(digest())["alerts"] == 100_000
    assert slack.as_message(digest())["text"] == "[critical] 100,000 alerts about 70,000 accounts, in one message"


def test_a_test_says_that_it_is_one() -> None:
    one = AlertParcel(alert(), test=True)
    assert as_native(one)["test"] is True
    assert ocsf.as_finding(one, NOW_US)["is_alert"] is False
    for form in (slack.as_message(one)["text"], pagerduty.as_event(one, "k")["payload"]["summary"]):
        assert "TEST, not a finding" in form


def _texts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("type") in ("plain_text", "mrkdwn"):
            yield value
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


@pytest.mark.parametrize("one", ALL)
def test_slack_gets_blocks_within_its_limits_and_obeys_no_stranger(one: Parcel) -> None:
    message = slack.as_message(one)
    assert len(message["blocks"]) <= 50
    for block in message["blocks"]:
        limit = {"header": 150, "section": 3000, "context": 2000, "actions": 75}[block["type"]]
        for text in _texts(block):
            assert text["type"] == "plain_text"
            assert 1 <= len(text["text"]) <= limit
            assert "<" not in text["text"]
            assert ">" not in text["text"]
        for text in block.get("fields", ()):
            assert len(text["text"]) <= 2000
        assert len(block.get("fields", ())) <= 10
        assert len(block.get("elements", ())) <= 10
    assert "<" not in message["text"]
    assert len(message["text"]) <= 3000
    said = json.dumps(message, ensure_ascii=False)
    assert not {"\x1b", "\u202e", "\x00", "\ud800"} & set(said)


def test_slack_cuts_no_escape_in_two() -> None:
    for most in range(2, 12):
        said = slack.escaped("&<>" * 5, most)
        assert len(said) <= most
        assert said.rstrip("…").replace("&amp;", "").replace("&lt;", "").replace("&gt;", "") == ""


@pytest.mark.parametrize(
    ("severity", "said"),
    (("critical", "critical"), ("high", "error"), ("medium", "warning"), ("low", "info"), ("informational", "info")),
)
def test_pagerduty_gets_its_own_severities(severity: Any, said: str) -> None:
    assert pagerduty.as_event(parcel(severity=severity), "k" * 32)["payload"]["severity"] == said


@pytest.mark.parametrize("one", ALL)
def test_pagerduty_gets_events_within_its_limits(one: Parcel) -> None:
    event = pagerduty.as_event(one, "k" * 32)
    assert event["dedup_key"] == one.key
    assert len(event["dedup_key"]) <= 255
    assert 1 <= len(event["payload"]["summary"]) <= 1024
    assert len(to_json(event)) < 512 * 1024


def test_a_receiver_can_check_the_signature_with_the_standard_alone() -> None:
    """As docs/delivery.md shows it."""
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    body = to_json(as_native(parcel()))
    headers = signing.headers_of(signing.key_of(secret, "sinks.soc"), "a" * 32, 1_780_000_000, body)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"


@pytest.mark.parametrize(
    ("secret", "said"),
    (("short", "has 5 bytes, at least 24"), ("whsec_AAAA", "has 3 bytes"), ("whsec_???", "no Base64")),
)
def test_a_secret_that_protects_nothing_is_refused_and_not_shown(secret: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        signing.key_of(secret, "sinks.soc")
    assert secret.removeprefix("whsec_") not in str(error.value)
