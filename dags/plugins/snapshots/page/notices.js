// notices.js: the lines above the table: what is wrong, and what became of the last button that was pressed.

import { runLink } from "./airflow.js";
import { closeButton, element, icon, the } from "./elements.js";

const ICONS = { running: "activity", success: "check", error: "alert", warning: "alert" };

const shown = new Map();

// notice: {kind, text, detail, run} or null for none.
export function tell(name, notice) {
  const key = JSON.stringify(notice);
  if (shown.get(name) === key) return;
  shown.set(name, key);
  the(`notice-${name}`).replaceChildren(...(notice ? [drawn(name, notice)] : []));
}

export const warn = (name, text) => tell(name, text ? { kind: "warning", text } : null);

function drawn(name, { kind, text, detail, run }) {
  const body = element("div", {}, element("span", { text }));
  if (run) body.append(" ", runLink(run, "See the run"));
  if (detail) body.append(element("div", { text: detail }));
  const alert = element("div", { className: `alert ${kind}` }, icon(ICONS[kind]), body);
  if (name === "action" && kind !== "running") alert.append(closeButton(() => tell(name, null)));
  return alert;
}
