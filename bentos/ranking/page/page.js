// The page: asks the service what anybody could ask it, and shows the answer. Text from data is only ever set as text.

const STATUS_EVERY_MS = 1500;
const SAID_FOR_MS = 3500;

const at = (id) => document.getElementById(id);
const state = { snapshot: null, canary: null, generation: null, users: false, asked: 0, saidTimer: 0, before: null, explained: {} };

class ServiceError extends Error {
  constructor(status, body) {
    const error = body?.error ?? {};
    super([error.message ?? `The service answered ${status}.`, error.mend].filter(Boolean).join(" "));
    this.status = status;
  }
}

async function call(path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    throw new ServiceError(0, { error: { message: "The service does not answer.", mend: "Run: make status" } });
  }
  const content = await answer.json().catch(() => null);
  if (!answer.ok) throw new ServiceError(answer.status, content);
  return content;
}

function make(tag, { text, className, ...properties } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function notice(text, kind = "bad") {
  const box = at("notice");
  box.hidden = !text;
  box.dataset.kind = kind;
  if (box.textContent !== text) box.textContent = text;
}

function say(text) {
  const box = at("said");
  box.textContent = text;
  box.classList.add("shown");
  clearTimeout(state.saidTimer);
  state.saidTimer = setTimeout(() => box.classList.remove("shown"), SAID_FOR_MS);
}

function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function showState(kind, text) {
  at("state").dataset.state = kind;
  at("state").textContent = text;
}

async function refreshStatus() {
  let status;
  try {
    status = await call("./status");
  } catch (error) {
    showState("down", "not reachable");
    notice(error.message);
    return;
  }
  const live = status.live;
  if (!live) {
    showState("warn", "no snapshot yet");
    notice(`Nothing to serve: ${status.problem}. ${status.mend}`, "warn");
    if (!state.asked) {
      at("list-empty").hidden = at("history-empty").hidden = false;
      at("list-empty").textContent = "The first list comes by itself once a snapshot is live.";
      at("history-empty").textContent = "Nobody to show yet.";
    }
    return;
  }
  at("snapshot").textContent = live.snapshot;
  at("generation").textContent = live.generation;
  at("age").textContent = ago(live.age_s);
  const quality = live.ranker?.ranker?.["ndcg@10"];
  at("quality").textContent = quality === undefined ? "–" : quality.toFixed(4);
  const problem = [status.problem, status.canary?.problem].filter(Boolean).join("; ");
  showState(problem ? "warn" : "good", problem ? "serving, with a problem" : "ready");
  notice(problem ? `Served on, but: ${problem}` : "", "warn");
  const moved = state.generation !== null && state.generation !== live.generation;
  state.snapshot = live.snapshot;
  state.canary = status.canary?.snapshot ?? null;
  state.generation = live.generation;
  if (!state.users) await loadUsers();
  else if (moved) {
    say(`${live.snapshot} is live now (generation ${live.generation}): ${live.reason || "no reason given"}`);
    await ask();
  }
}

async function loadUsers() {
  const { users } = await call("./users?limit=60");
  const options = users.map((user) =>
    make("option", {
      value: user.user_id,
      text: user.known ? `${user.user_id} · ${user.history_length} recent items` : `${user.user_id} · unknown user`,
    }),
  );
  at("sample").replaceChildren(make("option", { value: "", text: "your own choice" }), ...options);
  state.users = true;
  if (!at("user").value && users.length) {
    const first = new URLSearchParams(location.search).get("user") ?? users[0].user_id;
    at("user").value = first;
    at("sample").value = users.some((user) => user.user_id === first) ? first : "";
    await ask();
  }
}

// A text field drops newlines, an id may hold them: where the sample list names the user, it is taken from there.
function chosenUser() {
  return at("sample").value || at("user").value;
}

async function ask() {
  const user = chosenUser();
  if (!user) return;
  const turn = ++state.asked;
  at("again").disabled = true;
  try {
    const [list, known] = await Promise.all([
      call("./recommend", { user_id: user, n: Number(at("n").value), details: true }),
      call(`./users/${encodeURIComponent(user)}`).catch((error) => ({ error })),
    ]);
    if (turn !== state.asked) return;
    const before = state.before?.user === user ? state.before : null;
    showList(list, user, before?.places);
    showNearline(known, before?.nearline);
    showHistory(known);
    const places = new Map(list.items.map((item, place) => [item.item_id, place]));
    state.before = { user, places, nearline: known.nearline ?? before?.nearline };
    showStages(list);
  } catch (error) {
    if (turn === state.asked) notice(error.message);
  } finally {
    if (turn === state.asked) at("again").disabled = false;
  }
}

function showHistory(known) {
  const rows = known.history ?? [];
  at("history-count").textContent = rows.length ? `newest ${rows.length}` : "";
  at("history-empty").hidden = rows.length > 0;
  at("history-empty").textContent = known.error
    ? `The history cannot be read: ${known.error.message}`
    : known.known
      ? "No items that count as taken."
      : "No snapshot knows this user, so the list is what is popular.";
  at("history").replaceChildren(
    ...rows.map((item) => {
      const row = make("li", {}, make("span", { text: item.title }));
      if (item.seen_by === "stream") row.append(" ", make("span", { text: "just now", className: "new" }));
      row.append(make("div", { text: [...new Set(item.genres)].join(" · "), className: "tags" }));
      return row;
    }),
  );
}

// What the stream knows of the user; what has moved since the last answer is marked, with what it was.
function showNearline(known, before) {
  const features = Object.entries(known.nearline ?? {});
  at("nearline-empty").hidden = features.length > 0;
  at("nearline-empty").textContent = known.error ? "It cannot be read." : "Nothing yet.";
  at("nearline-note").textContent = known.counted === false ? "the worker is behind" : "from the stream";
  at("nearline").replaceChildren(
    ...features.map(([name, value]) => {
      const now = Array.isArray(value) ? value.length : value;
      const was = before?.[name];
      const moved = was !== undefined && JSON.stringify(was) !== JSON.stringify(value);
      const told = make("dd", {});
      if (moved && !Array.isArray(value)) told.append(make("span", { text: `${was} → `, className: "before" }));
      told.append(Array.isArray(value) && name === "recent_searches" ? value.join(", ") || "–" : String(now));
      if (moved) told.append(make("span", { text: " moved", className: "moved-up" }));
      return make("div", { className: moved ? "moved" : "" }, make("dt", { text: name.replaceAll("_", " ") }), told);
    }),
  );
}

// Where an item stood in the list before: nothing is said of the first list of a user.
function movement(item, place, places) {
  if (!places) return "";
  if (!places.has(item.item_id)) return make("span", { text: " new", className: "moved-up" });
  const rose = places.get(item.item_id) - place;
  return rose > 0 ? make("span", { text: ` ▲${rose}`, className: "moved-up", title: "places up since the last list" }) : "";
}

function showList(list, user, places) {
  const beside = list.snapshot === state.canary ? " (canary)" : "";
  at("decided").replaceChildren(`decided by ${list.decided_by} · ${list.snapshot}${beside}`);
  if (list.degraded) at("decided").append(" · ", make("span", { text: "degraded", className: "degraded" }));
  at("list-empty").hidden = list.items.length > 0;
  at("list-empty").textContent = "Nothing is left to show: every item is consumed or excluded.";
  at("request-id").textContent = list.request_id;
  at("list").replaceChildren(
    ...list.items.map((item, place) => {
      const take = make("button", { type: "button", text: "Take", "aria-label": `Take ${item.title}` });
      take.addEventListener("click", () => click(user, item));
      const about = make(
        "div",
        {},
        make("div", { text: item.title, className: "title" }, movement(item, place, places)),
        make("div", { text: [item.creator, ...new Set(item.genres)].filter(Boolean).join(" · "), className: "tags" }),
        make("div", { text: item.reason, className: "reason" }),
      );
      const source = make("span", { text: item.source, className: "source", "data-source": item.source });
      const score = make("span", { text: item.score.toFixed(3), className: "score", title: "score within this answer" });
      const why = make("button", { type: "button", text: "Why?", "aria-label": `Why ${item.title}`, "aria-expanded": "false" });
      const row = make("li", {}, make("span", { text: place + 1, className: "place" }), about);
      row.append(make("div", { className: "side" }, source, score, why, take));
      why.addEventListener("click", () => toggleWhy(row, why, item, list, user));
      return row;
    }),
  );
}

// Explanations of the list that is shown, by item: one call brings those of its first items.
async function explanationOf(item, list, user) {
  if (state.explained.list !== list) state.explained = { list, items: new Map() };
  const { items } = state.explained;
  if (!items.has(item.item_id)) {
    const asked = { items: [item.item_id] };
    const reply = await call("./explain", { request_id: list.request_id, ...asked }).catch((error) => {
      if (error.status !== 404) throw error; // this answer was not logged, or is not yet: ask for it again
      return call("./explain", { request: { user_id: user, n: list.items.length }, ...asked });
    });
    for (const found of [...reply.items, ...reply.asked]) items.set(found.item_id, { ...found, of: reply });
  }
  return items.get(item.item_id);
}

async function toggleWhy(row, button, item, list, user) {
  const open = row.querySelector(".why");
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    open.remove();
    return;
  }
  const panel = make("section", { className: "why", "aria-label": `Why ${item.title}`, "aria-live": "polite" });
  panel.append(make("p", { text: "Asking…", className: "empty" }));
  row.append(panel);
  try {
    panel.replaceChildren(...whyRows(await explanationOf(item, list, user)));
  } catch (error) {
    panel.replaceChildren(make("p", { text: error.message, className: "skipped" }));
  }
}

const FEATURES_SHOWN = 8;

function whyRows(found) {
  const facts = [
    ["brought by", found.source ? `${found.source}: ${found.because}` : found.because],
    ["place", Object.entries(found.places).map(([stage, place]) => `${place} after ${stage}`).join(" → ") || "not ranked"],
    ["passed", found.passed.join(", ") || "no filter had anything to do"],
  ];
  const rows = [make("dl", {}, ...facts.map(([name, text]) => make("div", {}, make("dt", { text: name }), make("dd", { text }))))];
  if (found.trees) {
    const { score, bias, features } = found.trees;
    const rest = features.slice(FEATURES_SHOWN);
    const shown = features.slice(0, FEATURES_SHOWN).map((one) => ({ ...one, name: one.feature.replaceAll("_", " ") }));
    const others = rest.reduce((sum, one) => sum + one.contribution, 0);
    if (rest.length) shown.push({ name: `${rest.length} others`, value: null, contribution: others });
    const longest = Math.max(...shown.map((one) => Math.abs(one.contribution)), 1e-9);
    rows.push(
      make("p", { text: `The trees give ${score.toFixed(3)}: ${bias.toFixed(3)} to any item, and for its features` }),
      make("ul", { className: "shares" }, ...shown.map((one) => shareRow(one, longest))),
    );
  } else {
    rows.push(make("p", { text: "The trees did not score it." }));
  }
  rows.push(make("p", { text: madeHow(found.of), className: "foot" }));
  return rows;
}

function shareRow({ name, value, contribution }, longest) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-100 0 200 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const bar = document.createElementNS(svg.namespaceURI, "rect");
  const length = Math.max(0.7, (Math.abs(contribution) / longest) * 100);
  bar.setAttribute("x", contribution < 0 ? -length : 0);
  bar.setAttribute("width", length);
  bar.setAttribute("height", 1);
  svg.append(bar);
  const told = value === null ? name : `${name} ${Number(value.toPrecision(3))}`;
  return make(
    "li",
    { className: contribution < 0 ? "less" : "" },
    make("span", { text: told }),
    make("div", { className: "track" }, svg),
    make("span", { text: `${contribution < 0 ? "−" : "+"}${Math.abs(contribution).toFixed(3)}` }),
  );
}

function madeHow(reply) {
  if (reply.exact === null) return "This answer was not logged: the same was asked again for this.";
  if (reply.exact) return `Made again from the ${reply.made_from}, the same to the bit.`;
  return ["Made again, not the same any more.", reply.note].filter(Boolean).join(" ");
}

function showStages(list) {
  const skipped = list.skipped ?? {};
  const { total, ...stages } = list.stage_ms;
  at("total").textContent = `${total.toFixed(2)} ms in all`;
  const longest = Math.max(...Object.values(stages), 0.001);
  at("stages").replaceChildren(
    ...Object.entries(stages).map(([name, taken]) => {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 100 1");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      const bar = document.createElementNS(svg.namespaceURI, "rect");
      bar.setAttribute("width", Math.max(0.7, (taken / longest) * 100));
      bar.setAttribute("height", 1);
      svg.append(bar);
      const label = make(
        "div",
        { className: "row" },
        make("span", { text: name }),
        make("span", { text: `${taken.toFixed(2)} ms` }),
      );
      return make("li", { className: name in skipped ? "failed" : "" }, label, make("div", { className: "track" }, svg));
    }),
  );
  const failures = Object.entries(skipped).map(([name, why]) => `${name}: ${why}`);
  at("skipped").hidden = failures.length === 0;
  at("skipped").textContent = failures.join("; ");
}

async function click(user, item) {
  try {
    const event = { user_id: user, item_id: item.item_id, event_type: "click", event_id: crypto.randomUUID?.() };
    await call("./events", event);
    say(`Taken: ${item.title}. The list was asked again without it.`);
  } catch (error) {
    say(`Not taken: ${error.message}`);
    return;
  }
  await ask();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("sample").addEventListener("change", () => {
  if (!at("sample").value) return;
  at("user").value = at("sample").value;
  ask();
});
at("user").addEventListener("input", () => {
  at("sample").value = "";
});

async function watch() {
  try {
    await refreshStatus();
  } catch (error) {
    notice(error.message);
  }
  setTimeout(watch, STATUS_EVERY_MS);
}
watch();
