// A shard's colour depends on its name alone, so it stays when others come and go.  Twelve hues,
// neighbours far apart, then the same ones lighter and darker.  Colour never says anything alone.

const HUES = [256, 52, 168, 345, 110, 292, 22, 212, 140, 318, 76, 232];
const TIERS = [0, 0.05, -0.09, -0.045, 0.025]; // all keep 3 to 1 on the card, light and dark

function numberOf(name) {
  const digits = /(\d+)$/.exec(name);
  if (digits) return Number(digits[1]);
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return sum;
}

/** Give an element the shard's colour; style.css makes `--c` of it. */
export function ink(node, name) {
  const number = numberOf(name);
  node.style.setProperty("--hue", HUES[number % HUES.length]);
  node.style.setProperty("--tier", TIERS[Math.floor(number / HUES.length) % TIERS.length]);
  node.classList.add("ink");
  return node;
}
