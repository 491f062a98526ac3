//! Tools for tests, behind the feature `testing`: suites that every implementation of a seam must
//! pass. The product is built without them.

pub mod store;
