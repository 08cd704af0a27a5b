// Key → slot → shard → node, reckoned here: the key is sent nowhere.

import { byId, h } from "./dom.js";
import { count } from "./format.js";
import { hashed, keySlot, ownerOf } from "./slots.js";

export class Lookup {
  constructor(onSlot) {
    this.onSlot = onSlot;
    this.input = byId("key");
    this.found = byId("found");
    this.overview = { shards: [] };
    this.input.addEventListener("input", () => this.#show());
    byId("lookup").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#show();
    });
  }

  update(overview) {
    this.overview = overview;
    if (this.input.value) this.#show();
  }

  #show() {
    const key = this.input.value;
    if (!key) {
      this.said = "";
      this.found.replaceChildren();
      this.onSlot(null);
      return;
    }
    const slot = keySlot(key);
    const owner = ownerOf(this.overview.shards ?? [], slot);
    const said = JSON.stringify([key, owner?.name, owner?.master, owner?.replicas]);
    if (said === this.said) return; // nothing new, and nothing to read aloud
    this.said = said;
    const tag = hashed(key) === key ? [] : [" by its tag ", h("code", {}, hashed(key))];
    const where = owner
      ? [" on ", h("b", {}, owner.name), "; writes go to ", h("b", {}, owner.master ?? "no master now"),
        owner.replicas?.length ? `, reads to ${owner.replicas.join(", ")}` : ", reads, too", "."]
      : [", which no shard owns now."];
    this.found.replaceChildren("Slot ", h("b", {}, count(slot)), ...tag, ...where);
    this.onSlot(slot);
  }
}
