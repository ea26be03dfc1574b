// What mappings did lately: rates and histories from documents that follow each other. Pure.

import { isProblem } from "./format.js";

const KEPT_MS = 10 * 60 * 1000;
const RATE_MS = 4000; // rates are told over this long
const LASTING_MS = 5000; // what passes sooner is not worth a headline
const COUNTED = ["polled", "delivered", "filtered", "destination", "dropped"];

/** Remembers samples of every mapping, by UUID. */
export class Courses {
  constructor() {
    this.samples = new Map();
    this.errors = new Map();
  }

  /** Take in a document of the feed. */
  take({ at_ms: at, status, work }) {
    const present = new Set();
    for (const mapping of status.mappings) {
      present.add(mapping.uuid);
      const list = this.samples.get(mapping.uuid) ?? [];
      if (list.length && list.at(-1).at >= at) continue; // another node's clock, after a reconnection
      list.push(sample(at, mapping, work[mapping.name]));
      while (list[0].at < at - KEPT_MS) list.shift();
      this.samples.set(mapping.uuid, list);
      const failing = mapping.shards.find((shard) => shard.last_error);
      if (failing) this.errors.set(mapping.uuid, { at, shard: failing.id, text: failing.last_error });
    }
    for (const known of [this.samples, this.errors]) for (const uuid of known.keys()) if (!present.has(uuid)) known.delete(uuid);
  }

  /** Whether something about a mapping has been so for some seconds: `problem`, or `unowned`. */
  lasting(uuid, name) {
    const list = this.samples.get(uuid) ?? [];
    const until = list.at(-1)?.at - LASTING_MS;
    for (let index = list.length - 1; index >= 0 && list[index][name]; index -= 1) if (list[index].at <= until) return true;
    return false;
  }

  /** Records a second now, by what became of them. Null until there are two samples. */
  rates(uuid) {
    const list = this.samples.get(uuid) ?? [];
    return list.length < 2 ? null : rateAt(list, list.length - 1);
  }

  /** The points of a plot: `name` is a rate of the ledger, or `lag`, `age`. */
  points(uuid, name) {
    const list = this.samples.get(uuid) ?? [];
    if (!COUNTED.includes(name)) return list.map((one) => ({ at: one.at, value: one[name] }));
    return list.map((one, index) => ({ at: one.at, value: index ? rateAt(list, index)[name] : null }));
  }

  /** Invocations by duration in the last minute, or since the node started when there were none; null: none at all. */
  durations(uuid) {
    const list = this.samples.get(uuid) ?? [];
    const last = list.at(-1);
    if (!last?.durations) return null;
    const since = list.find((one) => one.durations && one.at >= last.at - 60_000);
    const recent = last.durations.map((total, index) => total - since.durations[index]);
    if (recent.some((n) => n > 0) && recent.every((n) => n >= 0)) return { buckets: recent, recent: true };
    return last.durations.some((n) => n > 0) ? { buckets: last.durations, recent: false } : null;
  }
}

function sample(at, mapping, work) {
  const lags = mapping.shards.map((shard) => shard.lag_records).filter((lag) => lag !== null);
  const ages = mapping.shards.map((shard) => shard.lag_s).filter((age) => age !== null);
  return {
    at,
    ...mapping.ledger,
    lag: lags.length ? lags.reduce((sum, lag) => sum + lag, 0) : null,
    age: ages.length ? ages.reduce((most, age) => Math.max(most, age), 0) : null,
    durations: work?.durations ?? null,
    problem: isProblem(mapping.last_processing_result),
    unowned: mapping.shards.some((shard) => shard.state === "unowned"),
  };
}

function rateAt(list, index) {
  const last = list[index];
  let from = index - 1;
  while (from > 0 && last.at - list[from].at < RATE_MS) from -= 1;
  const first = list[from];
  const seconds = (last.at - first.at) / 1000;
  // A ledger goes back when a shard's next holder reads again what the last one had not saved.
  return Object.fromEntries(COUNTED.map((name) => [name, Math.max(0, last[name] - first[name]) / seconds]));
}

/** The duration that this part of the invocations did not exceed, by the bucket's bound; null beyond the last one. */
export function quantile(buckets, bounds, part) {
  const total = buckets.reduce((sum, n) => sum + n, 0);
  let seen = 0;
  for (const [index, n] of buckets.entries()) {
    const before = seen;
    seen += n;
    if (n && seen >= part * total) {
      if (index >= bounds.length) return null;
      const low = index ? bounds[index - 1] : 0;
      return low + ((bounds[index] - low) * (part * total - before)) / n;
    }
  }
  return null;
}
