// The event story, the newest first.  What the controller has forgotten since this page was opened
// stays here.  News is said aloud to screen readers, one line at a time.

import { byId, h, keyed, text } from "./dom.js";
import { timeOfDay } from "./format.js";

const KEPT_MAX = 200;
const BAD = new Set(["MasterLost", "MasterUnknown", "MasterRestarting", "ShardLost", "DataLost", "ActionFailed", "InternalError", "PlatformUnable", "SlotConflict", "ForeignNode"]);
const WARNING = new Set(["NodeSilent", "NodeRestarting", "NodePending", "Fencing", "ViewsDisagree", "Stranger", "Signal", "SlotOpen", "RebalanceWanted"]);
const SIGNS = { bad: "✕", warning: "!", plain: "·" };

const kindOf = (reason) => (BAD.has(reason) ? "bad" : WARNING.has(reason) ? "warning" : "plain");
// A repetition keeps its first line and raises its count, so the words are the identity.
const keyOf = (event) => `${event.reason} ${event.message} ${event.count > 1 ? "" : event.at}`;

export class Events {
  constructor() {
    this.list = byId("events");
    this.news = byId("events-news");
    this.kept = new Map();
    this.first = true;
  }

  update(overview) {
    const told = overview.events ?? [];
    const fresh = told.filter((event) => !this.kept.has(keyOf(event)));
    for (const event of told) {
      if (event.count > 1) this.#forgetFirst(event);
      this.kept.set(keyOf(event), event);
    }
    const events = [...this.kept.values()].sort((a, b) => (a.at < b.at ? 1 : -1)).slice(0, KEPT_MAX);
    this.kept = new Map(events.map((event) => [keyOf(event), event]));
    keyed(this.list, events.length ? events : [{ at: "", reason: "", message: "Nothing yet.", count: 1 }], keyOf, make, update);
    if (fresh.length && !this.first) text(this.news, fresh.map(({ message }) => message).join(" "));
    this.first = this.first && !told.length;
  }

  /** The line that stood there before the event was counted again. */
  #forgetFirst({ reason, message, count }) {
    if (count !== 2) return;
    for (const [key, event] of this.kept) {
      if (event.reason === reason && event.message === message && event.count === 1) this.kept.delete(key);
    }
  }
}

function make(event) {
  const kind = kindOf(event.reason);
  return h("li", { class: `event ${kind}` },
    h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[kind]),
    h("time", { class: "hint" }), h("span", { class: "what" }), h("span", { class: "reason hint" }));
}

function update(node, event) {
  const [, time, what, reason] = node.children;
  time.dateTime = event.at;
  text(time, event.at && timeOfDay(event.at));
  text(what, event.count > 1 ? `${event.message} (${event.count} times)` : event.message);
  text(reason, event.reason);
}
