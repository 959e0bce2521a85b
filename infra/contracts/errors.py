"""errors: one tree of exceptions, split by who must act; every message says what was seen, wanted and the mend."""

from __future__ import annotations


class HeadgateError(Exception):
    """The root. `str(error)` is one readable line; `mend` is what to do about it, empty where nobody can do anything."""

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(f"{message} {mend}".strip())
        self.mend = mend


class CallerError(HeadgateError):
    """The caller must act: the request or the argument is wrong. HTTP 4xx."""


class InvalidRequest(CallerError):
    """A field of a request or an argument of a command has a value that is not allowed."""


class NotPermitted(CallerError):
    """Whoever asks has not been given the right to."""


class UnknownApplication(CallerError):
    """No such application in infra/catalog/applications."""


class OperatorError(HeadgateError):
    """The operator must act: the machine, the settings or the data are not as they must be."""


class MissingTool(OperatorError):
    """A program that headgate needs (Java, Redis, Chromium) is not there and could not be had."""


class PortTaken(OperatorError):
    """Another process listens on a port that headgate was told to use."""


class NotEnoughRoom(OperatorError):
    """Disk or memory would not hold what is about to be written."""


class DataRefused(OperatorError):
    """Imported data is unusable, or too many of its rows are; nothing was changed."""


class DatasetNotFound(OperatorError):
    """No sealed dataset of that name."""


class SnapshotError(OperatorError):
    """Something about a snapshot forbids what was asked."""


class SnapshotNotFound(SnapshotError):
    """No sealed manifest of that version: the snapshot does not exist."""


class StepMissing(SnapshotError):
    """A build step was asked for that has not completed."""


class MoveNotAllowed(SnapshotError):
    """The state machine has no such move."""


class SnapshotNotValidated(SnapshotError):
    """A flip was asked for on a snapshot that the gate has not passed."""


class SnapshotNotLoaded(SnapshotError):
    """A flip was asked for on a snapshot whose serving copy is missing, partial or different."""


class SnapshotCorrupt(SnapshotError):
    """Bytes on disk are not those that the manifest promises."""


class ValidationRefused(SnapshotError):
    """The gate found a failure: the message names the check, what was seen and what was wanted."""


class FlipFenced(SnapshotError):
    """The alias moved since the caller looked: a newer build or a rollback went first."""


class CanaryRuns(SnapshotError):
    """Something was asked for that would end the canary that runs, or one was asked for while another runs."""


class NothingToRollBackTo(SnapshotError):
    """The alias has no earlier version."""


class DependencyUnavailable(HeadgateError):
    """Somebody else's service (Redis, Airflow, the object store) did not answer. HTTP 503."""


class DeadlineExceeded(HeadgateError):
    """The time budget ran out and the stage's policy was to fail. HTTP 504."""


class ContractViolation(HeadgateError):
    """A bug in headgate or in a stage written for it: a promise between two parts was broken. HTTP 500."""
