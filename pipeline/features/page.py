"""The page docs/features.md, made of what the families say of themselves; a test keeps it as made here.

Renew it with `python -m pipeline.features.page > docs/features.md`.
"""

from __future__ import annotations

import sys
from typing import Final

from pipeline.features import FAMILIES, emission
from pipeline.features.clock import DAY, HORIZON, HOUR, SECOND
from pipeline.features.engine import CHECK_EVERY
from pipeline.features.events import SAMPLE_EVERY, SAMPLE_WHOLE
from pipeline.features.sharing import BLOCK, PAIRS_MAX
from pipeline.features.state import BYTES_PER_ACCOUNT_MAX, ID_CHARS
from pipeline.features.watermark import AHEAD, EVERY, LATENESS, VOTERS, WINDOW

_SIGNALS: Final = {
    1: "skeleton spread: other accounts with the same frames",
    8: "sharded data set: accounts that share frames and no prompts",
    2: "reasoning elicitation",
    3: "entity graph: shared payment, e-mail domain, organisation",
    4: "no ramp: near the limit soon after creation",
    5: "tokens a day against the plan's usual",
    10: "probing then scaling: errors and refusals",
    12: "no human rhythm",
    13: "release pivot: a model used as soon as it is out",
    14: "relay: many clients, settings and sessions in one account",
    15: "credential dispersion: many networks and clients per key and hour",
    16: "narrowness × volume",
    17: "template and slot: a constant frame, near-unique filling",
    18: "grader use",
    19: "one-shotness: single-turn, short in, long out, no cached context",
    20: "sensitive rewriting",
}


def markdown() -> str:
    """The whole page."""
    lines = [*_head(), *_signals()]
    for family in FAMILIES:
        lines += ["", f"## {family.name}", "", "| feature | unit | definition | in words | signals | source |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        for feature in family.features:
            signals = ", ".join(map(str, feature.signals)) or "–"
            texts = (feature.unit, feature.definition, feature.words, signals, feature.source)
            lines.append(f"| `{feature.name}` | " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
    return "\n".join(lines) + "\n"


def _head() -> list[str]:
    text = f"""\
# Features

Made by `python -m pipeline.features.page` from the families in `pipeline/features/`.

A row of features is what is known of one account at one record. Numbers are float32; where a feature's inputs are
absent from the log it is null, not zero. A row depends on the partition's records before it and on nothing else: not on
how they were batched, replayed or restored.

- **When**: at an account's event {", ".join(map(str, emission.FIRST))}, then every {emission.EVERY};
  and as event time passes the end of the account's hour, with {emission.HOUR_EVENTS_MIN} or more new events since its last
  row; or passes {emission.QUIET // HOUR} h after its last event, with {emission.QUIET_EVENTS_MIN} or more new events since its last row and
  {emission.QUIET_LIFE_MIN} or more in all. Hours of accounts are shifted against each other by a hash of the account, so that they do
  not all end together.
- **Views**: `1h`, `24h` and `7d` are the last 30 to 60 minutes, 12 to 24 hours, 3½ to 7 days of the account's own clock:
  two generations each, of which the older is dropped as a whole.
- **Time**: event time, clipped to [watermark - {LATENESS // SECOND} s, watermark + {AHEAD // HOUR} h]. The watermark is the
  time that three quarters of the {VOTERS} accounts seen last have reached, looked at every {EVERY} records. An account has
  one vote, however many records it sends: a clock that is years ahead or hours behind moves its own account and nobody
  else. Late events count, at the account's clock. What would move everybody's time is a wrong clock of three quarters of
  the accounts that are active; or of one alone, if no other sends
  anything for {WINDOW} records. Where no more than four accounts are active the slowest clock decides for all.
- **Duplicates**: every record counts, also one whose request id was there before: what a gateway logs twice happened
  twice, and no id of a client's choosing makes a request disappear.
- **Lives**: an account that was silent for {HORIZON // DAY} days begins anew.
- **Sample of texts**: an account's first {SAMPLE_WHOLE} events and every {SAMPLE_EVERY}th after that.
- **Length of texts**: in characters, of which those that take three bytes or more in UTF-8 count as three: alphabets of
  one and of two bytes count alike, and a character of Chinese as three letters; so does one of any other script beyond
  U+07FF, as of Devanagari or Thai.
- **Counts by hash**: a *distinct* is an estimate; two values may share a cell. A cell of a mix stops at 65,535; from its
  4,096th event on, an account's mixes take every 2nd event, from the 8,192nd every 4th, and so on.
- **Between accounts**: an account's row depends on the records of others in these ways and no other. *None given*: once
  any record of the partition has had a value of a setting or a conversation id, a request without one has "none"; before
  that it is not logged. So the first to send such a value decides what a null means for all from then on. *Sharing*: the
  features of the family `spread` say what other accounts sent, as of the last whole block of {BLOCK:,} records; of
  {PAIRS_MAX:,} pairs of a text and an account the half that was longest not seen is dropped. *Watermark*: it
  decides at which record a row is emitted that is due by time, when a model counts as new, and it clips times. *Memory*: see below. *The accounts feed*: how many accounts
  have the same payment, domain or organisation. Scores depend on what the models learned of all accounts, too.
- **Memory**: at most `accounts_max` accounts of a partition (a setting) at every {CHECK_EVERY:,}th record; those idle longest are dropped, and begin
  anew if they come back; the log says so. The characters of all ids together are bounded to {ID_CHARS} for each account allowed. An account
  takes at most {BYTES_PER_ACCOUNT_MAX:,} bytes, its id and about 140 bytes for its place in the map beside them.
"""
    return [*text.splitlines(), ""]


def _signals() -> list[str]:
    used = sorted({signal for family in FAMILIES for feature in family.features for signal in feature.signals})
    return ["| signal | what it is |", "| --- | --- |", *(f"| {number} | {_SIGNALS[number]} |" for number in used)]


if __name__ == "__main__":
    sys.stdout.write(markdown())
