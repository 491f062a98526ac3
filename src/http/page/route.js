// Addresses within the page: a board is #lobby, a post #lobby/123. Keeps how deep in the page's own
// history one is, so that a move to another master can take the place of all of it.

import { isBoardName } from "./shapes.js";

export function readRoute(hash) {
  const match = /^#([^/]*)(?:\/([1-9][0-9]{0,14}))?$/.exec(hash);
  if (!match || !isBoardName(match[1])) return null;
  return { board: match[1], seq: match[2] === undefined ? null : Number(match[2]) };
}

export const hashOf = (board, seq = null) => (seq === null ? `#${board}` : `#${board}/${seq}`);

const isDepth = (value) => Number.isSafeInteger(value) && value >= 0;

// How deep an entry stands in the page's own history, and how deep that goes; null for a new entry.
const placeOf = (state) =>
  isDepth(state?.depth) ? { depth: state.depth, deepest: Math.max(state.depth, state.deepest || 0) } : null;

export class Route {
  // `onGo({board, seq})` when an address is opened: by a link, by hand, by Back.
  constructor(onGo) {
    this.place = placeOf(history.state) ?? { depth: 0, deepest: 0 };
    addEventListener("popstate", () => {
      // An address that was clicked or typed is a new entry, without a state yet.
      const known = placeOf(history.state);
      this.place = known ? { ...this.place, depth: known.depth } : deeper(this.place);
      history.replaceState(this.place, "");
      const route = readRoute(location.hash);
      if (route) onGo(route);
    });
  }

  // Begins in the place of another page that began with this board, and whose later entries still lie
  // ahead: one more entry cuts them off.
  cutForward(board) {
    this.place = { depth: 0, deepest: 1 };
    history.replaceState(this.place, "", hashOf(board));
    this.place = deeper(this.place);
    history.pushState(this.place, "", hashOf(board));
  }

  // Says where one is, without going there.
  set(board, { replace = false } = {}) {
    if (readRoute(location.hash)?.board === board) return;
    if (!replace) this.place = deeper(this.place);
    history[replace ? "replaceState" : "pushState"](this.place, "", hashOf(board));
  }
}

// After a new entry nothing lies ahead.
const deeper = ({ depth }) => ({ depth: depth + 1, deepest: depth + 1 });

const REWIND_MS = 500;

// Goes to another page, in the place of this one and of all that was opened in it. `urlFor(first)`
// is told the board with which this page began if entries after that stay ahead, else null.
export async function replaceAll(urlFor) {
  const { depth, deepest } = placeOf(history.state) ?? { depth: 0, deepest: 0 };
  if (depth > 0) {
    history.go(-depth);
    await new Promise((done) => {
      addEventListener("popstate", done, { once: true });
      setTimeout(done, REWIND_MS);
    });
  }
  const first = readRoute(location.hash)?.board ?? null;
  location.replace(urlFor(deepest > 0 ? first : null));
}
