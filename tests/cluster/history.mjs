// Records what people saw, in the lines that `chatchat-sim judge` reads, and has it judged by the oracles
// of the simulation.

import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { monitorEventLoopDelay } from "node:perf_hooks";

const begun = performance.now();
const now_ms = () => Math.round((performance.now() - begun) * 1000) / 1000;
// A place as faults name it: `worker-2` of the launcher is `worker:2`.
const place_of = (name) => (name === "postgres" ? "store" : name.replace("-", ":"));

export class History {
  constructor() {
    // Each is written when it is complete; people and streams have numbers of their own.
    Object.assign(this, { lines: [], people: 0, readers: 0, streams: 0 });
    this.delay = monitorEventLoopDelay({ resolution: 20 });
    this.delay.enable();
  }

  // Returns the longest time in which this process read nothing: what came then is noted that much too late,
  // and the judge may take it for the cluster's delay.
  longest_stall_ms() {
    return Math.round(this.delay.max / 1e6);
  }

  // Says what the cluster is made of, before any fault. From then on every fault is to be told: the judge
  // grants nothing for others.
  cluster(masters, workers) {
    this.lines.push({ line: "cluster", masters, workers });
  }

  // Notes a fault before it begins, at each of these nodes, or at the store; what is returned notes its end,
  // after which nothing of it is left to undo.
  fault(kind, ...names) {
    const lines = names.map((name) => ({ line: "fault", kind, place: place_of(name), from_ms: now_ms() }));
    this.lines.push(...lines);
    return () => lines.forEach((line) => (line.until_ms ??= now_ms()));
  }

  // Returns the number of a person who opened a session.
  person(user) {
    this.lines.push({ line: "person", person: this.people, user });
    return this.people++;
  }

  reader() {
    return this.readers++;
  }

  // Notes a request before it leaves; what is returned takes its end, as `answered` or `failed` give it.
  call(person, master, request) {
    const line = { line: "call", person, master, request, sent_ms: now_ms() };
    this.lines.push(line);
    return (end) => Object.assign(line, { ended_ms: now_ms(), ...end });
  }

  // Notes a stream before it is asked for; what is returned takes its events and its end, with the status if it did not begin.
  stream(person, reader, master, boards, cursor) {
    const line = { line: "stream", stream: this.streams++, person, reader, master, boards, cursor, asked_ms: now_ms() };
    this.lines.push(line);
    return {
      event: (event, id, data) => this.lines.push({ line: "event", stream: line.stream, at_ms: now_ms(), event, id, data }),
      end: (status) => {
        if (line.ended_ms === undefined) Object.assign(line, { ended_ms: now_ms(), ...(status && failed(status)) });
      },
    };
  }

  // From now on everybody only reads.
  all_is_quiet() {
    this.reading_ms ??= now_ms();
  }

  board(board, posts) {
    this.lines.push({ line: "board", board, posts });
  }

  async write(path, epoch) {
    const lines = [...this.lines, { line: "end", lines: this.lines.length + 1, epoch, reading_ms: this.reading_ms, ended_ms: now_ms() }];
    await writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  }
}

// The good answer to a request with this status and body, as the judge reads it; none if it is not good.
export function answered(request, status, body) {
  const with_ = (answer, value) => ({ answer: { answer, with: value } });
  if (request.ask === "post" && status === 202) return with_("pending", { copies: body.copies });
  if (status !== 200 && status !== 201) return undefined;
  if (request.ask === "post") return with_("posted", body);
  if (request.ask === "restore") return with_("restored", body);
  return { answer: { answer: "done" } };
}

// What became of a request that got no good answer, as clients of the cluster take it: `error` is that of the
// connection, if there was no answer at all.
export function failed(status, retry_after, error) {
  const failure = (kind, more) => ({ failure: { failure: kind, ...more } });
  if (error?.code === "ECONNREFUSED") return failure("unreached", { why: error.code });
  if (status === undefined) return failure("unknown", { why: `${error.code ?? error.message}` });
  if ([408, 429, 503].includes(status)) return failure("busy", { status, retry_after_s: retry_after && Number(retry_after) });
  if (status >= 400 && status < 500) return failure("refused", { status });
  return failure("unknown", { status, why: `status ${status}` });
}

// Has a history judged by `chatchat-sim`, and shows the verdict; returns whether it holds.
export function judge(program, path) {
  const { status, stdout, stderr, error } = spawnSync(program, ["judge", path], { encoding: "utf8" });
  const said = error ? error.message : `${stdout}${stderr}`;
  console.log(`\n${said.trimEnd()}`);
  return status === 0;
}
