// The page: puts the parts together and passes on what happens.

import * as api from "./api.js";
import { Board } from "./board.js";
import { Boards } from "./boards.js";
import { Wait } from "./clock.js";
import { Composer } from "./composer.js";
import { Connection, readCursor } from "./connection.js";
import { $, setText } from "./dom.js";
import { enter } from "./enter.js";
import { Local, readDrafts, tabName } from "./local.js";
import { Log } from "./log.js";
import { Masters } from "./masters.js";
import * as move from "./move.js";
import { Outbox } from "./outbox.js";
import { Notifier } from "./notify.js";
import { Cluster, People } from "./people.js";
import { SHOWN_MAX } from "./roster.js";
import { readRoute, Route } from "./route.js";
import { isBoardName } from "./shapes.js";
import { listenToSides, slide } from "./sides.js";
import { Status } from "./status.js";
import { Tabs } from "./tabs.js";
import { mentionsName } from "./text.js";
import { Ticket } from "./ticket.js";

const BOARDS_FOLLOWED_MAX = 32;
// Of one board, in one answer while there is no stream.
const POLL_POSTS_MAX = 200;
const ALIVE_INTERVAL_MS = 12_000;
// Of so many people a text is searched for mentions.
const NAMES_MAX = 200;
// Between two questions for the people, whatever happens.
const PEOPLE_PAUSE_MS = 3000;

class App {
  constructor(masters, session, carried, tab) {
    this.masters = masters;
    this.me = session.user;
    this.local = new Local(session.cluster, this.me.id, tab);
    // Who just came has not missed what was said before.
    const read = (board) => (session.fresh ? board.last_seq : board.read_mark);
    this.boards = new Boards(
      session.boards.map((board) => ({ ...board, read_mark: read(board) })),
      session.epoch,
      {
        current: () => this.board.name,
        onOpen: (name) => this.openBoard(name),
        onDrawn: () => this.drawTitle(),
        onRestored: () => this.reload(),
      },
    );
    this.status = new Status(() => masters.name, session.consistency ?? "strong");
    this.unseen = 0;
    this.untilAlive = new Wait(0);
    this.ticket = new Ticket();
    this.lastPeople = Number.NEGATIVE_INFINITY;
    masters.update(session.masters);

    this.people = new People(this.me, () => this.log.rename());
    this.cluster = new Cluster();
    this.log = new Log({
      nameOf: (user) => this.people.nameOf(user),
      names: () => this.people.names(NAMES_MAX),
      isBoard: (name) => this.boards.has(name),
      me: this.me,
      looking: () => this.looking,
      onSeen: (seq) => this.boards.see(this.board.name, seq),
      onOlder: () => this.board.older(),
      onRetry: (id) => this.outbox.retry(id),
      onCancel: (id) => this.outbox.cancel(id),
    });
    this.board = new Board(this.log, (seq) => this.status.flash(`There is no post ${seq} near enough.`));
    this.route = new Route((route) => this.goTo(route));
    this.notifier = new Notifier(this.local, (post) => this.goTo(post));
    this.outbox = new Outbox(this.local, {
      onChange: () => this.drawPending(),
      onSettled: (entry, post) => this.onSettled(entry, post),
      onShare: (id, entry) => this.tabs.share({ id, entry }),
      onLoggedOut: () => this.loggedOut(),
    });
    this.composer = new Composer(this.local, (board, text) => this.outbox.add(board, text));
    this.connection = new Connection({
      masters,
      tried: move.triedBefore(carried, masters.origins()),
      follow: () => this.follow(),
      onEvent: (name, data) => {
        this.tabs.tell({ name, data });
        this.hear(name, data);
      },
      onState: (state) => {
        this.tabs.tell({ state });
        this.status.set({ state });
      },
      poll: () => this.poll(),
      leave: (origin) => this.leave(origin),
      onLoggedOut: () => this.loggedOut(),
    });
    this.tabs = new Tabs(`chatchat:${session.cluster}:${this.me.id}`, tab, {
      onLead: () => {
        this.connection.open();
        this.outbox.lead();
      },
      onFollow: () => {
        this.connection.rest();
        this.outbox.rest();
      },
      // Nobody says how it goes: it is not known to be well.
      onDeaf: () => this.status.set({ state: "lost" }),
      onTold: (message) => this.onTold(message),
      onAsked: () => this.tellAll(),
      onShared: ({ id, entry }) => this.outbox.onOtherTab(id, entry),
      onReads: (board) => this.followToo(board),
      onRollCall: (living) => {
        this.local.inherit(living);
        this.composer.refresh();
      },
    });
    api.identify(this.me.id, () => this.onOtherSession());
    this.begin(session, carried);
  }

  begin(session, brought) {
    $("chat").hidden = false;
    this.people.draw();
    const carried = brought?.user === this.me.id ? brought : null;
    // What is carried is newer than what was left here.
    this.local.takeBack((left) => move.arrived(left) || carried?.trusted === true);
    if (carried || brought?.trusted) this.adopt(brought, carried !== null);
    if (carried) this.catchUp(carried);
    const given = brought?.trusted ? brought : null;
    const route = carried ? null : readRoute(location.hash);
    const wanted = (carried ?? route ?? given)?.board ?? this.local.get("board");
    const first = this.boards.has(wanted)
      ? wanted
      : this.boards.has("lobby")
        ? "lobby"
        : (this.boards.names[0] ?? "lobby");
    if (isBoardName(brought?.first)) this.route.cutForward(brought.first);
    this.openBoard(first, {
      place: carried?.place,
      seq: route?.board === first ? route.seq : null,
      replace: true,
    });
    if (route && route.board !== first) this.status.flash(`There is no board #${route.board}.`);
    if (carried) this.composer.goTo(carried);
    else if (session.fresh && matchMedia("(pointer: fine)").matches) this.composer.goTo({ focus: true });
    if (given && !carried) this.status.flash(`You are ${this.me.name} in this browser now.`);
    if (carried?.from)
      this.status.flash(`${String(carried.from)} went away. You are on ${this.masters.name} now.`);

    this.listen();
    this.boards.draw();
    this.status.draw();
  }

  // What was written as somebody else is offered, not sent, and not put over what is here.
  adopt({ outbox, drafts, trusted }, own) {
    const doubt = !trusted ? "it came with a link" : own ? "" : "it was written under another name";
    this.outbox.adopt(Array.isArray(outbox) ? outbox : [], doubt);
    if (!trusted) return;
    if (!own) this.local.offerDrafts(readDrafts(drafts));
    else for (const [board, text] of readDrafts(drafts)) this.local.setDraft(board, text);
  }

  // What was in view at the end of the list before the move is not new here.
  catchUp({ cursor, board, place }) {
    const { epoch, places } = readCursor(String(cursor));
    const at = Number(places.get(board)) || 0;
    const known = this.boards.get(board);
    if (place || !known || Number(epoch) !== this.boards.epoch) return;
    known.read_mark = Math.min(known.last_seq, Math.max(known.read_mark, at));
  }

  listen() {
    const seen = () => {
      if (!this.looking) return;
      this.unseen = 0;
      this.drawTitle();
      this.log.look();
    };
    addEventListener("focus", seen);
    document.addEventListener("visibilitychange", seen);
    addEventListener("online", () => this.outbox.kick());
    // A page kept from before a move is as it was left: closed.
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    $("leave").addEventListener("click", () => this.logOut());
    listenToSides();
  }

  get looking() {
    return document.visibilityState === "visible" && document.hasFocus();
  }

  // Events, in the leading tab from the stream, in the others from the leader.

  tellAll() {
    const { state, consistency } = this.status;
    const { list, own } = this.masters;
    this.tabs.tell({ all: { state, consistency, presence: this.people.roster.window, list, own } });
  }

  onTold(message) {
    if (message.state) this.status.set({ state: message.state });
    if (message.name) this.hear(message.name, message.data);
    if (message.all) {
      this.masters.update(message.all.list, message.all.own);
      this.hear("presence", message.all.presence);
      this.status.set({ state: message.all.state, consistency: message.all.consistency });
    }
    if (message.boards) {
      this.boards.take(message.boards, message.epoch);
      this.board.reach(this.boards.get(this.board.name)?.last_seq ?? 0);
    }
  }

  hear(name, data) {
    switch (name) {
      case "hello": {
        const { places } = readCursor(data.cursor);
        this.masters.update(data.masters, data.node);
        this.board.wake();
        // The tab that leads knows what it has read itself: its stream may begin after what is here.
        this.board.reach(Number(places.get(this.board.name)));
        if (this.tabs.leading) this.outbox.kick();
        this.status.draw();
        break;
      }
      case "post":
        this.outbox.seen(data);
        this.onPost(data);
        break;
      case "pending":
        // Its own answer said that it waits; now it may be asked again.
        if (data.state !== "pending" && this.tabs.leading) this.outbox.kick();
        break;
      case "presence":
        if (!this.people.take(data) || this.people.roster.thin) this.refreshPeople();
        break;
      case "state":
        this.status.set({ consistency: data.consistency });
        if (data.consistency === "strong" && this.tabs.leading) this.outbox.kick();
        break;
      case "masters":
        this.onMasters(data.masters);
        break;
      case "reset":
        this.refreshBoards().then(() => this.reload());
        break;
      case "beat":
        this.onBeat();
        break;
      default:
    }
  }

  onPost(post) {
    const board = this.boards.get(post.board);
    if (board) board.last_seq = Math.max(board.last_seq, post.seq);
    if (post.author.id !== this.me.id && !this.looking && post.board === this.board.name) {
      this.unseen += 1;
      this.drawTitle();
    }
    const foreign = post.author.id !== this.me.id;
    if (foreign && this.tabs.leading && !this.looking && mentionsName(post.text, this.me.name))
      this.notifier.mention(post);
    this.board.add(post);
    if (post.board !== this.board.name) this.boards.draw();
  }

  onMasters(list) {
    const changed = this.masters.update(list);
    this.status.draw();
    // The page's policy lets it ask only masters it knew when it was loaded.
    const hidden = document.visibilityState === "hidden";
    if (!changed || !hidden || this.masters.unaskable().length === 0) return;
    move.keep(this.carry());
    location.reload();
  }

  onBeat() {
    if (!this.tabs.leading) return;
    if (this.untilAlive.isOver) {
      this.untilAlive.begin(ALIVE_INTERVAL_MS);
      api.alive();
      // A master of an earlier version does not say when somebody was seen again; or one was missed.
      if (!this.people.roster.live) this.refreshPeople();
    }
    if (this.masters.needTicket) this.ticket.renew();
    if (this.boards.isOld) this.refreshBoards();
  }

  // Asks for what a stream would have told.
  async poll() {
    const known = new Map(this.boards.names.map((name) => [name, this.boards.get(name).last_seq]));
    await this.refreshBoards();
    for (const [name, after] of known) {
      const board = this.boards.get(name);
      if (!board || board.last_seq <= after) continue;
      const answer = await api.readPosts(name, { after, limit: POLL_POSTS_MAX });
      // What was not read now is with the next poll.
      board.last_seq = after;
      for (const post of answer.status === 200 ? answer.json.posts : []) {
        this.tabs.tell({ name: "post", data: post });
        this.hear("post", post);
      }
    }
    this.people.roster.live = false;
    this.onBeat();
  }

  async refreshPeople() {
    const now = performance.now();
    if (now - this.lastPeople < PEOPLE_PAUSE_MS) return;
    this.lastPeople = now;
    const answer = await api.users(SHOWN_MAX);
    if (answer.status !== 200) return;
    this.tabs.tell({ name: "presence", data: answer.json });
    this.people.take(answer.json);
  }

  // Boards

  follow() {
    const names = [this.board.name, ...this.tabs.readElsewhere, ...this.boards.names];
    const boards = [...new Set(names)].slice(0, BOARDS_FOLLOWED_MAX);
    const at = boards
      .filter((name) => this.boards.has(name))
      .map((name) => `${name}:${this.boards.get(name).last_seq}`);
    this.followed = new Set(boards);
    return { boards, cursor: `${this.boards.epoch};${at.join(",")}`, user: this.me.id };
  }

  // Goes to an address of this page.
  goTo({ board, seq }) {
    if (this.stopped) return;
    if (!this.boards.has(board)) this.status.flash(`There is no board #${board}.`);
    else if (board !== this.board.name) this.openBoard(board, { seq });
    else if (seq !== null) this.board.find(seq, this.boards.markOf(board));
  }

  openBoard(name, { place = null, seq = null, replace = false } = {}) {
    this.route.set(name, { replace });
    this.local.set("board", name);
    setText($("board-name"), name);
    this.composer.open(name);
    this.board.open(name, this.boards.markOf(name), place, seq);
    this.boards.draw();
    this.drawPending();
    this.drawTitle();
    slide();
    this.tabs.read(name);
    this.followToo(name);
  }

  // Shows the board as it is now.
  reload() {
    this.board.reload(this.boards.markOf(this.board.name));
  }

  // The one stream is for what any tab reads.
  followToo(board) {
    if (this.tabs.leading && !this.followed?.has(board)) this.connection.open();
  }

  async refreshBoards() {
    if (!(await this.boards.refresh())) return;
    this.tabs.tell({ boards: this.boards.list, epoch: this.boards.epoch });
    const more = this.boards.names.some((name) => !this.followed?.has(name));
    if (this.tabs.leading && more && this.followed?.size < BOARDS_FOLLOWED_MAX && this.status.state === "on")
      this.connection.open();
  }

  onSettled(entry, post) {
    if (post) {
      // The stream may not have its board, or begin after it.
      this.tabs.tell({ name: "post", data: post });
      this.onPost(post);
    } else if (entry.cancel) this.composer.giveBack(entry.board, entry.text);
  }

  // Moving and leaving

  carry() {
    return {
      user: this.me.id,
      name: this.me.name,
      from: this.masters.name,
      board: this.board.name,
      cursor: this.connection.cursor,
      tried: this.connection.tried,
      drafts: { ...this.local.drafts(), [this.board.name]: this.composer.text.value },
      outbox: this.outbox.all(),
      place: this.log.place(),
      ...this.composer.place(),
    };
  }

  leave(origin) {
    const carried = this.stop();
    if (new URL(origin).hostname !== location.hostname && this.ticket.text)
      carried.ticket = this.ticket.text;
    this.local.setAside(move.go(origin, carried), carried.drafts);
  }

  // From here on nothing is taken any more: what was taken goes along, and so nothing is lost.
  stop() {
    const carried = this.carry();
    this.stopped = true;
    this.connection.stop();
    this.outbox.rest();
    this.tabs.close();
    this.composer.freeze();
    for (const part of document.querySelectorAll(".side, .log")) part.inert = true;
    return carried;
  }

  // Somebody else joined in this browser. What was written here is given to them to decide about.
  onOtherSession() {
    if (this.stopped) return;
    const carried = this.stop();
    if (move.keep(carried)) {
      this.outbox.forget();
      for (const board of Object.keys(carried.drafts)) this.local.setDraft(board, "");
    }
    location.reload();
  }

  async logOut() {
    const button = $("leave");
    if (this.outbox.all().length > 0 && button.dataset.sure === undefined) {
      button.dataset.sure = "";
      setText(button, "Posts are not sent. Leave anyway?");
      return;
    }
    const answer = await api.leave();
    if (answer.status === 204 || answer.status === 401) this.loggedOut("");
    else setText(button, "Not now. Try again");
  }

  loggedOut(notice = "You were logged out. Pick a name to go on.") {
    if (this.stopped) return;
    this.stopped = true;
    this.connection.stop();
    if (notice !== "") sessionStorage.setItem("notice", notice);
    location.reload();
  }

  // Drawing

  drawPending() {
    if (this.board?.name) this.log.drawPending(this.outbox.of(this.board.name), this.me);
  }

  drawTitle() {
    const unread = this.unseen + this.boards.unreadElsewhere;
    const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
    document.title = `${count}#${this.board.name} \u00b7 Chatchat`;
  }
}

const tab = tabName();
const masters = new Masters();
const carried = move.take(masters.origins());
new App(masters, await enter(masters, carried), carried, tab);
