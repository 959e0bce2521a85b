// confirm.js: the dialog before something is started: what will happen, why, and for a canary on whom.

import { ACTIONS } from "./actions.js";
import { the } from "./elements.js";

const AT_MOST = { canary: 50, shadow: 100 };
const USERS_SEE = {
  canary: "These users are shown its lists, and what they do decides whether it goes live.",
  shadow: "These users' requests are scored with it unseen; it never goes live by itself.",
};

let chosen = null;

export function openConfirm(action, row, { application, rights, overview }) {
  const { title, question, dag, confirm } = ACTIONS[action];
  const tries = action === "canary";
  chosen = { action, version: row.version, application };
  the("confirm-title").textContent = title(row.version, row.trial?.mode);
  the("confirm-text").textContent = `${standing(overview)} ${consequence(action, row, overview)}`;
  the("confirm-how").textContent = `Triggers ${dag} under your name.`;
  the("confirm-go").textContent = confirm;
  the("trial-fields").hidden = !tries;
  the("trial-fields").disabled = !tries;
  the("trial-percent").value = Number((100 * rights.canary_fraction).toPrecision(3));
  the("trial-mode").value = "canary";
  the("reason-help").textContent = question;
  the("reason").value = "";
  checkConfirm();
  the("confirm").showModal();
  the(tries ? "trial-percent" : "reason").focus();
}

// What Start would send, and whether it may.
export function checkConfirm() {
  const mode = the("trial-mode").value;
  the("trial-percent").max = AT_MOST[mode];
  the("trial-help").textContent = `Up to ${AT_MOST[mode]}. ${USERS_SEE[mode]}`;
  the("reason-problem").textContent = "";
  const wrong = !the("trial-fields").disabled && !the("trial-percent").checkValidity();
  the("trial-problem").textContent = wrong ? `Wanted a number from ${the("trial-percent").min} to ${AT_MOST[mode]}.` : "";
  the("confirm-go").disabled = wrong || reasonGiven().length < the("reason").minLength;
}

export function asked() {
  const trial = chosen.action === "canary" && {
    fraction: Number((the("trial-percent").valueAsNumber / 100).toPrecision(6)),
    mode: the("trial-mode").value,
  };
  return { ...chosen, fields: { ...trial, reason: reasonGiven() } };
}

const reasonGiven = () => the("reason").value.trim();

const standing = ({ live, title }) => `${live ? live.version : "Nothing"} is live in ${title}.`;

function consequence(action, { version, redis_bytes: loaded }, { live }) {
  const tried = live?.canary;
  if (action === "canary_end") return `The users of ${version} are shown that again, within seconds; ${version} stays validated.`;
  if (action === "canary") return `${version} runs beside it${loaded === null ? ", once it is loaded into Redis" : ""}, until it is decided.`;
  const next = loaded === null ? "is loaded into Redis first, then every" : "is in Redis: within seconds every";
  const ends = tried && (tried.version === version ? ` Its ${tried.mode} ends undecided.` : ` This ends the ${tried.mode} of ${tried.version}.`);
  return `${version} ${next} answer comes from it.${ends ?? ""}`;
}
