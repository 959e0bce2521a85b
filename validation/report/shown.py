"""shown: text from users and catalogues made fit for a page: one line, nothing invisible, bounded length."""

from __future__ import annotations

MAX_CHARACTERS = 120


def shown(text: object, *, limit: int = MAX_CHARACTERS) -> str:
    """The text with what cannot be seen (NUL, newlines, marks that turn the direction of writing) as escapes; cut at the limit.

    Escaping for HTML is the template's business.
    """
    found = str(text)
    cut = found[:limit] + "…" if len(found) > limit else found
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut)
