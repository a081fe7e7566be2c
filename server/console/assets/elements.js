// Making elements, keeping lists in place, and sending. Every value goes through textContent; nothing from a plant is ever markup.
import { lang } from "./words.js";

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((c) => c !== null && c !== undefined));
  return made;
}

// A list with one node an entry {key, content, make}. A node is made anew only when its own content (or the language) has
// changed and is moved only when the order has: focus, open details and half-written words elsewhere stay as they are.
const drawn = new WeakMap(); // place -> key -> {content, node}
export function each(place, entries) {
  const before = drawn.get(place) ?? new Map(), now = new Map();
  for (const entry of entries) {
    const content = JSON.stringify([lang(), entry.content]), had = before.get(entry.key);
    now.set(entry.key, had?.content === content ? had : { content, node: entry.make() });
  }
  for (const [key, had] of before) if (now.get(key)?.node !== had.node) had.node.remove();
  let following = null;
  for (const { node } of [...now.values()].reverse()) {
    if (node.parentNode !== place || node.nextSibling !== following) place.insertBefore(node, following);
    following = node;
  }
  drawn.set(place, now);
  return [...now.values()].map((one) => one.node);
}

// Asks the server; {body}, or {refusal: {error, remedy}} in the server's words, or in `lost` where it does not answer.
export async function ask(path, lost, sent) {
  const how = sent && { method: "POST", headers: { "Content-Type": "application/json", "X-Millwright": "console" }, body: JSON.stringify(sent) };
  try {
    const answer = await fetch(path, how), body = await answer.json();
    return answer.ok ? { body } : { refusal: body };
  } catch { return { refusal: { error: lost, remedy: "" } }; }
}
