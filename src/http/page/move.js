// Takes a person from one master's page to another's: what is carried along, and whether what
// arrives may be believed.
//
// Ports of one host are different origins, so local storage stays behind: all travels in the
// URL's fragment, which no server sees, and which is cleared at once. A link can carry a
// fragment too. So unsent posts go out by themselves only if the page that sent us here is
// known: by a nonce in a cookie (cookies ignore ports), or by being one of the masters. What came
// with a stranger's link stays a stranger's, however often it is passed on.

import { replaceAll } from "./route.js";

const NAME = "move";
const NONCE = "chatchat-move";
const FRESH_MS = 120_000;
// So long it is known that somebody left and did not arrive.
const LEFT_S = 60 * 60;

function encode(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decode(text) {
  const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(raw, (char) => char.charCodeAt(0))));
}

// A cookie for each move, so that two tabs that leave at once do not disown each other. It says
// when that was, and goes on arrival.
const cookie = (nonce, age_s) => {
  document.cookie = `${NONCE}-${nonce}=${Date.now()}; Path=/; Max-Age=${age_s}; SameSite=Strict`;
};

const leftAt = (nonce) => {
  const start = `${NONCE}-${nonce}=`;
  const found = document.cookie.split("; ").find((pair) => pair.startsWith(start));
  return found ? Number(found.slice(start.length)) : null;
};

// Whether a move from here arrived; asked once. One to another host cannot tell: it counts as lost
// for an hour.
export function arrived(nonce) {
  const left = leftAt(nonce);
  if (left !== null) cookie(nonce, 0);
  return left === null;
}

// Leaves for another master, in the place of this page: it is gone, and Back must not open it. Gives
// the move's nonce.
export function go(origin, carried) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const nonce = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  cookie(nonce, LEFT_S);
  replaceAll((first) => `${origin}/#${NAME}=${encode({ ...carried, nonce, first })}`);
  return nonce;
}

// Keeps it for when this page is loaded again, at the same master. Says whether that was possible.
export function keep(carried) {
  try {
    sessionStorage.setItem(NAME, encode(carried));
    return true;
  } catch {
    return false;
  }
}

// What was carried here, or null. `trusted` says whether it may act without asking, `known` whether
// a master's page sent us: only then may it also say who we are.
export function take(masters) {
  const hash = location.hash;
  if (hash.startsWith(`#${NAME}=`)) history.replaceState(null, "", location.pathname);
  try {
    const kept = sessionStorage.getItem(NAME);
    if (kept !== null) {
      sessionStorage.removeItem(NAME);
      return { ...decode(kept), trusted: true, known: true };
    }
  } catch {
    // Storage is forbidden here.
  }
  if (!hash.startsWith(`#${NAME}=`)) return null;
  try {
    const carried = decode(hash.slice(NAME.length + 2));
    if (carried === null || typeof carried !== "object") return null;
    const [nonce, master] = [redeem(carried.nonce), cameFrom(masters)];
    return {
      ...carried,
      known: master && carried.known !== false,
      trusted: (nonce || master) && carried.trusted !== false,
    };
  } catch {
    return null;
  }
}

// The masters that were left on the way here because their streams said nothing.
export function triedBefore(carried, origins) {
  const tried = Array.isArray(carried?.tried) ? carried.tried : [];
  return origins.filter((origin) => tried.includes(origin));
}

// Whether the nonce is one that a page of this host left lately. Good once.
function redeem(nonce) {
  if (!/^[0-9a-f]{32}$/.test(nonce)) return false;
  const left = leftAt(nonce);
  if (left === null) return false;
  cookie(nonce, 0);
  return Date.now() - left < FRESH_MS;
}

function cameFrom(masters) {
  try {
    return masters.includes(new URL(document.referrer).origin);
  } catch {
    return false;
  }
}
