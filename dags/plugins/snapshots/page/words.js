// words.js: how times, ages, sizes, counts and states are written; times in the zone that Airflow was told.

export function zone() {
  try {
    return JSON.parse(localStorage.getItem("timezone")) || "UTC";
  } catch {
    return "UTC";
  }
}

export function moment(text) {
  const form = { timeZone: zone(), dateStyle: "short", timeStyle: "medium" };
  try {
    return new Intl.DateTimeFormat("sv-SE", form).format(new Date(text));
  } catch {
    return new Intl.DateTimeFormat("sv-SE", { ...form, timeZone: "UTC" }).format(new Date(text));
  }
}

export function age(from, to) {
  const seconds = Math.max(0, (new Date(to) - new Date(from)) / 1000);
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 259_200 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} d`;
}

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toFixed(value < 10 ? 1 : 0) : value} ${units[unit]}`;
}

export const percent = (fraction) => `${Number((100 * fraction).toPrecision(3))} %`;

export const count = (number) => number.toLocaleString("en");

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

// ROLLED_BACK -> Rolled back
export function spoken(word) {
  const lower = word.toLowerCase().replaceAll("_", " ");
  return lower.charAt(0).toUpperCase() + lower.slice(1);
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
