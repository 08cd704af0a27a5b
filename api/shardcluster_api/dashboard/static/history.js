// The last minutes of each shard's numbers, kept here in the browser.  The gateway tells counters;
// rates are differences of two looks at the same node.

const SPANS_MS = [60000, 120000, 180000, 300000]; // what plots show, the longer the more is known
const TIMES_LOOK_BACK = 5; // p99 over so many looks: one second alone holds too few commands
const METRICS = ["keys", "memory", "ops", "p99"];

const difference = (now, before, name) => (now[name] ?? 0) - (before[name] ?? 0);

/** Commands in `now` since `before`, by how long they took; null after a restart of the node. */
function taken(now, before) {
  if (!now?.took_us || !before?.took_us) return null;
  const earlier = new Map(before.took_us);
  const found = now.took_us.map(([bound, n]) => [bound, n - (earlier.get(bound) ?? 0)]);
  return found.some(([, n]) => n < 0) ? null : found;
}

/** The 99th of a hundred, between a bucket's bound and half of it; null when there is nothing. */
export function percentile99(buckets) {
  const total = buckets.reduce((sum, [, n]) => sum + n, 0);
  if (!total) return null;
  let left = total * 0.99;
  for (const [bound, n] of [...buckets].sort((a, b) => a[0] - b[0])) {
    if (n >= left) return bound * 2 ** (left / n - 1);
    left -= n;
  }
  return null;
}

function opsPerSecond(now, before) {
  if (!now || !before || now.reads === undefined || before.reads === undefined) return null;
  const elapsed = now.at_s - before.at_s;
  const reads = difference(now, before, "reads");
  const writes = now.role === "master" ? difference(now, before, "writes") : 0; // copies are not counted twice
  return elapsed <= 0 || reads < 0 || writes < 0 ? null : (reads + writes) / elapsed;
}

export class History {
  constructor() {
    this.times = [];
    this.shards = new Map(); // name -> {keys: [], memory: [], ops: [], p99: []}, as long as times
    this.totals = { keys: [], memory: [], ops: [], p99: [] };
    this.looks = []; // the last few `numbers`
    this.nodeOps = new Map();
  }

  /** Take in one overview. */
  add(overview, now) {
    const numbers = overview.numbers ?? {};
    const before = this.looks.at(-1) ?? {};
    const longBefore = this.looks[0] ?? {};
    this.times.push(now);
    const present = new Set();
    const nodesOf = grouped(overview.nodes ?? []);
    this.nodeOps.clear();
    for (const shard of overview.shards ?? []) {
      present.add(shard.name);
      this.#push(shard.name, this.#figures(shard, nodesOf.get(shard.name) ?? [], numbers, before, longBefore));
    }
    for (const [name, series] of this.shards) {
      if (!present.has(name)) for (const metric of METRICS) series[metric].push(null);
    }
    this.#pushTotals(present);
    this.looks.push(numbers);
    if (this.looks.length > TIMES_LOOK_BACK) this.looks.shift();
    this.#forget(now);
  }

  #figures(shard, nodes, numbers, before, longBefore) {
    const master = numbers[shard.master];
    let ops = null;
    const buckets = [];
    for (const { name } of nodes) {
      const own = opsPerSecond(numbers[name], before[name]);
      this.nodeOps.set(name, own);
      if (own !== null) ops = (ops ?? 0) + own;
      buckets.push(...(taken(numbers[name], longBefore[name]) ?? []));
    }
    const merged = new Map();
    for (const [bound, n] of buckets) merged.set(bound, (merged.get(bound) ?? 0) + n);
    return {
      keys: master?.keys ?? shard.keys ?? null,
      memory: master?.memory_bytes ?? shard.memory_bytes ?? null,
      ops,
      p99: percentile99([...merged]),
    };
  }

  #push(name, figures) {
    let series = this.shards.get(name);
    if (!series) {
      series = Object.fromEntries(METRICS.map((metric) => [metric, this.times.slice(1).map(() => null)]));
      this.shards.set(name, series);
    }
    for (const metric of METRICS) series[metric].push(figures[metric]);
  }

  #pushTotals(present) {
    for (const metric of METRICS) {
      const values = [...present].map((name) => this.shards.get(name)[metric].at(-1)).filter((v) => v !== null);
      const joined = metric === "p99" ? Math.max(...values) : values.reduce((a, b) => a + b, 0);
      this.totals[metric].push(values.length ? joined : null);
    }
  }

  #forget(now) {
    const old = this.times.findIndex((time) => time >= now - SPANS_MS.at(-1));
    if (old <= 0) return;
    this.times.splice(0, old);
    for (const series of [this.totals, ...this.shards.values()]) {
      for (const metric of METRICS) series[metric].splice(0, old);
    }
    for (const [name, series] of this.shards) {
      if (METRICS.every((metric) => series[metric].every((value) => value === null))) this.shards.delete(name);
    }
  }

  /** The time that plots span. */
  span() {
    const known = this.times.length ? this.times.at(-1) - this.times[0] : 0;
    return SPANS_MS.find((span) => known <= span) ?? SPANS_MS.at(-1);
  }

  /** The present figure, or null. */
  now(shard, metric) {
    return this.shards.get(shard)?.[metric].at(-1) ?? null;
  }
}

function grouped(nodes) {
  const found = new Map();
  for (const node of nodes) found.set(node.shard, [...(found.get(node.shard) ?? []), node]);
  return found;
}
