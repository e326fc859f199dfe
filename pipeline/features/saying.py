"""Numbers of features as people say them: logarithms undone, shares in per cent, times in the unit that suits."""

from __future__ import annotations

from typing import Final

_LOG1P: Final = "log2(1 + "
_LOG: Final = "log2 of "
_RATIO: Final = "log2"
"""A ratio, or how far values spread as a factor; of a mean, the mean of values as `log2(1 + …)` has them."""

_AGAINST: Final = " against "
"""Stands in what a ratio is called, if it is a mean of ratios."""

_LOG_MOST: Final = 1000.0
"""Beyond it 2 to the power of it is no number."""

_SECONDS_OF: Final = {"ms": 0.001, "s": 1.0, "hours": 3_600.0, "days": 86_400.0}
_TIMES: Final = ((172_800.0, 86_400.0, "days"), (5_400.0, 3_600.0, "h"), (90.0, 60.0, "min"), (1.0, 1.0, "s"))
"""From how many seconds on, seconds of the unit, its name."""

_WHOLE_FROM: Final = 100.0
_MANY_FROM: Final = 1e12


def value_in_words(value: float, unit: str, words: str = "") -> str:
    """A feature's value for people.

    Args:
        value: known.
        unit: `Feature.unit`.
        words: what the number is; a unit that they name already is not said again.
    """
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit.startswith(_LOG1P) and abs(value) < _LOG_MOST:
        return _amount(2.0**value - 1.0, unit.removeprefix(_LOG1P).removesuffix(")"), words)
    if unit.startswith(_LOG) and abs(value) < _LOG_MOST:
        return _amount(2.0**value, unit.removeprefix(_LOG), words)
    if unit == _RATIO and abs(value) < _LOG_MOST:
        if words.startswith("mean ") and _AGAINST not in words:
            return _amount(2.0**value - 1.0, "", words)
        return f"× {_digits(2.0**value)}"
    return f"{value:.3g}"


def _amount(amount: float, of: str, words: str) -> str:
    if of in _SECONDS_OF:
        return _time(amount * _SECONDS_OF[of])
    number = _digits(amount)
    return number if of in words or of.partition(" ")[0] in words else f"{number} {of}"


def _digits(amount: float) -> str:
    return f"{amount:,.0f}" if _WHOLE_FROM <= amount < _MANY_FROM else f"{amount:.2g}"


def _time(seconds: float) -> str:
    for least, size, name in _TIMES:
        if seconds >= least:
            return f"{seconds / size:.2g} {name}" if seconds / size < _WHOLE_FROM else f"{seconds / size:,.0f} {name}"
    return f"{seconds * 1000:.2g} ms" if seconds < _WHOLE_FROM / 1000 else f"{seconds * 1000:.0f} ms"
