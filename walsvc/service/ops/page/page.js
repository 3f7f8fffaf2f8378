
"use strict";
// Asks /status each second and shows it. Text is only ever set as text: names of topics come from users.

const PERIOD_MS = 1000, WINDOW = 10, MINUTE = 60;   // samples that percentiles and the sparkline look back on
const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const samples = new Map();                          // by namespace: the last of {at, stats}
const traffic = [];                                 // the last two of {at, server}
let chosen = null, last = null;

function number(value) {
  if (value >= 1e6) return new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 }).format(value);
  return value > 0 && value < 10 ? (Math.round(value * 10) / 10).toString() : whole.format(value);
}
function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let place = 0;
  while (value >= 1024 && place < units.length - 1) { value /= 1024; place++; }
  return `${place && value < 100 ? value.toFixed(1) : whole.format(value)} ${units[place]}`;
}
function duration(us) {
  if (us < 1000) return `${whole.format(us)} µs`;
  return us < 1e6 ? `${three.format(us / 1000)} ms` : `${three.format(us / 1e6)} s`;
}
function since(seconds) {
  for (const [name, length] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (seconds >= length) return `${whole.format(Math.floor(seconds / length))} ${name}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}
const segment = (first) => `${first.toString(16).padStart(16, "0")}.wal`;
const plural = (count, word) => `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;

function set(node, text) { if (node.textContent !== text) node.textContent = text; }
function attribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Rows are changed in place, so that a selection in them survives. A cell is text, or {text, tag, warn}.
function fill(table, rows) {
  const head = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, place) => {
    const row = body.rows[place] ?? body.insertRow();
    cells.forEach((cell, column) => {
      const node = row.cells[column] ?? row.insertCell();
      const { text, tag, warn } = typeof cell === "string" ? { text: cell } : cell;
      set(node, text);
      attribute(node, "data-label", head[column].textContent);
      attribute(node, "data-tag", tag);
      node.className = `${head[column].className}${warn ? " warn" : ""}`;
    });
  });
}
function list(dl, pairs) {
  while (dl.childElementCount > 2 * pairs.length) dl.lastElementChild.remove();
  pairs.forEach(([term, text], place) => {
    for (const [offset, tag, value] of [[0, "dt", term], [1, "dd", text]]) {
      const node = dl.children[2 * place + offset] ?? dl.appendChild(document.createElement(tag));
      set(node, value);
    }
  });
}

// ---- figures

function note(status) {
  const at = status.at_ns / 1e9;
  for (const log of status.logs) {
    const known = samples.get(log.namespace) ?? [], before = known.at(-1)?.stats;
    if (before && (log.stats.groups < before.groups || log.stats.records < before.records)) known.length = 0;  // opened anew
    known.push({ at, stats: log.stats });
    if (known.length > MINUTE + 1) known.shift();
    samples.set(log.namespace, known);
  }
  traffic.push({ at, server: status.server });
  if (traffic.length > 2) traffic.shift();
}
const rate = (from, to, read) => (to.at > from.at ? (read(to.stats) - read(from.stats)) / (to.at - from.at) : 0);
const minus = (now, before) => now.map((count, place) => count - (before?.[place] ?? 0));
const sum = (counts) => counts.reduce((total, count) => total + count, 0);

// The value that `share` of the counted ones do not exceed, placed evenly within its bucket, as Prometheus does it.
function quantile(bounds, counts, share) {
  const total = sum(counts);
  let below = 0;
  for (let place = 0; place < counts.length; place++) {
    if (total && below + counts[place] >= share * total) {
      if (place === bounds.length) return `> ${duration(bounds[place - 1])}`;
      const low = place ? bounds[place - 1] : 0;
      return duration(low + (bounds[place] - low) * ((share * total - below) / counts[place]));
    }
    below += counts[place];
  }
  return "–";
}

function spark(known) {
  const rates = known.slice(1).map((now, place) => rate(known[place], now, (stats) => stats.records));
  const top = Math.max(...rates, 1), step = 120 / (MINUTE - 1), start = 120 - step * (rates.length - 1);
  const points = rates.map((value, place) => `${(start + place * step).toFixed(2)},${(31 - 29 * (value / top)).toFixed(2)}`);
  attribute($("spark-line"), "d", points.length > 1 ? `M${points.join("L")}` : "");
  attribute($("spark-area"), "d", points.length > 1 ? `M${start.toFixed(2)},32L${points.join("L")}L120,32Z` : "");
  return { now: rates.at(-1) ?? 0, top: rates.length ? Math.max(...rates) : 0 };
}

function bars(bounds, counts) {
  const box = $("bars"), used = counts.map((count, place) => (count ? place : -1)).filter((place) => place >= 0);
  const first = Math.max(0, Math.min((used[0] ?? 2) - 1, bounds.length - 12)), end = Math.max(first + 12, (used.at(-1) ?? 0) + 2);
  const shown = counts.slice(first, end), top = Math.max(...shown, 1), total = sum(counts);
  while (box.childElementCount > shown.length) box.lastElementChild.remove();
  shown.forEach((count, place) => {
    let bar = box.children[place];
    if (!bar) {
      bar = box.appendChild(document.createElement("div"));
      bar.className = "bar";
      bar.append(document.createElement("i"), document.createElement("span"));
    }
    const bound = bounds[first + place], label = bound === undefined ? "more" : duration(bound);
    bar.firstChild.style.height = count ? `max(2px, ${(78 * count / top).toFixed(1)}%)` : "0";
    set(bar.lastChild, label);
    attribute(bar, "title", `${bound === undefined ? "longer" : `up to ${label}`}: ${whole.format(count)} of ${whole.format(total)}`);
  });
}

// ---- parts of the page

function showLog(log, status) {
  const known = samples.get(log.namespace), now = known.at(-1), stats = log.stats;
  const from = known.at(-Math.min(WINDOW + 1, known.length)), alone = from === now;
  const { now: speed, top } = spark(known);
  set($("rate"), alone ? "–" : number(speed));
  set($("rate-more"), `${plural(stats.records, "record")}, ${bytes(stats.payload_bytes)} since opening${top ? `; top ${number(top)}/s` : ""}`);
  const counts = minus(stats.sync_us_counts, alone ? null : from.stats.sync_us_counts);
  const quiet = !sum(counts), durations = quiet ? stats.sync_us_counts : counts;
  for (const [id, share] of [["p50", 0.5], ["p99", 0.99], ["p999", 0.999]])
    set($(id), quantile(status.bounds.sync_us, durations, share));
  set($("bars-since"), quiet || alone ? "since opening" : `last ${Math.round(now.at - from.at)} s`);
  bars(status.bounds.sync_us, durations);
  const groups = sum(durations), records = quiet || alone ? stats.group_records_total : stats.group_records_total - from.stats.group_records_total;
  set($("group"), groups ? number(records / groups) : "–");
  set($("group-more"), `most ${whole.format(stats.group_records_max)}; ${plural(stats.syncs, "sync")}`);
  set($("durable"), whole.format(stats.durable_lsn));
  const open = stats.next_lsn - 1 - stats.durable_lsn;
  set($("durable-more"), open ? `${whole.format(open)} accepted beyond (${bytes(stats.pending_bytes)})${stats.waiting ? `, ${whole.format(stats.waiting)} wait` : ""}` : "all that was accepted");
  set($("size"), bytes(log.retention.bytes));
  set($("size-more"), `${plural(stats.segments, "segment")}, from LSN ${whole.format(stats.first_lsn)}`);
  showNeeds(log);
  showCopies(log);
  showDisk(log);
}

function showNeeds(log) {
  const oldest = log.needs.reduce((least, need) => (need.segment === null ? least : Math.min(least, need.segment)), Infinity);
  fill($("needs"), log.needs.map((need) => [
    need.kind === "hold" ? { text: need.name, tag: "hold" } : { text: need.name, tag: need.shared ? "shared" : need.in_use ? "open" : null },
    need.topic ?? (need.kind === "hold" ? "–" : "whole log"),
    whole.format(need.position ?? need.lsn),
    need.kind === "hold" ? "–" : need.lag === null ? (need.position === null ? "…" : "lost records") : whole.format(need.lag),
    need.segment === null ? "nothing" : { text: segment(need.segment), tag: need.segment === oldest ? "oldest" : null, warn: true },
    bytes(need.segment === null ? 0 : need.bytes),
    need.shared ? atWork(need) : "–",
  ]));
  $("needs").hidden = !log.needs.length;
  $("needs-none").hidden = Boolean(log.needs.length);
  set($("needs-count"), log.needs.length >= 100 ? "the 100 that need the oldest records" : "");
}

function atWork(need) {
  const parts = [`${whole.format(need.outstanding)} out`];
  if (need.oldest_seconds !== null) parts.push(`oldest ${since(need.oldest_seconds)}`);
  if (need.waiting) parts.push(`${whole.format(need.waiting)} wait`);
  if (need.redeliveries) parts.push(`${whole.format(need.redeliveries)} again`);
  if (need.dead_letters) parts.push(`${whole.format(need.dead_letters)} dead`);
  return parts.join(", ");
}

function showCopies(log) {
  const copies = Object.entries(log.copies);
  $("copies-card").hidden = !copies.length;
  fill($("copies"), copies.map(([kind, copy]) => [kind, copy.state, whole.format(copy.lsn), plural(copy.records, "record"), bytes(copy.bytes)]));
}

function limits({ records, bytes: size, seconds }) {
  const each = [records === null ? null : plural(records, "record"), size === null ? null : bytes(size), seconds === null ? null : `${seconds} s`];
  return `at most ${each.filter((limit) => limit !== null).join(", ")}`;
}

function showDisk(log) {
  const { stats, retention } = log;
  list($("disk"), [
    ["Backend", stats.disk], ["Why", stats.disk_reason],
    ["Sync", `${stats.sync_method}${stats.direct ? ", O_DIRECT" : ", through the page cache"}, blocks of ${bytes(stats.block_bytes)}`],
    ["Directory", log.path],
    ["Active segment", segment(stats.segment_id)],
    ["Prepared", plural(stats.spares, "segment")],
    ["Written", `${bytes(stats.written_bytes)} in ${plural(stats.groups, "group")}`],
    ["Free", log.free_bytes === null ? "not known" : bytes(log.free_bytes)],
    ["Topics", whole.format(stats.topics)],
    ...stats.limited_topics.map((each) => [`Kept of ${each.topic}`, limits(each)]),
    ["Dropped", `${plural(retention.dropped_records, "record")}, ${bytes(retention.dropped_bytes)}`],
    ...(retention.last_drop ? [["Last drop", retention.last_drop]] : []),
  ]);
}

function showServer(status) {
  const { server } = status, [before, now] = traffic.length > 1 ? traffic : [null, null];
  const told = (counts) => Object.entries(counts).map(([name, count]) => `${name} ${whole.format(count)}`).join(", ") || "none";
  const flow = (name) => (before ? `${bytes(Math.max(0, now.server[name] - before.server[name]) / (now.at - before.at))}/s` : "–");
  list($("server"), [
    ["Connections", server.connections_max ? `${whole.format(server.connections)} of at most ${whole.format(server.connections_max)}` : whole.format(server.connections)],
    ["Accepted", `${whole.format(server.accepted)} ever; turned away: ${told(server.rejected)}`],
    ["Streams", whole.format(server.streams)],
    ["Received", `${flow("received_bytes")}; ${bytes(server.received_bytes)}`],
    ["Sent", `${flow("sent_bytes")}; ${bytes(server.sent_bytes)}`],
    ["Unanswered", bytes(server.pending_bytes)],
    ["Requests", told(server.requests)],
    ["Errors", told(server.errors)],
    ["Listens on", server.listeners.join(", ") || "nothing yet"],
  ]);
}

function showNamespaces(status) {
  const nav = $("namespaces");
  nav.hidden = status.logs.length < 2;
  while (nav.childElementCount > status.logs.length) nav.lastElementChild.remove();
  status.logs.forEach((log, place) => {
    let button = nav.children[place];
    if (!button) {
      button = nav.appendChild(document.createElement("button"));
      button.addEventListener("click", () => { chosen = button.dataset.namespace; if (last) show(last); });
    }
    button.dataset.namespace = log.namespace;
    set(button, log.namespace || "(root)");
    attribute(button, "aria-pressed", String(log.namespace === chosen));
    button.className = log.stats.failed ? "failed" : "";
  });
}

// ---- the whole

function state(text, kind, alarm) {
  set($("state"), text);
  $("state").className = `badge ${kind}`;
  document.title = kind === "good" ? "walsvc" : `${text} – walsvc`;
  set($("alert"), alarm);
  $("alert").hidden = !alarm;
}

function show(status) {
  const names = status.logs.map((log) => log.namespace);
  if (!names.includes(chosen)) chosen = names[0] ?? null;
  const failed = status.logs.some((log) => log.stats.failed);
  const advice = failed ? ["Nothing more is accepted until it is opened again. What was acknowledged is on the disk."] : [];
  state(status.ready ? "ready" : "not ready", status.ready ? "good" : "bad", [...status.reasons, ...status.warnings, ...advice].join("\n"));
  set($("about"), `${status.version}, up ${since((status.at_ns - status.server.started_ns) / 1e9)}`);
  showNamespaces(status);
  for (const log of status.logs) if (log.namespace === chosen) showLog(log, status);
  showServer(status);
  $("log").hidden = $("disk-card").hidden = !status.logs.length;
  $("no-log").hidden = Boolean(status.logs.length);
  $("main").hidden = false;
  $("main").classList.remove("stale");
}

async function look() {
  try {
    const answer = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status === 401 ? "a token is needed: load the page again" : await answer.text());
    last = await answer.json();
    note(last);
    show(last);
  } catch (error) {
    state("no answer", "bad", `The server does not answer: ${error.message}. What is below is old.`);
    $("main").classList.add("stale");
  }
  setTimeout(look, PERIOD_MS);
}
look();
