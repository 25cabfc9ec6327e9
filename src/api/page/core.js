"use strict";
// What the parts of the page share. Texts from the server become text nodes alone, never markup.

const byId = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function table(heads, rows, numbers = []) {
  const cell = (name, content, i) =>
    make(name, { className: numbers.includes(i) ? "number" : "" }, content);
  return make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head, i) => cell("th", head, i)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((c, i) => cell("td", c, i))))));
}

// Keys stay in this tab. The admin key may ask as well.
const keys = {
  get: (kind) => sessionStorage.getItem(`memlayers-${kind}-key`) || "",
  set: (kind, value) => sessionStorage.setItem(`memlayers-${kind}-key`, value),
};

class Refused extends Error {
  constructor(status, error) {
    super(error.message || `The server answered ${status}.`);
    this.status = status;
    this.param = error.param;
  }
}

async function request(path, { method = "GET", right = "ask", json, body, headers = {}, signal } = {}) {
  const key = right === "admin" ? keys.get("admin") : keys.get("ask") || keys.get("admin");
  const all = { ...headers };
  if (key) all.authorization = `Bearer ${key}`;
  if (json !== undefined) {
    all["content-type"] = "application/json";
    body = JSON.stringify(json);
  }
  const response = await fetch(path, { method, headers: all, body, signal });
  if (response.ok) return response;
  let error = {};
  try {
    error = (await response.json()).error || {};
  } catch { /* no JSON: the status says it */ }
  throw new Refused(response.status, error);
}

const requestJson = async (path, options) => (await request(path, options)).json();

// The events of a stream, as JSON, until it is [DONE]. EventSource sends no keys.
async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The stream broke off.");
    rest += decoder.decode(value, { stream: true });
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;  // a comment
      const event = JSON.parse(data);
      if (event.error) throw new Refused(200, event.error);
      yield event;
    }
  }
}

function tell(error) {
  const wantsKey = error.status === 401 || error.status === 403;
  byId("trouble").textContent = error.name === "AbortError" ? "" : error.message;
  if (wantsKey) byId("keys").open = true;
}

// Runs what a person asked for; tells what went wrong.
async function attempt(act) {
  byId("trouble").textContent = "";
  try {
    return await act();
  } catch (error) {
    tell(error);
    return undefined;
  }
}

const state = { model: "", pool: null, speed: "", hasMemory: true };

function showFacts(health) {
  const facts = [];
  if (health) facts.push(["status", health.trouble ? `${health.status}: ${health.trouble}` : health.status],
    ["running", String(health.running)], ["waiting", String(health.waiting)]);
  if (state.pool) facts.push(["pool version", String(state.pool.version)],
    ["slots", state.pool.slots.toLocaleString("en")], ["free", state.pool.free.toLocaleString("en")],
    ["patches", String(state.pool.patches.length)]);
  if (state.speed) facts.push(["last answer", state.speed]);
  byId("facts").replaceChildren(...facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

let health = null;
async function lookAtHealth() {
  try {
    const response = await fetch("/health");
    health = await response.json();
  } catch {
    health = { status: "not reached", running: 0, waiting: 0 };
  }
  showFacts(health);
}

// The states of the memory that can be asked: [what `memory` of a request is, what it is called].
function views() {
  const all = [[null, "as it is"], [{ off: true }, "without any memory"]];
  if (state.pool) {
    for (const patch of [...state.pool.patches].reverse()) {
      all.push([{ without: [patch.id] }, `without ${nameOf(patch)}`]);
    }
    for (const version of [...state.pool.held_versions].reverse()) {
      all.push([{ version }, `version ${version}`]);
    }
  }
  return all;
}

const nameOf = (patch) => patch.notes.what || patch.notes.note || patch.id;

function fillViews() {
  const all = views();
  for (const [id, usual] of [["chat-view", 0], ["left-view", 0], ["right-view", 1]]) {
    const select = byId(id);
    const chosen = select.value || String(JSON.stringify(all[usual][0]));
    select.replaceChildren(...all.map(([memory, name]) =>
      make("option", { value: JSON.stringify(memory) }, name)));
    select.value = chosen;
    if (select.selectedIndex < 0) select.selectedIndex = usual;
  }
}

async function lookAtPool() {
  try {
    state.pool = await requestJson("/v1/memory", { right: "admin" });
    state.hasMemory = true;
  } catch (error) {
    state.pool = null;
    state.hasMemory = error.status !== 404;
    if (error.status !== 404 && error.status !== 401 && error.status !== 403) tell(error);
  }
  fillViews();
  showFacts(health);
  document.dispatchEvent(new Event("pool"));
}

// Tabs: the arrow keys go from one to the next.
const tabs = [...document.querySelectorAll("[role=tab]")];
function choose(tab) {
  for (const other of tabs) {
    const isChosen = other === tab;
    other.setAttribute("aria-selected", String(isChosen));
    other.tabIndex = isChosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !isChosen;
  }
}
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
    event.preventDefault();
  });
}
