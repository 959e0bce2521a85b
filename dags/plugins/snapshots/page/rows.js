// rows.js: one version as a line of the table, one flip as a line of the timeline.

import { ACTIONS } from "./actions.js";
import { element, fromTemplate, icon } from "./elements.js";
import { age, count, moment, size, spoken } from "./words.js";

const ICONS = {
  BUILDING: "activity",
  STAGED: "package",
  VALIDATED: "check",
  CANARY: "activity",
  LIVE: "activity",
  RETIRED: "archive",
  REJECTED: "x",
  ROLLED_BACK: "rotate-ccw",
};

// rights: what the user may do. on: {report, action}, called with the row.
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
  if (row.went_live) {
    const { at, actor, reason } = row.went_live;
    cell("went-live").append(
      element("div", { text: `${moment(at)} by ${actor}` }),
      element("div", { className: "why", text: reason, title: reason }),
    );
  }
  if (row.action) cell("action").append(actionButton(row, rights, on.action));
  return made;
}

export function flipRow(flip) {
  const made = fromTemplate("flip-row");
  const cell = (name) => made.querySelector(`.${name}`);
  made.className = flip.void ? "void" : flip.kind;
  cell("when").textContent = moment(flip.at);
  cell("move").textContent = flip.before ? `${flip.before} → ${flip.version}` : flip.version;
  cell("move").title = `generation ${flip.generation}`;
  cell("kind").textContent = spoken(flip.void ? "void" : flip.kind);
  cell("by").textContent = flip.actor;
  cell("why").textContent = flip.void ? `${flip.reason} (never applied: ${flip.void})` : flip.reason;
  return made;
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

function actionButton(row, rights, begin) {
  const { label, icon: name, right, dag } = ACTIONS[row.action];
  const button = element("button", { type: "button", className: "button outline" }, icon(name));
  button.append(element("span", { className: "label", text: label }));
  button.disabled = !rights[right];
  button.title = button.disabled ? `You may not trigger ${dag}.` : label;
  button.setAttribute("aria-label", `${label}: ${row.version}`);
  button.addEventListener("click", () => begin(row));
  return button;
}
