// Records what people saw, in the lines that `chatchat-sim judge` reads, and has it judged by the oracles
// of the simulation.

import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";

const begun = performance.now();
const now_ms = () => Math.round((performance.now() - begun) * 1000) / 1000;
// A moment of the wall clock on the clock of the history.
const at_ms = (moment) => moment && Math.round(performance.now() - begun - (Date.now() - moment));

export class History {
  constructor() {
    // Each is written when it is complete; people and streams have numbers of their own.
    Object.assign(this, { lines: [], people: 0, readers: 0, streams: 0 });
  }

  // Returns the number of a person who opened a session.
  person(user) {
    this.lines.push({ line: "person", person: this.people, user });
    return this.people++;
  }

  reader() {
    return this.readers++;
  }

  // Notes a request before it leaves; what is returned takes its answer, if there is one.
  call(person, master, request) {
    const line = { line: "call", person, master, request, sent_ms: now_ms() };
    this.lines.push(line);
    return (answer) => Object.assign(line, { ended_ms: now_ms(), answer });
  }

  // Notes a stream before it is asked for; what is returned takes its events and its end.
  stream(person, reader, master, boards, cursor) {
    const line = { line: "stream", stream: this.streams++, person, reader, master, boards, cursor, asked_ms: now_ms() };
    this.lines.push(line);
    return {
      event: (event, id, data) => this.lines.push({ line: "event", stream: line.stream, at_ms: now_ms(), event, id, data }),
      end: () => (line.ended_ms ??= now_ms()),
    };
  }

  // From now on everybody only reads.
  all_is_quiet() {
    this.reading_ms ??= now_ms();
  }

  board(board, posts) {
    this.lines.push({ line: "board", board, posts });
  }

  // Faults go to a file of their own, `PATH.faults`, on the same clock: the judge takes no line of them, and
  // grants nothing for them.
  async write(path, epoch, faults = []) {
    const told = faults.map(({ action, node, from, until }) => ({ line: "fault", action, node, from_ms: at_ms(from), until_ms: at_ms(until) }));
    if (told.length > 0) await writeFile(`${path}.faults`, told.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const lines = [...this.lines, { line: "end", lines: this.lines.length + 1, epoch, reading_ms: this.reading_ms, ended_ms: now_ms() }];
    await writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  }
}

// Has a history judged by `chatchat-sim`, and shows the verdict; returns whether it holds.
export function judge(program, path) {
  const { status, stdout, stderr, error } = spawnSync(program, ["judge", path], { encoding: "utf8" });
  const said = error ? error.message : `${stdout}${stderr}`;
  console.log(`\n${said.trimEnd()}`);
  return status === 0;
}
