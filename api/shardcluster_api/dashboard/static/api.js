// Everything that is asked of the gateway.  The token stays in this tab (sessionStorage).

const TOKEN = "shardcluster-token";
const TIMEOUT_MS = 6000;
const CHANGE_TIMEOUT_MS = 15000;

/** The gateway said no, or could not be reached (status 0). */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set(value) {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  },
};

async function ask(path, options, timeoutMs) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  let response;
  let document;
  try {
    response = await fetch(path, {
      cache: "no-store", ...options, headers, signal: AbortSignal.timeout(timeoutMs),
    });
    document = await response.json();
  } catch (error) {
    if (response && !response.ok) throw new Refused(response.status, "", response.statusText);
    throw new Refused(0, "Unreachable", "The gateway does not answer.");
  }
  if (!response.ok) {
    const said = document.error ?? {};
    throw new Refused(response.status, said.code ?? "", said.message ?? response.statusText);
  }
  return document;
}

const read = (path) => ask(path, { method: "GET" }, TIMEOUT_MS);
const send = (path, body) =>
  ask(path, { method: "POST", body: JSON.stringify(body) }, CHANGE_TIMEOUT_MS);

export const overview = () => read("v1/overview");
export const hot = (by) => read(`v1/hot?by=${by}`);
export const preview = (change) => send("v1/preview", change);

/** Carry out what was previewed. */
export function carryOut({ change, node }) {
  if (change === "add") return send("add_node", {});
  if (change === "remove") return send("remove_node", { node });
  return send("rebalance", {});
}
