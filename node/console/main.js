// The page put together: what the node says becomes state, state becomes the page, and the address says which view.

import { confirmed } from "./actions.js";
import { Courses } from "./course.js";
import { h, render } from "./dom.js";
import { follow, signIn, signOut, token } from "./feed.js";
import { mappingPage } from "./mapping.js";
import { overview } from "./overview.js";
import { titleOf } from "./format.js";
import { fresh } from "./shards.js";

const state = { view: null, courses: new Courses(), link: "connecting", word: "", login: null, mayChange: false, ui: new Map(), states: null };
const part = (id) => document.getElementById(id);

/** The mapping that the address names; nothing for the overview. */
function here() {
  const name = location.hash.replace(/^#\/?/, "");
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // not ours: no mapping is called that
  }
}

function draw() {
  if (document.hidden) return;
  const name = here();
  const mapping = state.view?.status.mappings.find((one) => one.name === name);
  const title = mapping ? titleOf(mapping, state.view.flows[mapping.uuid]) : name;
  document.title = name ? `${title} · esmd` : "esmd console";
  render(part("trail"), name ? h("ol", null, h("li", null, h("a", { href: "#/" }, "Overview")), h("li", null, h("span", { "aria-current": "page" }, title))) : null);
  render(part("live"), live());
  render(part("foot"), state.view && "Rates are worked out here from what the node says once a second. Plots begin when this page was opened.");
  render(part("main"), page(name, mapping));
}

function page(name, mapping) {
  if (state.login) return login();
  if (!state.view) return h("p", { class: "quiet", key: "wait" }, state.link === "lost" ? `No connection: ${state.word}` : "Connecting to the node…");
  if (!name) return overview(state);
  if (!mapping) {
    return h("section", { class: "card empty", key: "none" }, h("h1", null, `No mapping ${name}`), h("p", { class: "quiet" }, "It may have been deleted or renamed."), h("a", { href: "#/" }, "Back to the overview"));
  }
  if (!state.ui.has(mapping.uuid)) state.ui.set(mapping.uuid, fresh());
  return mappingPage({ ...state, mapping, ui: state.ui.get(mapping.uuid), act, redraw: draw });
}

function live() {
  const words = { live: "Live", connecting: "Connecting", trouble: "No news", lost: "Reconnecting", bye: "Draining" };
  return [
    state.view && h("span", { class: "node mono", title: state.view.status.node }, state.view.status.node),
    !state.login && h("span", { class: `pulse ${state.link === "live" ? "on" : "off"}`, title: state.word }, words[state.link]),
    token() && !state.login && h("button", { type: "button", class: "plain", on: { click: () => { signOut(); location.reload(); } } }, "Sign out"),
  ];
}

function login() {
  const submit = (event) => {
    event.preventDefault();
    const value = part("token").value.trim();
    if (!value) return;
    signIn(value);
    Object.assign(state, { login: null, link: "connecting" });
    draw();
    listen();
  };
  return h("section", { class: "card login", key: "login" },
    h("h1", null, "Sign in"),
    h("p", { class: "quiet" }, "This node wants one of the tokens of its ", h("code", null, "auth"), " section. It stays in this tab and is forgotten with it."),
    state.login.wrong && h("p", { class: "notice bad", role: "alert" }, "The node does not know this token."),
    h("form", { on: { submit } },
      h("label", { for: "token" }, "Token", h("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" })),
      h("button", { type: "submit", class: "main" }, "Sign in")));
}

async function act(action) {
  const said = await confirmed(action);
  if (said !== null) toast(said);
}

/** Show a message for a while; screen readers hear it. */
function toast(text) {
  const node = document.createElement("p");
  node.className = "toast";
  node.textContent = text;
  part("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

function told(kind, data) {
  if (kind === "view") {
    state.view = data;
    state.courses.take(data);
    if (["trouble", "lost"].includes(state.link)) toast("Connected again");
    Object.assign(state, { link: "live", word: "" });
    announce(data);
  } else if (kind === "unauthorized") {
    signOut();
    Object.assign(state, { login: data, view: null });
  } else if (kind === "you") {
    state.mayChange = data.may_change;
  } else {
    if (kind === "trouble" && state.link !== "trouble") toast(`No news: ${data.message}`);
    if (kind === "lost" && state.link === "live") toast(`Connection lost: ${data.message}`);
    Object.assign(state, { link: kind, word: data.message });
  }
  draw();
  if (kind === "unauthorized") part("token")?.focus();
}

/** Say what mappings came, went, or changed their state since the last document. */
function announce({ status, flows }) {
  const before = state.states;
  const now = new Map(status.mappings.map((mapping) => [mapping.uuid, { title: titleOf(mapping, flows[mapping.uuid]), is: mapping.state }]));
  state.states = now;
  if (before === null) return;
  const changed = [...now].filter(([uuid, { is }]) => before.get(uuid)?.is !== is).map(([, { title, is }]) => `${title}: ${is}`);
  for (const [uuid, { title }] of before) if (!now.has(uuid)) changed.push(`${title}: deleted`);
  if (changed.length > 3) toast(`${changed.length} mappings changed their state`);
  else for (const text of changed) toast(text);
}

const listen = () => follow(told);

addEventListener("hashchange", () => {
  draw();
  scrollTo(0, 0);
  part("main").focus({ preventScroll: true });
});
document.addEventListener("visibilitychange", draw);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view
  part("main").focus();
});
draw();
listen();
