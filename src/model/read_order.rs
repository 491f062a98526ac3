//! Order of reads of one thing that may overtake each other: of two, the one that began later decides.

/// Number of a read, in the order in which they begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadNumber(u64);

/// Reads that began, and the newest of those that ended.
#[derive(Debug, Default)]
pub(crate) struct ReadOrder {
    begun: ReadNumber,
    ended: ReadNumber,
}

impl ReadOrder {
    /// Returns an order without reads.
    pub(crate) const fn new() -> Self {
        Self { begun: ReadNumber(0), ended: ReadNumber(0) }
    }

    /// Returns the number of a read that begins now.
    pub(crate) const fn begin(&mut self) -> ReadNumber {
        self.begun.0 += 1;
        self.begun
    }

    /// Returns the number of the read that began last.
    pub(crate) const fn last_begun(&self) -> ReadNumber {
        self.begun
    }

    /// Ends a read. Returns whether what it found counts: `false` if one that began later has ended.
    pub(crate) fn end(&mut self, read: ReadNumber) -> bool {
        let counts = read > self.ended;
        if counts {
            self.ended = read;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_that_began_earlier_and_ends_later_does_not_count() {
        let mut order = ReadOrder::new();
        let (first, second) = (order.begin(), order.begin());
        assert_eq!(order.last_begun(), second);
        assert!(order.end(second));
        assert!(!order.end(first), "it was overtaken");
        let third = order.begin();
        assert!(order.end(third) && !order.end(third), "a read ends once");
    }
}
