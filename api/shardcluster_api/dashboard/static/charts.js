// Live plots: four tiles with a line for each shard, and small lines for table cells.  All are SVG
// paths whose `d` changes; numbers stand beside them as text, and in a table.

import { ink } from "./colours.js";
import { attribute, byId, h, keyed, s, text } from "./dom.js";
import { bytes, count, micros, short, timeOfDay } from "./format.js";

export const METRICS = {
  ops: { title: "Operations", unit: "per second, all shards", format: short, rate: true },
  p99: { title: "p99", unit: "in the nodes, slowest shard", format: micros, worst: true },
  keys: { title: "Keys", unit: "all shards", format: short, exact: count },
  memory: { title: "Memory", unit: "all masters", format: bytes },
};
const WIDTH = 300;
const HEIGHT = 96;
const LINES_MAX = 16; // with more shards: the span of all, their middle, and the one pointed at
const SHRINK_BELOW = 0.6;
const TABLE_STEP_MS = 15000;

/** The smallest round number that is not below; for bytes round in powers of two. */
function nice(value, metric) {
  if (!(value > 0)) return 1;
  const base = metric === "memory" ? 2 : 10;
  const power = base ** Math.floor(Math.log(value) / Math.log(base) + 1e-9);
  const steps = base === 2 ? [1, 1.25, 1.5, 1.75, 2] : [1, 1.5, 2, 3, 4, 5, 6, 8, 10];
  return (steps.find((step) => step * power >= value * 0.999) ?? base) * power;
}

/** A line through the values that are known; a gap where they are not. */
export function line(times, values, { now, span, top, width, height }) {
  let path = "";
  let pen = false;
  for (let index = 0; index < times.length; index += 1) {
    const value = values[index];
    if (value === null || value === undefined) {
      pen = false;
      continue;
    }
    const at = width * (1 - (now - times[index]) / span);
    const up = height - (height - 2) * Math.min(1, value / top) - 1;
    path += `${pen ? "L" : "M"}${at.toFixed(1)} ${up.toFixed(1)}`;
    pen = true;
  }
  return path;
}

const highest = (lists) => lists.reduce((max, values) => values.reduce((a, b) => Math.max(a, b ?? 0), max), 0);

class Tile {
  constructor(metric) {
    this.metric = metric;
    const { title, unit } = METRICS[metric];
    this.value = h("span", { class: "value" });
    this.when = h("span", { class: "unit" }, unit);
    this.top = h("span", { class: "scale" });
    this.from = h("span");
    this.band = s("path", { class: "band" });
    this.lines = s("g");
    this.cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      s("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
      s("line", { class: "grid base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
      this.band, this.lines, this.cursor);
    this.node = h("div", { class: "card tile" },
      h("h3", {}, title), h("p", { class: "figure" }, this.value, " ", this.when),
      h("div", { class: "plot" }, this.top, this.svg),
      h("p", { class: "axis", "aria-hidden": "true" }, this.from, h("span", {}, "now")));
    this.at = null;
    this.svg.addEventListener("pointermove", (event) => this.#look(event));
    this.svg.addEventListener("pointerleave", () => {
      this.at = null;
      this.#say();
    });
  }

  update(history, now, pointed) {
    this.history = history;
    this.now = now;
    const { times } = history;
    const names = [...history.shards.keys()];
    const lists = names.map((name) => history.shards.get(name)[this.metric]);
    // The scale grows at once, but shrinks only when much room is left: it shall not flicker.
    const wanted = nice(highest(lists), this.metric);
    if (!(wanted <= this.scale && wanted > this.scale * SHRINK_BELOW)) this.scale = wanted;
    const top = this.scale;
    text(this.top, METRICS[this.metric].format(top));
    const frame = { now, span: history.span(), top, width: WIDTH, height: HEIGHT };
    text(this.from, `${history.span() / 60000} min ago`);
    const many = names.length > LINES_MAX;
    const shown = many ? names.filter((name) => name === pointed) : names;
    attribute(this.band, "d", many ? area(times, lists, frame) : "");
    const drawn = shown.map((name) => ({ name, values: history.shards.get(name)[this.metric] }));
    if (many) drawn.unshift({ name: null, values: middle(lists, times.length) });
    keyed(this.lines, drawn, ({ name }) => name,
      ({ name }) => (name === null ? s("path", { class: "line mid" }) : ink(s("path", { class: "line" }), name)),
      (node, { name, values }) => {
        attribute(node, "d", line(times, values, frame));
        node.classList.toggle("on", name === pointed);
      });
    this.lines.classList.toggle("pointing", pointed !== null);
    this.pointed = pointed;
    this.#say();
  }

  #look(event) {
    const box = this.svg.getBoundingClientRect();
    this.at = this.now - this.history.span() * (1 - (event.clientX - box.left) / box.width);
    this.#say();
  }

  #say() {
    const { format, unit } = METRICS[this.metric];
    const { times, totals, shards } = this.history;
    const values = this.pointed && shards.has(this.pointed) ? shards.get(this.pointed)[this.metric] : totals[this.metric];
    let index = times.length - 1;
    if (this.at !== null) {
      index = times.reduce((best, time, i) => (Math.abs(time - this.at) < Math.abs(times[best] - this.at) ? i : best), index);
      const across = WIDTH * (1 - (this.now - times[index]) / this.history.span());
      attribute(this.cursor, "x1", across);
      attribute(this.cursor, "x2", across);
    }
    attribute(this.cursor, "visibility", this.at === null ? "hidden" : "visible");
    text(this.value, format(values[index]));
    text(this.when, this.at !== null ? `at ${timeOfDay(times[index])}` : this.pointed ? this.pointed : unit);
  }
}

/** From the lowest to the highest shard, as one area. */
function area(times, lists, frame) {
  const ends = (choose) => times.map((_, index) => {
    const known = lists.map((values) => values[index]).filter((value) => value !== null && value !== undefined);
    return known.length ? choose(known) : null;
  });
  const upper = line(times, ends((known) => Math.max(...known)), frame);
  const lower = line([...times].reverse(), ends((known) => Math.min(...known)).reverse(), frame);
  return upper && `${upper}${lower.replace(/M/g, "L")}Z`;
}

function middle(lists, length) {
  return Array.from({ length }, (_, index) => {
    const known = lists.map((values) => values[index]).filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
    return known.length ? known[known.length >> 1] : null;
  });
}

export class Charts {
  constructor() {
    this.tiles = Object.keys(METRICS).map((metric) => new Tile(metric));
    byId("tiles").append(...this.tiles.map((tile) => tile.node));
    this.details = byId("numbers");
    this.details.addEventListener("toggle", () => this.history && this.#table());
  }

  update(history, now, pointed) {
    this.history = history;
    for (const tile of this.tiles) tile.update(history, now, pointed);
    if (this.details.open) this.#table();
  }

  /** The totals of every quarter of a minute, the newest first. */
  #table() {
    const { times, totals } = this.history;
    const rows = [];
    for (let index = times.length - 1; index >= 0; index -= 1) {
      const step = Math.floor(times[index] / TABLE_STEP_MS);
      if (rows.at(-1)?.step !== step) rows.push({ step, index });
    }
    const names = Object.keys(METRICS);
    if (!this.body) {
      this.body = h("tbody");
      byId("numbers-table").append(h("table", {},
        h("caption", { class: "hidden" }, "All shards together, every 15 seconds, the newest first"),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), names.map((name) => h("th", { scope: "col", class: "number" }, METRICS[name].title)))),
        this.body));
    }
    keyed(this.body, rows, ({ step }) => step,
      () => h("tr", {}, h("th", { scope: "row" }), names.map(() => h("td", { class: "number" }))),
      (row, { index }) => {
        text(row.cells[0], timeOfDay(times[index]));
        names.forEach((name, column) => text(row.cells[column + 1], (METRICS[name].exact ?? METRICS[name].format)(totals[name][index])));
      });
  }
}

/** A small line for a table cell. */
export class Spark {
  constructor() {
    this.path = s("path", { class: "line" });
    this.node = s("svg", { class: "spark", viewBox: "0 0 72 20", preserveAspectRatio: "none", "aria-hidden": "true" }, this.path);
  }

  update({ times }, values, frame) {
    attribute(this.path, "d", line(times, values, { top: nice(highest([values])), width: 72, height: 20, ...frame }));
  }
}
