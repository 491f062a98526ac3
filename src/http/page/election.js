// Chooses which tab leads. Decides only: it takes the time and gives back what is to be said.
//
// 1. A tab leads once it claimed to and nobody objected for a while.
// 2. Of two leaders the one of the later term stays, of one term the one with the smaller id.
// 3. A leader that was not heard for too long is replaced. Should it wake up, it learns of the later
//    term with its next beat.

// A leader objects at once; a busy one takes its time.
const CLAIM_MS = 200;
const BEAT_MS = 2000;
// More than two beats of a server: a hidden tab's timers are slowed down, its stream is not.
export const SILENCE_MS = 10_000;
// A tab that gave way expects to hear of the other's success within this.
const GIVEN_WAY_MS = 2000;

export class Election {
  constructor(id) {
    this.id = id;
    this.term = 0;
    this.role = "follower";
    this.heard = Number.NEGATIVE_INFINITY;
    this.since = 0;
    this.said = 0;
  }

  get leading() {
    return this.role === "leader";
  }

  // Whether this tab hears a leader, or leads.
  isConnected(now) {
    return this.leading || now - this.heard <= SILENCE_MS;
  }

  // What is to be said now; to be asked for now and then, and whenever the leader is busy anyway.
  tick(now) {
    if (this.leading) return now - this.said >= BEAT_MS ? this.beat(now) : [];
    if (this.role === "candidate") {
      if (now - this.since < CLAIM_MS) return [];
      this.role = "leader";
      this.term += 1;
      return this.beat(now);
    }
    return now - this.heard > SILENCE_MS ? this.claim(now) : [];
  }

  // What is to be said to this: {kind: "claim" | "beat" | "bye", id, term}.
  hear({ kind, id, term }, now) {
    const other = Number.isSafeInteger(term) && term >= 0 ? term : 0;
    if (kind === "claim") {
      if (this.leading) return this.beat(now);
      if (this.role === "candidate" && this.id < id) return [this.say("claim")];
      if (this.role === "candidate") this.follow(now - SILENCE_MS + GIVEN_WAY_MS);
    } else if (kind === "beat") {
      const stays = this.term > other || (this.term === other && this.id < id);
      if (this.leading && stays) return this.beat(now);
      this.term = Math.max(this.term, other);
      this.follow(now);
    } else if (kind === "bye" && !this.leading) {
      return this.claim(now);
    }
    return [];
  }

  // What a tab says that goes.
  leave() {
    const words = this.leading ? [this.say("bye")] : [];
    this.role = "follower";
    return words;
  }

  claim(now) {
    this.role = "candidate";
    this.since = now;
    return [this.say("claim")];
  }

  beat(now) {
    this.said = now;
    return [this.say("beat")];
  }

  follow(heard) {
    this.role = "follower";
    this.heard = heard;
  }

  say(kind) {
    return { kind, id: this.id, term: this.term };
  }
}
