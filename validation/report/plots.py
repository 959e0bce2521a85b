"""plots: small drawings as inline SVG, coloured by the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT = 520, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 42

Float64s = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axes:
    """low and high of both directions, and what they show. x_percent, y_percent: the numbers are fractions."""

    x_low: float
    x_high: float
    y_high: float
    x_label: str
    y_label: str
    x_percent: bool = False
    y_percent: bool = False
    whole: bool = False

    def x(self, value: float) -> float:
        """A value's place from the left, in the drawing's units."""
        span = (self.x_high - self.x_low) or 1.0
        return _LEFT + (value - self.x_low) / span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """A value's place from the top."""
        return HEIGHT - _BOTTOM - value / (self.y_high or 1.0) * (HEIGHT - _TOP - _BOTTOM)


def histogram(
    edges: Float64s,
    shares: Float64s,
    *,
    x_label: str,
    y_label: str,
    title: str,
    other: Float64s | None = None,
    marks: Sequence[tuple[float, str]] = (),
    x_percent: bool = False,
    whole: bool = False,
) -> Markup:
    """Bars of `shares` (a fraction a bin), the same bins of `other` as a line over them, `marks` as upright lines.

    edges: float64 [n + 1]; shares, other: float64 [n].
    """
    tallest = max(float(np.max(shares, initial=0.0)), float(np.max(other, initial=0.0)) if other is not None else 0.0)
    axes = Axes(
        float(edges[0]),
        float(edges[-1]),
        tallest * 1.08 or 1.0,
        x_label,
        y_label,
        x_percent,
        y_percent=True,
        whole=whole,
    )
    parts = [_frame(axes)]
    gap = 0.6 if len(shares) < 80 else 0.0
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        if share > 0:
            left, right, top = axes.x(float(low)) + gap, axes.x(float(high)) - gap, axes.y(float(share))
            parts.append(
                f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.8):.1f}" '
                f'height="{axes.y(0) - top:.1f}"/>'
            )
    if other is not None:
        parts.append(f'<path class="other" d="{_steps(axes, edges, other)}"/>')
    parts += [_mark(axes, value, label) for value, label in marks if axes.x_low <= value <= axes.x_high]
    return _svg(parts, title)


def curves(
    lines: Sequence[tuple[str, Float64s, Float64s]], *, x_label: str, y_label: str, title: str, diagonal: bool = False
) -> Markup:
    """Lines in the unit square: (class of the line, x, y) each, both fractions; `diagonal` draws what equality would be."""
    axes = Axes(0.0, 1.0, 1.0, x_label, y_label, x_percent=True, y_percent=True)
    parts = [_frame(axes)]
    if diagonal:
        parts.append(
            f'<line class="even" x1="{axes.x(0):.1f}" y1="{axes.y(0):.1f}" x2="{axes.x(1):.1f}" y2="{axes.y(1):.1f}"/>'
        )
    for kind, xs, ys in lines:
        points = " ".join(f"{axes.x(float(x)):.1f},{axes.y(float(y)):.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline class="{escape(kind)}" points="{points}"/>')
    return _svg(parts, title)


def _steps(axes: Axes, edges: Float64s, shares: Float64s) -> str:
    moves = [f"M{axes.x(float(edges[0])):.1f} {axes.y(0):.1f}"]
    for high, share in zip(edges[1:], shares, strict=True):
        moves.append(f"V{axes.y(float(share)):.1f}H{axes.x(float(high)):.1f}")
    return "".join([*moves, f"V{axes.y(0):.1f}"])


def _mark(axes: Axes, value: float, label: str) -> str:
    at = axes.x(value)
    anchor, shift = ("end", -4) if at > WIDTH * 0.7 else ("start", 4)
    return (
        f'<line class="mark" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{axes.y(0):.1f}"/>'
        f'<text class="mark" x="{at + shift:.1f}" y="{_TOP + 9}" text-anchor="{anchor}">{escape(label)}</text>'
    )


def _frame(axes: Axes) -> str:
    bottom = axes.y(0)
    parts = []
    for value in ticks(0.0, axes.y_high, most=4):
        at = axes.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{_number(value, axes.y_percent)}</text>'
        )
    for value in ticks(axes.x_low, axes.x_high, most=7, whole=axes.whole):
        parts.append(
            f'<text x="{axes.x(value):.1f}" y="{bottom + 15:.1f}" text-anchor="middle">'
            f"{_number(value, axes.x_percent)}</text>"
        )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(axes.x_label)}</text>"
        f'<text class="label" x="12" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 12 {middle:.0f})">'
        f"{escape(axes.y_label)}</text>"
    )
    return "".join(parts)


def ticks(low: float, high: float, *, most: int, whole: bool = False) -> list[float]:
    """At most about `most` round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (np.isfinite(span) and span > 0):
        return [low]
    step = 10.0 ** np.floor(np.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    if whole:
        step = max(1.0, step)
    first = np.ceil(low / step - 1e-9)
    found = [float(first + at) * float(step) for at in range(int((high / step - first) + 1e-9) + 1)]
    return found or [low]


def _number(value: float, percent: bool) -> str:
    return f"{value * 100:.4g}%" if percent else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _svg(parts: Sequence[str], title: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
