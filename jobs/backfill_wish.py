"""What `stillwatch backfill` is asked for, and what it is refused for before anything is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.backfilling.slices import WHOLE, Slice, between
from pipeline.errors import ConfigError
from pipeline.sources import FEED


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asks for, beside the settings: a field for each flag of `jobs/backfill_flags.py`."""

    sources: tuple[str, ...] = ()
    score: bool | None = None
    feed: str | None = None
    partitions: int | None = None
    parallel: int = 1
    dry_run: bool = False
    low: str | None = None
    high: str | None = None
    rejects: bool = False
    give_up: str | None = None
    replaces: bool = False
    of: tuple[str, ...] = ()
    kafka: tuple[str, ...] = ()
    """Flags that say where Kafka is, as they were given."""

    @property
    def topic(self) -> str:
        """Topic of the feed that scored files are added to."""
        return f"{FEED}{self.feed_name}"

    @property
    def feed_name(self) -> str:
        """What that feed is called."""
        return self.feed or "backfill"

    @property
    def is_past(self) -> bool:
        """Whether records of a past range of the topic are asked for: `--from` and `--to` are of Kafka's log then."""
        instead = self.sources or self.rejects or self.give_up is not None
        return not instead and (self.low is not None or self.high is not None)

    @property
    def asked(self) -> Slice:
        """Event times that are asked for, of files and rejects.

        Raises:
            ConfigError: `--from` and `--to` make no sense.
        """
        return WHOLE if self.is_past else between(self.low, self.high)

    def check(self, *, scores: bool) -> None:
        """Refuse what no backfill could do.

        Args:
            scores: whether files are to be scored.

        Raises:
            ConfigError: a flag is wrong, or flags contradict each other; it says which, why and what to do instead.
        """
        if self.feed is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", self.feed):
            raise ConfigError(f"--feed {self.feed}: letters, digits, '.', '_' and '-', at most 80")
        if self.replaces and self.rejects:
            raise ConfigError(_REPLACES_REJECTS)
        if self.give_up is not None:
            self._check_kafka()
            self._check_gives_up()
            return
        if bool(self.sources) + self.is_past + self.rejects != 1:
            raise ConfigError(
                "give either files, folders or globs, or a past range of the topic with --from and --to, or --rejects: "
                + ("these are several" if self.sources else "nothing is named")
            )
        self._check_replaces(self.asked)
        self._check_feed(scores=scores)
        if self.rejects and self.score:
            raise ConfigError("--score: rejects come out of their order, and are landed without scores")
        self._check_kafka()

    def _check_kafka(self) -> None:
        """Refuse flags about Kafka where nothing is read from it: whoever gives them believes that something is."""
        instead = "files" if self.sources else "--rejects" if self.rejects else "--give-up" if self.give_up else ""
        if self.kafka and instead:
            raise ConfigError(
                f"{self.kafka[0]}: nothing is read from Kafka with {instead}: leave it out; or, to land a past range "
                f"of the topic, leave {instead} out and name the range with --from and --to"
            )

    def _check_gives_up(self) -> None:
        """See that nothing else is asked for."""
        others = (self.sources, self.rejects, self.replaces, self.of, self.low, self.high, self.score is not None)
        if any(others):
            raise ConfigError("--give-up: nothing is landed beside it: give it alone, with --feed where that has one")

    def _check_feed(self, *, scores: bool) -> None:
        """Refuse flags of a feed where nothing is added to one: whoever gives them believes that it is."""
        given = [
            flag for flag, value in (("--feed", self.feed), ("--partitions", self.partitions)) if value is not None
        ]
        if not given or (self.sources and scores and not self.replaces):
            return
        why = (
            "what replaces other rows is landed without scores" if self.replaces
            else "each file stands for itself without scores" if self.sources
            else "rejects and past ranges keep the partitions that they have"
        )  # fmt: skip
        raise ConfigError(f"{given[0]}: only scored files are added to a feed, and {why}: leave it out")

    def _check_replaces(self, asked: Slice) -> None:
        """See that it is said what goes and what comes."""
        if not self.replaces:
            if self.of:
                raise ConfigError("--of says what --replace takes away: give --replace, too")
            return
        if self.is_past and self.of:
            raise ConfigError(
                "--of: without files, records of the topic are read again, each in the place of what it was taken for, "
                "and nothing else goes: leave --of out, or name the files whose rows come in the place of those that go"
            )
        if self.sources and asked.is_whole and not self.of:
            raise ConfigError("--replace: say what goes: a range with --from and --to, a source with --of, or both")
        if self.score:
            raise ConfigError(
                "--score: what replaces other rows is landed without scores: an account's score follows from all that "
                "it sent before, and what is known of it today knows the former rows. Leave --score out; `stillwatch "
                "backtest --events lake` afterwards says what the new rows would have raised. Who wants their scores "
                "in a lake lands the whole log anew in another one: `stillwatch backfill --lake NEW --score` FILES"
            )


_REPLACES_REJECTS = (
    "--replace --rejects: a reject that is an event today takes no row's place, for it has none of its own: leave "
    "--replace out, and it is landed once, beside the reject, which says what it was taken for. To have rows and "
    "rejects of a range decoded anew, in their own place, leave --rejects out: --replace with --from and --to reads "
    "these records from Kafka again, --replace with files does so from files"
)
