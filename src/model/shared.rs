//! A value that many readers share, together with its encoded form.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

/// Shared value that is encoded at most once, by the first reader that needs its bytes.
///
/// A post goes to every reader of its board: the clones in their backlogs share one encoding.
/// The encoded bytes live as long as the value, so a value costs its own size and theirs.
#[derive(Clone)]
pub struct Shared<T>(Arc<Slot<T>>);

struct Slot<T> {
    value: T,
    encoded: OnceLock<Bytes>,
}

impl<T> Shared<T> {
    /// Wraps a value that nobody has encoded yet.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Slot { value, encoded: OnceLock::new() }))
    }

    /// Returns the encoded form, made by `encode` at the first call on any clone. All callers
    /// have to pass the same encoding.
    pub fn encoded(&self, encode: impl FnOnce(&T) -> Bytes) -> &Bytes {
        self.0.encoded.get_or_init(|| encode(&self.0.value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

/// Compares the values; whether they are encoded does not matter.
impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_encoded_once() {
        let first = Shared::new(7);
        let second = first.clone();
        assert_eq!(second.encoded(|n| Bytes::from(n.to_string())), "7");
        assert_eq!(first.encoded(|_| panic!("encoded twice")), "7");
        assert_eq!(first, Shared::new(7), "equal by value");
    }
}
