// The sides of a narrow page: one at most is open, over the board.

import { $ } from "./dom.js";

// Buttons and the sides that they open.
const SIDES = [
  ["show-boards", "boards-side"],
  ["show-people", "people-side"],
];

export function listenToSides() {
  for (const [button] of SIDES) $(button).addEventListener("click", () => slide(button));
  addEventListener("keydown", (event) => event.key === "Escape" && slide());
  document.querySelector(".middle").addEventListener("pointerdown", () => slide());
}

// Opens one side and closes the other; without a button closes both.
export function slide(button = null) {
  for (const [b, s] of SIDES) {
    const was = $(s).classList.contains("open");
    const open = b === button && !was;
    const held = $(s).contains(document.activeElement);
    $(s).classList.toggle("open", open);
    $(b).setAttribute("aria-expanded", String(open));
    // What is in a closed side can have no focus.
    if (was && !open && held) $(b).focus();
    if (open) $(s).querySelector("button, [tabindex]")?.focus();
  }
}
