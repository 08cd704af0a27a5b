// What people write with @upstash/redis, against the gateway at URL with TOKEN; throws if it fails.

import assert from "node:assert/strict";
import { Redis } from "@upstash/redis";

const redis = new Redis({ url: process.env.URL, token: process.env.TOKEN, retry: false });
const tag = `js-${process.pid}`;
const key = (name) => `${tag}:${name}`;
const many = Array.from({ length: 100 }, (_, index) => key(`many-${index}`));

async function values() {
  assert.equal(await redis.set(key("text"), "h\u00e9llo"), "OK");
  assert.equal(await redis.get(key("text")), "h\u00e9llo");
  await redis.set(key("object"), { a: [1, "two", null] });
  assert.deepEqual(await redis.get(key("object")), { a: [1, "two", null] });
  assert.equal(await redis.set(key("text"), "again", { nx: true }), null);
  assert.equal(await redis.incrby(key("number"), 41), 41);
  assert.equal(await redis.incr(key("number")), 42);
  assert.equal(await redis.get(key("nothing")), null);
  assert.equal(await redis.hset(key("hash"), { one: 1, two: "zwei" }), 2);
  assert.deepEqual(await redis.hgetall(key("hash")), { one: 1, two: "zwei" });
  assert.equal(await redis.rpush(key("list"), "a", "b", "c"), 3);
  assert.deepEqual(await redis.lrange(key("list"), 0, -1), ["a", "b", "c"]);
  assert.equal(await redis.zadd(key("ranks"), { score: 2, member: "b" }, { score: 1, member: "a" }), 2);
  assert.deepEqual(await redis.zrange(key("ranks"), 0, -1, { withScores: true }), ["a", 1, "b", 2]);
  const id = await redis.xadd(key("stream"), "*", { field: "value" });
  assert.deepEqual(await redis.xrange(key("stream"), "-", "+"), { [id]: { field: "value" } });
  assert.equal(await redis.eval("return ARGV[1]", [key("text")], ["back"]), "back");
  await assert.rejects(redis.lpush(key("text"), "x"), /WRONGTYPE/);
}

async function overShards() {
  assert.equal(await redis.mset(Object.fromEntries(many.map((one, index) => [one, index]))), "OK");
  assert.deepEqual(await redis.mget(...many), many.map((_, index) => index));
  assert.equal(await redis.exists(...many), 100);
  const seen = new Set();
  let cursor = "0";
  do {
    const [next, found] = await redis.scan(cursor, { match: `${tag}:many-*`, count: 50 });
    found.forEach((one) => seen.add(one));
    cursor = next;
  } while (cursor !== "0");
  assert.equal(seen.size, 100);
  assert.ok((await redis.dbsize()) >= 100);
  assert.equal(await redis.del(...many), 100);
}

async function together() {
  const pipeline = redis.pipeline();
  pipeline.set(key("p1"), "v").incr(key("p2")).get(key("p1")).lpush(key("p1"), "wrong");
  const answers = await pipeline.exec({ keepErrors: true });
  assert.deepEqual(answers.slice(0, 3).map((one) => one.result), ["OK", 1, "v"]);
  assert.match(answers[3].error, /WRONGTYPE/);
  const transaction = redis.multi();
  transaction.set(`{${tag}}a`, 1).incr(`{${tag}}a`).get(`{${tag}}a`);
  assert.deepEqual(await transaction.exec(), ["OK", 2, 2]);
  await assert.rejects(redis.multi().set("{1}a", 1).set("{2}a", 1).exec(), /CROSSSLOT/);
  const auto = await Promise.all(many.slice(0, 20).map((one) => redis.get(one)));
  assert.deepEqual(auto, Array(20).fill(null));
}

async function ownWrites() {
  for (let round = 0; round < 200; round += 1) {
    await redis.set(key("mine"), round);
    assert.equal(await redis.get(key("mine")), round);
  }
  assert.match(redis.readYourWritesSyncToken, /^1\./);
}

async function channels() {
  const subscription = redis.subscribe(key("channel"));
  const subscribed = new Promise((resolve) => subscription.on("subscribe", resolve));
  const heard = new Promise((resolve) => subscription.on("message", resolve));
  await subscribed;
  await redis.publish(key("channel"), { hello: "world" });
  assert.deepEqual((await heard).message, { hello: "world" });
  await subscription.unsubscribe();
  const patterns = redis.psubscribe(`${tag}:ch*`);
  const listening = new Promise((resolve) => patterns.on("psubscribe", resolve));
  const matched = new Promise((resolve) => patterns.on("pmessage", resolve));
  await listening;
  await redis.publish(key("channel"), 5);
  assert.equal((await matched).channel, key("channel"));
  await patterns.unsubscribe();
}

for (const step of [values, overShards, together, ownWrites, channels]) {
  await step();
  console.log(step.name);
}
