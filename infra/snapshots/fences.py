"""fences: what stands between a version and its users; each raises where it may not pass, with the mend."""

from __future__ import annotations

import numpy as np

from infra.contracts.errors import CanaryRuns, FlipFenced, SnapshotNotValidated
from infra.contracts.ids import alias_value
from infra.contracts.snapshots import Manifest, State
from infra.snapshots.flips import PROMOTABLE, Standing
from infra.snapshots.serving_copy import SAMPLED_CHUNKS, ServingCopy
from infra.snapshots.tables import CANDIDATES, verify_part
from infra.snapshots.versions import Version

NEVER_LIVE = frozenset({State.VALIDATED, State.CANARY})
"""The states of a version that was not live for all yet."""


def require_validated(version: Version) -> None:
    """Raise SnapshotNotValidated unless the gate, or who may pass it, let the version through."""
    state = version.state()
    if state not in PROMOTABLE:
        raise SnapshotNotValidated(
            f"{version.label} is {state}; wanted VALIDATED.", mend=f"Run: make validate VERSION={version.version}"
        )


def require_files(version: Version, manifest: Manifest) -> None:
    """Compare with the manifest every file but the candidates, whose records are compared in Redis. Raises SnapshotCorrupt."""
    for part in manifest.parts:
        if part != CANDIDATES:
            verify_part(version, manifest, part)


def require_as_validated(version: Version, manifest: Manifest, copy: ServingCopy) -> None:
    """The files, and what Redis holds: all of it before the version is live for the first time, else a sample.

    Raises SnapshotCorrupt, SnapshotNotLoaded.
    """
    require_files(version, manifest)
    chunks = None if version.state() in NEVER_LIVE else SAMPLED_CHUNKS
    copy.verify(manifest, chunks=chunks, rng=np.random.default_rng())


def require_no_canary(version: Version, standing: Standing) -> None:
    """Raise CanaryRuns where another version is tried: its trial is not ended in passing."""
    canary = standing.canary
    if canary is None:
        return
    raise CanaryRuns(
        f"{version.application}: the {canary.mode} of {canary.version} runs on {canary.fraction:.3g} of the users since "
        f"{canary.started_at:%Y-%m-%d %H:%M:%S} UTC, started by {canary.started_by}; wanted none, for {version.version}.",
        mend=f"Wait for its end, or end it: python -m infra.snapshots canary end --application {version.application} "
        f"--version {canary.version} --reason '...'",
    )


def require_generation(version: Version, manifest: Manifest, standing: Standing) -> None:
    """Raise FlipFenced where the alias moved since the version's build began."""
    if manifest.generation_at_start == standing.generation:
        return
    live = alias_value(standing.live.version) if standing.live else "no version"
    raise FlipFenced(
        f"{version.application}: the alias is at generation {standing.generation} ({live}), the build of "
        f"{version.version} began at generation {manifest.generation_at_start}: another build or a rollback went first.",
        mend=f"{version.version} stays as it is; promote it on purpose with: "
        f"python -m infra.snapshots promote --application {version.application} --version {version.version} --force",
    )
