// Reads /v1/status every two seconds and shows it. Everything is written as text nodes; rates are
// differences between two documents.
"use strict";

const PERIOD_MS = 2000;
const ROWS_MAX = 100;
let previous = null;

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");

function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return value === null || value === undefined ? "-" : String(value);
  if (Number.isInteger(value)) return whole.format(value);
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 1 ? value.toFixed(2) : value.toPrecision(3);
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// columns: [title, kind]; kind is "number", "text" or "". A cell is a value, or {text, className}.
function table(id, columns, rows, empty) {
  const target = byId(id);
  const head = element("tr");
  for (const [title, kind] of columns) head.append(element("th", title, kind));
  const lines = rows.slice(0, ROWS_MAX).map((row) => {
    const line = element("tr");
    row.forEach((cell, index) => {
      const kind = columns[index][1];
      const plain = cell === null || typeof cell !== "object";
      const text = plain ? (kind === "number" ? number(cell) : String(cell ?? "-")) : cell.text;
      line.append(element("td", text, [kind, plain ? "" : cell.className].join(" ").trim()));
    });
    return line;
  });
  if (rows.length === 0) {
    const line = element("tr");
    line.append(element("td", empty, "dim"));
    target.replaceChildren(line);
    return;
  }
  if (rows.length > ROWS_MAX) {
    const line = element("tr");
    line.append(element("td", `and ${rows.length - ROWS_MAX} more`, "dim"));
    lines.push(line);
  }
  target.replaceChildren(head, ...lines);
}

// Sums the samples called `name` by the values of `keys`.
function sums(status, name, keys) {
  const found = new Map();
  for (const sample of status ? status.own : []) {
    if (sample.name !== name || typeof sample.value !== "number") continue;
    const key = JSON.stringify(keys.map((key) => sample.labels[key] ?? ""));
    found.set(key, (found.get(key) ?? 0) + sample.value);
  }
  return found;
}

function total(status, name) {
  let sum = 0;
  for (const value of sums(status, name, []).values()) sum += value;
  return sum;
}

// A second, over the time between two documents; null for the first one.
function rate(now, before, seconds) {
  return seconds > 0 && now >= before ? (now - before) / seconds : null;
}

function perSecond(value) {
  return value === null ? "-" : `${number(value)}/s`;
}

function tiles(status, seconds) {
  const speed = (name) => perSecond(rate(total(status, name), total(previous, name), seconds));
  const drops = total(status, "agent_kernel_drops");
  const rejected = total(status, "agent_source_samples_rejected");
  const list = [
    ["samples applied", speed("agent_source_samples_applied"), ""],
    ["samples rejected", number(rejected), rejected ? "bad" : ""],
    ["received", `${bytesRate(status, seconds)}`, ""],
    ["HTTP requests", speed("agent_http_requests"), ""],
    ["connections open", number(total(status, "agent_connections_open")), ""],
    ["kernel drops", number(drops), drops ? "bad" : ""],
    ["series", number(status.segment.series), status.segment.overflows ? "bad" : ""],
    ["segment", bytes(status.segment.bytes), ""],
  ];
  byId("tiles").replaceChildren(...list.map(([name, value, className]) => {
    const tile = element("div", undefined, "tile");
    tile.append(element("b", value, className), element("span", name, "dim"));
    return tile;
  }));
}

function bytesRate(status, seconds) {
  const name = "agent_source_received_bytes";
  const value = rate(total(status, name), total(previous, name), seconds);
  return value === null ? "-" : `${bytes(Math.round(value))}/s`;
}

function ledger(status, seconds) {
  const received = sums(status, "agent_source_samples_received", ["source"]);
  const before = sums(previous, "agent_source_samples_received", ["source"]);
  const applied = sums(status, "agent_source_samples_applied", ["source"]);
  const rejected = sums(status, "agent_source_samples_rejected", ["source"]);
  const rows = [...received.keys()].sort().map((key) => {
    const all = received.get(key);
    const good = applied.get(key) ?? 0;
    const bad = rejected.get(key) ?? 0;
    const left = all - good - bad;
    return [
      JSON.parse(key)[0], all, good, bad,
      { text: number(left), className: left < 0 ? "bad" : "" },
      perSecond(rate(all, before.get(key) ?? 0, seconds)),
    ];
  });
  table("ledger", [["source", ""], ["received", "number"], ["applied", "number"],
    ["rejected", "number"], ["in work", "number"], ["rate", "number"]], rows, "no source yet");
}

function rejections(status) {
  const rows = [];
  const add = (what, name, keys) => {
    for (const [key, value] of sums(status, name, keys)) {
      if (value > 0) rows.push([what, JSON.parse(key).filter(Boolean).join(", "), value]);
    }
  };
  add("sample rejected", "agent_source_samples_rejected", ["source", "reason"]);
  add("connection refused", "agent_connections_refused", ["source", "reason"]);
  add("request refused", "agent_http_refused", ["reason"]);
  add("family left out", "agent_scrape_families_skipped", ["app", "reason"]);
  add("kernel drop", "agent_kernel_drops", ["source"]);
  rows.sort((a, b) => b[2] - a[2]);
  table("rejected", [["what", ""], ["why", ""], ["count", "number"]], rows, "nothing was rejected");
}

function connections(status) {
  const open = sums(status, "agent_connections_open", ["source", "worker"]);
  const opened = sums(status, "agent_connections_opened", ["source", "worker"]);
  const keys = [...new Set([...open.keys(), ...opened.keys()])].sort();
  const rows = keys.map((key) => [...JSON.parse(key), open.get(key) ?? 0, opened.get(key) ?? 0]);
  table("connections", [["source", ""], ["worker", ""], ["open", "number"], ["accepted", "number"]],
    rows, "no connection yet");
}

// One row for each series and window that had samples, one column for each quantile.
function windows(status) {
  const rows = new Map();
  for (const sample of status.windows) {
    const { q, metric, window: span, app, ...labels } = sample.labels;
    if (metric === undefined) continue;
    const text = Object.entries(labels).map(([name, value]) => `${name}=${value}`).join(" ");
    const key = JSON.stringify([app ?? "", metric, text, span]);
    if (!rows.has(key)) rows.set(key, {});
    rows.get(key)[q === undefined ? sample.name : `q${q}`] = sample.value;
  }
  const lines = [...rows.entries()]
    .filter(([, row]) => row.agent_window_samples_per_second > 0 || row.agent_window_error_ratio > 0)
    .map(([key, row]) => {
      const [app, metric, text, span] = JSON.parse(key);
      return [app || "-", metric, text || "-", span, row["q0.5"], row["q0.95"], row["q0.99"],
        row.agent_window_samples_per_second, row.agent_window_error_ratio];
    });
  const order = (row) => row.slice(0, 3).join("\n");
  lines.sort((a, b) => order(a).localeCompare(order(b)) || parseInt(a[3], 10) - parseInt(b[3], 10));
  table("windows", [["app", ""], ["metric", ""], ["labels", ""], ["window", ""], ["P50", "number"],
    ["P95", "number"], ["P99", "number"], ["samples/s", "number"], ["errors", "number"]],
    lines, "no distribution had samples in the last minute");
}

function segments(status) {
  const row = (name, one) => [name, one.series, one.metrics, bytes(one.bytes), one.writers,
    one.overflows, one.shared ? "" : "private memory"];
  const rows = [row("(collector)", status.segment)];
  for (const app of status.apps) rows.push(row(app.name, app));
  for (const bad of status.apps_refused) {
    rows.push([bad.file, null, null, "-", null, null, { text: bad.why, className: "bad" }]);
  }
  if (status.gateway.groups || status.gateway.unreadable) {
    const note = status.gateway.unreadable ? `${status.gateway.unreadable} unreadable` : "";
    rows.push([`${status.gateway.groups} pushed groups`, null, null, "-", null, null, note]);
  }
  table("segments", [["app", ""], ["series", "number"], ["metrics", "number"], ["memory", "number"],
    ["writers", "number"], ["overflows", "number"], ["note", ""]], rows, "");
}

function conflicts(status) {
  const who = (one) => one.app !== undefined ? `app ${one.app}` : one.group !== undefined ? `group ${one.group}` : "collector";
  const rows = status.conflicts.map((row) => [row.name, row.type, who(row), row.holder.name, row.holder.type, who(row.holder)]);
  table("conflicts", [["left out", ""], ["type", ""], ["of", ""], ["because of", ""], ["type", ""], ["of", ""]],
    rows, "everything is shown");
}

function show(status) {
  const seconds = previous ? (status.unix_ms - previous.unix_ms) / 1000 : 0;
  byId("about").textContent = `${status.version || "?"}, ${status.worker === "desk" ? "the desk" : `worker ${status.worker}`}, process ${status.pid}, ` +
    `counting since ${new Date(status.segment.created_unix_ms).toLocaleString()}`;
  tiles(status, seconds);
  ledger(status, seconds);
  rejections(status);
  connections(status);
  windows(status);
  table("top", [["app", ""], ["metric", ""], ["type", ""], ["series", "number"], ["to overflow", "number"]],
    status.top.map((row) => [row.app || "-", row.name, row.type, row.series,
      { text: number(row.overflows), className: row.overflows ? "bad" : "" }]), "no metric yet");
  segments(status);
  conflicts(status);
  table("events", [["time", ""], ["event", "text"]],
    status.events.map((row) => [new Date(row.unix_ms).toLocaleTimeString(), row.text]), "no event yet");
  previous = status;
}

async function tell() {
  const badge = byId("state");
  try {
    const [document_, ready] = await Promise.all([fetch("/v1/status"), fetch("/readyz")]);
    if (!document_.ok) throw new Error(`status answered ${document_.status}`);
    show(await document_.json());
    const why = await ready.text();
    badge.textContent = ready.ok ? "ready" : `not ready: ${why.trim()}`;
    badge.className = `badge ${ready.ok ? "good" : "bad"}`;
  } catch (error) {
    badge.textContent = `no answer: ${error.message}`;
    badge.className = "badge bad";
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await tell();
    await new Promise((resume) => setTimeout(resume, PERIOD_MS));
  }
}

run();
