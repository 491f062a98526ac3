//! Tools that tests share: contract suites, a cluster in one process, and a stepped world.
//!
//! Compiled for the package's own tests and with the feature `testing`; the product holds none
//! of it.

#[cfg(all(test, feature = "net"))]
pub(crate) mod braked_world;
#[cfg(all(test, feature = "net"))]
pub(crate) mod certificates;
#[cfg(feature = "net")]
pub mod cluster;
pub mod comm;
#[cfg(feature = "net")]
pub mod fuzz;
#[cfg(all(test, feature = "net"))]
pub(crate) mod http;
#[cfg(test)]
pub(crate) mod keys;
#[cfg(all(test, feature = "net"))]
pub(crate) mod logged;
#[cfg(all(test, feature = "net"))]
pub(crate) mod long_list;
#[cfg(test)]
pub(crate) mod memory_disk;
#[cfg(feature = "net")]
pub mod postgres;
#[cfg(all(test, feature = "net"))]
pub(crate) mod scripted_master;
pub mod skip;
#[cfg(feature = "net")]
pub mod small_disk;
#[cfg(test)]
pub(crate) mod stepped_world;
pub mod store;
#[cfg(all(test, feature = "net"))]
pub(crate) mod worker;

/// Snapshots stand in one folder for all of the project.
#[cfg(test)]
pub(crate) fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings
}
