// What is wrong, plainly, at the top.

import { byId, h, keyed, text } from "./dom.js";
import { count, plural, timeOfDay } from "./format.js";
import { SLOTS } from "./slots.js";

const SIGNS = { bad: "✕", warning: "!", note: "i" };

/** Every sentence that is to be read now, the worst first. */
export function troubles(overview, lost) {
  const found = [];
  const say = (kind, words) => words && found.push({ kind, words });
  if (lost) say("bad", lost.since ? `${lost.words} What is shown is from ${timeOfDay(lost.since)}.` : lost.words);
  if (!overview) return found;
  const { gateway = {} } = overview;
  const known = (overview.shards ?? []).length > 0;
  const unowned = known ? SLOTS - overview.shards.reduce((sum, shard) => sum + shard.slots, 0) : 0;
  if (unowned > 0) say("bad", `${count(unowned)} of ${count(SLOTS)} slots have no owner: their keys can be neither read nor written.`);
  for (const [master, slots] of Object.entries(gateway.masters_out_of_reach ?? {})) {
    say("bad", `The gateway can't reach ${master}: writes to its ${plural(slots, "slot")} wait for it or for a replica that takes over.`);
  }
  for (const shard of overview.shards ?? []) {
    if (shard.state === "Lost") say("bad", `${shard.name} is lost: its ${plural(shard.slots, "slot")} can't be written.`);
  }
  if (overview.controller === "unreachable") {
    say("bad", `The controller is away. ${overview.controller_message ?? ""} Keys are read and written on; nothing of the store's shape can be changed, and what is shown of it may be old.`);
  }
  if (overview.controller === "none") say("note", "This gateway knows no controller: it shows what the nodes say, and can't change the store's shape.");
  if (overview.healthy === false) say("warning", overview.message);
  if (gateway.why_not_ready && !unowned) say("warning", `This gateway is not ready: ${gateway.why_not_ready}`);
  for (const note of overview.notes ?? []) say("note", note);
  return found;
}

export function showTroubles(found) {
  const once = [...new Map(found.map((trouble) => [trouble.words, trouble])).values()];
  keyed(byId("banners"), once, ({ words }) => words,
    ({ kind }) => h("p", { class: `banner ${kind}` }, h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[kind]), h("span")),
    (node, { words }) => text(node.lastChild, words));
}
