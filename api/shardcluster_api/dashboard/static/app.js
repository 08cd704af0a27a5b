// The page: ask once a second, keep the last minutes, show everything in place.

import { Refused, overview as askOverview, token } from "./api.js";
import { allow, askToken, change } from "./admin.js";
import { showTroubles, troubles } from "./banners.js";
import { Charts } from "./charts.js";
import { attribute, byId, h, keyed, text } from "./dom.js";
import { Events } from "./events.js";
import { count, plural, seconds, timeOfDay } from "./format.js";
import { History } from "./history.js";
import { Hot } from "./hot.js";
import { Lookup } from "./lookup.js";
import { Ring } from "./ring.js";
import { Shards } from "./shards.js";
import { themes } from "./theme.js";

const EVERY_MS = 1000;
const EVERY_MANY_MS = 2000; // with more shards than MANY
const EVERY_HIDDEN_MS = 5000;
const MANY = 30;
const LOST_AFTER = 2; // one request that fails is no news

const page = { overview: null, heardAt: null, failures: 0, pointed: null, selected: null, history: new History() };

const ring = new Ring(point, (name) => {
  select(name);
  shards.reveal(name);
});
const charts = new Charts();
const shards = new Shards({ onPoint: point, onSelect: select, onRemove: (node) => change({ change: "remove", node }) });
const events = new Events();
const hot = new Hot((slot) => ring.mark(slot));
const lookup = new Lookup((slot) => ring.mark(slot));

function point(name) {
  page.pointed = name;
  const shown = name ?? page.selected;
  ring.point(shown);
  shards.point(shown);
  if (page.overview) charts.update(page.history, page.heardAt, shown);
}

function select(name) {
  page.selected = name;
  point(null);
}

function showHead({ cluster, phase, message }, lost) {
  const name = cluster ?? "ShardCluster";
  text(byId("cluster"), name);
  byId("phase").hidden = !phase;
  text(byId("phase"), phase ?? "");
  attribute(byId("phase"), "data-phase", lost ? "Lost" : phase ?? null);
  text(byId("message"), message ?? "");
  attribute(byId("message"), "title", message ?? null); // a long one is cut where space is scarce
  const title = `${phase && phase !== "Ready" ? `${phase} · ` : ""}${name} · ShardCluster`;
  if (document.title !== title) document.title = title;
}

function showProgress({ progress }) {
  const box = byId("progress");
  box.hidden = !progress?.total_slots;
  byId("legend").hidden = !box.hidden;
  if (box.hidden) return;
  keyed(box, [progress], () => "bar",
    () => h("div", {}, h("p", { class: "hint" }), h("progress", { "aria-label": "Slots moved" })),
    (node, now) => {
      const [words, bar] = node.children;
      const left = seconds(now.seconds_left);
      const keys = now.moved_keys === undefined ? "" : ` and ${plural(now.moved_keys, "key")}`;
      text(words, `${count(now.moved_slots)} of ${plural(now.total_slots, "slot")}${keys} moved${now.keys_per_second ? `, ${plural(now.keys_per_second, "key")} a second` : ""}${left ? `, about ${left} left` : ""}.`);
      attribute(bar, "max", now.total_slots);
      attribute(bar, "value", now.moved_slots);
    });
}

/** On Kubernetes the status has its progress as words, like "12/100 slots". */
function withProgress(overview) {
  const { progress } = overview;
  const told = typeof progress === "string" ? /^(\d+)\/(\d+)/.exec(progress) : null;
  if (typeof progress !== "string") return overview;
  return { ...overview, progress: told ? { moved_slots: Number(told[1]), total_slots: Number(told[2]), seconds_left: null } : null };
}

function show() {
  const { overview, heardAt } = page;
  const lost = page.failures >= LOST_AFTER ? { words: page.trouble, since: heardAt } : null;
  document.body.classList.toggle("lost", Boolean(lost));
  showTroubles(troubles(overview, lost));
  text(byId("pulse"), lost ? "Not live" : heardAt ? `Live · ${timeOfDay(heardAt)}` : "Asking …");
  shards.mayChange = !lost && allow(overview);
  if (lost || !overview) allow(null);
  if (!overview) return;
  showHead(overview, lost);
  if (page.selected && !(overview.shards ?? []).some(({ name }) => name === page.selected)) page.selected = null;
  showProgress(overview);
  ring.update(overview);
  charts.update(page.history, heardAt, page.pointed ?? page.selected);
  shards.update(overview, page.history, heardAt);
  events.update(overview);
  lookup.update(overview);
  const { gateway = {} } = overview;
  text(byId("foot-facts"), `This gateway: ${plural(gateway.requests ?? 0, "request")} answered, ${count(gateway.in_flight ?? 0)} under way. Your role: ${overview.your_role}.`);
}

async function look() {
  try {
    const found = withProgress(await askOverview());
    const now = Date.now();
    page.history.add(found, now);
    Object.assign(page, { overview: found, heardAt: now, failures: 0, trouble: "" });
    hot.tick(now);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    page.failures = error.status ? LOST_AFTER : page.failures + 1;
    page.trouble = error.message;
    if (error.status === 401 || error.status === 403) wantToken(error);
  }
}

function wantToken(error) {
  const tried = token.get();
  if (byId("dialog").open || page.refusedToken === tried) return; // asked once for each token
  page.refusedToken = tried;
  askToken(wake, tried ? `${error.message} The token was not taken.` : "This store wants a token.");
}

let timer;
let looking = false;

async function turn() {
  if (looking) return;
  looking = true;
  try {
    await look();
  } finally {
    looking = false;
    show();
    const many = (page.overview?.shards ?? []).length > MANY;
    timer = setTimeout(turn, document.hidden ? EVERY_HIDDEN_MS : many ? EVERY_MANY_MS : EVERY_MS);
  }
}

function wake() {
  clearTimeout(timer);
  turn();
}

themes(byId("theme"));
byId("token").addEventListener("click", () => askToken(wake));
byId("add").addEventListener("click", () => change({ change: "add" }));
byId("rebalance").addEventListener("click", () => change({ change: "rebalance" }));
document.addEventListener("visibilitychange", () => document.hidden || wake());
turn();
