"""What can go wrong, and what each kind of wrong does to the job.

::

    StillwatchError          exit code
    ├─ ConfigError           2   a setting or argument is wrong: stop at start, one clear line
    ├─ NoRightError          2   the catalog's database role may not do what is needed: stop, name what to grant
    ├─ OffsetGapError        3   Kafka lost offsets that were never landed, or replaced landed ones: stop, name them
    ├─ UnreadableError       3   Kafka sends records that nobody can read: stop, name them
    ├─ RetryableError        4   broker, catalog or disk is down: bounded retry with back-off, then stop
    ├─ SchemaError           5   Stillwatch broke its own contract (a file, catalog or frame of another shape): stop
    ├─ LakeDamagedError      6   files and catalog do not agree, or a file is not what was written: name them
    └─ FencedError           –   another worker owns this partition now: drop the buffer, seek again; never ends the job

Bad input is data: it becomes a reject row and never an exception.  Anything else that is raised is a bug: it is
logged once with its traceback and ends the process with exit code 1.
"""


class StillwatchError(Exception):
    """Base of every error that Stillwatch raises on purpose.

    The message says what is wrong, where, and what to do about it, in words for the person who runs the job.
    """

    exit_code = 1


class ConfigError(StillwatchError):
    """A setting, flag, query or file given by the user is wrong."""

    exit_code = 2


class NoRightError(StillwatchError):
    """The catalog's database role lacks a right; no `ConfigError`, for nothing that a user gave is wrong.

    Attributes:
        said: which right, and what to grant, without the catalog's address.
    """

    exit_code = 2

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"{where}: {said}")
        self.said = said


class OffsetGapError(StillwatchError):
    """The topic no longer holds offsets that the lake still needs, or is not the one that was landed."""

    exit_code = 3


class UnreadableError(StillwatchError):
    """A batch of records fails its checksum or breaks Kafka's own format."""

    exit_code = 3


class RetryableError(StillwatchError):
    """Something outside (broker, catalog, disk) is down or full; trying again later may work."""

    exit_code = 4


class SchemaError(StillwatchError):
    """Data that Stillwatch itself wrote, or is about to write, is not of the shape it promises."""

    exit_code = 5


class LakeDamagedError(StillwatchError):
    """Files are missing, changed or too many, as the catalog or the other files tell."""

    exit_code = 6


class FencedError(StillwatchError):
    """Another worker has taken this partition over: what this worker holds of it must be dropped."""
