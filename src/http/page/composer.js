// Where one writes: Enter sends, Shift+Enter breaks a line, drafts are kept as they are typed.

import { $, setText } from "./dom.js";

const TEXT_BYTES_MAX = 8 * 1024;
// From here on it says how much is left.
const NEAR_END_BYTES = 1024;

// Half a surrogate pair cannot be written as UTF-8, and no text has a NUL.
const mended = (text) => text.replaceAll(/\p{Surrogate}/gu, "\ufffd").replaceAll("\0", "");

export class Composer {
  // `send(board, text)` takes a post, or says no.
  constructor(local, send) {
    this.local = local;
    this.send = send;
    this.board = null;
    // Until the first post of this visit, and only where there is room.
    this.hinting = matchMedia("(min-width: 56rem) and (pointer: fine)").matches;
    this.text = $("text");
    this.note = $("composer-note");
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.text.addEventListener("keydown", (event) => {
      // An input method uses Enter to choose a word; 229 is how older ones say so.
      const composing = event.isComposing || event.keyCode === 229;
      if (event.key === "Enter" && !event.shiftKey && !composing) {
        event.preventDefault();
        this.submit();
      }
    });
    this.text.addEventListener("input", () => this.changed());
  }

  open(board) {
    this.board = board;
    this.text.value = this.local.draft(board);
    this.text.placeholder = `Write to #${board}`;
    this.fit();
  }

  // Shows a draft that came from elsewhere, unless something was written meanwhile.
  refresh() {
    if (this.text.value === "" && this.local.draft(this.board) !== "") this.open(this.board);
  }

  changed() {
    this.local.setDraft(this.board, this.text.value);
    this.fit();
  }

  get bytes() {
    return new TextEncoder().encode(this.text.value).length;
  }

  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
    const left = TEXT_BYTES_MAX - this.bytes;
    const hint = this.hinting && this.text.value !== "" ? "Enter sends, Shift+Enter breaks the line" : "";
    this.note.dataset.kind = left < 0 ? "bad" : "";
    setText(
      this.note,
      left < 0 ? `${-left} bytes too long` : left < NEAR_END_BYTES ? `${left} bytes left` : hint,
    );
  }

  // Takes nothing any more, and keeps what is there.
  freeze() {
    this.text.readOnly = true;
  }

  submit() {
    if (this.text.readOnly) return;
    const text = this.text.value;
    if (mended(text).trim() === "" || this.bytes > TEXT_BYTES_MAX) return;
    if (!this.send(this.board, mended(text))) {
      setText(this.note, "Too many posts wait already. It is kept here.");
      return;
    }
    this.text.value = "";
    this.hinting = false;
    this.changed();
  }

  // A cancelled post comes back to be written anew, unless something else is being written.
  giveBack(board, text) {
    if (this.local.draft(board) !== "") return;
    this.local.setDraft(board, text);
    if (board === this.board) this.open(board);
  }

  // Focus and caret, to be found again after a move.
  place() {
    const { selectionStart, selectionEnd } = this.text;
    return { caret: [selectionStart, selectionEnd], focus: document.activeElement === this.text };
  }

  goTo({ caret, focus }) {
    if (focus) this.text.focus({ preventScroll: true });
    if (Array.isArray(caret)) this.text.setSelectionRange(Number(caret[0]) || 0, Number(caret[1]) || 0);
  }
}
