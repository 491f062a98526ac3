// Asks this page's master. A call never throws: status 0 stands for no answer at all.

const ROOT = "/api/v1";
// A write answers within 10 s; one that does not is as good as lost.
const CALL_TIMEOUT_MS = 14_000;

export async function call(method, path, body, timeout_ms = CALL_TIMEOUT_MS) {
  const init = { method, cache: "no-store", signal: AbortSignal.timeout(timeout_ms) };
  if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(ROOT + path, init);
    const text = await response.text();
    const json = text && /json/.test(response.headers.get("Content-Type") ?? "") ? JSON.parse(text) : null;
    const after = Number(response.headers.get("Retry-After"));
    return {
      status: response.status,
      json,
      kind: response.ok ? "" : (json?.type ?? "").replace("urn:chatchat:", ""),
      detail: json?.detail ?? "",
      retry_ms: Number.isFinite(after) && after > 0 ? after * 1000 : 1000,
    };
  } catch {
    return { status: 0, json: null, kind: "", detail: "no answer", retry_ms: 1000 };
  }
}

export const posts = (board, query, timeout_ms) =>
  call(
    "GET",
    `/boards/${encodeURIComponent(board)}/posts?${new URLSearchParams(query)}`,
    undefined,
    timeout_ms,
  );

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// A version 4 UUID. `randomUUID` is there on secure origins only, `getRandomValues` everywhere.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
