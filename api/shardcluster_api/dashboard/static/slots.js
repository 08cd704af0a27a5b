// Keys, slots and ranges of slots, as the cluster itself reckons them.

export const SLOTS = 16384;

const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc;
});

/** CRC16 (XMODEM) of bytes. */
export function crc16(bytes) {
  let crc = 0;
  for (const byte of bytes) crc = ((crc << 8) & 0xffff) ^ TABLE[(crc >> 8) ^ byte];
  return crc;
}

/** What of a key decides: its {hash tag}, or all of it. */
export function hashed(key) {
  const start = key.indexOf("{");
  const end = start < 0 ? -1 : key.indexOf("}", start + 1);
  return end > start + 1 ? key.slice(start + 1, end) : key;
}

export const keySlot = (key) => crc16(new TextEncoder().encode(hashed(key))) % SLOTS;

/** "0-5460 5462" as [[0, 5460], [5462, 5462]]. */
export function ranges(words) {
  return (words ?? "").split(" ").filter(Boolean).map((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return [first, last];
  });
}

/** The shard of the list that owns the slot, or undefined. */
export const ownerOf = (shards, slot) =>
  shards.find((shard) => ranges(shard.slot_ranges).some(([first, last]) => first <= slot && slot <= last));
