"""plot: a confidence sequence over users as inline SVG, coloured by the page's style sheet, so that it follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from infra.experiments.judgement import Compared

WIDTH, HEIGHT = 520, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 24, 14, 42


def sequence(metric: Compared) -> Markup | None:
    """The estimate, the band around it, 0 and the margin, by the users of both sides; None where there is no interval yet.

    The scale fits the last two thirds of the path: its beginning is so wide that the rest would be a line.
    """
    path = metric.path
    if not path.users:
        return None
    late = len(path.users) // 3
    lowest = min(*path.low[late:], 0.0, metric.margin)
    highest = max(*path.high[late:], 0.0, metric.margin)
    room = (highest - lowest) * 0.1 or 0.01
    axes = _Axes(float(path.users[0]), float(path.users[-1]), lowest - room, highest + room)
    upper = _points(axes, path.users, path.high)
    lower = _points(axes, path.users, path.low)
    title = f"{metric.title}: canary less live, with its interval, over users"
    parts = [
        _frame(axes),
        f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>',
        f'<polyline class="bar" points="{" ".join(_points(axes, path.users, path.mean))}"/>',
        _level(axes, 0.0, "no difference", kind="even", above=metric.margin < 0),
        _level(axes, metric.margin, "margin", kind="mark", above=metric.margin >= 0),
    ]
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


class _Axes:
    """Places in the drawing's units; what is outside is drawn at the edge."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low, y_high

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1.0) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        inside = min(max(value, self.y_low), self.y_high)
        return HEIGHT - _BOTTOM - (inside - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM)


def _points(axes: _Axes, users: Sequence[int], values: Sequence[float]) -> list[str]:
    return [f"{axes.x(n):.1f},{axes.y(value):.1f}" for n, value in zip(users, values, strict=True)]


def _level(axes: _Axes, value: float, label: str, *, kind: str, above: bool) -> str:
    at = axes.y(value)
    return (
        f'<line class="{kind}" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>'
        f'<text class="{kind}" x="{WIDTH - _RIGHT}" y="{at - 4 if above else at + 12:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def _frame(axes: _Axes) -> str:
    parts = []
    bottom = HEIGHT - _BOTTOM
    for value in _ticks(axes.y_low, axes.y_high, most=5):
        at = axes.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{_points_text(value)}</text>')
    for value in _ticks(axes.x_low, axes.x_high, most=6):
        parts.append(f'<text x="{axes.x(value):.1f}" y="{bottom + 15}" text-anchor="middle">{value:,.0f}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        "users of both sides</text>"
        f'<text class="label" x="12" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 12 {middle:.0f})">'
        "percentage points</text>"
    )
    return "".join(parts)


def _points_text(value: float) -> str:
    return f"{100 * value:+.3g}" if abs(value) > 1e-12 else "0"


def _ticks(low: float, high: float, *, most: int) -> list[float]:
    """At most about `most` round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [(first + at) * step for at in range(int(high / step - first + 1e-9) + 1)]
