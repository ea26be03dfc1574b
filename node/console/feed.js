// Talking to the node. The stream is read with fetch rather than EventSource, which cannot send a token; the token lives
// in this tab's storage and travels in a header, so no cookie exists that another site could make a browser send.

const TOKEN = "esmd.token";
const STALLED_MS = 20_000;
const LARGEST_EVENT = 64 * 1024 * 1024;

export class Unauthorized extends Error {}

export const token = () => sessionStorage.getItem(TOKEN);
export const signIn = (value) => sessionStorage.setItem(TOKEN, value);
export const signOut = () => sessionStorage.removeItem(TOKEN);

function headers(more = {}) {
  const known = token();
  return known ? { Authorization: `Bearer ${known}`, ...more } : more;
}

/** Follow the node for as long as the page is open. `told(kind, data)`: you, view, trouble, bye, lost, unauthorized. */
export async function follow(told) {
  let wait = 500;
  for (;;) {
    try {
      let again = false;
      await once((kind, data) => {
        if (kind === "view") wait = 500;
        if (kind === "again") again = true;
        else told(kind, data);
      });
      if (again) continue;
      told("lost", { message: "The node ended the stream" });
    } catch (error) {
      if (error instanceof Unauthorized) {
        told("unauthorized", { wrong: token() !== null });
        return;
      }
      told("lost", { message: error.message });
    }
    await new Promise((done) => setTimeout(done, wait * (0.75 + Math.random() / 2)));
    wait = Math.min(wait * 2, 8000);
  }
}

async function once(told) {
  const given = new AbortController();
  let timer = setTimeout(() => given.abort(new Error("The node does not answer")), STALLED_MS);
  try {
    const answer = await fetch("/esmd/v1/events", { headers: headers({ Accept: "text/event-stream" }), signal: given.signal, cache: "no-store" });
    if (answer.status === 401) throw new Unauthorized();
    if (!answer.ok) throw new Error(await reason(answer));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Events(told);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => given.abort(new Error("The node has fallen silent")), STALLED_MS);
      parser.push(value);
    }
  } finally {
    clearTimeout(timer);
    given.abort();
  }
}

/** Takes the text of server-sent events in pieces. */
export class Events {
  constructor(told) {
    this.told = told;
    this.pieces = [];
    this.length = 0;
  }

  push(text) {
    this.pieces.push(text);
    this.length += text.length;
    if (this.length > LARGEST_EVENT) throw new Error("The node says more than this page can hold");
    if (!text.includes("\n")) return;
    const events = this.pieces.join("").split("\n\n");
    const rest = events.pop();
    this.pieces = [rest];
    this.length = rest.length;
    for (const event of events) this.tell(event);
  }

  tell(event) {
    let kind = "message";
    const data = [];
    for (const line of event.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) data.push(line.slice(6));
    }
    if (data.length) this.told(kind, JSON.parse(data.join("\n")));
  }
}

async function reason(answer) {
  try {
    const document = await answer.json();
    return document.message ?? document.Message ?? `The node answers ${answer.status}`;
  } catch {
    return `The node answers ${answer.status}`;
  }
}

async function send(method, path, document, signal) {
  const answer = await fetch(path, { method, signal, headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(document) });
  if (answer.status === 401) throw new Error("The node wants another token: sign out and in again");
  if (!answer.ok) throw new Error(await reason(answer));
  return answer;
}

/** Enable or disable a mapping, by the Lambda API. */
export async function setEnabled(uuid, enabled) {
  return (await send("PUT", `/2015-03-31/event-source-mappings/${encodeURIComponent(uuid)}`, { Enabled: enabled })).json();
}

/** Call our own operation on a mapping that answers with one document. */
export async function ask(uuid, what, document) {
  return (await send("POST", `/esmd/v1/mappings/${encodeURIComponent(uuid)}/${what}`, document)).json();
}

/** Redrive; `told` takes each line of the answer. Ends when the node is through, or with the signal. */
export async function redrive(uuid, document, told, signal) {
  const answer = await send("POST", `/esmd/v1/mappings/${encodeURIComponent(uuid)}/redrive`, document, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) told(JSON.parse(line));
  }
}
