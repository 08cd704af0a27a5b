// Small helpers to build and to change what is shown.  Text is always set as text, never as
// markup: names and keys come from outside.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.setAttribute("class", value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element. */
export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

export const byId = (id) => document.getElementById(id);

/** Change a text only when it is another: nothing is announced or laid out for nothing. */
export function text(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** Set an attribute only when it is another; null takes it away. */
export function attribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/**
 * Make the children of `parent` those of `items`, in place: what is there stays the same element,
 * so focus, scrolling and open details survive each refresh.
 */
export function keyed(parent, items, keyOf, make, update) {
  parent.parts ??= new Map();
  const parts = parent.parts;
  const wanted = new Set(items.map(keyOf));
  for (const [key, node] of parts) {
    if (!wanted.has(key)) {
      node.remove();
      parts.delete(key);
    }
  }
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    let node = parts.get(key);
    if (!node) {
      node = make(item);
      parts.set(key, node);
    }
    const next = before ? before.nextSibling : parent.firstChild;
    if (node !== next) parent.insertBefore(node, next);
    update?.(node, item);
    before = node;
  }
}
