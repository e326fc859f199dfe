"""The dossier as HTML: one self-contained file, or the same body within a page of others.

Strangers chose ids, user agents and texts.  Jinja escapes every value; what is invisible or turns text around is
written out; plots are images, in which no script runs, and texts of strangers are in none of them.  The body has no
script, no style of its own and asks for nothing, so a page may forbid all of that: `default-src 'none'; style-src
'self' (or a hash); img-src data:`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup

from pipeline.alerts import spelled
from pipeline.counted import counted
from pipeline.dossier import words
from pipeline.dossier.dossier import Dossier, Measure
from pipeline.harmless import harmless

_ID_CHARS_MAX: Final = 200
_TEXT_CHARS_MAX: Final = 4_000
MEASURES_SHOWN: Final = 20
"""Features that are shown at once; the others are behind a fold."""

ALERTS_SHOWN: Final = 10


def css() -> str:
    """The stylesheet of body and page."""
    return resources.files("pipeline.dossier").joinpath("page.css").read_text(encoding="utf-8")


def body(dossier: Dossier, *, link: Callable[[str], str] | None = None) -> Markup:
    """The dossier as one `article`, for a page of others.

    Args:
        dossier: to be shown.
        link: gives the address of another account's dossier by its id; None: they are nowhere.
    """
    template = _environment().get_template("body.html")
    return Markup(template.render(_values(dossier, link)))  # noqa: S704  # Jinja has escaped every value in it


def page(dossier: Dossier) -> bytes:
    """The dossier as a file that opens without a network and runs nothing."""
    style = css()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    text = _environment().get_template("page.html").render(
        css=Markup(style),  # noqa: S704  # of this package
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        **_values(dossier, None),
    )  # fmt: skip
    return text.encode("utf-8", errors="replace")  # a lone surrogate has no bytes


def _values(dossier: Dossier, link: Callable[[str], str] | None) -> dict[str, Any]:
    measures, alerts = dossier.inferred.measures, dossier.inferred.alerts
    known = [measure for measure in measures if measure.place is not None]
    return {
        "d": dossier,
        "words": words,
        "link": link,
        "plots": _plots(dossier),
        "why": words.why(dossier),
        "measures": [known[:MEASURES_SHOWN], known[MEASURES_SHOWN:]],
        "unknown": [measure for measure in measures if measure.place is None],
        "bar": _bar,
        "alerts": [alerts[:ALERTS_SHOWN], alerts[ALERTS_SHOWN:]],
    }


def _plots(dossier: Dossier) -> dict[str, str]:
    """Plots as addresses that hold them."""
    from pipeline.dossier import plots  # noqa: PLC0415  # matplotlib takes long to load, and an account may have nothing to draw

    span = plots.span_of(dossier)
    found = {}
    if span and len(dossier.seen.timeline) > 1:
        found["requests"] = _as_image(plots.requests(dossier.seen.timeline, dossier.seen.bucket_us, span))
    if span and (len(dossier.inferred.history) > 1 or dossier.inferred.alerts):
        found["risk"] = _as_image(plots.risk(dossier.inferred.history, dossier.inferred.alerts, span))
    return found


def _as_image(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _bar(measure: Measure) -> Sequence[str]:
    """Places in per cent: value, 5 %, median, width up to 95 %."""
    value, low, median, high = measure.band or (0.0, 0.0, 0.0, 0.0)
    return [f"{100 * place:.1f}" for place in (value, low, median, max(high - low, 0.01))]


def shown(text: object, chars: int = _ID_CHARS_MAX) -> str:
    """A short text for reading: what is invisible is written out, and of a very long one the length is said."""
    whole = spelled(str(text))
    return harmless(whole) if len(whole) <= chars else f"{harmless(whole[:chars])}… ({len(whole):,} characters)"


def prose(text: str) -> str:
    """A long text for reading: its lines stay lines."""
    cut = harmless(text[:_TEXT_CHARS_MAX].replace("\r\n", "\n"), keep="\n\t")
    return cut if len(text) <= _TEXT_CHARS_MAX else f"{cut}\n… (cut here; stillwatch sql has the rest)"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.dossier", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        counted=counted, shown=shown, prose=prose, moment=words.moment, whole=words.whole, risk=words.risk_words
    )  # fmt: skip
    return environment
