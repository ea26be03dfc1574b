// Views are functions from state to trees; `render` makes the page like the tree, touching only what differs, so that
// focus, selection and what a screen reader is reading stay where they are while numbers change under them.

const SVG = "http://www.w3.org/2000/svg";

/** Describe an element. Properties: `key`, `on` (handlers by event), `style` (custom properties), else attributes. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false) };
}

/** Make the children of `parent` like the trees and texts given. */
export function render(parent, ...children) {
  patchChildren(parent, children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false), false);
}

function patchChildren(parent, wanted, inSvg) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node._key !== undefined) keyed.set(node._key, node);
  const staying = new Set(wanted.map((child) => child.props?.key));
  let at = parent.firstChild;
  for (const child of wanted) {
    let node;
    // What goes is removed first: to move what stays before it would cost the focus.
    while (at !== null && at._key !== undefined && !staying.has(at._key)) at = removed(at);
    if (typeof child !== "object") {
      node = at !== null && at.nodeType === Node.TEXT_NODE ? at : document.createTextNode("");
      const text = String(child);
      if (node.data !== text) node.data = text;
    } else {
      const { key } = child.props;
      const found = key !== undefined ? keyed.get(key) : at;
      const fits = found && found.nodeType === Node.ELEMENT_NODE && found.localName === child.tag && found._key === key;
      node = fits ? found : create(child, inSvg);
      patch(node, child);
    }
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at !== null) at = removed(at);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function create(tree, inSvg) {
  const svg = inSvg || tree.tag === "svg";
  const node = svg ? document.createElementNS(SVG, tree.tag) : document.createElement(tree.tag);
  node._key = tree.props.key;
  node._svg = svg;
  node._props = {};
  if (tree.props.value !== undefined) node.value = tree.props.value; // afterwards it is the user's
  return node;
}

function patch(node, { props, children }) {
  const before = node._props ?? {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(props)])) {
    if (name === "key" || name === "value") continue;
    if (name === "on") listen(node, props.on ?? {});
    else if (name === "style") restyle(node, before.style ?? {}, props.style ?? {});
    else if (before[name] !== props[name]) attribute(node, name, props[name]);
  }
  node._props = props;
  if (!props.opaque) patchChildren(node, children, node._svg);
}

function attribute(node, name, value) {
  if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}

function restyle(node, before, after) {
  for (const name of Object.keys(before)) if (!(name in after)) node.style.removeProperty(name);
  for (const [name, value] of Object.entries(after)) if (before[name] !== value) node.style.setProperty(name, value);
}

function listen(node, handlers) {
  node._on ??= {};
  for (const type of Object.keys(handlers)) {
    if (!(type in node._on)) node.addEventListener(type, (event) => node._on[type]?.(event));
  }
  for (const type of Object.keys(node._on)) node._on[type] = undefined;
  Object.assign(node._on, handlers);
}
