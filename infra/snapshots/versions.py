"""versions: a version's life on the store: allocate, build step by step, seal, and record each state it passes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow.parquet as pq

from infra.contracts.errors import ContractViolation, MoveNotAllowed, SnapshotNotFound, StepMissing
from infra.contracts.ids import (
    ApplicationName,
    VersionName,
    version_name,
    version_number,
)
from infra.contracts.snapshots import Manifest, Part, State, StateRecord, check_move
from infra.snapshots.journal import Journal
from infra.snapshots.storage import Storage


@dataclass(slots=True)
class Attempt:
    """One try of one build step, writing into a folder of its own: a killed try's late writes hit nothing."""

    step: str
    path: str
    parents: dict[str, str]
    figures: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """A completed step: its folder (relative to the version's storage), what it was built from, and its figures."""

    step: str
    path: str
    parents: dict[str, str]
    figures: dict[str, object]
    completed_at: datetime


class Version:
    """One version of one application's snapshots, at {store}/{application}/snapshots/{version}."""

    def __init__(self, application: ApplicationName, version: VersionName, storage: Storage) -> None:
        self.application = application
        self.version = version
        self.storage = storage

    @property
    def label(self) -> str:
        """For messages: `ranking/v12`."""
        return f"{self.application}/{self.version}"

    # -- building

    @property
    def generation_at_start(self) -> int:
        """The alias's generation when the build began; a flip that finds another is fenced."""
        return int(json.loads(self.storage.read("build.json"))["generation"])

    @property
    def begun_at(self) -> datetime:
        """When the version was allocated."""
        return datetime.fromisoformat(json.loads(self.storage.read("build.json"))["begun_at"])

    @contextmanager
    def attempt(self, step: str, *, parents: dict[str, str] | None = None) -> Iterator[Attempt]:
        """Run one try of a step; it exists for others only once the block has ended without an error."""
        attempt = Attempt(step, f"attempts/{step}-{uuid.uuid4().hex[:8]}", parents or {})
        yield attempt
        record = {
            "step": step,
            "parents": attempt.parents,
            "figures": attempt.figures,
            "completed_at": datetime.now(UTC).isoformat(),
        }
        if not self.storage.create(f"{attempt.path}/_step.json", json.dumps(record, indent=1).encode()):
            raise ContractViolation(f"{self.label}: the attempt folder {attempt.path} is not this process's own.")

    def output(self, path: str) -> StepOutput:
        """The completed step in that folder; raises StepMissing."""
        record_path = f"{path}/_step.json"
        if not self.storage.exists(record_path):
            raise StepMissing(f"{self.label} has no completed step at {path}.", mend="Run the step again.")
        record = json.loads(self.storage.read(record_path))
        completed_at = datetime.fromisoformat(record["completed_at"])
        return StepOutput(record["step"], path, record["parents"], record["figures"], completed_at)

    def latest(self, step: str) -> StepOutput:
        """The step's try that completed last; raises StepMissing."""
        done = [
            self.output(f"attempts/{name}")
            for name in self.storage.names("attempts")
            if name.rsplit("-", 1)[0] == step and self.storage.exists(f"attempts/{name}/_step.json")
        ]
        if not done:
            raise StepMissing(
                f"{self.label} has no completed step {step!r}.",
                mend=f"Run: python -m spark_jobs.{step} --application {self.application} --version {self.version}",
            )
        return max(done, key=lambda output: output.completed_at)

    def part(self, path: str, *, rows: int | None = None) -> Part:
        """Digest everything below a path. Rows are counted from Parquet footers unless given."""
        files = [name for name in self.storage.files(path) if not name.endswith("_step.json")]
        if not files:
            raise StepMissing(f"{self.label} has nothing at {path}.")
        if rows is None:
            rows = 0
            for name in files:
                with self.storage.open(name) as file:
                    rows += pq.read_metadata(file).num_rows
        digests = {name: self.storage.sha256(name) for name in files}
        return Part(rows=rows, files=digests, bytes=sum(self.storage.size(name) for name in files))

    # -- sealed

    @property
    def sealed(self) -> bool:
        """Whether the snapshot exists."""
        return self.storage.exists("manifest.json")

    def manifest(self) -> Manifest:
        """The sealed manifest; raises SnapshotNotFound, SnapshotCorrupt."""
        if not self.sealed:
            raise SnapshotNotFound(f"{self.label} has no sealed manifest.", mend="Run: make snapshot")
        return Manifest.from_json(self.storage.read("manifest.json"))

    def seal(self, manifest: Manifest, *, actor: str) -> Manifest:
        """Write the manifest with its digest, create-if-absent, and record STAGED. Sealing again with equal content is fine."""
        sealed = manifest_with_digest(manifest)
        if not self.storage.create("manifest.json", sealed.to_json().encode()):
            sealed = self.manifest()
            if sealed.parts != manifest.parts:
                check_move(snapshot=self.label, version=self.version, seen=State.STAGED, wanted=State.STAGED)
        if self.state() is State.BUILDING:
            with suppress(MoveNotAllowed):  # another publisher recorded it in the same moment
                self.record(State.STAGED, actor=actor, reason="sealed")
        return sealed

    # -- states

    def history(self) -> list[StateRecord]:
        """Every state recorded, oldest first."""
        records = []
        for name in self.storage.names("states"):
            row = json.loads(self.storage.read(f"states/{name}"))
            at = datetime.fromisoformat(row["at"])
            records.append(StateRecord(State(row["state"]), at, row["actor"], row["reason"]))
        return records

    def state(self) -> State:
        """Where the snapshot stands now."""
        records = self.storage.names("states")
        if not records:
            return State.BUILDING
        return State(json.loads(self.storage.read(f"states/{records[-1]}"))["state"])

    def record(self, state: State, *, actor: str, reason: str, only_from: State | None = None) -> None:
        """Append a state. Raises MoveNotAllowed; of two writers at once one goes first and the other is judged after it.

        only_from: the one state from which the caller means it, where the table would allow more.
        """
        row = {"state": state, "at": datetime.now(UTC).isoformat(), "actor": actor, "reason": reason}
        while True:
            number = len(self.storage.names("states")) + 1
            seen = self.state()
            check_move(snapshot=self.label, version=self.version, seen=seen, wanted=state)
            if only_from is not None and seen is not only_from:
                raise MoveNotAllowed(
                    f"{self.label} is {seen}; this was meant for one that is {only_from}.", mend="Run: make status"
                )
            if self.storage.create(f"states/{number:06d}.json", json.dumps(row).encode()):
                return


def manifest_with_digest(manifest: Manifest) -> Manifest:
    """The manifest with its own content's digest filled in."""
    return replace(manifest, digest=manifest.content_digest())


class SnapshotStore:
    """All versions of one application, and the journal of its flips beside them."""

    def __init__(self, root: str, application: ApplicationName) -> None:
        """root: the store, a path or an fsspec URL."""
        self.application = application
        self.storage = Storage(f"{root.rstrip('/')}/{application}/snapshots")
        self.journal = Journal(Storage(f"{root.rstrip('/')}/{application}/journal"))

    def allocate(self, *, generation: int, actor: str) -> Version:
        """Take the next version number; of callers at the same moment each gets one of its own."""
        taken = [version_number(version) for version in self.versions()]
        number = max(taken, default=0) + 1
        while True:
            row = {"generation": generation, "actor": actor, "begun_at": datetime.now(UTC).isoformat()}
            if self.storage.create(f"v{number}/build.json", json.dumps(row).encode()):
                return self.get(VersionName(f"v{number}"))
            number += 1

    def get(self, version: VersionName | str) -> Version:
        """That version, which must have been allocated; raises SnapshotNotFound."""
        name = version_name(version)
        if not self.storage.exists(f"{name}/build.json"):
            have = ", ".join(self.versions()[-5:]) or "none"
            raise SnapshotNotFound(f"There is no snapshot {self.application}/{name}; the newest are: {have}.")
        return Version(self.application, name, self.storage.below(name))

    def versions(self) -> list[VersionName]:
        """Every allocated version, oldest first. On a disk a killed process may have left an empty folder: that is none."""
        names = [VersionName(name) for name in self.storage.names() if name[:1] == "v" and name[1:].isdigit()]
        if self.storage.is_local:
            names = [name for name in names if self.storage.exists(f"{name}/build.json")]
        return sorted(names, key=version_number)

    def remove(self, version: VersionName) -> None:
        """Delete a version: its manifest first, so that it does not exist any longer, and last what says that it was allocated."""
        name = version_name(version)
        self.storage.remove(f"{name}/manifest.json")
        for part in self.storage.names(name):
            if part != "build.json":
                self.storage.remove(f"{name}/{part}")
        self.storage.remove(name)

    def newest(self, *states: State) -> Version:
        """The newest sealed version, in one of the states if any are given; raises SnapshotNotFound."""
        for name in reversed(self.versions()):
            version = self.get(name)
            if version.sealed and (not states or version.state() in states):
                return version
        wanted = " or ".join(states) or "sealed"
        raise SnapshotNotFound(f"{self.application} has no {wanted} snapshot.", mend="Run: make snapshot")
