// Numbers, durations and states as people read them. Pure.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));

/** A large count in few characters: 1,234 · 56.2k · 3.4M. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 10_000) return whole.format(value);
  if (size < 1e6) return `${(value / 1e3).toFixed(size < 1e5 ? 1 : 0)}k`;
  return size < 1e9 ? `${(value / 1e6).toFixed(1)}M` : `${(value / 1e9).toFixed(1)}G`;
}

/** A rate: one decimal while it is small. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : short(Math.round(value));
}

/** A duration, in the two largest units that say something. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return seconds === 0 ? "0 s" : `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const whole_s = Math.round(seconds);
  const first = parts.findIndex(([size]) => whole_s >= size);
  const [size, unit] = parts[first];
  const rest = parts[first + 1];
  const more = Math.floor((whole_s % size) / rest[0]);
  return `${Math.floor(whole_s / size)} ${unit}${more ? ` ${more} ${rest[1]}` : ""}`;
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** How a mapping's state is to be taken. */
export function mappingTone(state) {
  if (state === "Enabled") return "good";
  return state === "Disabled" ? "idle" : "warn";
}

/** How a shard's state is to be taken, and the sign that says so without colour. */
export function shardTone(state) {
  if (state === "reading" || state === "drained") return { tone: "good", sign: "" };
  if (state === "retrying") return { tone: "warn", sign: "↻" };
  if (state === "waiting") return { tone: "warn", sign: "…" };
  if (state === "failed") return { tone: "bad", sign: "!" };
  if (state === "unowned") return { tone: "bad", sign: "?" };
  return { tone: "idle", sign: "" };
}

export const isProblem = (result) => result !== "OK" && result !== "No records processed";

/** A function by its name, also where it is configured by an ARN. */
export const functionName = (name) => (name.startsWith("arn:") ? name.split(":").slice(6).join(":") : name);

/** What people call a mapping. AWS's clients give it no name: then it is what it joins. */
export const titleOf = (mapping, flow) => (flow && mapping.name === mapping.uuid ? `${flow.source} → ${functionName(flow.function)}` : mapping.name);

const SOURCES = { kafka: "Kafka topic", kinesis: "Kinesis stream", sqs: "SQS queue", schedule: "Schedule" };
export const sourceName = (kind) => SOURCES[kind] ?? "Source";
