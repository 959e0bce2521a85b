"""canary: the two tasks that try a snapshot on some users: one starts it, one looks every half a minute until it is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags.job import JobOperator

NONE, WAITS, ROLLED_BACK, EXPIRED, ENDED = "none", "waits", "rolled_back", "expired", "ended"
"""What `canary decide` says, but for `promoted`: nothing runs; or a Verdict, whose module every task would wait for."""

LOOKS_EVERY = timedelta(seconds=30)


class CanaryStart(JobOperator):
    """Starts the canary of a build, fenced as its flip would be; where there is nothing to start it ends at once.

    fraction: a template; 0 is no canary. beside: a template: what was live when the gate judged, empty where nothing was, for
    then there is nothing to try it beside.

    Its XCom is what `canary start` said, None where nothing was started.
    """

    template_fields: Sequence[str] = (*JobOperator.template_fields, "fraction", "beside")
    ui_color = "#dfeef5"

    def __init__(self, *, fraction: str, beside: str, **kwargs: Any) -> None:
        super().__init__(module="infra.snapshots", **kwargs)
        self.fraction = fraction
        self.beside = beside

    def execute(self, context: Context) -> dict[str, object] | None:
        """Start it, or say why not."""
        if float(self.fraction) == 0:
            self.log.info("no canary: HEADGATE_CANARY_FRACTION, or the form's field, is 0")
            return None
        if not self.beside:
            self.log.info("no canary: nothing is live that it could be compared with")
            return None
        self.options |= {"--fraction": self.fraction}
        return self.run_job()


class CanaryDecision(BaseSensorOperator, JobOperator):
    """Looks at a canary until it is over; each look may promote it, roll it back, or end it. Between looks it holds no worker.

    application, version, hours: templates; hours may be empty: the setting counts. generation: a template, that of its start;
    empty where nothing was started, and then it ends at once. lasts: how long any canary may run here.
    holds_flip: whether a flip follows, which must not come unless the canary passed: a canary that was rolled back fails the
    task, one that was not decided skips what follows. Where the alias was moved meanwhile, the flip's own fence says what is due.

    Its XCom is what `canary decide` said last.
    """

    template_fields: Sequence[str] = (*JobOperator.template_fields, "application", "version", "generation", "hours")
    ui_color = "#dfeef5"

    def __init__(
        self,
        *,
        application: str,
        version: str,
        generation: str,
        lasts: timedelta,
        hours: str = "",
        holds_flip: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module="infra.snapshots",
            args=["canary", "decide", "--json"],
            mode="reschedule",
            poke_interval=LOOKS_EVERY,
            timeout=lasts + timedelta(hours=1),  # the look that comes after its time ends it
            retries=10,
            retry_delay=timedelta(minutes=2),
            **kwargs,
        )
        self.application = application
        self.version = version
        self.generation = generation
        self.hours = hours
        self.holds_flip = holds_flip

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        if not self.generation:
            self.log.info("no canary was started: there is nothing to decide")
            return PokeReturnValue(is_done=True)
        self.options = {
            "--application": self.application,
            "--version": self.version,
            "--generation": self.generation,
            "--hours": self.hours,
        }
        found = self.run_job() or {}
        told = tell(self.application, self.version, found)
        self.log.info("%s", told)
        if found.get("verdict") == WAITS:
            return PokeReturnValue(is_done=False)
        if self.holds_flip:
            _hold(found, told)
        return PokeReturnValue(is_done=True, xcom_value=found)


def tell(application: str, version: str, found: Mapping[str, object]) -> str:
    """What `canary decide` found, in a sentence."""
    verdict = str(found.get("verdict"))
    if verdict == NONE:
        return f"{application} {version}: its canary is over: somebody ended it, or moved the alias, before it was decided."
    return f"{application} {version}: {verdict.replace('_', ' ')}. {found.get('because')}"


def _hold(found: Mapping[str, object], told: str) -> None:
    if found.get("verdict") == ROLLED_BACK:
        raise AirflowFailException(f"{told} What was live stays live.")
    if found.get("verdict") in {EXPIRED, ENDED}:
        raise AirflowSkipException(
            f"{told} It is not live, and stays VALIDATED: snapshot_promote puts it live on purpose."
        )
