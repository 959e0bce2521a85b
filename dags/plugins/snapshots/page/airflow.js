// airflow.js: Airflow by its REST API as whoever is logged in: start a DAG, follow its run, read why it failed, leave for its page.

import { element } from "./elements.js";

const ROOT = new URL("../", location.href);

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(url, { method = "GET", body } = {}) {
  let answer;
  try {
    answer = await fetch(url, {
      method,
      headers: body ? { "content-type": "application/json" } : {},
      body: body ? JSON.stringify(body) : undefined,
      credentials: "same-origin",
    });
  } catch {
    throw new Refused(0, "Airflow does not answer.");
  }
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  if (answer.status === 401) throw new Refused(401, "You are not logged in, or your login has ended. Load Airflow's page again.");
  const detail = typeof said.detail === "string" ? said.detail : JSON.stringify(said.detail ?? answer.statusText);
  throw new Refused(answer.status, detail);
}

const runsOf = (dag) => new URL(`api/v2/dags/${dag}/dagRuns`, ROOT);
const runOf = ({ dag, id }) => `${runsOf(dag)}/${encodeURIComponent(id)}`;

// The reason is also the run's note: Airflow shows it beside the run.
export async function trigger(dag, conf) {
  const run = await ask(runsOf(dag), { method: "POST", body: { logical_date: null, conf, note: conf.reason } });
  return { dag, id: run.dag_run_id };
}

// Of the run; or of one of its tasks, where that has done what was asked for, else of the run.
export async function stateOf(run, until) {
  if (until && (await ask(`${runOf(run)}/taskInstances/${until}`)).state === "success") return "success";
  return (await ask(runOf(run))).state;
}

// The job's own error line, from the log of the first task that failed.
export async function whyFailed(run) {
  const base = runOf(run);
  try {
    const { task_instances: tasks } = await ask(`${base}/taskInstances`);
    const failed = tasks.filter((task) => task.state === "failed").sort((a, b) => (a.end_date < b.end_date ? -1 : 1))[0];
    const log = await ask(`${base}/taskInstances/${failed.task_id}/logs/${failed.try_number}?full_content=true`);
    const lines = log.content.map((line) => String(line.event ?? ""));
    return lines.findLast((line) => line.startsWith("error:")) ?? "";
  } catch {
    return "";
  }
}

// A link to one of Airflow's own pages. The frame may not steer the window it stands in, so Airflow's document follows the link.
export function runLink({ dag, id }, text) {
  const link = element("a", { text, href: new URL(`dags/${dag}/runs/${encodeURIComponent(id)}`, ROOT).href });
  link.addEventListener("click", (event) => {
    if (window.parent === window) return;
    event.preventDefault();
    const outside = window.parent.document.createElement("a");
    outside.href = link.href;
    outside.click();
  });
  return link;
}
