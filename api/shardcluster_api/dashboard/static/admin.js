// Changing the store's shape: every change is previewed first and then asked for once more.  And
// the token, which this tab keeps for itself.

import { Refused, carryOut, preview, token } from "./api.js";
import { ink } from "./colours.js";
import { attribute, byId, h, text } from "./dom.js";
import { count, plural } from "./format.js";

const dialog = byId("dialog");
const TITLES = { add: () => "Add a shard", remove: (node) => `Remove ${node}`, rebalance: () => "Rebalance" };
const CONFIRMS = { add: "Add the shard", remove: "Remove it", rebalance: "Move the slots" };
const MOVES_SHOWN_MAX = 200;

function open(title, ...content) {
  dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), ...content.filter(Boolean));
  if (!dialog.open) dialog.showModal();
}

const closeButton = (words) => h("button", { type: "button", onclick: () => dialog.close() }, words);

function refusal(error) {
  const more = error.status === 401 || error.status === 403 ? " Another token may be allowed to: see “Token” at the top." : "";
  return h("p", { class: "banner bad", role: "alert" }, h("span", { class: "sign", "aria-hidden": "true" }, "✕"), h("span", {}, error.message + more));
}

const caught = (error) => {
  if (!(error instanceof Refused)) throw error;
  return error;
};

/** Preview, confirm, carry out. */
export async function change(wish) {
  const title = TITLES[wish.change](wish.node);
  open(title, h("p", { class: "hint", role: "status" }, "Reckoning what would move …"), h("div", { class: "buttons" }, closeButton("Cancel")));
  let plan;
  try {
    plan = await preview(wish);
  } catch (error) {
    if (dialog.open) open(title, refusal(caught(error)), h("div", { class: "buttons" }, closeButton("Close")));
    return;
  }
  if (!dialog.open) return; // cancelled meanwhile
  const result = h("div", { role: "status" });
  const nothing = wish.change === "rebalance" && plan.plan.slots === 0;
  const confirm = h("button", { type: "button", class: wish.change === "remove" ? "primary danger" : "primary" }, CONFIRMS[wish.change]);
  confirm.addEventListener("click", () => doIt(wish, title, confirm, result));
  open(title, h("p", {}, plan.message), planTable(plan.plan), nodesWords(plan.plan), result,
    h("div", { class: "buttons" }, closeButton(nothing ? "Close" : "Cancel"), nothing ? null : confirm));
  (nothing ? dialog.querySelector(".buttons button") : confirm).focus();
}

async function doIt(wish, title, confirm, result) {
  confirm.disabled = true;
  try {
    const accepted = await carryOut(wish);
    if (!dialog.open) return; // closed meanwhile: the event story tells it, too
    open(title, h("p", { role: "status" }, accepted.message, " It happens now; reads and writes go on."), h("div", { class: "buttons" }, closeButton("Close")));
    dialog.querySelector(".buttons button").focus();
  } catch (error) {
    result.replaceChildren(refusal(caught(error)));
    confirm.disabled = false;
  }
}

function planTable(plan) {
  if (!plan.moves.length) return null;
  const shard = (name) => ink(h("span", { class: "named" }, h("span", { class: "swatch", "aria-hidden": "true" }), name), name);
  const rows = plan.moves.slice(0, MOVES_SHOWN_MAX).map((move) => h("tr", {},
    h("td", {}, shard(move.from)), h("td", {}, shard(move.to)),
    h("td", { class: "number" }, count(move.slots)), h("td", { class: "number" }, count(move.keys))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What would move" }, h("table", {},
    h("thead", {}, h("tr", {}, ["From", "To"].map((title) => h("th", { scope: "col" }, title)), ["Slots", "Keys"].map((title) => h("th", { scope: "col", class: "number" }, title)))),
    h("tbody", {}, rows),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row", colspan: "2" }, "All"), h("td", { class: "number" }, count(plan.slots)), h("td", { class: "number" }, count(plan.keys))))));
}

function nodesWords(plan) {
  const words = [
    plan.start_nodes.length ? `${plural(plan.start_nodes.length, "node")} would start: ${plan.start_nodes.join(", ")}.` : "",
    plan.stop_nodes.length ? `${plural(plan.stop_nodes.length, "node")} would end: ${plan.stop_nodes.join(", ")}.` : "",
  ].filter(Boolean);
  return words.length ? h("p", { class: "hint" }, words.join(" ")) : null;
}

/** Ask for the token; `onChanged` is called when it is another. */
export function askToken(onChanged, why = "") {
  const input = h("input", { id: "token-field", type: "password", autocomplete: "off", spellcheck: "false" });
  input.value = token.get();
  const save = (value) => {
    token.set(value);
    dialog.close();
    onChanged();
  };
  const form = h("form", {},
    h("label", { for: "token-field" }, "Token"), input,
    h("p", { class: "hint" }, "It stays in this browser tab and ends with it. It is sent to this gateway alone."),
    h("div", { class: "buttons" }, closeButton("Cancel"),
      h("button", { type: "button", onclick: () => save("") }, "Forget it"),
      h("button", { type: "submit", class: "primary" }, "Use it")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save(input.value.trim());
  });
  open("Token", why ? h("p", { role: "alert" }, why) : null, form);
  input.focus();
}

/** Switch the buttons that change something on or off, and say why. */
export function allow(overview) {
  const role = overview?.your_role ?? "none";
  const why = !overview ? "" : overview.controller === "none" ? "There is no controller to carry out changes."
    : overview.controller === "unreachable" ? "Changes wait until the controller is back."
    : role !== "admin" ? `Adding, removing and rebalancing need a token with the role admin; yours has ${role}.` : "";
  const may = Boolean(overview) && !why;
  for (const button of document.querySelectorAll("main .admin")) {
    button.disabled = !may;
    attribute(button, "aria-describedby", why ? "admin-why" : null);
  }
  text(byId("admin-why"), why);
  byId("admin-why").hidden = !why;
  return may;
}
