//! The four ways to talk, on one secured link.
