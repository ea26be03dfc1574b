// One mapping's page. Functions from state to trees.

import { actionsFor } from "./actions.js";
import { quantile } from "./course.js";
import { h } from "./dom.js";
import { count, functionName, mappingTone, plural, rate, short, sourceName, span, titleOf } from "./format.js";
import { troubles } from "./overview.js";
import { histogram, plot } from "./plots.js";
import { shards } from "./shards.js";

/** The page. `act` takes an action that the reader chose; `ui` is what this page remembers (see shards.js). */
export function mappingPage({ view, courses, mayChange, mapping, ui, act, redraw }) {
  const flow = view.flows[mapping.uuid];
  const work = view.work[mapping.name];
  const rates = courses.rates(mapping.uuid);
  const last = courses.samples.get(mapping.uuid)?.at(-1);
  const found = troubles(mapping, courses);
  return [
    head(mapping, flow, mayChange ? act : null),
    found.length > 0 && h("div", { class: "notices", key: "notices" }, found.map((one) =>
      h("div", { class: `notice ${one.tone}`, key: one.title }, h("strong", null, one.title), h("span", null, one.text)))),
    flow && flowing({ mapping, flow, rates, durations: courses.durations(mapping.uuid), bounds: view.bounds_s }),
    h("div", { class: "plots", key: "plots" },
      plot({ key: "delivered", title: "Delivered", points: courses.points(mapping.uuid, "delivered"), show: rate, unit: " / s" }),
      plot({ key: "lag", title: "Lag in records", points: courses.points(mapping.uuid, "lag"), show: short }),
      plot({ key: "age", title: "Iterator age", points: courses.points(mapping.uuid, "age"), show: span, worry: last?.age > 60 })),
    h("div", { class: "two", key: "two" }, latency(courses.durations(mapping.uuid), view.bounds_s), ledger(mapping.ledger)),
    failures(mapping, work, courses.errors.get(mapping.uuid), view.at_ms),
    parked(mapping),
    shards({ mapping, ui, redraw }),
  ];
}

function head(mapping, flow, act) {
  return h("div", { class: "head", key: "head" },
    h("div", { class: "title" },
      h("div", { class: "line" }, h("h1", null, titleOf(mapping, flow)), h("span", { class: `pill ${mappingTone(mapping.state)}`, id: "state" }, mapping.state)),
      h("p", { class: "mono" }, flow?.arn ?? mapping.uuid)),
    act === null
      ? h("span", { class: "pill idle", key: "reading", title: "The token of this tab may only read" }, "Read only")
      : h("div", { class: "actions", key: "actions", role: "group", "aria-label": "Actions" },
          actionsFor(mapping, flow).map((action) => h("button", { type: "button", key: action.key, id: `act-${action.key}`, "aria-haspopup": "dialog", on: { click: () => act(action) } }, action.label))));
}

function flowing({ mapping, flow, rates, durations, bounds }) {
  const { ledger, circuit } = mapping;
  const moving = (rates?.polled ?? 0) > 0;
  const off = mapping.state === "Disabled";
  const hurt = mapping.shards.some((shard) => shard.state === "failed");
  const retrying = mapping.shards.filter((shard) => shard.state === "retrying").length;
  const stage = (name, tone, what, lines) => h("li", { class: `stage ${off ? "off" : tone}`, key: name },
    h("span", { class: `rail${moving ? " moving" : ""}`, "aria-hidden": "true" }),
    h("h3", null, h("span", null, name)), h("span", { class: "what" }, what), lines.filter(Boolean).map(([text, style]) => h("p", { class: style ?? "" }, text)));
  const settings = [flow.window_s > 0 && `or ${span(flow.window_s)}`, flow.tumbling_window_s > 0 && `windows of ${span(flow.tumbling_window_s)}`, flow.lanes > 1 && `${flow.lanes} lanes a shard`];
  const median = durations && quantile(durations.buckets, bounds, 0.5);
  const open = circuit.state !== "closed";
  return h("section", { class: "card", key: "flow", "aria-labelledby": "flow-title" },
    h("header", null, h("h2", { id: "flow-title" }, "Flow")),
    h("ol", { class: "flow" },
      stage("Source", hurt ? "hurt" : "", flow.source, [[`${sourceName(flow.kind)}, ${plural(mapping.shards.length, "shard")}`], [`${count(ledger.polled)} read, ${rate(rates?.polled)} / s`]]),
      stage("Filter", "", flow.filters ? plural(flow.filters, "pattern") : "none", [flow.filters ? [`${count(ledger.filtered)} filtered out, ${rate(rates?.filtered)} / s`] : ["every record passes"]]),
      stage("Batch", "", `up to ${count(flow.batch_size)}`, [settings.some(Boolean) && [settings.filter(Boolean).join(", ")], [`${short(ledger.in_flight)} in flight`]]),
      stage("Function", open ? "wait" : retrying ? "wait" : "", functionName(flow.function), [
        open ? [`circuit ${circuit.state.replace("_", "-")}`, "warn"] : [median ? `half take at most ${span(median)}` : "circuit closed"],
        retrying > 0 && [`${plural(retrying, "shard")} retrying`, "warn"]]),
      stage("Outcome", "", `${count(ledger.delivered)} delivered`, [
        [`${rate(rates?.delivered)} / s`],
        (ledger.destination > 0 || flow.destination) && [`${count(ledger.destination)} to the failure destination`],
        ledger.dropped > 0 && [`${short(ledger.dropped)} dropped`, "bad"],
        ledger.parked > 0 && [`${short(ledger.parked)} parked`, "warn"]])));
}

function latency(durations, bounds) {
  const body = durations === null
    ? [h("p", { class: "quiet" }, "No invocations on this node yet.")]
    : (() => {
        const total = durations.buckets.reduce((sum, n) => sum + n, 0);
        const p50 = quantile(durations.buckets, bounds, 0.5);
        const p99 = quantile(durations.buckets, bounds, 0.99);
        const beyond = (value) => (value === null ? `> ${span(bounds.at(-1))}` : span(value));
        const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));
        return [
          h("dl", { class: "facts" }, fact("half within", beyond(p50)), fact("99 % within", beyond(p99)), fact("invocations", short(total))),
          histogram({ buckets: durations.buckets, bounds, show: span, label: `${plural(total, "invocation")}: half within ${beyond(p50)}, 99 % within ${beyond(p99)}` }),
        ];
      })();
  return h("section", { class: "card", key: "latency", "aria-labelledby": "latency-title" },
    h("header", null, h("h2", { id: "latency-title" }, "Invocation time"),
      h("span", { class: "quiet" }, durations?.recent ? "last minute, this node" : "since this node started")), body);
}

function ledger(numbers) {
  const outcomes = ["delivered", "filtered", "destination", "dropped", "parked", "in_flight"];
  const names = { destination: "to the failure destination", in_flight: "in flight" };
  return h("section", { class: "card", key: "ledger", "aria-labelledby": "ledger-title" },
    h("header", null, h("h2", { id: "ledger-title" }, "Ledger"), h("span", { class: "quiet" }, "every record, since the beginning"),
      h("span", { class: `pill end ${numbers.balanced ? "good" : "bad"}` }, numbers.balanced ? "Balances" : "Does not balance")),
    h("div", { class: "ledger-bar", "aria-hidden": "true" }, outcomes.filter((name) => numbers[name] > 0).map((name) =>
      h("i", { key: name, class: `l-${name}`, style: { "--share": `${(numbers[name] / Math.max(1, numbers.polled)) * 100}%` } }))),
    h("dl", { class: "ledger" },
      h("div", null, h("dt", null, "read"), h("dd", null, count(numbers.polled))),
      outcomes.map((name) => h("div", { key: name, class: `l-${name}${numbers[name] ? "" : " zero"}` }, h("dt", null, names[name] ?? name), h("dd", null, count(numbers[name]))))));
}

/** Errors of shards now, alike ones together, the most frequent first. */
export function grouped(shardList) {
  const found = new Map();
  for (const shard of shardList) {
    if (shard.last_error) found.set(shard.last_error, [...(found.get(shard.last_error) ?? []), shard.id]);
  }
  return [...found].sort(([, one], [, other]) => other.length - one.length);
}

function failures(mapping, work, last, now) {
  const errors = grouped(mapping.shards);
  if (!errors.length && !last && !work?.failed && !work?.throttles) return null;
  const counts = [work?.failed && `${plural(work.failed, "record")} of failed invocations`, work?.throttles && plural(work.throttles, "throttled invocation")].filter(Boolean);
  return h("section", { class: "card", key: "failures", "aria-labelledby": "failures-title" },
    h("header", null, h("h2", { id: "failures-title" }, "Failures"), counts.length > 0 && h("span", { class: "quiet" }, `${counts.join(", ")} on this node since it started`)),
    errors.length
      ? h("ul", { class: "failures" }, errors.slice(0, 8).map(([text, ids]) => h("li", { key: text },
          h("span", null, ids.length === 1 ? ids[0] : plural(ids.length, "shard")), h("code", null, text))))
      : [h("p", { class: "quiet" }, "No shard is in trouble now."),
          last && h("ul", { class: "failures" }, h("li", null, h("span", null, `${last.shard}, ${span(Math.max(0, now - last.at) / 1000)} ago`), h("code", null, last.text)))],
    errors.length > 8 && h("p", { class: "quiet" }, `and ${errors.length - 8} other errors`));
}

function parked(mapping) {
  const keys = mapping.shards.flatMap((shard) => shard.parked_keys.map((key) => ({ ...key, shard: shard.id }))).sort((one, other) => other.age_s - one.age_s);
  if (!keys.length) return null;
  return h("section", { class: "card", key: "parked", "aria-labelledby": "parked-title" },
    h("header", null, h("h2", { id: "parked-title" }, "Parked keys"), h("span", { class: "quiet" }, `${plural(mapping.ledger.parked, "record")} set aside, so that the others go on`)),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "parked-title" }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Key"), h("th", { scope: "col" }, "Shard"), h("th", { scope: "col", class: "num" }, "Records"),
        h("th", { scope: "col", class: "num" }, "For"), h("th", { scope: "col", class: "num" }, "Attempts"), h("th", { scope: "col" }, "Last error"))),
      h("tbody", null, keys.slice(0, 20).map((key) => h("tr", { key: `${key.shard}/${key.key}` },
        h("td", { class: "mono" }, key.key), h("td", { class: "mono quiet" }, key.shard), h("td", { class: "num" }, count(key.records)),
        h("td", { class: "num" }, span(key.age_s)), h("td", { class: "num" }, count(key.failures)), h("td", { class: "wide error-text" }, key.last_error ?? "–")))))),
    keys.length > 20 && h("p", { class: "quiet" }, `and ${keys.length - 20} more`));
}
