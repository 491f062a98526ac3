// Finds what is more than plain in a post's text: code, links, places and names. Gives pieces whose
// texts together are the text that was written; what they look like is not decided here.

// Characters that end an address: blanks, quotes, angle brackets, and those that turn text around.
const ADDRESS = /https?:\/\/[^\s<>"'`\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069]+/u;
const PLACE = /(?<![\p{L}\p{N}_/#&-])#[a-z0-9][a-z0-9-]{0,31}(?:\/[1-9][0-9]{0,14})?(?![\p{L}\p{N}_-])/u;
const CODE = /`[^`\n]+`/u;
const BLOCK = /```[^\n`]*\n[^]*?\n?```\n?/u;
// A text of nothing but at signs shall cost no time.
const MENTIONS_MAX = 100;
const WORD = /[\p{L}\p{N}_]/u;

// A piece is {kind, text} with kind "text", "code", "block", "link", "place" or "mention". Code and
// blocks have `open` and `close`, the marks around them; a link has its `href`; a place its `board`
// and perhaps its `seq`; a mention the `name` it means. `isBoard(name)` says which places there are;
// `names` who can be meant.
export function pieces(text, { isBoard = () => false, names = [] } = {}) {
  const byLength = [...names].filter((name) => name !== "").sort((a, b) => b.length - a.length);
  return split(text, BLOCK, block, (outside) =>
    split(outside, CODE, code, (prose) =>
      split(prose, ADDRESS, link, (rest) =>
        split(
          rest,
          PLACE,
          (found) => place(found, isBoard),
          (plain) => mentions(plain, byLength),
        ),
      ),
    ),
  );
}

// Cuts a text at each match. `make` gives a match's pieces, `between` those of what is not matched.
function split(text, pattern, make, between) {
  const found = [];
  const all = new RegExp(pattern.source, `${pattern.flags}g`);
  let at = 0;
  for (const match of text.matchAll(all)) {
    if (match.index > at) found.push(...between(text.slice(at, match.index)));
    found.push(...make(match[0]));
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push(...between(text.slice(at)));
  return found;
}

const plain = (text) => (text === "" ? [] : [{ kind: "text", text }]);

function block(text) {
  const open = text.slice(0, text.indexOf("\n") + 1);
  const close = /\n?```\n?$/.exec(text.slice(open.length))[0];
  return [{ kind: "block", open, close, text: text.slice(open.length, text.length - close.length) }];
}

const code = (text) => [{ kind: "code", open: "`", close: "`", text: text.slice(1, -1) }];

// What ends a sentence does not belong to the address, nor a bracket that it did not open.
function link(text) {
  let end = text.length;
  for (;;) {
    const last = text[end - 1];
    const bracket = last === ")" && !text.slice(0, end).includes("(");
    if (!bracket && !/[.,;:!?*_~\]}]/u.test(last)) break;
    end -= 1;
  }
  const address = text.slice(0, end);
  try {
    const url = new URL(address);
    if (url.hostname === "") return plain(text);
    return [{ kind: "link", text: address, href: url.href }, ...plain(text.slice(end))];
  } catch {
    return plain(text);
  }
}

function place(text, isBoard) {
  const [board, seq] = text.slice(1).split("/");
  if (!isBoard(board)) return plain(text);
  return [{ kind: "place", text, board, seq: seq === undefined ? null : Number(seq) }];
}

// An at sign that no word stands before, and one of the names, the longest first.
function mentions(text, names) {
  const found = [];
  let begun = 0;
  let tries = 0;
  for (let at = text.indexOf("@"); at >= 0; at = text.indexOf("@", at + 1)) {
    tries += 1;
    if (tries > MENTIONS_MAX) break;
    if (at > 0 && WORD.test(text[at - 1])) continue;
    const rest = text.slice(at + 1);
    const name = names.find((one) => {
      const said = rest.slice(0, one.length);
      return said.toLowerCase() === one.toLowerCase() && !WORD.test(rest[one.length] ?? "");
    });
    if (name === undefined) continue;
    const end = at + 1 + name.length;
    found.push(...plain(text.slice(begun, at)), { kind: "mention", text: text.slice(at, end), name });
    begun = end;
    at = end - 1;
  }
  return [...found, ...plain(text.slice(begun))];
}

// Whether a text means this person.
export const mentionsName = (text, name) =>
  text.includes("@") && pieces(text, { names: [name] }).some(({ kind }) => kind === "mention");
