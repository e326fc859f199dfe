"""A line chart as SVG, for a picture that needs no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_COLOURS = ("#1b6ca8", "#c8553d", "#588157")

Points = Sequence[tuple[float, float]]


def line_chart(title: str, x_label: str, y_label: str, lines: Mapping[str, Points]) -> str:
    """Draw lines over common axes that begin at zero.

    Args:
        title: above the chart.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        lines: points by name.
    """
    x_step = _step(max(x for points in lines.values() for x, _ in points))
    y_step = _step(max(y for points in lines.values() for _, y in points))
    x_max = x_step * (1 + max(x for points in lines.values() for x, _ in points) // x_step)
    y_max = y_step * (1 + max(y for points in lines.values() for _, y in points) // y_step)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (_WIDTH - _LEFT - _RIGHT) * x / x_max, (_HEIGHT - _TOP - _BOTTOM) * y / y_max
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [_text(_WIDTH / 2, 20, title, "middle", 15)]
    for number in range(int(y_max / y_step) + 1):
        x, y = place(0, number * y_step)
        parts.append(f'<path d="M{x} {y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(x - 8, y + 4, number * y_step, "end"))
    for number in range(int(x_max / x_step) + 1):
        x, y = place(number * x_step, 0)
        parts.append(f'<path d="M{x} {y}v5" stroke="#333"/>{_text(x, y + 20, number * x_step, "middle")}')
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(_WIDTH - _RIGHT - 8, _HEIGHT - _BOTTOM - 12 - 18 * number, name, "end", colour=colour))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_label, "middle"))
    parts.append(f'<g transform="rotate(-90 18 {_HEIGHT / 2})">{_text(18, _HEIGHT / 2, y_label, "middle")}</g>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>', *parts, "</svg>", ""])


def _step(largest: float) -> int:
    """A round distance between grid lines, so that there are four to ten."""
    return next(s * 10**e for e in range(9) for s in (1, 2, 5) if largest <= 9 * s * 10**e)


def _text(x: float, y: float, text: object, anchor: str, size: int = 12, colour: str = "#333") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>'
