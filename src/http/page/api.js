// Asks this page's master. A call never throws: status 0 stands for no answer at all, and what is
// not an answer of ours counts as none.

import { within } from "./numbers.js";
import * as is from "./shapes.js";

const ROOT = "/api/v1";
// A write answers within 10 s; one that does not is as good as lost.
const CALL_TIMEOUT_MS = 14_000;

// A master that asks for more waits in vain: the page looks again, and finds another one.
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 10_000;

const NO_ANSWER = { status: 0, json: null, kind: "", detail: "no answer", retry_ms: RETRY_MIN_MS };

// Whose session this page drives. All pages of a browser share one cookie, so each call says it.
let user = null;
let onOther = () => {};

// From now on calls are of this user; `onOtherSession()` once when the cookie is somebody else's.
export function identify(id, onOtherSession) {
  user = id;
  onOther = onOtherSession;
}

// `wanted` gives, for each status that means success, what its body must be; null for no body.
async function call(method, path, { body, of = user, wanted, timeout_ms = CALL_TIMEOUT_MS }) {
  const init = { method, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(timeout_ms) };
  init.headers = of === null ? {} : { "Chatchat-User": of };
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(ROOT + path, init);
    const answer = read(response.status, response.headers.get("Retry-After"), await response.text(), wanted);
    if (answer.kind === "other-session") onOther();
    return answer;
  } catch {
    return NO_ANSWER;
  }
}

// What an answer says, or that it is none.
export function read(status, retryAfter, text, wanted) {
  if (wanted[status] === null && text === "") return { ...NO_ANSWER, status, detail: "" };
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    return NO_ANSWER;
  }
  if (wanted[status]?.(json)) return { ...NO_ANSWER, status, json, detail: "" };
  if (status < 400 || !is.isProblem(json)) return NO_ANSWER;
  return {
    status,
    json,
    kind: json.type.replace("urn:chatchat:", ""),
    detail: typeof json.detail === "string" ? json.detail : "",
    retry_ms: within(RETRY_MIN_MS, RETRY_MAX_MS, Number(retryAfter) * 1000, RETRY_MIN_MS),
  };
}

const boardPath = (board) => `/boards/${encodeURIComponent(board)}`;

export const session = (timeout_ms) => call("GET", "/session", { wanted: { 200: is.isSession }, timeout_ms });

export const join = (name) =>
  call("POST", "/sessions", { body: { name, cookie: true }, wanted: { 201: is.isSession } });

export const leave = () => call("DELETE", "/session", { wanted: { 204: null } });

export const alive = () => call("POST", "/session/alive", { wanted: { 204: null } });

export const ticket = () => call("POST", "/handover", { wanted: { 201: is.isTicket } });

// Spends a ticket if it is this user's.
export const redeem = (ticket, of) =>
  call("POST", "/handover/redeem", { body: { ticket }, of, wanted: { 201: is.isSession } });

export const boards = () => call("GET", "/boards", { wanted: { 200: is.isBoardList }, timeout_ms: 5000 });

export function createBoard(name) {
  const made = (json) => is.isBoard(json) && json.name === name;
  return call("PUT", boardPath(name), { wanted: { 200: made, 201: made } });
}

export const markRead = (board, seq) =>
  call("PUT", `${boardPath(board)}/read-mark`, { body: { seq }, wanted: { 204: null } });

export function writePost({ id, board, text }) {
  const written = (json) => is.isPost(json) && json.id === id && json.board === board;
  const wanted = { 200: written, 201: written, 202: is.isFate(id, ["pending"]) };
  return call("POST", `${boardPath(board)}/posts`, { body: { id, text }, wanted });
}

export const readPosts = (board, query) =>
  call("GET", `${boardPath(board)}/posts?${new URLSearchParams(query)}`, {
    wanted: { 200: is.isPage(board) },
  });

export const cancelPost = (id) =>
  call("DELETE", `/posts/${encodeURIComponent(id)}`, {
    wanted: { 200: is.isFate(id, ["committed", "cancelled"]) },
  });

export const users = (limit) =>
  call("GET", `/users?limit=${limit}`, { wanted: { 200: is.isUserList }, timeout_ms: 5000 });

export const cluster = () => call("GET", "/cluster", { wanted: { 200: is.isCluster }, timeout_ms: 4000 });

// A version 4 UUID. `randomUUID` is there on secure origins only, `getRandomValues` everywhere.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
