// A mapping's shards: a table while they are few, a cell each when they are many. Functions from state to trees.

import { h } from "./dom.js";
import { count, plural, shardTone, short, span } from "./format.js";

const FEW = 24;
const PAGE = 50;
const ORDER = { bad: 0, warn: 1, good: 2, idle: 3 };

/** What the page remembers of a reader's choices. */
export const fresh = () => ({ asTable: null, text: "", only: "all", byOwner: false, chosen: null, rows: PAGE });

/** The shards that the reader asked for. */
export function matching(list, { text, only }) {
  const wanted = text.trim().toLowerCase();
  return list.filter((shard) =>
    (only === "all" || ["bad", "warn"].includes(shardTone(shard.state).tone)) &&
    (!wanted || shard.id.toLowerCase().includes(wanted) || (shard.owner ?? "").toLowerCase().includes(wanted)));
}

export function shards({ mapping, ui, redraw }) {
  const list = mapping.shards;
  const many = list.length > FEW;
  const asTable = ui.asTable ?? !many;
  const shown = many ? matching(list, ui) : list;
  const set = (change) => { Object.assign(ui, change); redraw(); };
  return h("section", { class: "card", key: "shards", "aria-labelledby": "shards-title" },
    h("header", null, h("h2", { id: "shards-title" }, "Shards"), h("span", { class: "quiet" }, summary(list))),
    many && tools(ui, asTable, set),
    !list.length ? h("p", { class: "quiet" }, "None is being read.")
      : !shown.length ? h("p", { class: "quiet" }, "No shard is like that.")
        : asTable ? table(shown, ui, set) : grid(shown, ui, set));
}

function summary(list) {
  const states = new Map();
  for (const { state } of list) states.set(state, (states.get(state) ?? 0) + 1);
  return [...states].sort(([, one], [, other]) => other - one).map(([state, number]) => `${count(number)} ${state}`).join(", ");
}

function tools(ui, asTable, set) {
  return h("div", { class: "tools" },
    h("label", null, "Find", h("input", { type: "search", value: ui.text, placeholder: "shard or node", on: { input: (event) => set({ text: event.target.value, rows: PAGE }) } })),
    h("label", null, "Show", h("select", { value: ui.only, on: { change: (event) => set({ only: event.target.value }) } },
      h("option", { value: "all" }, "all"), h("option", { value: "trouble" }, "in trouble"))),
    !asTable && h("button", { type: "button", key: "by", "aria-pressed": String(ui.byOwner), on: { click: () => set({ byOwner: !ui.byOwner }) } }, ui.byOwner ? "Not by node" : "By node"),
    h("button", { type: "button", key: "as", class: "end", on: { click: () => set({ asTable: !asTable }) } }, asTable ? "Show as cells" : "Show as table"));
}

function table(shown, ui, set) {
  const sorted = [...shown].sort((one, other) => ORDER[shardTone(one.state).tone] - ORDER[shardTone(other.state).tone]);
  const col = (name, number) => h("th", { scope: "col", class: number ? "num" : "" }, name);
  return [
    h("div", { class: "scroll", key: "table", tabindex: "0", role: "region", "aria-labelledby": "shards-title" }, h("table", null,
      h("thead", null, h("tr", null, col("Shard"), col("State"), col("Owner"), col("Lag", true), col("Oldest", true), col("Checkpoint"), col("Last error, or remark"))),
      h("tbody", null, sorted.slice(0, ui.rows).map((shard) => h("tr", { key: shard.id },
        h("th", { scope: "row", class: "mono" }, shard.id), h("td", null, pill(shard)), h("td", { class: "mono quiet" }, shard.owner ?? "–"),
        h("td", { class: "num" }, short(shard.lag_records)), h("td", { class: "num" }, span(shard.lag_s)), h("td", { class: "mono quiet" }, tail(shard.checkpoint)),
        h("td", { class: `wide ${shard.last_error ? "error-text" : "quiet"}` }, shard.last_error ?? shard.remark ?? "–")))))),
    sorted.length > ui.rows && h("button", { type: "button", key: "more", on: { click: () => set({ rows: ui.rows + PAGE }) } }, `Show ${Math.min(PAGE, sorted.length - ui.rows)} of ${sorted.length - ui.rows} more`),
  ];
}

const pill = (shard) => h("span", { class: `pill ${shardTone(shard.state).tone}` }, shard.state);

/** A long sequence number by its end: that is where shards differ. */
const tail = (text) => (text === null ? "–" : text.length > 16 ? `…${text.slice(-14)}` : text);

function grid(shown, ui, set) {
  const chosen = shown.find((shard) => shard.id === ui.chosen) ?? null;
  const most = Math.max(1, ...shown.map((shard) => shard.lag_records ?? 0));
  const groups = ui.byOwner ? byOwner(shown) : [[null, shown]];
  const ordered = groups.flatMap(([, members]) => members);
  const move = (event) => {
    const next = moved(event.key, ordered, chosen, event.currentTarget);
    if (next === null) return;
    event.preventDefault();
    set({ chosen: ordered[next].id });
    document.getElementById(`cell-${ordered[next].id}`)?.scrollIntoView({ block: "nearest" });
  };
  return [
    legend(),
    h("div", { key: "cells", role: "listbox", tabindex: "0", "aria-labelledby": "shards-title", "aria-activedescendant": chosen && `cell-${chosen.id}`, on: { keydown: move, focus: () => chosen === null && set({ chosen: ordered[0].id }) } },
      groups.map(([owner, members]) => h("div", { key: owner ?? "", role: "group", "aria-label": owner ?? "all shards" },
        owner !== null && h("h3", { class: "group", "aria-hidden": "true" }, `${owner}, ${plural(members.length, "shard")}`),
        h("div", { class: "cells", role: "presentation" }, members.map((shard) => cell(shard, shard === chosen, most, set)))))),
    chosen && details(chosen),
  ];
}

function cell(shard, selected, most, set) {
  const { tone, sign } = shardTone(shard.state);
  const lag = shard.lag_records ?? 0;
  const heat = 34 + Math.round((Math.log1p(lag) / Math.log1p(most)) * 66);
  const label = `${shard.id}, ${shard.state}, lag ${short(shard.lag_records)}`;
  return h("div", {
    key: shard.id, id: `cell-${shard.id}`, class: `cell ${tone}`, role: "option", "aria-selected": String(selected), "aria-label": label, title: label,
    style: tone === "good" ? { "--heat": `${most > 1 ? heat : 34}%` } : {}, on: { click: () => set({ chosen: shard.id }) },
  }, sign);
}

function legend() {
  const item = (tone, sign, text, heat) => h("li", { key: text }, h("span", { class: `cell ${tone}`, "aria-hidden": "true", style: heat ? { "--heat": heat } : {} }, sign), text);
  return h("ul", { class: "legend", key: "legend", "aria-label": "Signs" },
    item("good", "", "reading", "34%"), item("good", "", "far behind", "100%"), item("warn", "↻", "retrying"), item("warn", "…", "waiting"), item("bad", "!", "failed"), item("bad", "?", "unowned"), item("idle", "", "stopped or starting"));
}

function byOwner(shown) {
  const groups = new Map();
  for (const shard of shown) {
    const owner = shard.owner ?? "no owner";
    if (!groups.has(owner)) groups.set(owner, []);
    groups.get(owner).push(shard);
  }
  return [...groups].sort(([one], [other]) => (one < other ? -1 : 1));
}

/** Where a key leads: the place in the order, null when it means nothing here. */
function moved(key, ordered, chosen, box) {
  const at = Math.max(0, ordered.indexOf(chosen));
  const cells = box.querySelector(".cells");
  const columns = getComputedStyle(cells).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: ordered.length - 1 - at };
  if (!(key in steps)) return null;
  return Math.min(ordered.length - 1, Math.max(0, at + steps[key]));
}

function details(shard) {
  const fact = (name, value, more = "") => h("div", null, h("dt", null, name), h("dd", { class: more }, value));
  return h("div", { class: "chosen", key: "chosen", role: "region", "aria-label": "Chosen shard", "aria-live": "off" },
    h("header", null, h("strong", { class: "mono" }, shard.id), pill(shard)),
    h("dl", { class: "details" },
      fact("Owner", shard.owner ?? "nobody", "mono"), fact("Fencing token", shard.fencing_token || "–"), fact("Checkpoint", shard.checkpoint ?? "–", "mono"),
      fact("Lag", `${count(shard.lag_records)} records`), fact("Oldest record", span(shard.lag_s)), fact("Load", shard.load.toFixed(2)),
      shard.parked_keys.length > 0 && fact("Parked keys", count(shard.parked_keys.length))),
    shard.last_error && h("p", { class: "error-text" }, shard.last_error),
    shard.remark && h("p", { class: "quiet" }, shard.remark));
}
