// Addresses within the page: a board is #lobby, a post #lobby/123. Keeps how deep in the page's own
// history one is, so that a move to another master can take the place of all of it.

import { isBoardName } from "./shapes.js";

export function readRoute(hash) {
  const match = /^#([^/]*)(?:\/([1-9][0-9]{0,14}))?$/.exec(hash);
  if (!match || !isBoardName(match[1])) return null;
  return { board: match[1], seq: match[2] === undefined ? null : Number(match[2]) };
}

export const hashOf = (board, seq = null) => (seq === null ? `#${board}` : `#${board}/${seq}`);

const depthOf = (state) => (Number.isSafeInteger(state?.depth) ? state.depth : null);

export class Route {
  // `onGo({board, seq})` when an address is opened: by a link, by hand, by Back.
  constructor(onGo) {
    this.depth = depthOf(history.state) ?? 0;
    addEventListener("popstate", () => {
      // An address that was clicked or typed is a new entry, without a state yet.
      const known = depthOf(history.state);
      this.depth = known ?? this.depth + 1;
      if (known === null) history.replaceState({ depth: this.depth }, "");
      const route = readRoute(location.hash);
      if (route) onGo(route);
    });
  }

  // Says where one is, without going there.
  set(board, { replace = false } = {}) {
    if (readRoute(location.hash)?.board === board) return;
    if (!replace) this.depth += 1;
    history[replace ? "replaceState" : "pushState"]({ depth: this.depth }, "", hashOf(board));
  }
}

const REWIND_MS = 500;

// Goes to another page, in the place of this one and of all that was opened in it.
export async function replaceAll(url) {
  const depth = depthOf(history.state) ?? 0;
  if (depth > 0) {
    history.go(-depth);
    await new Promise((done) => {
      addEventListener("popstate", done, { once: true });
      setTimeout(done, REWIND_MS);
    });
  }
  location.replace(url);
}
