// page.js: asks the reading routes again and again, draws what they say, and has Airflow start what a button asks for.

import { ACTIONS } from "./actions.js";
import { Refused, ask, stateOf, trigger, whyFailed } from "./airflow.js";
import { asked, checkConfirm, openConfirm } from "./confirm.js";
import { element, the } from "./elements.js";
import { tell, warn } from "./notices.js";
import { flipRow, versionRow } from "./rows.js";
import { age, count, moment, percent, plural, sentence, spoken, zone } from "./words.js";

const POLL_MS = 10_000;
const FOLLOW_MS = 600;
const QUEUED_LONG_MS = 20_000;
const PATIENCE_MS = 60_000;
const VERSIONS_AT_ONCE = 25;

const state = { rights: {}, applications: [], application: "", newest: VERSIONS_AT_ONCE, overview: null, drawn: "", looks: 0 };

// -- looking

function drawTabs() {
  const tabs = state.applications.map(({ name, title }) => {
    const tab = element("button", { type: "button", text: title });
    tab.setAttribute("aria-current", String(name === state.application));
    tab.addEventListener("click", () => choose(name));
    return tab;
  });
  the("tabs").replaceChildren(...tabs);
}

function drawStats({ live, previous, versions, now }) {
  const row = versions.find((one) => one.live);
  const facts = {
    "live-version": live?.version ?? "none",
    "live-since": live && moment(live.flipped_at),
    "live-by": live?.actor,
    "live-age": row?.created_at && age(row.created_at, now),
    "live-generation": live?.generation,
    previous: previous ?? "nothing",
  };
  for (const [id, text] of Object.entries(facts)) the(id).textContent = text ?? "";
  the("stats").hidden = false;
}

function drawRows(overview, before) {
  const face = (row) => row && `${row.state} ${row.live} ${row.trial?.since}`;
  const was = new Map(before?.versions.map((row) => [row.version, face(row)]));
  const context = {
    now: overview.now,
    redisAway: overview.redis_problem !== "",
    rights: state.rights,
    on: {
      report: ({ version }) => openReport(version, "report", `Validation report of ${version}`),
      trial: ({ version, trial }) => openReport(version, "canary", `${spoken(trial.mode)} of ${version}`),
      action: (row, action) => openConfirm(action, row, state),
    },
  };
  const rows = overview.versions.map((row) => {
    const made = versionRow(row, context);
    made.classList.toggle("changed", before !== null && was.get(row.version) !== face(row));
    return made;
  });
  the("versions").tBodies[0].replaceChildren(...rows);
  the("versions-title").textContent = plural(overview.versions.length + overview.older, "Version");
  the("older").textContent = `Show ${count(Math.min(overview.older, VERSIONS_AT_ONCE))} older`;
  the("older").hidden = overview.older === 0;
  the("flips-title").textContent = overview.flips.length ? "Flips" : "No flips yet";
  the("flips").replaceChildren(...overview.flips.map(flipRow));
  the("content").hidden = false;
}

function drawTrial({ live, versions }) {
  const row = versions.find((one) => one.trial?.since);
  if (!row) return tell("trial", null);
  const { mode, fraction, since, look: seen } = row.trial;
  const whom = mode === "canary" ? "is shown to" : "scores unseen for";
  const text = `${row.version} ${whom} ${percent(fraction)} of the users since ${moment(since)}, started by ${live.canary.started_by}.`;
  const detail = seen ? `${sentence(seen.summary)} (${moment(seen.judged_at)}). ${seen.because}` : "Nobody has looked at it yet.";
  tell("trial", { kind: "running", text, detail });
}

function draw(overview) {
  const { now, ...lasting } = overview;
  const before = state.overview?.application === overview.application ? state.overview : null;
  state.overview = overview;
  drawStats(overview);
  warn("redis", overview.redis_problem && `${overview.redis_problem} What it holds is not known, and nothing can be moved.`);
  warn("standing", sentence(overview.standing_problem));
  drawTrial(overview);
  const drawn = JSON.stringify([lasting, zone()]);
  if (drawn !== state.drawn) {
    state.drawn = drawn;
    return drawRows(overview, before);
  }
  for (const { version, created_at: at } of overview.versions) {
    if (at) the("versions").querySelector(`[data-version="${version}"] .age span`).textContent = age(at, now);
  }
}

async function look() {
  const { application, newest } = state;
  const turn = ++state.looks;
  try {
    const overview = await ask(`applications/${encodeURIComponent(application)}?newest=${newest}`);
    if (turn !== state.looks) return;
    tell("away", null);
    draw(overview);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell("away", { kind: "error", text: error.message });
  }
}

async function choose(name) {
  Object.assign(state, { application: name, newest: VERSIONS_AT_ONCE });
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  tell("action", null);
  drawTabs();
  await look();
}

function openReport(version, kind, title) {
  const url = `applications/${encodeURIComponent(state.application)}/versions/${version}/${kind}`;
  the("report-title").textContent = title;
  the("report-download").href = `${url}?download=true`;
  the("report-page").src = url;
  the("report").showModal();
}

// -- doing

async function confirmed(event) {
  event.preventDefault();
  const { action, version, application, fields } = asked();
  let run;
  if (the("confirm-go").disabled) return;
  the("confirm-go").disabled = true;
  try {
    run = await trigger(ACTIONS[action].dag, { application, version, ...fields });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    the("reason-problem").textContent = error.message;
    the("confirm-go").disabled = false;
    return;
  }
  the("confirm").close();
  await follow(ACTIONS[action], version, run);
}

// Until what was asked for is done; it is in the table before it is told.
async function follow({ doing, done, until }, version, run) {
  const began = Date.now();
  let heard = began;
  for (;;) {
    const seconds = Math.round((Date.now() - began) / 1000);
    let now = "";
    try {
      now = await stateOf(run, until);
      heard = Date.now();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const gone = error.status >= 400 && error.status < 500;
      if (gone || Date.now() - heard > PATIENCE_MS) {
        return tell("action", { kind: "error", text: `${doing(version)}: how it ended is not known.`, detail: error.message, run });
      }
    }
    if (now === "success") {
      await look();
      return tell("action", { kind: "success", text: done(version), run });
    }
    if (now === "failed") {
      await look();
      return tell("action", { kind: "error", text: `${doing(version)} failed.`, detail: await whyFailed(run), run });
    }
    const stuck = now === "queued" && Date.now() - began > QUEUED_LONG_MS;
    const why = stuck ? " Is the DAG paused, or does another run of it go first?" : "";
    tell("action", { kind: "running", text: `${doing(version)}: ${now || "waiting for Airflow"}, ${seconds} s.${why}`, run });
    await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
  }
}

// -- beginning

function listen() {
  const again = () => document.hidden || look();
  the("confirm-form").addEventListener("input", checkConfirm);
  the("confirm-form").addEventListener("submit", confirmed);
  for (const name of ["confirm", "report"]) the(`${name}-close`).addEventListener("click", () => the(name).close());
  the("older").addEventListener("click", () => {
    state.newest += VERSIONS_AT_ONCE;
    look();
  });
  document.addEventListener("visibilitychange", again);
  setInterval(again, POLL_MS);
}

async function begin() {
  try {
    const { applications, ...rights } = await ask("applications");
    Object.assign(state, { applications, rights });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return tell("away", { kind: "error", text: error.message });
  }
  const wanted = decodeURIComponent(location.hash.slice(1));
  const names = state.applications.map(({ name }) => name);
  listen();
  await choose(names.includes(wanted) ? wanted : names[0]);
}

begin();
