// Weighs what people saw of faults by what the promises grant: how long posts and streams waited, and who was turned
// away.

import { sleep } from "../browser/cluster.mjs";
import { at_share } from "./numbers.mjs";

// Time after the end of the last fault within which the cluster is whole again (G11).
export const WHOLE_WITHIN_MS = 15_000;
// Times within which 99 % of those who streamed at a master stream again (G17): after it was killed, after their own
// stream ended while it drains, and after it fell silent. Nothing is added to the promise for a busy machine.
export const AGAIN_WITHIN_MS = { killed: 2_000, drained: 2_000, silent: 12_000 };
// Whatever happens to nodes, no stream of an open session is answered so.
const NEVER_ANSWERED = [401, 403, 404, 500];
// Why a person is turned away who finds a master gone. One that drains says so in its answers; who had none lately does
// not know.
const GONE = "ECONNREFUSED";

// The longest time from one of these moments to the next, between the last one before `from`, and `end`: silence
// that goes on then belongs to what comes next.
export function longest_gap(moments, from, end) {
  const sorted = [...moments].sort((a, b) => a - b);
  const before = sorted.findLast((at) => at < from) ?? from;
  const seen = [before, ...sorted.filter((at) => at >= from && at < end), end];
  return Math.max(...seen.slice(1).map((at, nth) => at - seen[nth]));
}

// Longest time between two acknowledgements to whomever.
export function outage(people, from, end) {
  return longest_gap(people.flatMap((person) => person.sent.flatMap((post) => post.acked ?? [])), from, end);
}

// Waits until all people have ended who were stopped; returns the posts that are not acknowledged in that time.
export async function all_done(people, limit_ms) {
  await Promise.race([Promise.all(people.map((person) => person.done)), sleep(limit_ms)]);
  return people.flatMap((person) => person.sent).filter((post) => !post.acked);
}

// Posts that waited for longer than the phases grant that they met, as a sentence for each phase. One that was under way
// when a phase began met it too. Of several phases the one counts that grants most.
export function late_posts(people, phases, slack_ms) {
  const late = new Map();
  for (const { first, acked, ...post } of people.flatMap((person) => person.sent)) {
    const wait = (acked ?? Date.now()) - first;
    const met = phases.filter(({ from, end }) => first < end && first + wait >= from);
    const phase = met.sort((a, b) => b.loses_ms - a.loses_ms)[0] ?? { name: "between phases", loses_ms: 0 };
    const bound = phase.loses_ms + slack_ms;
    if (wait <= bound) continue;
    const said = `${phase.name}: posts waited over ${bound} ms`;
    late.set(said, [...(late.get(said) ?? []), { ...post, first, wait }]);
  }
  return [...late].map(([said, posts]) => `${said}, ${posts.length} of them, such as ${JSON.stringify(posts[0])}`);
}

// Why requests of these people failed in that time, each with how often, whatever became of the posts afterwards.
export function turned_away(people, from, to = Infinity) {
  const counts = new Map();
  const those = people.flatMap((person) => person.turned_away.filter((one) => one.at >= from && one.at < to));
  for (const { why } of those) counts.set(why, (counts.get(why) ?? 0) + 1);
  return counts;
}

export const said_of = (counts) => [...counts].map(([why, times]) => `${why} ${times} times`).join(", ") || "nobody";

// Those of them that nobody may meet while a master drains.
export const refused_by_drain = (counts) => [...counts.keys()].filter((why) => why !== GONE);

// Times in ms until those who streamed at a master at `from` streamed again; who does not yet has waited until now. Of a
// master that drains or is silent only streams that ended before `to` count: others went on there, until something else
// ended them.
export function streams_again(tracks, url, from, to, how) {
  const is_there = (one) => one.url === url && one.began <= from && !(one.ended < from);
  const there = tracks.flatMap(({ spans }) => spans.filter(is_there));
  const concerned = how === "killed" ? there : there.filter((one) => one.ended < to && !one.by_choice);
  const until_ms = (one) => (one.by_choice ? one.ended : (one.again ?? Date.now()));
  return concerned.map((one) => until_ms(one) - (how === "drained" ? one.ended : from));
}

// What is wrong with these times, if anything.
export function late_streams(waits, how) {
  const [late, bound] = [at_share(waits, 0.99), AGAIN_WITHIN_MS[how]];
  return late > bound ? `99 % of ${waits.length} streams went on after ${late} ms, over ${bound} ms` : undefined;
}

// Answers that no stream may get, as a sentence for each.
export function refused_streams(tracks) {
  const counts = new Map();
  for (const { url, status } of tracks.flatMap((track) => track.refusals)) {
    const said = `streams were refused with ${status} at ${url}`;
    if (NEVER_ANSWERED.includes(status)) counts.set(said, (counts.get(said) ?? 0) + 1);
  }
  return [...counts].map(([said, times]) => `${said}, ${times} times`);
}
