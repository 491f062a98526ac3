// Who is active, and how the cluster is.

import * as api from "./api.js";
import { $, ago, avatar, el, plural, setText } from "./dom.js";
import { Roster } from "./roster.js";

// Who was seen this lately counts as being here now.
const NOW_MS = 12_000;

export class People {
  constructor(me, onNames) {
    this.me = me;
    this.onNames = onNames;
    this.roster = new Roster();
    this.shared = new Set();
  }

  // A name, with four characters of the id when two active people have it or one that looks like it.
  nameOf(user) {
    return this.shared.has(user.name) ? `${user.name} #${user.id.slice(0, 4)}` : user.name;
  }

  names(max) {
    return [...this.roster.users.values()].slice(0, max).map(({ name }) => name);
  }

  // Takes in what a stream or an answer tells; false when a version before it is missing.
  take(data) {
    const taken = this.roster.take(data);
    if (taken) this.show([...this.roster.users.values()]);
    return taken;
  }

  show(users) {
    const ids = new Map();
    for (const { id, name, look = name } of users) ids.set(look, (ids.get(look) ?? new Set()).add(id));
    const alike = users.filter(({ name, look = name }) => ids.get(look).size > 1);
    const shared = [...new Set(alike.map(({ name }) => name))];
    const renamed = shared.length !== this.shared.size || shared.some((name) => !this.shared.has(name));
    this.shared = new Set(shared);
    if (renamed) this.onNames();
    this.draw();
  }

  draw() {
    const { roster } = this;
    const shown = roster.shown(this.me);
    const newest = shown.reduce((newest, user) => Math.max(newest, user.last_seen), 0);
    const rows = shown.map((user) => {
      const since = roster.live ? 0 : newest - user.last_seen;
      const seen = since <= NOW_MS ? "active now" : `seen ${ago(since)}`;
      const name = el(
        "span",
        { class: "name" },
        el("bdi", {}, this.nameOf(user)),
        user.id === this.me.id ? el("span", { class: "you" }, " you") : null,
        el("span", { class: "seen" }, seen),
      );
      return el("li", { "data-user": user.id, "data-key": user.id }, avatar(user), name);
    });
    $("people").replaceChildren(...rows);
    const count = Math.max(roster.total, shown.length);
    setText($("people-count"), String(count));
    setText($("people-count-narrow"), String(count));
    const more = count - shown.length;
    $("people-more").hidden = more === 0;
    setText($("people-more"), more === 0 ? "" : `and ${more} more`);
    const name = el(
      "span",
      { class: "name" },
      el("span", { class: "hidden-text" }, "You are "),
      el("bdi", {}, this.nameOf(this.me)),
    );
    $("me").replaceChildren(avatar(this.me), name);
  }
}

const STATES = { in: "in", failed: "failed", left: "left" };

export class Cluster {
  constructor() {
    this.panel = $("cluster");
    this.panel.addEventListener("toggle", () => this.refresh());
    setInterval(() => document.visibilityState === "visible" && this.refresh(), 5000);
  }

  async refresh() {
    if (!this.panel.open) return;
    const answer = await api.cluster();
    if (answer.status === 200) this.draw(answer.json);
  }

  draw(view) {
    const masters = view.nodes.filter((node) => node.role === "master" && node.state === "in").length;
    const workers = view.nodes.filter((node) => node.role === "worker" && node.state === "in").length;
    const store = view.store === "here" ? "store in reach" : "store away";
    setText($("cluster-store"), `${plural(masters, "master")}, ${plural(workers, "worker")}, ${store}`);
    const names = new Map(view.nodes.map((node) => [node.id, node.name]));
    const order = (a, b) =>
      a.role.localeCompare(b.role) || a.name.localeCompare(b.name, undefined, { numeric: true });
    const rows = view.nodes.sort(order).map((node) => {
      const away = node.state === "in" && node.reaches_store === false;
      const state = away ? "no store" : (STATES[node.state] ?? node.state);
      const role = node.role === "master" ? "master" : `worker of ${names.get(node.master) ?? "?"}`;
      return el(
        "li",
        { title: role },
        el("span", { class: "name" }, node.name),
        el("span", { class: "state" }, node.role === "master" ? "master" : "worker"),
        el("span", { class: "state", "data-bad": String(away || node.state !== "in") }, state),
      );
    });
    $("cluster-nodes").replaceChildren(...rows);
  }
}
