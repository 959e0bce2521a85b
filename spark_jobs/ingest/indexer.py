"""indexer: ids to numbers from 0 in the order of their first appearance, which depends on the source alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infra.contracts.errors import DataRefused


class Indexer:
    """Memory grows with the distinct ids (about 150 bytes each), never with the events."""

    def __init__(self, what: str, *, most: int = 2**31 - 1, mend: str = "") -> None:
        self._what, self._most, self._mend = what, most, mend
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, ids: pa.Array) -> NDArray[np.int32]:
        """int32 [n] for string [n]; new ids get the next numbers."""
        coded = ids.dictionary_encode()
        known = self._numbers
        of_distinct = [known.setdefault(name, len(known)) for name in coded.dictionary.to_pylist()]
        self._check()
        return np.array(of_distinct, np.int32)[coded.indices.to_numpy(zero_copy_only=False)]

    def is_new(self, name: str) -> bool:
        """Number one id; False where it had a number."""
        before = len(self._numbers)
        self._numbers.setdefault(name, before)
        return len(self._numbers) > before

    def names(self) -> list[str]:
        """All ids; position i is that of number i."""
        return list(self._numbers)

    def _check(self) -> None:
        if len(self._numbers) > self._most:
            raise DataRefused(f"There are more than {self._most:,} different {self._what}.", mend=self._mend)
