// Builds and finds elements. Text only ever becomes text nodes: nothing here parses markup.

export const $ = (id) => document.getElementById(id);

// An element with attributes, listeners ({on: {click: f}}) and children; texts become text nodes.
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else {
      node.setAttribute(key, value === true ? "" : String(value));
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Sets a text only when it differs, so that nothing is announced or laid out again for nothing.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Puts rows in the place of a list's, keyed by `data-key`. Where the focus was it stays: on the same
// control of the same row, else at `otherwise`.
export function redraw(list, rows, otherwise = null) {
  const controls = (row) => [...(row?.querySelectorAll("button, a") ?? [])];
  const held = list.contains(document.activeElement) ? document.activeElement : null;
  const old = held?.closest("[data-key]");
  const nth = controls(old).indexOf(held);
  list.replaceChildren(...rows);
  if (held === null || document.activeElement === held) return;
  const found = controls(rows.find((row) => row.dataset.key === old?.dataset.key));
  (held.isConnected ? held : (found[nth] ?? found[0] ?? otherwise))?.focus({ preventScroll: true });
}

// A coloured square with a person's initial; the colour comes from the id, so it stays.
export function avatar(user) {
  const node = el("span", { class: "avatar", "aria-hidden": "true" }, [...user.name][0] ?? "?");
  node.style.setProperty("--hue", String(parseInt(user.id.slice(0, 4), 16) % 360));
  return node;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dated = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export const timeOf = (ms) => clock.format(ms);
export const fullTime = (ms) => full.format(ms);
export const dayKey = (ms) => new Date(ms).toDateString();

// Days are the calendar's: one in which the clock changes has 23 or 25 hours.
export function dayName(ms, now = Date.now()) {
  if (dayKey(ms) === dayKey(now)) return "Today";
  const today = new Date(now);
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1, 12);
  if (dayKey(ms) === dayKey(yesterday)) return "Yesterday";
  const near = ms < now && now - ms < 300 * 86_400_000;
  return near ? weekday.format(ms) : dated.format(ms);
}

export function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min ago` : `${Math.round(minutes / 60)} h ago`;
}

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
