"""The operator: what a job says becomes the task's result or its error, and every value stays one word."""

from __future__ import annotations

import shlex
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import cast

import pytest
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from dags.job import JobOperator, may_mend_itself
from infra.contracts import errors

NASTY = [
    "two words",
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a'b\"c",
    "--force",
    "*",
    "{{ 7 * 7 }}",
    "ü\nx",
]


def job(folder: Path, code: str) -> str:
    """A module of that code; returns its name."""
    (folder / "said_job.py").write_text(textwrap.dedent(code))
    return "said_job"


def run(operator: JobOperator) -> dict[str, object] | None:
    return operator.execute(cast(Context, {}))


def test_the_last_json_object_on_stdout_becomes_the_result(jobs: Path) -> None:
    module = job(
        jobs,
        """
        import sys
        print('{"version": "v1"}')
        print('{"version": "v2", "seconds": 1.5}')
        print('{"note": "on stderr"}', file=sys.stderr)
        print("[1, 2]")
        print("{not json")
        print('  {"indented": true}')
        """,
    )
    assert run(JobOperator(task_id="t", module=module)) == {"version": "v2", "seconds": 1.5}


def test_a_job_that_says_nothing_has_no_result(jobs: Path) -> None:
    assert run(JobOperator(task_id="t", module=job(jobs, "print('done')"))) is None


@pytest.mark.parametrize(
    "final", [errors.DataRefused, errors.FlipFenced, errors.InvalidRequest, errors.ContractViolation]
)
def test_an_error_that_somebody_must_act_on_fails_at_once_with_the_jobs_own_line(
    jobs: Path, final: type[errors.HeadgateError]
) -> None:
    module = job(
        jobs,
        f"""
        import typer
        from infra.config import console
        from infra.contracts.errors import {final.__name__}
        app = typer.Typer()
        @app.command()
        def main():
            console.say("error: of an earlier try")
            raise {final.__name__}("7 of 10 rows are bad;\\nwanted 1 %.", mend="Run: make snapshot")
        console.run(app)
        """,
    )
    with pytest.raises(AirflowFailException) as refused:
        run(JobOperator(task_id="t", module=module))
    assert str(refused.value).startswith(f"error: {final.__name__}: 7 of 10 rows are bad;")


def test_an_error_that_time_may_mend_is_left_to_airflows_retries(jobs: Path) -> None:
    module = job(
        jobs, "import sys; print('error: DependencyUnavailable: Redis is away.', file=sys.stderr); sys.exit(1)"
    )
    with pytest.raises(AirflowException, match="Redis is away") as failed:
        run(JobOperator(task_id="t", module=module))
    assert not isinstance(failed.value, AirflowFailException)


def test_a_crash_shows_the_last_lines_and_may_be_tried_again(jobs: Path) -> None:
    module = job(jobs, "print('working'); raise RuntimeError('torn')")
    with pytest.raises(
        AirflowException, match=r"said_job ended with exit code 1:\n(.*\n)*RuntimeError: torn"
    ) as failed:
        run(JobOperator(task_id="t", module=module))
    assert not isinstance(failed.value, AirflowFailException)


def test_every_error_of_the_tree_is_either_final_or_retried_and_rubbish_is_retried() -> None:
    final = {name for name in vars(errors) if name[0].isupper() and not may_mend_itself(f"error: {name}: text")}
    assert {"DataRefused", "ValidationRefused", "MissingTool", "UnknownApplication", "ContractViolation"} <= final
    assert final.isdisjoint({"HeadgateError", "DependencyUnavailable", "DeadlineExceeded"})
    assert (
        may_mend_itself("error: annotations: x") and may_mend_itself("error:") and may_mend_itself("error: Unheard: x")
    )


def test_a_run_that_does_not_hang_on_a_job_skips_it_when_it_fails(jobs: Path) -> None:
    module = job(jobs, "import sys; sys.exit('error: NotEnoughRoom: full.')")
    with pytest.raises(AirflowSkipException, match=r"NotEnoughRoom: full\. \(the run does not hang on it\)"):
        run(JobOperator(task_id="t", module=module, on_failure="skip"))


def test_a_value_is_one_word_whatever_it_holds(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs)
    module = job(
        jobs, "import json, os, sys; print(json.dumps({'argv': sys.argv[1:], 'env': os.environ['HEADGATE_X']}))"
    )
    options = {f"--{number}": value for number, value in enumerate(NASTY)}
    operator = JobOperator(task_id="t", module=module, args=NASTY, options=options, env={"HEADGATE_X": NASTY[1]})
    assert run(operator) == {
        "argv": [*NASTY, *(f"--{number}={value}" for number, value in enumerate(NASTY))],
        "env": NASTY[1],
    }
    assert not (jobs / "pwned").exists()
    assert shlex.split(operator.shell_line) == [f"HEADGATE_X={NASTY[1]}", "python", *operator.command[1:]]


def test_empty_options_and_variables_are_left_out_so_that_the_setting_counts(
    jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_EMBEDDER", "als")
    module = job(
        jobs,
        "import json, os, sys; print(json.dumps({'argv': sys.argv[1:], 'embedder': os.environ['HEADGATE_EMBEDDER']}))",
    )
    operator = JobOperator(
        task_id="t",
        module=module,
        options={"--format": "", "--map": "None", "--source": "x", "--share": "0"},
        env={"HEADGATE_EMBEDDER": ""},
    )
    assert run(operator) == {"argv": ["--source=x", "--share=0"], "embedder": "als"}


def test_a_needed_option_that_is_empty_fails_at_once_and_tells_the_mend(jobs: Path) -> None:
    module = job(jobs, "open('started', 'w')")
    operator = JobOperator(
        task_id="t", module=module, options={"--source": ""}, needed={"--source": "No source of events: set one."}
    )
    with pytest.raises(AirflowFailException, match=r"No source of events: set one\."):
        run(operator)
    assert not (jobs / "started").exists()


def test_a_killed_task_stops_its_job(jobs: Path) -> None:
    up = jobs / "up"
    module = job(jobs, f"import time; open({str(up)!r}, 'w'); time.sleep(600)")
    operator = JobOperator(task_id="t", module=module)

    def kill_once_it_is_up() -> None:
        while not up.exists():
            time.sleep(0.02)
        operator.on_kill()

    killer = threading.Thread(target=kill_once_it_is_up, daemon=True)
    killer.start()
    with pytest.raises(AirflowException, match="exit code -15"):
        run(operator)
    killer.join()
    operator.on_kill()  # a second signal finds nothing to do


def test_the_job_runs_in_this_environments_own_python(jobs: Path) -> None:
    module = job(jobs, "import json, sys; print(json.dumps({'python': sys.executable}))")
    assert run(JobOperator(task_id="t", module=module)) == {"python": sys.executable}


@pytest.mark.parametrize(("value", "words"), [("True", ["--force"]), ("False", []), ("", [])])
def test_a_flag_is_passed_bare_or_not_at_all(value: str, words: list[str]) -> None:
    operator = JobOperator(task_id="t", module="m", args=["go"], flags={"--force": value}, options={"--n": "1"})
    assert operator.command[2:] == ["m", "go", *words, "--n=1"]
