// Tells of mentions while nobody looks at the page, once a person allowed it by a click.

import { $, setText } from "./dom.js";

const BODY_LENGTH_MAX = 200;
// A flood of mentions is one.
const PAUSE_MS = 3000;

export class Notifier {
  // `onOpen(post)` when a notification is clicked.
  constructor(local, onOpen) {
    Object.assign(this, { local, onOpen });
    this.said = Number.NEGATIVE_INFINITY;
    this.button = $("notify");
    this.button.addEventListener("click", () => this.toggle());
    this.draw();
  }

  get possible() {
    return isSecureContext && "Notification" in globalThis;
  }

  get on() {
    return this.possible && Notification.permission === "granted" && this.local.get("notify") === true;
  }

  async toggle() {
    const wanted = !this.on;
    if (wanted && Notification.permission === "default") await Notification.requestPermission();
    this.local.set("notify", wanted);
    this.draw();
  }

  draw() {
    this.button.hidden = !this.possible;
    if (!this.possible) return;
    const blocked = Notification.permission === "denied";
    this.button.disabled = blocked;
    this.button.setAttribute("aria-pressed", String(this.on));
    setText(this.button, blocked ? "Notifications are blocked" : "Notify me of mentions");
  }

  mention(post) {
    const now = performance.now();
    if (!this.on || now - this.said < PAUSE_MS) return;
    this.said = now;
    try {
      const title = `${post.author.name} in #${post.board}`;
      const shown = new Notification(title, { body: post.text.slice(0, BODY_LENGTH_MAX), tag: post.id });
      shown.onclick = () => {
        focus();
        shown.close();
        this.onOpen(post);
      };
    } catch {
      // Some browsers allow it to service workers only.
    }
  }
}
