#![no_main]

use chatchat::testing::fuzz::target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (target("link").expect("a target").run)(bytes);
});
