#![no_main]

use chatchat::testing::fuzz::target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (target("renewal").expect("a target").run)(bytes);
});
