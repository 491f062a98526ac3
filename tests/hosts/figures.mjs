// What people felt in each phase of a run: how long posts waited, and how long nobody's post was acknowledged.

import { outage } from "../cluster/weigh.mjs";

const COLUMNS = ["posts", "p50", "p99", "longest", "outage", "store away"];
const WIDTH = 12;

// Figures of one phase, in ms. A post belongs to the phase in which it was sent first.
export function figures_of(people, from, end) {
  const sent = people.flatMap((person) => person.sent).filter((post) => post.first >= from && post.first < end);
  const waits = sent.map((post) => (post.acked ?? Date.now()) - post.first).sort((a, b) => a - b);
  const share = (part) => waits[Math.min(waits.length - 1, Math.floor(waits.length * part))] ?? 0;
  return { posts: waits.length, p50: share(0.5), p99: share(0.99), longest: waits.at(-1) ?? 0, outage: outage(people, from, end) };
}

// A line for each phase.
export function table_of(phases) {
  const names = ["phase", ...phases.map(({ name }) => name)];
  const longest = Math.max(...names.map((name) => name.length));
  const line = (name, cells) => name.padEnd(longest) + cells.map((cell) => String(cell ?? "").padStart(WIDTH)).join("");
  const rows = phases.map((one) => line(one.name, [one.posts, one.p50, one.p99, one.longest, one.outage, one.store_away]));
  const said = "in ms: how long posts waited, the longest time in which nobody's post was acknowledged, and how long no store took writes";
  return [line("phase", COLUMNS), ...rows, said].join("\n");
}
