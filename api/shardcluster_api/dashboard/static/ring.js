// The ring: where slots lie (outer band), how many each shard has (inner band), and ribbons for
// the slots that are moving now.  Paths are made anew only when their slots have changed.

import { ink } from "./colours.js";
import { attribute, byId, keyed, s, text } from "./dom.js";
import { count, percent, plural, seconds } from "./format.js";
import { SLOTS, ranges } from "./slots.js";

const CENTRE = 200;
const OUTER = 187; // radii of the bands' middles; style.css has their widths
const INNER = 157;
const MOVING = 201;
const RIBBON = 143;
const LABEL = 122;
const NAMES_MAX = 14; // with more shards their numbers are written, with far more nothing
const NUMBERS_MAX = 44;

const turn = (part) => part * 2 * Math.PI;
const x = (radius, angle) => (CENTRE + radius * Math.sin(angle)).toFixed(1);
const y = (radius, angle) => (CENTRE - radius * Math.cos(angle)).toFixed(1);

function arc(radius, from, to) {
  if (to - from > turn(0.75)) {
    const middle = (from + to) / 2;
    return arc(radius, from, middle) + arc(radius, middle, to);
  }
  const large = to - from > Math.PI ? 1 : 0;
  return `M${x(radius, from)} ${y(radius, from)}A${radius} ${radius} 0 ${large} 1 ${x(radius, to)} ${y(radius, to)}`;
}

const slotArcs = (words, radius = OUTER) =>
  ranges(words).map(([first, last]) => arc(radius, turn(first / SLOTS), turn((last + 1) / SLOTS))).join("");

const slotsIn = (words) => ranges(words).reduce((sum, [first, last]) => sum + last - first + 1, 0);

export class Ring {
  constructor(onPoint, onSelect) {
    this.svg = byId("ring");
    this.onPoint = onPoint;
    this.onSelect = onSelect;
    this.overview = { shards: [] };
    this.pointed = null;
    this.layer = s("g");
    this.labels = s("g");
    this.moving = s("path", { class: "moving" });
    this.ribbons = s("g");
    this.pin = s("g", { class: "pin" });
    this.big = s("text", { class: "big", x: CENTRE, y: CENTRE - 2 });
    this.small = s("text", { class: "small", x: CENTRE, y: CENTRE + 17 });
    this.smaller = s("text", { class: "small", x: CENTRE, y: CENTRE + 32 });
    this.svg.append(
      s("circle", { class: "bare outer", cx: CENTRE, cy: CENTRE, r: OUTER }),
      s("circle", { class: "bare inner", cx: CENTRE, cy: CENTRE, r: INNER }),
      ...this.#ticks(), this.layer, this.moving, this.ribbons,
      this.labels, this.big, this.small, this.smaller, this.pin,
    );
    this.svg.addEventListener("pointerleave", () => onPoint(null));
  }

  #ticks() {
    return [0, 0.25, 0.5, 0.75].map((part) => {
      const angle = turn(part);
      return s("line", {
        class: "tick", x1: x(198, angle), y1: y(198, angle), x2: x(204, angle), y2: y(204, angle),
      });
    });
  }

  update(overview) {
    this.overview = overview;
    const shards = overview.shards ?? [];
    const owned = shards.reduce((sum, shard) => sum + shard.slots, 0) || 1;
    const gap = shards.length < 40 && shards.length > 1 ? 0.012 : 0;
    let from = 0;
    this.middles = new Map();
    const drawn = shards.map((shard) => {
      const to = from + turn(shard.slots / owned);
      const part = { shard, from, to, middle: (from + to) / 2, gap };
      this.middles.set(shard.name, part.middle);
      from = to;
      return part;
    });
    keyed(this.layer, drawn, ({ shard }) => shard.name, (part) => this.#make(part), (node, part) => this.#draw(node, part));
    this.#label(drawn.filter(({ shard }) => shard.slots > 0 && drawn.length <= NUMBERS_MAX));
    this.#drawMoves(shards);
    this.#say();
      }

  #make({ shard }) {
    const node = s("g", { class: "shard" });
    node.title = s("title");
    node.outer = s("path", { class: "outer" });
    node.inner = s("path", { class: "inner" });
    node.append(node.title, node.outer, node.inner);
    node.addEventListener("pointerenter", () => this.onPoint(shard.name));
    node.addEventListener("click", () => this.onSelect(shard.name));
    return ink(node, shard.name);
  }

  #draw(node, { shard, from, to, gap }) {
    if (node.drawn !== shard.slot_ranges) {
      node.drawn = shard.slot_ranges;
      attribute(node.outer, "d", slotArcs(shard.slot_ranges));
    }
    const wide = to - from > 2 * gap;
    attribute(node.inner, "d", shard.slots ? arc(INNER, from + (wide ? gap : 0), to - (wide ? gap : 0)) : "");
    text(node.title, `${shard.name}: ${plural(shard.slots, "slot")}, ${percent(shard.slots / SLOTS)}`);
  }

  /** Names inside the bands, over the ribbons; numbers alone where names would not fit. */
  #label(drawn) {
    keyed(this.labels, drawn, ({ shard }) => shard.name, () => s("text", { class: "label" }), (node, { shard, middle }) => {
      text(node, drawn.length > NAMES_MAX ? shard.name.replace(/^.*-/, "") : shard.name);
      attribute(node, "x", x(LABEL, middle));
      attribute(node, "y", y(LABEL, middle));
    });
  }

  #drawMoves(shards) {
    const moves = shards.flatMap((shard) => (shard.moving_out ?? []).map(([words, to]) => ({ from: shard.name, to, words, slots: slotsIn(words) })));
    attribute(this.moving, "d", moves.map(({ words }) => slotArcs(words, MOVING)).join(""));
    keyed(
      this.ribbons, moves.filter(({ from, to }) => this.middles.has(from) && this.middles.has(to)),
      ({ from, to }) => `${from} ${to}`,
      ({ to }) => ink(s("path", { class: "ribbon" }), to),
      (node, { from, to, slots }) => {
        const [a, b] = [this.middles.get(from), this.middles.get(to)];
        attribute(node, "d", `M${x(RIBBON, a)} ${y(RIBBON, a)}Q${CENTRE} ${CENTRE} ${x(RIBBON, b)} ${y(RIBBON, b)}`);
        node.style.setProperty("--width", `${Math.min(8, 2 + Math.sqrt(slots) / 4)}px`);
      },
    );
  }

  /** Highlight one shard, or none. */
  point(name) {
    this.pointed = name;
    this.svg.classList.toggle("pointing", name !== null);
    for (const [key, node] of [...(this.layer.parts ?? []), ...(this.labels.parts ?? [])]) node.classList.toggle("on", key === name);
    this.#say();
  }

  /** Mark one slot, or none. */
  mark(slot) {
    this.pin.replaceChildren();
    if (slot === null) return;
    const angle = turn((slot + 0.5) / SLOTS);
    const [left, right] = [angle - 0.035, angle + 0.035];
    this.pin.append(
      s("line", { x1: x(176, angle), y1: y(176, angle), x2: x(199, angle), y2: y(199, angle) }),
      s("path", { d: `M${x(198, angle)} ${y(198, angle)}L${x(211, left)} ${y(211, left)}L${x(211, right)} ${y(211, right)}Z` }),
    );
  }

  #say() {
    const shards = this.overview.shards ?? [];
    const shown = shards.find((shard) => shard.name === this.pointed);
    const progress = this.overview.progress;
    const owned = shards.reduce((sum, shard) => sum + shard.slots, 0);
    let words = [count(owned), `slots on ${plural(shards.length, "shard")}`, owned < SLOTS ? `${count(SLOTS - owned)} without an owner` : ""];
    if (shown) {
      words = [shown.name, `${plural(shown.slots, "slot")} · ${percent(shown.slots / SLOTS)}`, shown.state];
    } else if (progress?.total_slots) {
      const left = seconds(progress.seconds_left);
      words = [percent(progress.moved_slots / progress.total_slots), `${count(progress.moved_slots)} of ${plural(progress.total_slots, "slot")} moved`, left && `about ${left} left`];
    }
    [this.big, this.small, this.smaller].forEach((node, index) => text(node, words[index]));
    const named = shards.length <= NAMES_MAX ? `: ${shards.map((shard) => `${shard.name} ${percent(shard.slots / SLOTS)}`).join(", ")}` : "";
    text(byId("ring-label"), `${count(owned)} of ${count(SLOTS)} slots on ${plural(shards.length, "shard")}${named}. The table of shards says the same.`);
  }
}
