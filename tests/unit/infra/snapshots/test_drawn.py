"""The drawing of a comparison: bars to one scale, a line a side, and all of the shares in the JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.snapshots.diff import compare
from infra.snapshots.drawn import bars, show_difference
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_world


def test_bars_are_as_tall_as_their_shares_and_nothing_is_drawn_for_nothing_only() -> None:
    assert bars((0.0, 0.001, 0.25, 0.5, 1.0), tallest=1.0) == " ▁▂▄█"
    assert bars((0.5, 0.25), tallest=0.5) == "█▄"
    assert bars((), tallest=0.0) == ""


def test_histograms_hold_every_value_of_each_side_on_one_scale(tmp_path: Path) -> None:
    old = build_tiny_snapshot(str(tmp_path), world=tiny_world(users=50, items=80), k=40)
    new = build_tiny_snapshot(str(tmp_path), world=tiny_world(users=50, items=80, seed=9), k=40)
    found = compare(old, new, users=1000)
    for histogram in (found.scores, found.popularities):
        assert sum(histogram.before) == pytest.approx(1, abs=1e-4)
        assert sum(histogram.after) == pytest.approx(1, abs=1e-4)
        assert histogram.low < histogram.high
    assert found.scores.before != found.scores.after
    middles = np.linspace(0, 1, 2 * len(found.overlaps.after) + 1)[1::2]
    assert (found.overlaps.before, found.overlaps.low, found.overlaps.high) == ((), 0.0, 1.0)
    assert float(middles @ found.overlaps.after) == pytest.approx(found.overlap_mean[10], abs=0.03)


def test_both_sides_are_drawn_under_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = [build_tiny_snapshot(str(tmp_path), world=tiny_world(users=20, items=60, seed=n), k=20) for n in (1, 2)]
    show_difference(compare(*versions, users=1000))
    said = capsys.readouterr().err
    drawn = said[said.index("how they are spread") :].splitlines()
    assert [line.split()[0] for line in drawn[1:4:2]] == ["score,", "popularity,"]
    assert all(any(bar in line for bar in "▁▂▃▄▅▆▇█") for line in drawn[1:6])
    assert "v1" in drawn[1] and "v2" in drawn[2] and "100%" in drawn[5]
