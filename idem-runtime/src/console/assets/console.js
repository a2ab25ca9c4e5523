"use strict";
// Text of the store reaches the page only as `textContent`, so a record that contains markup is shown as text.

// The page may have a trailing slash or not, so URLs begin at the script.
const BASE = new URL(".", document.currentScript.src);

const byId = (id) => document.getElementById(id);
const REFRESH = 5000;
let canChange = false;
let shown = null;

const oldest = (a, b) => a.created_at - b.created_at;
const newest = (a, b) => b.created_at - a.created_at;
const ORDER = { unknown: oldest, in_flight: oldest, recorded: newest };
// How many pages of each list are shown. The store returns records in the order of their ids.
const pages = { unknown: 1, in_flight: 1, recorded: 1 };

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(new URL(path, BASE), options);
  const value = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(value.error);
  return value;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function alertIn(id, error) {
  byId(id).hidden = !error;
  byId(id).textContent = error ? error.message : "";
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s >= 86400) return `${Math.floor(s / 86400)}d ${Math.floor(s / 3600) % 24}h`;
  if (s >= 3600) return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m`;
  if (s >= 60) return `${Math.floor(s / 60)}m ${s % 60}s`;
  return `${s}s`;
}

const ago = (at) => duration(Math.max(0, Date.now() - at));

function pairs(list, entries) {
  list.replaceChildren(...entries.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

async function figures() {
  const overview = await ask("api/overview");
  canChange = overview.access === "full";
  byId("access").textContent = canChange ? "You may resolve and forget." : "Read only.";
  const entries = [["Running here", overview.running]];
  if (overview.stats) {
    entries.push(["Unknown", overview.stats.unknown], ["In flight", overview.stats.in_flight], ["Recorded", overview.stats.recorded]);
    if (overview.stats.bytes !== null) {
      const of = overview.stats.max_bytes === null ? "" : ` of ${overview.stats.max_bytes}`;
      entries.push(["Bytes", `${overview.stats.bytes}${of}`]);
    }
  }
  byId("figures").replaceChildren(...entries.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
}

function table(records) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const name of ["Record", "Age", "Ends in", "Endpoint", "Status", "Attempt", "Label"]) {
    const cell = element("th", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const record of records) {
    const row = body.insertRow();
    const open = element("button", record.short);
    open.type = "button";
    open.setAttribute("aria-label", `Open record ${record.short}`);
    open.addEventListener("click", () => show(record.id));
    row.insertCell().append(open);
    row.append(
      element("td", ago(record.created_at)),
      element("td", record.ends_in === undefined ? "" : duration(record.ends_in)),
      element("td", record.endpoint, "wide"),
      element("td", record.state === "unreadable" ? record.state : record.status),
      element("td", record.attempt),
      element("td", record.label, "wide"),
    );
  }
  return made;
}

async function list(state) {
  const endpoint = byId("filter").elements.endpoint.value.trim();
  const query = new URLSearchParams({ state });
  if (endpoint) query.set("endpoint", endpoint);
  const records = [];
  let next = null;
  for (let read = 0; read < pages[state]; read += 1) {
    const page = await ask(`api/records?${query}`);
    records.push(...page.records);
    next = page.next;
    if (next === null) break;
    query.set("after", next);
  }
  const parts = [];
  if (records.length > 0) parts.push(table(records.sort(ORDER[state])));
  if (next === null) {
    if (records.length === 0) parts.push(element("p", "None.", "quiet"));
  } else {
    const first = records.length === 0 ? "None so far" : `The first ${records.length} by record id, so older and newer ones may be missing`;
    const more = element("button", "More", "more");
    more.type = "button";
    more.addEventListener("click", () => {
      pages[state] += 1;
      refresh();
    });
    parts.push(element("p", `${first}.`, "quiet"), more);
  }
  byId(state).replaceChildren(...parts);
}

// A slow store must not get more requests than it answers, and a late response must not replace a newer one.
let refreshing = null;
let again = false;

function refresh() {
  again = refreshing !== null;
  refreshing ??= refreshOnce().finally(() => {
    refreshing = null;
    if (again) refresh();
  });
  return refreshing;
}

async function refreshOnce() {
  try {
    await Promise.all([figures(), ...Object.keys(ORDER).map(list)]);
    alertIn("problem", null);
  } catch (error) {
    alertIn("problem", error);
  }
}

function open(record) {
  shown = record;
  const entries = [
    ["Record", record.id],
    ["In the log", record.short],
    ["Scope id", record.scope_id],
    ["State", record.state],
    ["Endpoint", record.endpoint],
    ["Created", `${new Date(record.created_at).toISOString()} (${ago(record.created_at)} ago)`],
    ["A retry gets", record.retry_gets],
  ];
  if (record.label !== null) entries.push(["Label", record.label]);
  if (record.trace_id !== null) entries.push(["First trace", record.trace_id]);
  if (record.error !== undefined) entries.push(["Error", record.error]);
  if (record.status !== undefined) entries.push(["Status", record.status]);
  if (record.attempt !== undefined) entries.push(["Attempt", record.attempt]);
  pairs(byId("facts"), entries);
  byId("response").hidden = true;
  byId("response").textContent = "";
  byId("show-response").hidden = record.state !== "recorded";
  byId("resolve").hidden = !canChange || record.state !== "unknown";
  byId("forget").hidden = !canChange;
  // What was entered for another record must not be sent for this one.
  byId("resolve").reset();
  byId("forget").reset();
  alertIn("detail-problem", null);
  if (!byId("detail").open) byId("detail").showModal();
}

async function show(id) {
  try {
    open(await ask(`api/records/${id}`));
  } catch (error) {
    alertIn("problem", error);
  }
}

async function change(path, body) {
  const record = shown;
  try {
    await ask(`api/records/${record.id}/${path}`, body);
    if (shown === record) byId("detail").close();
    await refresh();
  } catch (error) {
    alertIn(shown === record ? "detail-problem" : "problem", error);
  }
}

byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const state of Object.keys(pages)) pages[state] = 1;
  refresh();
});

byId("show-response").addEventListener("click", async () => {
  const record = shown;
  try {
    const response = await ask(`api/records/${record.id}/response`);
    // The operator may have opened another record meanwhile.
    if (shown !== record) return;
    const note = response.body_is_text ? "" : "(the body is no text; these are its bytes)\n";
    byId("response").textContent = `${response.status}\n${response.headers.join("\n")}\n\n${note}${response.body}`;
    byId("response").hidden = false;
  } catch (error) {
    if (shown === record) alertIn("detail-problem", error);
  }
});

byId("resolve").addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = event.target.elements;
  change("resolve", {
    fence: shown.fence,
    status: Number(fields.status.value),
    headers: fields.headers.value,
    body: fields.body.value,
    ttl_seconds: Number(fields.hours.value) * 3600,
    reason: fields.reason.value,
  });
});

byId("forget").addEventListener("submit", (event) => {
  event.preventDefault();
  change("forget", { version: shown.version, reason: event.target.elements.reason.value });
});

byId("open-find").addEventListener("click", () => byId("find").showModal());
byId("close-find").addEventListener("click", () => byId("find").close());
byId("close-detail").addEventListener("click", () => byId("detail").close());

// A scope that is a tuple has several parts.
const firstPart = byId("find-form").querySelector(".part");

function partChanged(part) {
  const kind = part.querySelector("[name=kind]").value;
  part.querySelector(".header-name").hidden = kind !== "header";
  part.querySelector(".scope-value").hidden = kind === "global";
}

function removeMoreParts() {
  for (const part of byId("parts").querySelectorAll(".part")) if (part !== firstPart) part.remove();
  partChanged(firstPart);
}

byId("parts").addEventListener("change", (event) => partChanged(event.target.closest(".part")));

byId("add-part").addEventListener("click", () => {
  const part = firstPart.cloneNode(true);
  for (const field of part.querySelectorAll("input")) field.value = "";
  byId("parts").append(part);
  partChanged(part);
});

byId("find-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { key } = event.target.elements;
  const field = (part, name) => part.querySelector(`[name=${name}]`).value;
  const parts = [...byId("parts").querySelectorAll(".part")].filter((part) => field(part, "kind") !== "global");
  const scope = parts.map((part) => ({ kind: field(part, "kind"), name: field(part, "name"), value: field(part, "value") }));
  try {
    const record = await ask("api/find", { scope, key: key.value });
    alertIn("find-problem", null);
    byId("find").close();
    event.target.reset();
    removeMoreParts();
    open(record);
  } catch (error) {
    alertIn("find-problem", error);
  }
});

refresh();
setInterval(() => {
  if (!document.hidden && !byId("detail").open && refreshing === null) refresh();
}, REFRESH);
