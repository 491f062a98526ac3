// Takes each defence of SECURITY.md's table out, in a copy of the tree, and sees that its tests fail.
//
//   node tests/defences/run.mjs [DEFENCE ..]
//
// switches.patch puts a switch before each defence, read from CHATCHAT_REMOVED, so that one build
// serves all rows. Each test runs twice: with all defences it has to pass, without its own to fail.
// The last row needs Chromium and the driver of tests/browser.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "../..");
const LIB = ["-p", "chatchat", "--lib"];
const PROCESSES = ["-p", "chatchat", "--test", "processes"];
const ALLOCATIONS = ["-p", "chatchat", "--test", "allocations"];

// Expulsion on real processes is not among them: behind the deny list stands that the store no longer
// lists the node, so that taking one of the two out lets nobody in. Nor is the test of a launcher's
// logins, whose nodes do not see the switch: it passes without them. Blinding is the `rsa` crate's, and
// decrypting without it is forbidden by `clippy.toml`.
//
// Defence, where its test stands, the test, and the patch that takes it out if no switch does.
const ROWS = [
  ["sealed-records", LIB, "wire_shows_no_secret"],
  ["sealed-records", PROCESSES, "links_and_store_of_real_nodes_hold_no_secret"],
  ["hashed-tokens", PROCESSES, "links_and_store_of_real_nodes_hold_no_secret"],
  ["hashed-tokens", LIB, "dump_of_the_store_holds_no_secret_that_lets_anybody_in"],
  ["sealed-records", LIB, "sealed_message_of_another_session_or_step_is_refused"],
  ["ephemeral-pair", LIB, "stolen_identities_do_not_open_a_recorded_handshake"],
  ["ephemeral-pair", LIB, "stolen_identities_do_not_open_a_recorded_renewal"],
  ["daily-handshake", LIB, "link_of_usual_settings_makes_one_handshake_a_day"],
  ["fresh-secret", LIB, "reader_with_all_keys_of_the_link_but_not_the_wrapped_secret_opens_nothing_new"],
  ["renewal-signatures", LIB, "forged_signature_is_refused_before_anything_is_wrapped_or_unwrapped"],
  ["closed-logins", LIB, "worker_has_a_login_of_its_own_until_it_is_expelled"],
  ["signatures", LIB, "each_byte_changed_on_the_way_ends_the_handshake_and_nothing_is_said_after_it"],
  ["signatures", LIB, "attacker_with_the_guard_cannot_change_key_or_version"],
  ["signatures", LIB, "reply_of_a_trusted_master_for_another_session_is_refused"],
  ["pins", LIB, "master_with_an_unpinned_key_is_refused_before_any_unwrap"],
  ["guard", LIB, "hello_with_a_wrong_guard_costs_no_rsa_operation"],
  ["guard", LIB, "stranger_costs_no_rsa_operation_and_sees_no_reason"],
  ["bearer", LIB, "memory_store_passes_the_contract_suite"],
  ["deny-list", LIB, "expelled_node_is_refused_as_itself_and_under_its_old_token"],
  ["deny-list", LIB, "node_that_is_expelled_while_it_is_enrolled_gets_no_keys"],
  ["revoked-token", LIB, "memory_store_passes_the_contract_suite"],
  ["forced-epoch", LIB, "expulsion_waits_only_for_the_use_of_the_epoch_before"],
  ["record-counter", LIB, "replayed_reordered_dropped_and_reflected_records_are_refused"],
  ["record-counter", LIB, "replayed_record_ends_the_link"],
  ["replay-window", LIB, "sealed_text_opens_once_at_every_member"],
  ["hello-nonces", LIB, "a_replayed_hello_costs_no_second_rsa_operation"],
  ["frame-bound", LIB, "frames_arrive_in_order_and_over_long_ones_are_not_read"],
  ["claims-bound", ALLOCATIONS, "message_of_each_type_takes_a_bounded_room_whatever_it_claims", "claims.patch"],
  ["connection-limit", LIB, "ten_thousand_half_open_handshakes_hold_a_bounded_number_of_slots"],
  ["header-deadline", LIB, "connection_with_slow_headers_is_closed"],
  ["tls-deadline", LIB, "peer_that_stalls_in_the_handshake_is_closed"],
  ["text-only", LIB, "page_never_parses_text_as_markup", "markup.patch"],
  ["origin-check", LIB, "foreign_origin_is_recognised"],
  ["origin-check", LIB, "page_that_came_plain_is_foreign_to_a_front_end_of_https_alone"],
  ["same-site", LIB, "cookie_of_https_goes_to_no_other_host_and_never_out_plain"],
  ["verify-before-unwrap", LIB, "attacker_with_the_guard_cannot_change_key_or_version"],
  ["verify-before-unwrap", LIB, "random_and_changed_inputs_break_no_promise"],
];

// Two defences stand between a hostile text and a script in a browser: the page makes text nodes only,
// and its policy runs nothing that a text brings. Each alone has to be enough.
const PAGE = ["text-only", "page-policy"];
const HOSTILE = "no hostile text runs as a script";

const wanted = process.argv.slice(2);
const inPage = wanted.length === 0 || PAGE.some((name) => wanted.includes(name));
const rows = ROWS.filter(([defence]) => wanted.length === 0 || wanted.includes(defence));
const known = new Set([...ROWS.map(([name]) => name), ...PAGE]);
const unknown = wanted.filter((name) => !known.has(name));
if (unknown.length > 0) {
  console.error(`no such defence: ${unknown.join(" ")}; there are ${[...known].join(" ")}`);
  process.exit(2);
}
if (inPage && !existsSync(path.join(ROOT, "tests/browser/node_modules"))) {
  console.error("the page's row needs the browser driver: npm --prefix tests/browser ci");
  process.exit(2);
}

const copy = mkdtempSync(path.join(tmpdir(), "chatchat-defences-"));
try {
  execFileSync("git", ["-C", ROOT, "worktree", "add", "--detach", "--force", copy, "HEAD"], { stdio: "ignore" });
  const apply = (patch, ...how) =>
    execFileSync("git", ["-C", copy, "apply", ...how, path.join(ROOT, "tests/defences", patch)]);
  apply("switches.patch");
  const target = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target/defences");
  const env = { ...process.env, CARGO_TARGET_DIR: target };
  const run = (where, test, removed) => {
    const args = ["test", ...where, "--", test];
    const told = spawnSync("cargo", args, { cwd: copy, env: { ...env, CHATCHAT_REMOVED: removed }, encoding: "utf8" });
    const ran = /test result: \w+\. (\d+) passed; (\d+) failed/.exec(told.stdout);
    if (!ran || Number(ran[1]) + Number(ran[2]) === 0) {
      throw new Error(`${test} did not run:\n${told.stdout}${told.stderr}`.slice(0, 4000));
    }
    return Number(ran[2]) === 0;
  };
  // Says whether a script stayed out of the page, in a browser.
  const isSafe = (removed) => {
    const driver = path.join(ROOT, "tests/browser/run.mjs");
    const bin = path.join(target, "debug/chatchat-cluster");
    const how = ["--bin", bin, "--page", path.join(copy, "src/http/page"), "--filter", `hostile: ${HOSTILE}`];
    if (removed.includes("page-policy")) how.push("--without-policy");
    if (removed.includes("text-only")) apply("markup.patch");
    const told = spawnSync(process.execPath, [driver, ...how], { encoding: "utf8" });
    if (removed.includes("text-only")) apply("markup.patch", "--reverse");
    const ran = /^1 passed, 0 failed$|a dialog: /m.exec(told.stdout);
    if (!ran) throw new Error(`${HOSTILE} did not run:\n${told.stdout}${told.stderr}`.slice(0, 4000));
    return told.status === 0;
  };
  let wrong = 0;
  const word = (passes) => (passes ? "passes" : "fails").padEnd(7);
  const report = (defence, kept, removed, test) => {
    const holds = kept && !removed;
    wrong += holds ? 0 : 1;
    console.log(`${defence.padEnd(22)}  ${word(kept)}  ${word(removed)}  ${test}${holds ? "" : "   <- WRONG"}`);
  };
  console.log("defence                 with it  without  test");
  for (const [defence, where, test, patch] of rows) {
    const kept = run(where, test, "");
    if (patch) apply(patch);
    const removed = run(where, test, defence);
    if (patch) apply(patch, "--reverse");
    report(defence, kept, removed, test);
  }
  if (inPage) {
    execFileSync("cargo", ["build", "-p", "chatchat", "--bin", "chatchat-cluster"], { cwd: copy, env });
    const kept = [[], ...PAGE.map((name) => [name])].every(isSafe);
    report(PAGE.join(", "), kept, isSafe(PAGE), HOSTILE);
  }
  const count = rows.length + (inPage ? 1 : 0);
  console.log(wrong === 0 ? `all ${count} rows hold` : `${wrong} of ${count} rows do not hold`);
  process.exitCode = wrong === 0 ? 0 : 1;
} finally {
  execFileSync("git", ["-C", ROOT, "worktree", "remove", "--force", copy], { stdio: "ignore" });
  if (existsSync(copy)) rmSync(copy, { recursive: true, force: true });
}
