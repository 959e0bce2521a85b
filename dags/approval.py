"""approval: the task that asks a person before a snapshot goes live: what it shows, and what becomes of the answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from dags.forms import plain
from dags.job import CHECKOUT
from dags.plugins.snapshots.plugin import PREFIX
from dags.process import JobProcess


class SnapshotApproval(ApprovalOperator):
    """Asks, where it is told to, whether a validated snapshot may go live; else it ends at once and the run goes on.

    always: whether every run asks. wanted: a template; a run for which it renders to `ask` does too.
    version: a template. hours: how long an answer is waited for. The answer's fields are those of `dags.forms.approval_form`.

    Its XCom is {by, note} of who approved, None where nobody was asked. A rejection skips what follows and the run ends well;
    without an answer in time the task fails for good. Either way `python -m infra.snapshots decline` records it.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "version", "wanted")
    ui_color = "#f6efdc"

    def __init__(
        self, *, application: str, version: str, always: bool, wanted: str, hours: float, **kwargs: Any
    ) -> None:
        super().__init__(
            subject=f"May {application} {version} go live?",
            response_timeout=timedelta(hours=hours),
            **kwargs,
        )
        self.application = application
        self.version = version
        self.always = always
        self.wanted = wanted
        self.hours = hours

    def execute(self, context: Context) -> None:
        """Put the question, and wait."""
        if not self.always and self.wanted != "ask":
            self.log.info("nobody is asked: HEADGATE_APPROVAL is off, and so is the form's field")
            return
        found = {task: context["ti"].xcom_pull(task_ids=task) for task in ("stage", "validate")}
        base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
        report = f"{base}{PREFIX}/applications/{self.application}/versions/{self.version}/report"
        self.body = question(staged=found["stage"], judged=found["validate"], report=report)
        super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, str]:
        """Take the answer, or that there was none. Returns who approved, and why."""
        run = f"{context['dag'].dag_id} {context['run_id']}"
        if event.get("error_type") == "timeout":
            silence = f"nobody answered within {self.hours:g} h"
            self._decline("airflow", f"{silence} ({run})")
            raise AirflowFailException(
                f"{self.application} {self.version} stays VALIDATED and is not live: {silence}. To ask again clear this task; "
                "to put it live on purpose: snapshot_promote."
            )
        by = str((event.get("responded_by_user") or {}).get("name") or "unknown")
        note = str((event.get("params_input") or {}).get("note") or "").strip()
        if event.get("chosen_options") == [self.REJECT]:
            self._decline(f"airflow:{by}", f"{note or 'no reason given'} ({run})")
        super().execute_complete(context, event)  # skips what follows after a rejection
        return {"by": by, "note": note}

    def _decline(self, actor: str, reason: str) -> None:
        words = ["--application", self.application, "--version", self.version, "--actor", actor, f"--reason={reason}"]
        process = JobProcess([sys.executable, "-m", "infra.snapshots", "decline", *words], env={}, cwd=CHECKOUT)
        try:
            for _, text in process.lines():
                self.log.info("%s", text)
            if process.wait() != 0:
                raise AirflowFailException(
                    f"Not approved, which could not be recorded with the snapshot: {actor}: {reason}"
                )
        finally:
            process.stop()


def question(*, staged: Mapping[str, Any], judged: Mapping[str, Any], report: str) -> str:
    """What an approver needs, as Markdown: the verdict and its warnings, counts, how the ranker did offline, where the report is.

    staged, judged: what the jobs of `stage` and `validate` said. report: the URL of the report.
    """
    live = judged["live"]
    lines = [
        f"The gate: **{plain(judged['verdict'])}**: {plain(judged['summary'])}.",
        f"Now live: **{plain(live)}**." if live else "Nothing is live yet.",
        "",
        *(
            f"- **{plain(finding['check'])}** warns: seen {plain(finding['seen'])}; wanted {plain(finding['wanted'])}"
            for finding in judged["findings"]
            if finding["status"] == "warned"
        ),
        "",
        *_table("in the snapshot", ["rows"], {name: [f"{n:,}"] for name, n in staged["counts"].items()}),
        "",
        *_metrics(staged["metrics"]),
        "",
        f"[The validation report]({report}). Approve: it is loaded and goes live, unless something else went live meanwhile. "
        "Reject: it stays validated, and what is live stays live.",
    ]
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for figures in metrics.values() for name in figures))
    rows = {
        name: [f"{figures[name]:.4f}" if name in figures else "-" for figures in metrics.values()] for name in names
    }
    return _table("offline", list(metrics), rows) if rows else ["No ranker was learnt."]


def _table(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(map(plain, (corner, *columns)))} |", f"|---{'|---:' * len(columns)}|"]
    return [*head, *(f"| {' | '.join(map(plain, (name, *cells)))} |" for name, cells in rows.items())]
