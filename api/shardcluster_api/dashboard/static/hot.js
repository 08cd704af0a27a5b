// Hot slots and hot keys.  The engine sums up since a node took a slot over; what a slot did just
// now is the difference of two looks.

import { Refused, hot } from "./api.js";
import { ink } from "./colours.js";
import { attribute, byId, h, keyed, text } from "./dom.js";
import { bytes, count, micros, percent } from "./format.js";

const EVERY_MS = 4000;
const FORMATS = { "key-count": count, "cpu-usec": micros, "network-bytes-in": bytes, "network-bytes-out": bytes };
const TITLES = { "key-count": "Keys", "cpu-usec": "Processor time", "network-bytes-in": "Bytes in", "network-bytes-out": "Bytes out" };

function table(parent, caption, titles) {
  const body = h("tbody");
  const heads = titles.map((title, index) => h("th", { scope: "col", class: index ? "number" : null }, title));
  parent.append(h("table", { class: "hot-table" }, h("caption", { class: "hidden" }, caption), h("thead", {}, h("tr", {}, heads)), body));
  return { body, heads };
}

const bar = () => h("span", { class: "meter", "aria-hidden": "true" }, h("span", { class: "fill" }));

export class Hot {
  constructor(onSlot) {
    this.onSlot = onSlot;
    this.slots = table(byId("hot-slots"), "The hottest slots", ["Slot", "Keys", "Just now"]);
    this.keys = table(byId("hot-keys"), "The keys asked for most", ["Key", "Shard", "Of requests"]);
    this.by = byId("by");
    this.by.addEventListener("change", () => {
      this.chosen = true;
      this.before = null;
      this.askedAt = 0;
    });
    this.askedAt = 0;
  }

  /** Ask when it is time. */
  async tick(now) {
    if (now - this.askedAt < EVERY_MS) return;
    this.askedAt = now;
    const by = this.by.value;
    let found;
    try {
      found = await hot(by);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      found = { slots: { by, top: [], note: error.message }, keys: { one_in: 1, top: [] } };
    }
    if (by !== this.by.value) return;
    if (!this.chosen && found.slots.note && !found.slots.top.length) this.by.value = "key-count"; // it always is counted
    this.#showSlots(found.slots, now);
    this.#showKeys(found.keys);
  }

  #showSlots({ by, top, note }, now) {
    text(byId("hot-slots-note"), note || (top.length ? "" : "No slot holds a key yet."));
    byId("hot-slots-note").hidden = !note && top.length > 0;
    const before = this.before?.by === by ? this.before : null;
    text(this.slots.heads[1], TITLES[by]);
    const most = Math.max(...top.map((row) => row[by]), 1);
    keyed(this.slots.body, top, ({ slot }) => slot,
      ({ slot, shard }) => {
        const row = h("tr", {},
          h("th", { scope: "row" }, h("button", { type: "button", class: "link", title: "Mark it on the ring", onclick: () => this.onSlot(slot) }, String(slot)), " ", h("span", { class: "hint" })),
          h("td", { class: "number" }, h("span"), bar()), h("td", { class: "number" }));
        return ink(row, shard);
      },
      (row, found) => {
        const [name, total, rate] = row.cells;
        text(name.lastChild, found.shard);
        text(total.firstChild, FORMATS[by](found[by]));
        total.lastChild.style.setProperty("--part", found[by] / most);
        text(rate, this.#rate(before, found, by, now));
      });
    this.before = { by, now, of: new Map(top.map((row) => [row.slot, row[by]])) };
  }

  #rate(before, found, by, now) {
    const was = before?.of.get(found.slot);
    if (was === undefined || found[by] < was) return "–";
    const each = ((found[by] - was) * 1000) / (now - before.now);
    return each === 0 ? "0/s" : `${each < 1 ? "under 1" : FORMATS[by](each)}/s`;
  }

  #showKeys({ one_in: oneIn, top }) {
    const how = oneIn > 1 ? `about one in ${count(oneIn)} of the requests is looked at` : "every request is looked at";
    text(byId("hot-keys-note"), top.length ? `Of what passes this gateway, in the last minute or so; ${how}.` : "No key has passed this gateway in the last minutes.");
    const most = Math.max(...top.map(({ share }) => share), 0.001);
    keyed(this.keys.body, top, (found) => found.key ?? found.key_base64,
      (found) => h("tr", {}, h("th", { scope: "row" }, h("code", { class: "key" })),
        h("td", { class: "number" }, h("span")), h("td", { class: "number" }, h("span"), bar())),
      (row, found) => {
        const [key, shard, share] = row.cells;
        const shown = (found.key ?? `base64:${found.key_base64}`) + (found.cut ? "…" : "");
        text(key.firstChild, shown);
        attribute(key.firstChild, "title", `${shown} in slot ${found.slot}`);
        text(shard.firstChild, found.shard ?? "–");
        text(share.firstChild, `${found.error > 0.001 ? "≤ " : ""}${percent(found.share)}`);
        share.lastChild.style.setProperty("--part", found.share / most);
        if (found.shard) ink(row, found.shard);
      });
  }
}
