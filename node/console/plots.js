// Small plots in SVG. Each is an image to a screen reader, with its content in a sentence. Pure.

import { h } from "./dom.js";

const WINDOW_MS = 5 * 60 * 1000;

/** The paths of a line and the area below it, in a box of `width` by `height`. */
export function paths(points, { width, height, from, to, top }) {
  const x = (at) => Number((((at - from) / (to - from)) * width).toFixed(1));
  const y = (value) => Number((height - (Math.min(value, top) / top) * height).toFixed(1));
  const runs = [];
  let run = [];
  for (const { at, value } of points) {
    if (at < from) continue;
    if (value === null || value === undefined) {
      if (run.length) runs.push(run);
      run = [];
    } else run.push([x(at), y(value)]);
  }
  if (run.length) runs.push(run);
  const line = runs.map((one) => `M${one.map((point) => point.join(" ")).join("L")}`).join("");
  const area = runs.map((one) => `M${one[0][0]} ${height}L${one.map((point) => point.join(" ")).join("L")}L${one.at(-1)[0]} ${height}Z`).join("");
  return { line, area };
}

/** The next number that reads well as the top of an axis. */
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].find((step) => step * size >= value) * size;
}

const known = (points) => points.filter((point) => point.value !== null && point.value !== undefined).map((point) => point.value);

/** A line without axes, for a row. */
export function spark(points, label) {
  const to = points.at(-1)?.at ?? 1;
  const from = to - WINDOW_MS / 2;
  const seen = points.filter((point) => point.at >= from);
  const { line, area } = paths(seen, { width: 132, height: 32, from, to, top: niceTop(Math.max(0, ...known(seen))) });
  return h("svg", { class: "spark", viewBox: "0 -1 132 34", preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("path", { class: "base", d: "M0 32H132" }), h("path", { class: "area", d: area }), h("path", { class: "curve", d: line }));
}

/** A plot over the last minutes, with what it is now. */
export function plot({ key, title, points, show, unit = "", worry = false }) {
  const to = points.at(-1)?.at ?? 1;
  const first = points[0]?.at ?? to;
  const from = Math.max(to - WINDOW_MS, Math.min(first, to - 60_000));
  const seen = points.filter((point) => point.at >= from);
  const values = known(seen);
  const now = seen.at(-1)?.value ?? null;
  const most = Math.max(0, ...values);
  const { line, area } = paths(seen, { width: 320, height: 90, from, to, top: niceTop(most) });
  const minutes = Math.round((to - from) / 60_000);
  const label = values.length ? `${title}: ${show(now)}${unit}, at most ${show(most)}${unit} in ${minutes} min` : `${title}: not known`;
  return h("section", { class: `card plot${worry ? " worry" : ""}`, key },
    h("h3", null, title),
    h("div", null, h("span", { class: "big num" }, show(now), h("span", { class: "unit" }, unit)), values.length > 1 && h("span", { class: "peak" }, `peak ${show(most)}${unit}`)),
    h("svg", { viewBox: "0 0 320 92", preserveAspectRatio: "none", role: "img", "aria-label": label },
      h("path", { class: "base", d: "M0 91H320" }), h("path", { class: "area", d: area }), h("path", { class: "curve", d: line })),
    h("div", { class: "axis", "aria-hidden": "true" }, h("span", null, `${minutes} min ago`), h("span", null, "now")));
}

/** The least range of buckets that holds all invocations, with an empty one on each side where there is one. */
export function occupied(buckets) {
  const first = buckets.findIndex((n) => n > 0);
  const last = buckets.findLastIndex((n) => n > 0);
  return [Math.max(0, first - 1), Math.min(buckets.length - 1, last + 1)];
}

/** A histogram of durations. */
export function histogram({ buckets, bounds, show, label }) {
  const [first, last] = occupied(buckets);
  const most = Math.max(1, ...buckets);
  const shown = buckets.slice(first, last + 1);
  const bound = (index) => (index < bounds.length ? `≤ ${show(bounds[index])}` : "more");
  const every = Math.ceil(shown.length / 7);
  return h("figure", { role: "img", "aria-label": label },
    h("div", { class: "hist" }, shown.map((n, index) => h("i", { class: n ? "" : "none", title: `${bound(first + index)}: ${n}`, style: { "--part": `${(n / most) * 100}%` } }))),
    h("div", { class: "hist-axis", "aria-hidden": "true" }, shown.map((_, index) => h("span", null, index % every ? "" : bound(first + index)))));
}
