// Finds out who one is: a session that is there, one brought along by a ticket, or a new one.

import * as api from "./api.js";
import { $, setText } from "./dom.js";
import { go } from "./move.js";
import { sleep } from "./numbers.js";
import { isUserId } from "./shapes.js";

// A ticket ends this long after it was given.
const TICKET_LIFE_MS = 5 * 60_000;
// Without a proof one can go on too.
const PROOF_MS = 10_000;

// The session, after joining if need be.
export async function enter(masters, carried) {
  const here = await restored(masters, carried);
  if (here) {
    await prove(here, masters, carried);
    return here;
  }
  const moved = carried?.ticket ? await redeem(masters, carried) : null;
  return moved ?? join();
}

// The session that the cookie stands for, however long the answer takes; null without one.
async function restored(masters, carried) {
  for (let tries = 0; ; tries += 1) {
    const answer = await api.session(5000);
    // After waiting the page is inert until the banner goes.
    if (answer.status === 200 || answer.status === 401) banner("");
    if (answer.status === 200) return answer.json;
    if (answer.status === 401) return null;
    await wait(answer, tries, masters, carried);
  }
}

// Waits before another try, or goes to another master where this one does not answer.
async function wait(answer, tries, masters, carried) {
  banner(answer.status === 0 ? "Reconnecting" : "Waiting for the store");
  if (answer.status === 0 && tries > 0) {
    const target = await masters.find();
    if (target !== null && target !== location.origin) {
      go(target, carried ?? {});
      await sleep(60_000);
    }
  }
  await sleep(Math.min(answer.retry_ms, 3000));
}

function banner(text) {
  const node = $("banner");
  setText(node, text === "" ? "" : `${text}\u2026`);
  $("chat").hidden = text === "";
  $("chat").inert = text !== "";
}

// A ticket of one's own session, which only its page can have asked for, shows that what was carried
// here is one's own, by whatever name that page was opened.
async function prove(session, masters, carried) {
  if (!carried?.ticket || carried.trusted || carried.user !== session.user.id) return;
  const answer = await spend(PROOF_MS, masters, carried);
  banner("");
  if (answer.status === 201) carried.trusted = true;
}

// Goes on with the ticket's session; with one that came with an unknown link only after asking,
// because a link with somebody else's ticket must not log people in.
async function redeem(masters, carried) {
  const { name, known, user } = carried;
  if (user !== undefined && !isUserId(user)) return null;
  if (!known && !(await agreed(String(name ?? "somebody").slice(0, 40)))) return null;
  const answer = await spend(TICKET_LIFE_MS, masters, carried);
  if (answer.status === 201 && answer.json.user.id === user) carried.trusted = true;
  // A ticket is refused too when it is spent by an answer that got lost after it set the cookie.
  return restored(masters, carried);
}

// Spends the ticket. Whatever is no answer to it is tried again, for so long.
async function spend(limit_ms, masters, carried) {
  const end = performance.now() + limit_ms;
  for (let tries = 0; ; tries += 1) {
    const answer = await api.redeem(carried.ticket, carried.user ?? null);
    const { status } = answer;
    const isDecided = status !== 0 && status !== 408 && status !== 429 && status < 500;
    if (isDecided || performance.now() >= end) return answer;
    await wait(answer, tries, masters, carried);
  }
}

function agreed(name) {
  $("join").hidden = false;
  $("join-form").hidden = true;
  $("continue").hidden = false;
  setText($("continue-lead"), `A link brought you here as ${name}.`);
  setText($("continue-yes"), `Continue as ${name}`);
  return new Promise((done) => {
    const answer = (yes) => {
      $("continue").hidden = true;
      $("join").hidden = true;
      done(yes);
    };
    $("continue-yes").addEventListener("click", () => answer(true), { once: true });
    $("continue-no").addEventListener("click", () => answer(false), { once: true });
  });
}

function join() {
  $("join").hidden = false;
  $("join-form").hidden = false;
  const notice = sessionStorage.getItem("notice");
  if (notice) {
    sessionStorage.removeItem("notice");
    setText($("join-lead"), notice);
  }
  const [form, name, error] = [$("join-form"), $("join-name"), $("join-error")];
  name.focus();
  return new Promise((done) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      if (button.disabled) return;
      button.disabled = true;
      setText(error, "");
      const answer = await api.join(name.value);
      button.disabled = false;
      if (answer.status === 201) {
        $("join").hidden = true;
        done({ ...answer.json, fresh: true });
        return;
      }
      setText(
        error,
        answer.kind === "malformed-name"
          ? "Use 1 to 40 characters, and no invisible ones."
          : "Nobody answers just now. Try again in a moment.",
      );
    });
  });
}
