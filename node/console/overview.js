// The first page: how the fleet is, its mappings, its nodes. Functions from state to trees.

import { h } from "./dom.js";
import { count, functionName, mappingTone, plural, rate, short, sourceName, span, titleOf } from "./format.js";
import { spark } from "./plots.js";

export const pathOf = (mapping) => `#/${encodeURIComponent(mapping.name)}`;

/** What there is to say about a mapping, the gravest first. Each: tone (`bad`: act, `warn`: it is slowed, `note`), title, text. */
export function troubles(mapping, courses) {
  const found = [];
  const say = (tone, title, text) => found.push({ tone, title, text });
  const { circuit, shards, uuid } = mapping;
  const among = (state) => shards.filter((shard) => shard.state === state);
  const errorOf = (list) => list.find((shard) => shard.last_error)?.last_error ?? "";
  if (!mapping.ledger.balanced) say("bad", "The ledger does not balance", "Records are unaccounted for. This is a defect: please keep the log.");
  const loss = Math.min(...shards.map((shard) => shard.loss_in_s ?? Infinity));
  if (loss < 3600) say("bad", `The source deletes unfinished records in ${span(loss)}`, "At the present pace reading does not catch up before the source's retention is over.");
  const failed = among("failed");
  if (failed.length) say("bad", `${plural(failed.length, "shard")} cannot go on`, errorOf(failed));
  if (courses.lasting(uuid, "unowned")) say("bad", `${plural(among("unowned").length, "shard")} without an owner`, "No node of the fleet has taken them.");
  if (circuit.state !== "closed") {
    const next = circuit.retry_in_s === null ? "" : ` Next try in ${span(circuit.retry_in_s)}.`;
    say("warn", `The circuit is ${circuit.state.replace("_", "-")}`, `The function is not called for now. ${circuit.last_error ? `${circuit.last_error}.` : ""}${next}`);
  } else if (!failed.length && courses.lasting(uuid, "problem")) {
    say("warn", "Batches fail", errorOf(shards) || mapping.last_processing_result);
  } else if (mapping.seeking) {
    say("note", "The position is being moved", "Nothing is read until that is done.");
  } else if (circuit.limit !== null) {
    say("note", "The function throttles", `It is given ${plural(circuit.limit, "batch", "batches")} at once from a node.`);
  }
  return found;
}

/** The overview. */
export function overview({ view, courses }) {
  const { status, flows } = view;
  return [headline(status, flows, courses), tiles(status, courses), mappings(status, flows, courses), nodes(status, flows)];
}

function headline(status, flows, courses) {
  const like = (tone) => status.mappings.filter((mapping) => mapping.state !== "Disabled" && troubles(mapping, courses)[0]?.tone === tone);
  const [bad, slow] = [like("bad"), like("warn")];
  const shards = status.mappings.reduce((sum, mapping) => sum + mapping.shards.length, 0);
  const say = (list, one, many) => (list.length === 1 ? `${titleOf(list[0], flows[list[0].uuid])} ${one}` : `${list.length} mappings ${many}`);
  let title = "Everything flows";
  if (bad.length) title = say(bad, "needs attention", "need attention");
  else if (slow.length) title = say(slow, "is slowed", "are slowed");
  else if (!status.mappings.length) title = "Nothing to do yet";
  return h("div", { class: "title", key: "title" }, h("h1", null, title),
    h("p", null, `${plural(status.mappings.length, "mapping")} with ${plural(shards, "shard")} on ${plural(status.nodes.length, "node")}`));
}

function tiles(status, courses) {
  let [delivered, known, inFlight, parked, lag, age] = [0, false, 0, 0, null, null];
  for (const mapping of status.mappings) {
    const rates = courses.rates(mapping.uuid);
    known ||= rates !== null;
    delivered += rates?.delivered ?? 0;
    inFlight += mapping.ledger.in_flight;
    parked += mapping.ledger.parked;
    for (const shard of mapping.shards) {
      if (shard.lag_records !== null) lag = (lag ?? 0) + shard.lag_records;
      if (shard.lag_s !== null) age = Math.max(age ?? 0, shard.lag_s);
    }
  }
  const tile = (label, value, unit, note, worry) => h("section", { class: `card tile${worry ? " worry" : ""}`, key: label },
    h("h3", null, label), h("strong", null, value, unit && h("span", { class: "unit" }, unit)), h("small", null, note));
  return h("div", { class: "tiles", key: "tiles" },
    tile("Delivered", known ? rate(delivered) : "–", " / s", "records, all mappings"),
    tile("In flight", short(inFlight), "", parked ? `and ${plural(parked, "record")} parked` : "records read and not finished"),
    tile("Lag", short(lag), "", "records behind the sources"),
    tile("Oldest record", span(age), "", "not yet finished", age > 60));
}

function mappings(status, flows, courses) {
  if (!status.mappings.length) {
    return h("section", { class: "card empty", key: "mappings" }, h("h2", null, "No event source mappings"),
      h("p", { class: "quiet" }, "Name some in the node's configuration file, or make them with the Lambda API: they appear here at once."));
  }
  return h("section", { class: "card", key: "mappings", "aria-labelledby": "mappings-title" },
    h("header", null, h("h2", { id: "mappings-title" }, "Mappings")),
    h("table", { class: "rows" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Name"), h("th", { scope: "col" }, "Delivered"), h("th", { scope: "col", class: "num" }, "per second"),
        h("th", { scope: "col", class: "num" }, "Lag"), h("th", { scope: "col", class: "num" }, "Oldest"), h("th", { scope: "col" }, "State"))),
      h("tbody", null, status.mappings.map((mapping) => row(mapping, flows[mapping.uuid], courses)))));
}

function row(mapping, flow, courses) {
  const rates = courses.rates(mapping.uuid);
  const last = courses.samples.get(mapping.uuid)?.at(-1);
  const worst = troubles(mapping, courses).find((one) => one.tone !== "note");
  return h("tr", { key: mapping.uuid },
    h("td", { class: "name" }, h("a", { href: pathOf(mapping) }, titleOf(mapping, flow)), mapping.name === mapping.uuid ? unnamed(mapping, flow) : way(flow)),
    h("td", { class: "trend" }, spark(courses.points(mapping.uuid, "delivered"), `Delivered lately: ${rate(rates?.delivered)} a second now`)),
    h("td", { class: "num", "data-label": "per second" }, rate(rates?.delivered)),
    h("td", { class: "num", "data-label": "lag" }, short(last?.lag)),
    h("td", { class: "num", "data-label": "oldest" }, span(last?.age)),
    h("td", { class: "state" }, worst && mapping.state === "Enabled"
      ? h("span", { class: `pill ${worst.tone}`, title: worst.title }, worst.tone === "bad" ? "Problem" : "Slowed")
      : h("span", { class: `pill ${mappingTone(mapping.state)}` }, mapping.state)));
}

/** What tells mappings apart that nobody gave a name. */
const unnamed = (mapping, flow) => h("span", { class: "way" }, flow && `${sourceName(flow.kind)} `, h("span", { class: "mono" }, mapping.uuid));

export function way(flow) {
  return flow && h("span", { class: "way" }, flow.source, h("b", { "aria-label": "to" }, "→"), functionName(flow.function));
}

function nodes(status, flows) {
  const total = status.nodes.reduce((sum, node) => sum + node.shards, 0);
  return h("section", { class: "card", key: "nodes", "aria-labelledby": "nodes-title" },
    h("header", null, h("h2", { id: "nodes-title" }, "Nodes"), h("span", { class: "quiet" }, "who owns what")),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "nodes-title" }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Node"), h("th", { scope: "col" }, "Shards"), h("th", { scope: "col" }, "Roles"), h("th", { scope: "col", class: "num" }, "Heartbeat"))),
      h("tbody", null, status.nodes.map((node) => h("tr", { key: node.id },
        h("th", { scope: "row" }, h("span", { class: "mono" }, node.id), node.id === status.node && h("span", { class: "quiet" }, " answers you"), node.zone && h("span", { class: "way" }, node.zone)),
        h("td", null, h("div", { class: "share" },
          h("span", { class: "num" }, count(node.shards)),
          h("div", { class: "track", "aria-hidden": "true" }, h("i", { style: { "--share": `${total ? (node.shards / total) * 100 : 0}%` } })),
          h("small", null, holdings(status, flows, node.id)))),
        h("td", { class: "quiet" }, node.roles.join(", ")),
        h("td", { class: "num" }, `${span(node.heartbeat_age_s)} ago`)))))));
}

function holdings(status, flows, node) {
  const held = status.mappings
    .map((mapping) => [titleOf(mapping, flows[mapping.uuid]), mapping.shards.filter((shard) => shard.owner === node).length])
    .filter(([, number]) => number);
  const shown = held.slice(0, 4).map(([name, number]) => `${name} ${number}`);
  return held.length > 4 ? `${shown.join(", ")} and ${held.length - 4} more` : shown.join(", ") || "none";
}
