// Says up to where the reader has read, not more often than every other second.

import { markRead } from "./api.js";

export class ReadMarks {
  constructor() {
    this.marks = new Map();
    this.timer = null;
  }

  set(board, seq, marked) {
    if (seq <= Math.max(marked, this.marks.get(board)?.said ?? 0)) return;
    this.marks.set(board, { said: this.marks.get(board)?.said ?? 0, seq });
    this.timer ??= setTimeout(() => this.say(), 2000);
  }

  // What was read, and said, is of boards that are no more.
  forget() {
    this.marks.clear();
  }

  async say() {
    this.timer = null;
    for (const [board, mark] of this.marks) {
      if (mark.seq <= mark.said) continue;
      const { seq } = mark;
      const answer = await markRead(board, seq);
      // What was not taken is said with the next.
      if (answer.status === 204) mark.said = seq;
    }
  }
}
