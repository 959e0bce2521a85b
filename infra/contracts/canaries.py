"""canaries: a snapshot that a share of the users is shown, or that scores unseen, beside the live one; and who they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import VersionName


class CanaryMode(StrEnum):
    """Whether users see it."""

    CANARY = "canary"
    """A fraction of users is shown its lists."""
    SHADOW = "shadow"
    """The same fraction's requests are scored with it after the answer; nobody sees it."""


@dataclass(frozen=True, slots=True)
class Canary:
    """Part of the alias: it runs for exactly the generation of the flip that started it, and any other flip ends it.

    fraction: of users, above 0 and at most 0.5 (a shadow: 1). salt: drawn anew for each start, so that no two canaries fall on
    the same users. started_at: aware UTC; started_by: the hand.
    """

    version: VersionName
    digest: str
    fraction: float
    salt: str
    mode: CanaryMode
    started_at: datetime
    started_by: str

    def __post_init__(self) -> None:
        """Raise InvalidRequest where the fraction cannot be."""
        most = 0.5 if self.mode is CanaryMode.CANARY else 1.0
        if not 0.0 < self.fraction <= most:
            raise InvalidRequest(
                f"The fraction of a {self.mode} is {self.fraction}; wanted more than 0 and at most {most}.",
                mend="Use --fraction 0.05 for one user in twenty.",
            )

    def takes(self, user_id: str) -> bool:
        """Whether the user is one of the fraction: always the same answer, in every process."""
        return bucket(user_id, self.salt) < self.fraction

    def same_trial(self, other: Canary) -> bool:
        """Whether both try the same bytes in the same way, whenever they began."""
        mine = (self.version, self.digest, self.fraction, self.mode)
        return mine == (other.version, other.digest, other.fraction, other.mode)

    def to_json(self) -> str:
        """As the alias holds it."""
        return json.dumps(asdict(self) | {"started_at": self.started_at.isoformat()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Canary:
        """The inverse of `to_json`."""
        return cls.from_fields(json.loads(text))

    @classmethod
    def from_fields(cls, fields: dict[str, object]) -> Canary:
        """From the fields of that JSON."""
        return cls(
            version=VersionName(str(fields["version"])),
            digest=str(fields["digest"]),
            fraction=float(str(fields["fraction"])),
            salt=str(fields["salt"]),
            mode=CanaryMode(str(fields["mode"])),
            started_at=datetime.fromisoformat(str(fields["started_at"])),
            started_by=str(fields["started_by"]),
        )


def bucket(user_id: str, salt: str) -> float:
    """A user's place in [0, 1), uniform over users and independent between salts: BLAKE2b of both, 64 bits."""
    digest = hashlib.blake2b(user_id.encode(), key=salt.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
