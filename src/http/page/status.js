// Says where one is and how it goes: the dot on top, the quiet banner below it.

import { $, setText } from "./dom.js";

// A connection that is back before this was never missed.
const BANNER_DELAY_MS = 700;
// A page that was just opened may take longer.
const OPENING_DELAY_MS = 3000;
const NEWS_SHOWN_MS = 5000;

export class Status {
  // `nameOf()` gives this page's master's name.
  constructor(nameOf, consistency) {
    this.nameOf = nameOf;
    this.consistency = consistency;
    // "opening", "on", "lost", "searching", "polling".
    this.state = "opening";
    this.news = "";
    this.timer = null;
  }

  set({ state = this.state, consistency = this.consistency }) {
    this.state = state;
    this.consistency = consistency;
    this.draw();
  }

  // Good news, for a moment.
  flash(text) {
    this.news = text;
    setTimeout(() => {
      this.news = "";
      this.draw();
    }, NEWS_SHOWN_MS);
  }

  draw() {
    const name = this.nameOf();
    const on = this.state === "on";
    $("where").dataset.state = on ? "on" : "off";
    setText($("where"), on ? `on ${name}` : name);
    clearTimeout(this.timer);
    if (on) {
      const weak = "The store is away. What you write waits here and goes out when it is back.";
      if (this.news !== "") this.banner(this.news, "good");
      else this.banner(this.consistency === "weak" ? weak : "");
      return;
    }
    if (this.state === "polling") {
      this.banner("No master gives live updates just now. New posts are asked for every few seconds.");
      return;
    }
    const searching = `${name} does not answer. Looking for another master\u2026`;
    const text = this.state === "searching" ? searching : `Reconnecting to ${name}\u2026`;
    const shown = $("banner").textContent !== "" && $("banner").dataset.kind === "";
    const delay = this.state === "opening" ? OPENING_DELAY_MS : BANNER_DELAY_MS;
    this.timer = setTimeout(() => this.banner(text), shown ? 0 : delay);
  }

  banner(text, kind = "") {
    $("banner").dataset.kind = kind;
    setText($("banner"), text);
  }
}
