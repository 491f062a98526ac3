//! Identity of this build, and the probes that its sources name.
//!
//! A seed gives the same run with the same build only.

/// Commit, hash of the sources, compiler, target and level of optimisation.
pub const BUILD: &str = env!("CHATCHAT_BUILD");

/// Probes that the code can reach, in order, as the sources name them.
pub const PROBES: &[&str] = include!(concat!(env!("OUT_DIR"), "/probes.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_product_and_store_host_are_listed_and_those_of_tests_are_not() {
        for probe in [
            "a batch was given to another worker",
            "a person posted",
            "batches shared a transaction of the store",
        ] {
            assert!(PROBES.contains(&probe), "{probe} is not in {PROBES:?}");
        }
        assert!(!PROBES.contains(&"seldom"), "that one stands in a test");
        assert!(PROBES.is_sorted());
    }

    #[test]
    fn build_names_commit_sources_compiler_and_target() {
        for word in ["sources ", "rustc ", "opt-level "] {
            assert!(BUILD.contains(word), "{BUILD}");
        }
    }
}
