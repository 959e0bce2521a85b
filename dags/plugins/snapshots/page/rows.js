// rows.js: one version as a line of the table, one flip as a line of the timeline.

import { ACTIONS } from "./actions.js";
import { element, fromTemplate, icon } from "./elements.js";
import { age, count, moment, percent, size, spoken } from "./words.js";

const ICONS = {
  BUILDING: "activity",
  STAGED: "package",
  VALIDATED: "check",
  CANARY: "users",
  LIVE: "activity",
  RETIRED: "archive",
  REJECTED: "x",
  ROLLED_BACK: "rotate-ccw",
};

// rights: what the user may do. on: {report, trial, action}, called with the row, and with which action.
export function versionRow(row, { now, redisAway, rights, on }) {
  const made = fromTemplate("version-row");
  const cell = (name) => made.querySelector(`.${name}`);
  made.dataset.version = row.version;
  cell("version").textContent = row.version;
  if (row.problem) cell("version").append(element("p", { className: "problem", text: row.problem }));
  cell("state").append(badge(row.live ? "LIVE" : row.state));
  if (row.created_at) {
    cell("age").append(element("span", { text: age(row.created_at, now), title: moment(row.created_at) }));
    cell("rows").textContent = `${count(row.users ?? 0)} / ${count(row.items ?? 0)}`;
    cell("on-disk").textContent = size(row.store_bytes);
  }
  if (row.redis_bytes !== null) cell("in-redis").textContent = size(row.redis_bytes);
  else if (redisAway) cell("in-redis").append(element("span", { className: "muted", text: "unknown" }));
  if (row.verdict) cell("validation").append(verdict(row, on.report));
  if (row.trial) cell("trial").append(...trial(row, on.trial));
  if (row.went_live) {
    const { at, actor, reason } = row.went_live;
    cell("went-live").append(
      element("div", { text: `${moment(at)} by ${actor}` }),
      element("div", { className: "why", text: reason, title: reason }),
    );
  }
  for (const action of [row.trial_action, row.action]) {
    if (action) cell("action").append(actionButton(row, action, rights, on.action));
  }
  return made;
}

export function flipRow(flip) {
  const made = fromTemplate("flip-row");
  const cell = (name) => made.querySelector(`.${name}`);
  made.className = flip.void ? "void" : flip.kind;
  cell("when").textContent = moment(flip.at);
  cell("move").textContent = move(flip);
  cell("move").title = `generation ${flip.generation}`;
  cell("kind").textContent = flip.void ? "Void" : kind(flip);
  cell("by").textContent = flip.actor;
  const beside = flip.ended ? ` (ended the ${flip.mode} of ${flip.ended})` : "";
  cell("why").textContent = flip.void ? `${flip.reason} (never applied: ${flip.void})` : `${flip.reason}${beside}`;
  return made;
}

const BESIDE = new Set(["canary", "canary-end", "canary-rollback"]);

function move({ kind, before, version }) {
  if (BESIDE.has(kind)) return `${version} beside ${before}`;
  return before ? `${before} → ${version}` : version;
}

function kind({ kind, mode, fraction }) {
  if (kind === "canary") return `${spoken(mode)}, ${percent(fraction)}`;
  if (kind === "canary-end") return `${spoken(mode)} ended`;
  return kind === "canary-rollback" ? `${spoken(mode)} rolled back` : spoken(kind);
}

function badge(state) {
  return element("span", { className: `badge ${state.toLowerCase()}` }, icon(ICONS[state] ?? "clock"), spoken(state));
}

function verdict(row, open) {
  const { word, summary, judged_at: at } = row.verdict;
  const button = element("button", { type: "button", className: `verdict ${word}`, title: `${summary}; ${moment(at)}` });
  button.append(icon("file-text"), spoken(word));
  button.setAttribute("aria-label", `Validation report of ${row.version}: ${word}`);
  button.addEventListener("click", () => open(row));
  return button;
}

// Share and mode; since when it runs and how it looks, or how it ended, with its report.
function trial(row, open) {
  const { mode, fraction, since, look, report } = row.trial;
  const share = element("div", { text: `${percent(fraction)} ${mode}` });
  const seen = element("div", { className: "why", text: look?.summary ?? "no look yet", title: look?.because });
  if (!report) return [share, element("div", { className: "since", text: `since ${moment(since)}` }), seen];
  const button = element("button", { type: "button", className: `verdict ${look.verdict}`, title: look.because });
  button.append(icon("file-text"), `${spoken(look.verdict)}, ${share.textContent}`);
  button.setAttribute("aria-label", `Report of the ${mode} of ${row.version}: ${look.verdict}`);
  button.addEventListener("click", () => open(row));
  return [button, seen];
}

function actionButton(row, action, rights, begin) {
  const { icon: name, right, dag, ...words } = ACTIONS[action];
  const label = words.label(row.trial?.mode);
  const button = element("button", { type: "button", className: `button outline ${action}` }, icon(name));
  button.append(element("span", { className: "label", text: label }));
  button.disabled = !rights[right];
  button.title = button.disabled ? `You may not trigger ${dag}.` : label;
  button.setAttribute("aria-label", `${label}: ${row.version}`);
  button.addEventListener("click", () => begin(row, action));
  return button;
}
