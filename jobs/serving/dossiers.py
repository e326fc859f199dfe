"""An account's dossier within its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.serving.serving import Serving
from pipeline.dossier.page import body
from pipeline.errors import ConfigError, SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.desk.numbers import sha256_of_id
from pipeline.io.desk.stored_rows import seen
from pipeline.io.dossier import UnknownAccountError, Wanted, read_dossier
from pipeline.io.lake import Lake
from pipeline.io.views.session import Session


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a dossier.

    Attributes:
        body: the dossier, as markup; None: there is none.
        why_not: in words; empty where there is one.
        near: ids that are like one of which nothing is known, with the addresses of their pages.
        texts: texts of requests are shown.
    """

    body: str | None = None
    why_not: str = ""
    near: tuple[tuple[str, str], ...] = ()
    texts: bool = False


def show(serving: Serving, account_id: str, person: str, *, texts: bool) -> Shown:
    """Read an account's dossier, and put on record who looked where texts are shown.

    What is wrong with the lake's files is said in its place: people can decide all the same.

    Raises:
        RetryableError: the catalog does not answer.
        RefusedError: too many people read the lake.
    """
    settings = serving.settings
    wanted = Wanted(
        now_us=serving.clock.now_us(), by=person, where="page", texts=texts,
        feed=Path(settings.accounts).expanduser() if settings.accounts else None,
        models=Path(settings.models).expanduser() if settings.models else None,
    )  # fmt: skip
    try:
        with serving.reading(), _session(serving) as session:
            dossier = read_dossier(session, serving.catalog, account_id, wanted)
    except UnknownAccountError as error:
        near = tuple((name, address_of(serving, name)) for name in error.near)
        return Shown(why_not="Nothing is known of this account: the lake holds no event and no score of it.", near=near)
    except (ConfigError, SchemaError) as error:
        return Shown(why_not=unreadable(error))
    with serving.drawing:
        made = body(dossier, link=lambda name: address_of(serving, name))
    return Shown(made, texts=dossier.seen.texts.shown)


def unreadable(error: Exception) -> str:
    """That something in the lake is missing or broken, and who is to know."""
    return f"The lake cannot be read at this moment; tell whoever runs Stillwatch: {error}"


def as_meant(serving: Serving, typed: str) -> str:
    """An account's id as it is meant: ids may begin or end in spaces, or be nothing else; what is pasted often does.

    Where a file of the lake cannot be read, the spaces are taken for those of whoever pasted it.

    Raises:
        RetryableError: the catalog does not answer.
        RefusedError: too many people read the lake.
    """
    bare = typed.strip()
    if bare == typed or serving.catalog.desk.queue.account_of(sha256_of_id(typed)) is not None:
        return typed
    try:
        with serving.reading():
            is_one = seen(Lake.open(serving.settings.lake, create=False), serving.catalog, [typed])
    except SchemaError:
        return bare
    return typed if is_one else bare


def address_of(serving: Serving, account_id: str) -> str:
    """Address of an account's page, which this process then knows by its hash."""
    digest = sha256_of_id(account_id)
    serving.known.keep(digest, account_id)
    return f"/accounts/{digest}"


def _session(serving: Serving) -> Session:
    """One reader of the lake, for one request; closing it closes its catalog."""
    settings = serving.settings
    lake = Lake.open(settings.lake, create=False)
    return Session(lake, Catalog.open(settings.catalog_url, create=False), confined=True)
