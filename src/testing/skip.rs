//! Word of tests that are skipped, because the machine lacks what they need.

use std::{
    env,
    io::{self, Write},
    thread,
};

/// Says that the test of this thread is skipped, and why.
///
/// # Panics
/// With `CHATCHAT_REQUIRE_ALL=1`, which demands that no test is skipped.
pub fn skip(why: &str) {
    assert!(
        env::var_os("CHATCHAT_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{why}, and CHATCHAT_REQUIRE_ALL=1"
    );
    say_skipped(why);
}

/// Says that the test of this thread is skipped, as [`skip`] does, where whoever runs it cannot mend that:
/// no demand makes it a failure.
pub fn say_skipped(why: &str) {
    let thread = thread::current();
    // libtest names a thread after its test.
    let test = thread.name().unwrap_or("a test");
    // libtest keeps what `eprintln!` prints, and drops it when the test passes.
    let _ = writeln!(io::stderr(), "SKIPPED: {why}: {test}");
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    /// Environment variable of a child process: it is to skip a test.
    const ROLE: &str = "CHATCHAT_SKIP_CHILD";

    /// Body of the child processes; does nothing in an ordinary run.
    #[test]
    fn in_a_role() {
        if env::var_os(ROLE).is_some() {
            skip("nothing is there");
        }
    }

    /// Runs a test that is skipped as `cargo test` does, in a process of its own.
    fn skipped(require_all: &str) -> Output {
        let mut this = Command::new(env::current_exe().expect("this test"));
        this.args(["--exact", "testing::skip::tests::in_a_role"]).env(ROLE, "1");
        this.env("CHATCHAT_REQUIRE_ALL", require_all).env_remove("RUST_TEST_NOCAPTURE");
        this.output().expect("it runs")
    }

    #[test]
    fn skipped_test_passes_and_says_so_and_fails_where_all_are_required() {
        let output = skipped("0");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
        assert!(err.contains("SKIPPED: nothing is there: "), "{out}{err}");

        let output = skipped("1");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && out.contains("1 failed"), "{out}");
    }
}
