// Takes a person from one master's page to another's: what is carried along, and whether what
// arrives may be believed.
//
// Ports of one host are different origins, so local storage stays behind: all travels in the
// URL's fragment, which no server sees, and which is cleared at once. A link can carry a
// fragment too. So unsent posts go out by themselves only if the page that sent us here is
// known: by a nonce in a cookie (cookies ignore ports), or by being one of the masters.

const NAME = "move";
const NONCE = "chatchat-move";
const FRESH_S = 120;

function encode(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decode(text) {
  const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(raw, (char) => char.charCodeAt(0))));
}

const cookieOf = (name) =>
  document.cookie
    .split("; ")
    .find((pair) => pair.startsWith(`${name}=`))
    ?.slice(name.length + 1);

// What lets the next page believe that this one sent it.
export function nonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join(
    "",
  );
}

// Leaves for another master. Said again with the same nonce before the next page is there, the
// newer cargo goes instead.
export function go(origin, carried, nonce) {
  document.cookie = `${NONCE}=${nonce}; Path=/; Max-Age=${FRESH_S}; SameSite=Strict`;
  location.assign(`${origin}/#${NAME}=${encode({ ...carried, nonce })}`);
}

// Loads this page again, at the same master.
export function again(carried) {
  try {
    sessionStorage.setItem(NAME, encode(carried));
  } catch {
    // Then only what local storage keeps comes along.
  }
  location.reload();
}

// What was carried here, or null. `trusted` says whether it may act without asking.
export function take(masters) {
  const hash = location.hash;
  if (hash.length > 1) history.replaceState(null, "", location.pathname);
  try {
    const kept = sessionStorage.getItem(NAME);
    if (kept !== null) {
      sessionStorage.removeItem(NAME);
      return { ...decode(kept), trusted: true };
    }
  } catch {
    // Storage is forbidden here.
  }
  if (!hash.startsWith(`#${NAME}=`)) return null;
  const expected = cookieOf(NONCE);
  document.cookie = `${NONCE}=; Path=/; Max-Age=0; SameSite=Strict`;
  try {
    const carried = decode(hash.slice(NAME.length + 2));
    if (carried === null || typeof carried !== "object") return null;
    return {
      ...carried,
      trusted: cameFrom(masters) || (expected !== undefined && carried.nonce === expected),
    };
  } catch {
    return null;
  }
}

function cameFrom(masters) {
  try {
    return masters.includes(new URL(document.referrer).origin);
  } catch {
    return false;
  }
}
