//! The front end: JSON, server-sent events, and the page.
