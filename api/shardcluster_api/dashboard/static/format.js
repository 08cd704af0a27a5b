// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const THOUSANDS = ["", "k", "M", "G"];

export const NOTHING = "–";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

function scaled(value, step, units, gap) {
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toFixed(digits)}${units[unit] ? gap + units[unit] : ""}`;
}

export const count = (value) => (known(value) ? whole.format(value) : NOTHING);
export const short = (value) =>
  !known(value) ? NOTHING : Math.abs(value) < 10000 ? whole.format(value) : scaled(value, 1000, THOUSANDS, "");
export const bytes = (value) => (known(value) ? scaled(value, 1024, UNITS, " ") : NOTHING);
export const percent = (part) => (known(part) ? `${(part * 100).toFixed(part < 0.1 ? 1 : 0)} %` : NOTHING);

/** Microseconds. */
export function micros(value) {
  if (!known(value)) return NOTHING;
  if (value < 1000) return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} µs`;
  if (value < 1e6) return `${(value / 1000).toFixed(value < 1e4 ? 1 : 0)} ms`;
  return `${(value / 1e6).toFixed(1)} s`;
}

export function seconds(value) {
  if (!known(value)) return "";
  if (value < 90) return `${Math.max(1, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

export const timeOfDay = (when) => clock.format(new Date(when));

/** "1 slot", "3 slots". */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
