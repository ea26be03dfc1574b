// What can be done to a mapping: each action asks first, says what will happen, and tells what came of it.

import { h, render } from "./dom.js";
import { ask, redrive, setEnabled } from "./feed.js";
import { count, functionName, plural, titleOf } from "./format.js";

const dialog = () => document.getElementById("dialog");

/** The actions that make sense for a mapping now. `run(tell, signal, wishes)` does it: `tell` shows a line meanwhile,
 *  `wishes` are the values of the action's `fields`. */
export function actionsFor(mapping, flow) {
  const { uuid, state } = mapping;
  const name = titleOf(mapping, flow);
  const found = [];
  if (mapping.ledger.parked > 0) {
    found.push({
      key: "unpark", label: "Retry parked…", title: `Retry what ${name} has parked?`, confirm: "Retry now",
      text: `The function is given the first records of each parked key at once, ${plural(mapping.ledger.parked, "record")} in all. Keys that fail again stay parked.`,
      stops: true, run: (tell, signal) => redriving(uuid, { from: "parked" }, tell, signal),
    });
  }
  if (redrivable(flow)) {
    found.push({
      key: "redrive", label: "Redrive…", title: `Redrive the failed records of ${name}?`, confirm: "Redrive",
      text: `Reads ${flow.destination} and delivers those records to ${functionName(flow.function)} again. Those it takes leave the destination.`,
      stops: true, run: (tell, signal) => redriving(uuid, {}, tell, signal),
    });
  }
  if (["kafka", "kinesis"].includes(flow?.kind)) {
    found.push({
      key: "seek", label: "Move…", title: `Move the position of ${name}?`, confirm: "Move", danger: true,
      text: "What is under way is finished first. Moved back, all records from there on are delivered again. Moved on, those that were not read yet are passed over, if you say so.",
      fields: () => [
        h("label", { key: "to" }, "Read on from", h("select", { name: "to", value: "trim_horizon" },
          h("option", { value: "trim_horizon" }, "the oldest record that the source has"), h("option", { value: "time" }, "a point in time"), h("option", { value: "latest" }, "now"))),
        h("label", { key: "time", class: "when" }, "Point in time, of this machine's clock", h("input", { name: "time", type: "datetime-local", step: "1" })),
        h("label", { key: "force", class: "check" }, h("input", { name: "force", type: "checkbox" }), "Also if unread records are passed over"),
      ],
      run: (_tell, _signal, wishes) => seeking(uuid, name, wishes),
    });
  }
  if (["Enabled", "Creating", "Updating", "Enabling"].includes(state)) {
    found.push({
      key: "toggle", label: "Disable…", title: `Disable ${name}?`, confirm: "Disable", danger: true,
      text: "What is under way is finished, then nothing more is read. The position is kept, and reading goes on from it once the mapping is enabled again. Watch the source's retention meanwhile.",
      run: async () => `${name} is ${(await setEnabled(uuid, false)).State}`,
    });
  }
  if (["Disabled", "Disabling"].includes(state)) {
    found.push({
      key: "toggle", label: "Enable…", title: `Enable ${name}?`, confirm: "Enable",
      text: "Reading goes on where it stopped.",
      run: async () => `${name} is ${(await setEnabled(uuid, true)).State}`,
    });
  }
  return found;
}

async function seeking(uuid, name, wishes) {
  const at = new Date(wishes.get("time"));
  if (wishes.get("to") === "time" && Number.isNaN(at.getTime())) throw new Error("Say which point in time");
  const to = wishes.get("to") === "time" ? at.toISOString() : wishes.get("to");
  const answer = await ask(uuid, "seek", { to, force: wishes.has("force") });
  const moved = plural(answer.shards.filter((shard) => !shard.stays).length, "shard");
  return answer.done ? `${name}: ${moved} moved` : `${name}: ${moved} will be moved as soon as that is possible`;
}

/** Whether the node can read failed records back: what it refuses is not offered. */
const redrivable = (flow) => Boolean(flow?.destination) && ["kafka", "kinesis"].includes(flow.kind) && !flow.tumbling_window_s && !flow.destination.includes(":sns:");

async function redriving(uuid, wish, tell, signal) {
  let end = null;
  await redrive(uuid, wish, (line) => {
    if (line.event === "progress") tell(`${plural(line.delivered_records, "record")} delivered so far`);
    else if (line.event === "kept") tell(`Kept: ${line.what}. ${line.error}`);
    else if (line.event === "waiting") tell(`Waiting: ${line.error}`);
    else if (line.event === "error") throw new Error(line.message);
    else if (line.event === "end") end = line;
  }, signal);
  if (end === null) throw new Error("The node ended before the redrive did");
  const { delivered_records: delivered, failed_records: failed, gone_records: gone } = end;
  return [`${plural(delivered, "record")} delivered again`, failed && `${count(failed)} failed again`, gone && `${count(gone)} no longer in the source`].filter(Boolean).join(", ");
}

/** Ask for confirmation, do it, and return what to announce; null when the user thought better of it. */
export function confirmed(action) {
  const box = dialog();
  const opener = document.activeElement;
  const running = new AbortController();
  let said = null;
  let failed = false;
  let busy = false;
  return new Promise((done) => {
    const close = (result) => {
      running.abort();
      box.close();
      opener?.focus?.();
      done(result);
    };
    const draw = () => render(box, h("form", { on: { submit } },
      h("h2", { id: "dialog-title" }, action.title),
      h("p", { id: "dialog-text" }, action.text),
      action.fields?.(),
      said && h("p", { class: `said${failed ? " bad" : ""}`, role: failed ? "alert" : "status" }, said),
      h("div", { class: "actions" },
        h("button", { type: "button", id: "dialog-cancel", on: { click: () => close(null) } }, !busy ? "Cancel" : action.stops ? "Stop" : "Close"),
        h("button", { type: "submit", class: action.danger ? "danger" : "main", disabled: busy }, busy ? "Working…" : failed ? "Try again" : action.confirm))));
    const submit = async (event) => {
      event.preventDefault();
      const wishes = new FormData(event.target);
      [busy, failed, said] = [true, false, null];
      draw();
      try {
        const result = await action.run((text) => { said = text; draw(); }, running.signal, wishes);
        if (!running.signal.aborted) close(result); // else the dialog is somebody else's by now
      } catch (error) {
        if (running.signal.aborted) return;
        [busy, failed, said] = [false, true, error.message];
        draw();
      }
    };
    box.oncancel = (event) => {
      event.preventDefault();
      close(null);
    };
    render(box);
    draw();
    box.showModal();
    document.getElementById("dialog-cancel").focus();
  });
}

