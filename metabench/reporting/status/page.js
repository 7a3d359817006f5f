"use strict";
// The states in the order in which they are listed; the last two are closed until somebody opens them.
const STATES = ["running", "lost", "failed", "invalid", "skipped", "waiting", "ok"];
const CLOSED = new Set(["waiting", "ok"]);
const OPEN = new Set(["waiting", "running", "lost"]);
// Milliseconds between two looks: while something goes on, and when nothing does.
const OFTEN = 2000, SELDOM = 10000;
const byId = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function driver(found) {
  const run = found.driver;
  if (!run) return "No run goes on here.";
  const more = found.sharing > 1 ? `, and ${found.sharing - 1} more share the directory` : "";
  const place = `process ${run.driver.pid} on ${run.host}, executor ${run.executor}${more}`;
  if (found.going === false) return `The driver has ended (${place}): run the same command again to go on.`;
  return `Driver: ${place}${found.going === null ? " (another computer: whether it is alive is not known)" : ""}.`;
}

function entry(cell) {
  const item = element("li", cell.title);
  if (cell.total && OPEN.has(cell.state)) {
    const bar = element("progress");
    bar.max = cell.total;
    bar.value = cell.done;
    bar.setAttribute("aria-label", `${cell.phase} of ${cell.title}`);
    item.append(bar);
  }
  const attempt = cell.attempt > 1 ? `, attempt ${cell.attempt}` : "";
  const notes = [
    cell.phase ? `${cell.phase} ${cell.done}/${cell.total} ${cell.note}`.trim() : "",
    cell.host ? `process ${cell.pid} on ${cell.host}${attempt}` : "",
    cell.reason,
  ];
  const line = notes.filter(Boolean).join(" · ");
  if (line) item.append(element("p", line, "quiet"));
  return item;
}

function list(state, cells) {
  const box = element("details");
  box.dataset.state = state;
  const before = document.querySelector(`details[data-state="${state}"]`);
  box.open = before ? before.open : !CLOSED.has(state);
  const summary = element("summary");
  summary.append(element("h2", `${state} (${cells.length})`, state));
  const entries = element("ul");
  entries.append(...cells.map(entry));
  box.append(summary, entries);
  return box;
}

function show(found) {
  const count = (state) => found.counts[state] || 0;
  const present = STATES.filter(count);
  byId("driver").textContent = driver(found);
  byId("finished").max = Math.max(1, found.cells.length);
  byId("finished").value = found.cells.length - [...OPEN].reduce((sum, state) => sum + count(state), 0);
  byId("counts").replaceChildren(...present.map((state) => {
    const item = element("li");
    item.append(element("b", String(count(state)), state), ` ${state}`);
    return item;
  }));
  const end = found.expected_end === null ? "" : new Date(found.expected_end).toLocaleTimeString([], { timeStyle: "short" });
  byId("end").textContent = end && `Expected end: ${end}, in about ${duration(found.seconds_left)}.`;
  const focused = document.activeElement.closest && document.activeElement.closest("details");
  byId("cells").replaceChildren(
    ...present.map((state) => list(state, found.cells.filter((cell) => cell.state === state))),
  );
  if (focused) document.querySelector(`details[data-state="${focused.dataset.state}"] summary`)?.focus();
  return found.going !== false || count("running") > 0;
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function look() {
  let goesOn = true;
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    const found = await answer.json();
    complain(found.error || "");
    if (!found.error) goesOn = show(found);
    byId("updated").textContent = `Updated at ${new Date().toLocaleTimeString()}; the page refreshes itself.`;
  } catch {
    complain("The command that serves this page has ended, or cannot be reached. What is shown is old.");
  }
  document.documentElement.dataset.ready = "true";
  setTimeout(look, goesOn ? OFTEN : SELDOM);
}

look();
