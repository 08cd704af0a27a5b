// The table of shards: figures with small plots, nodes with role and health, and for each shard
// its details on demand.  Rows stay where they are; the order changes only when it is asked for.

import { ink } from "./colours.js";
import { attribute, byId, h, keyed, text } from "./dom.js";
import { Spark } from "./charts.js";
import { bytes, count, micros, percent, plural, short } from "./format.js";
import { SLOTS } from "./slots.js";

const FIGURES = [
  ["keys", "Keys", short],
  ["memory", "Memory", bytes],
  ["ops", "Ops/s", short],
  ["p99", "p99", micros],
];
const COLUMNS = ["Shard", "Slots", ...FIGURES.map(([, title]) => title), "Nodes"];
// Health is told by a sign and a word, not by colour alone.
const HEALTH = { Up: "●", Loading: "◐", Pending: "○", Unknown: "?", Down: "✕" };
const WELL = new Set(["Ready"]);
const ROWS_MAX = 12; // with more shards the table scrolls by itself

const byName = new Intl.Collator("en", { numeric: true }).compare;
const weightOf = (overview, name) => overview.spec?.spec?.ring?.weights?.[name] ?? 1;

export class Shards {
  constructor({ onPoint, onSelect, onRemove }) {
    this.on = { onPoint, onSelect, onRemove };
    this.order = [];
    this.filter = "";
    this.open = new Set();
    this.body = h("tbody", { role: "rowgroup" });
    byId("shards").append(h("table", { class: "shards-table", role: "table", "aria-labelledby": "shards-title" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, COLUMNS.map((title, index) =>
        h("th", { scope: "col", role: "columnheader", class: index && index < 6 ? "number" : null }, title)))),
      this.body));
    byId("filter").addEventListener("input", ({ target }) => {
      this.filter = target.value.trim().toLowerCase();
      this.#render();
    });
    byId("sort").addEventListener("change", () => {
      this.order = [];
      this.#render();
    });
  }

  update(overview, history, now) {
    Object.assign(this, { overview, history, now });
    this.#render();
  }

  point(name) {
    for (const [key, row] of this.body.parts ?? []) row.classList.toggle("on", key === name);
  }

  /** Open a shard's details and go there. */
  reveal(name) {
    this.open.add(name);
    this.#render();
    this.body.parts.get(name)?.scrollIntoView({ block: "nearest" });
  }

  #render() {
    const { overview } = this;
    if (!overview) return;
    this.nodes = new Map();
    for (const node of overview.nodes ?? []) {
      if (!this.nodes.has(node.shard)) this.nodes.set(node.shard, []);
      this.nodes.get(node.shard).push(node);
    }
    const shards = new Map((overview.shards ?? []).map((shard) => [shard.name, shard]));
    byId("shards").classList.toggle("long", shards.size > ROWS_MAX);
    this.#reorder(shards);
    const shown = this.order.map((name) => shards.get(name)).filter((shard) => this.#matches(shard));
    const nodes = overview.nodes?.length ?? 0;
    const all = `${plural(shards.size, "shard")}, ${plural(nodes, "node")}`;
    text(byId("shards-count"), this.filter ? `${shown.length} of ${all} match` : all);
    const rows = shown.flatMap((shard) => (this.open.has(shard.name) ? [{ shard }, { shard, detail: true }] : [{ shard }]));
    keyed(this.body, rows, ({ shard, detail }) => (detail ? `${shard.name} detail` : shard.name),
      (row) => (row.detail ? this.#makeDetail(row.shard) : this.#make(row.shard)),
      (node, row) => (row.detail ? this.#detail(node, row.shard) : this.#row(node, row.shard)));
  }

  /** The order that was asked for, computed once; shards that come later are put at the end. */
  #reorder(shards) {
    const kept = this.order.filter((name) => shards.has(name));
    const came = [...shards.keys()].filter((name) => !kept.includes(name)).sort(byName);
    if (kept.length) {
      this.order = [...kept, ...came];
      if (byId("sort").value === "name") this.order.sort(byName);
      return;
    }
    const sort = byId("sort").value;
    const rank = (name) => {
      const shard = shards.get(name);
      if (sort === "name") return 0;
      if (sort === "slots") return -shard.slots;
      if (sort === "trouble") return this.#trouble(shard) ? 0 : 1;
      return -(this.history.now(name, sort) ?? -1);
    };
    this.order = came.sort((a, b) => rank(a) - rank(b) || byName(a, b));
  }

  #trouble(shard) {
    return !WELL.has(shard.state) || (this.nodes.get(shard.name) ?? []).some((node) => node.health !== "Up");
  }

  #matches(shard) {
    if (!this.filter) return true;
    const words = [shard.name, shard.state, ...(this.nodes.get(shard.name) ?? []).flatMap((node) =>
      [node.name, node.health, node.role, `${node.host}:${node.port}`])];
    return words.some((word) => String(word).toLowerCase().includes(this.filter));
  }

  #make(shard) {
    const toggle = h("button", { type: "button", class: "shard-name", "aria-expanded": "false", onclick: () => this.#toggle(shard.name) },
      h("span", { class: "swatch", "aria-hidden": "true" }), h("span", {}, shard.name));
    const state = h("span", { class: "state" });
    const slots = h("span");
    const share = h("span", { class: "hint" });
    const meter = h("span", { class: "meter", "aria-hidden": "true" }, h("span", { class: "fill" }), h("span", { class: "fair" }));
    const figures = FIGURES.map(([metric, title]) => {
      const value = h("span");
      const spark = new Spark();
      return { metric, value, spark, cell: h("td", { role: "cell", class: "number", "data-title": title }, value, spark.node) };
    });
    const nodes = h("ul", { class: "chips" });
    const row = h("tr", { role: "row", class: "shard-row", onpointerenter: () => this.on.onPoint(shard.name), onpointerleave: () => this.on.onPoint(null) },
      h("th", { scope: "row", role: "rowheader" }, toggle, state),
      h("td", { role: "cell", class: "number", "data-title": "Slots" }, slots, " ", share, meter),
      figures.map(({ cell }) => cell),
      h("td", { role: "cell", class: "nodes-cell" }, nodes));
    Object.assign(row, { toggle, state, slots, share, meter, figures, nodes });
    return ink(row, shard.name);
  }

  #row(row, shard) {
    const { overview, history } = this;
    const weight = weightOf(overview, shard.name);
    const staying = (overview.shards ?? []).filter(({ state }) => state !== "Draining");
    const total = staying.reduce((sum, { name }) => sum + weightOf(overview, name), 0);
    const fair = shard.state === "Draining" ? 0 : (SLOTS * weight) / total;
    const most = Math.max(...(overview.shards ?? []).map(({ slots }) => slots), 1);
    attribute(row.toggle, "aria-expanded", String(this.open.has(shard.name)));
    text(row.state, shard.state === "Ready" ? "" : shard.state);
    row.state.hidden = shard.state === "Ready";
    row.state.classList.toggle("bad", shard.state === "Lost" || shard.state === "FailingOver");
    text(row.slots, count(shard.slots));
    text(row.share, weight === 1 ? percent(shard.slots / SLOTS) : `${percent(shard.slots / SLOTS)} · weight ${weight}`);
    row.meter.style.setProperty("--part", shard.slots / most);
    row.meter.style.setProperty("--fair", Math.min(1, fair / most));
    const series = history.shards.get(shard.name);
    for (const { metric, value, spark } of row.figures) {
      const [, , format] = FIGURES.find(([name]) => name === metric);
      text(value, format(history.now(shard.name, metric)));
      if (series) spark.update(history, series[metric], { now: this.now, span: history.span() });
    }
    const nodes = this.nodes.get(shard.name) ?? [];
    keyed(row.nodes, nodes, ({ name }) => name, () => {
      const chip = h("li", { class: "chip" });
      chip.append(h("span", { class: "sign", "aria-hidden": "true" }), h("span", { class: "role" }), " ", h("span", { class: "name" }), h("span", { class: "hidden" }));
      return chip;
    }, (chip, node) => {
      const [sign, role, name, rest] = chip.children;
      attribute(chip, "data-health", node.health);
      attribute(chip, "title", `${node.name}: ${node.role}, ${node.health}${node.host ? `, ${node.host}:${node.port}` : ""}`);
      text(sign, HEALTH[node.health] ?? "?");
      text(role, node.role === "unknown" ? "" : node.role);
      text(name, node.name.replace(`${shard.name}-`, "-"));
      text(rest, node.health === "Up" ? "" : `, ${node.health}`);
    });
  }

  #toggle(name) {
    if (!this.open.delete(name)) this.open.add(name);
    this.on.onSelect(this.open.has(name) ? name : null);
    this.#render();
  }

  #makeDetail(shard) {
    const facts = h("p", { class: "facts" });
    const rows = h("tbody");
    const remove = h("button", { type: "button", class: "admin danger", onclick: () => this.on.onRemove(shard.name) }, `Remove ${shard.name}`);
    const titles = ["Node", "Role", "Health", "Address", "Keys", "Memory", "Clients", "Ops/s", "Behind"];
    const row = h("tr", { class: "detail", role: "row" }, h("td", { colspan: COLUMNS.length, role: "cell" }, h("div", { class: "detail-box" },
      facts,
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Nodes of ${shard.name}` }, h("table", { class: "nodes-table" },
        h("caption", { class: "hidden" }, `Nodes of ${shard.name}`),
        h("thead", {}, h("tr", {}, titles.map((title, index) => h("th", { scope: "col", class: index > 3 ? "number" : null }, title)))), rows)),
      remove)));
    return Object.assign(row, { facts, rows, remove });
  }

  #detail(row, shard) {
    const moving = (shard.moving_out ?? []).map(([, to]) => to);
    const pieces = shard.slot_ranges ? shard.slot_ranges.split(" ").length : 0;
    text(row.facts, [
      `${shard.state}, weight ${weightOf(this.overview, shard.name)}.`,
      `${plural(shard.slots, "slot")} in ${plural(pieces, "piece")} of the ring.`,
      moving.length ? `Giving slots to ${[...new Set(moving)].join(", ")}.` : "",
    ].join(" "));
    row.remove.disabled = !this.mayChange;
    keyed(row.rows, this.nodes.get(shard.name) ?? [], ({ name }) => name,
      () => h("tr", {}, h("th", { scope: "row" }), Array.from({ length: 8 }, (_, index) => h("td", { class: index > 2 ? "number" : null }))),
      (line, node) => {
        const own = this.overview.numbers?.[node.name] ?? {};
        const replica = node.role === "replica";
        [
          node.name, node.role, `${HEALTH[node.health] ?? "?"} ${node.health}${node.detail ? `: ${node.detail}` : ""}`,
          node.host ? `${node.host}:${node.port}` : "–",
          count(own.keys ?? node.keys), bytes(own.memory_bytes ?? node.memory_bytes), count(own.clients),
          short(this.history.nodeOps.get(node.name)),
          replica ? (node.link_up === false ? "no link" : bytes(node.lag_bytes)) : "",
        ].forEach((words, column) => text(line.cells[column], String(words)));
      });
  }
}
