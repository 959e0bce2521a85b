"""pages: how the pages look that lie beside a snapshot: reports of the gate, and of canaries; each adds what is its own."""

from __future__ import annotations

from pathlib import Path


def style(own: Path) -> str:
    """CSS: what the pages share, then that file's rules."""
    return (Path(__file__).parent / "page.css").read_text() + own.read_text()
