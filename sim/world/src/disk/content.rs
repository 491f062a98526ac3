//! Content of a file in blocks, of which those that nobody wrote take no room.
//!
//! 1. Node databases are made with room for much more than they hold, and every file is kept twice.
//! 2. Copies share their blocks until one of them is written.

use std::sync::Arc;

/// Bytes in a block. A database's pages are as large.
const BLOCK: usize = 4096;

/// Block of a file; `None` reads as zeros.
type Block = Option<Arc<[u8; BLOCK]>>;

/// Bytes of a file. What is beyond what was written reads as zeros, up to its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    len: usize,
    /// Blocks as far as the length goes. Beyond the length a block is zero.
    blocks: Vec<Block>,
}

impl Content {
    /// Returns the number of bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Cuts the content, or adds zeros to it.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.blocks.resize(len.div_ceil(BLOCK), None);
        let rest = len % BLOCK;
        if len < self.len
            && rest > 0
            && let Some(Some(block)) = self.blocks.last_mut()
        {
            Arc::make_mut(block)[rest..].fill(0);
        }
        self.len = len;
    }

    /// Writes bytes at an offset; content that is shorter grows.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.len < offset + bytes.len() {
            self.set_len(offset + bytes.len());
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let from = at % BLOCK;
            let (part, later) = rest.split_at(rest.len().min(BLOCK - from));
            let block = self.blocks[at / BLOCK].get_or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[from..from + part.len()].copy_from_slice(part);
            (at, rest) = (at + part.len(), later);
        }
    }

    /// Fills `out` with the bytes from an offset on. False, with `out` as it was, when the content
    /// ends before that.
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) -> bool {
        if offset.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let from = at % BLOCK;
            let len = rest.len().min(BLOCK - from);
            let (part, later) = rest.split_at_mut(len);
            match &self.blocks[at / BLOCK] {
                Some(block) => part.copy_from_slice(&block[from..from + len]),
                None => part.fill(0),
            }
            (at, rest) = (at + len, later);
        }
        true
    }

    /// Returns all bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; self.len];
        self.read(0, &mut all);
        all
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        let mut made = Self::default();
        made.write(0, bytes);
        made
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        let is_equal = |(a, b): (&Block, &Block)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (Some(one), None) | (None, Some(one)) => **one == [0; BLOCK],
            (None, None) => true,
        };
        self.len == other.len && self.blocks.iter().zip(&other.blocks).all(is_equal)
    }
}

impl Eq for Content {}

#[cfg(test)]
mod tests {
    use dst_env::rng::Seed;

    use super::*;

    #[test]
    fn content_reads_as_a_vector_that_had_the_same_changes() {
        let mut rng = Seed(3).stream("content");
        for _ in 0..20 {
            let (mut content, mut plain) = (Content::default(), Vec::new());
            let mut copies = Vec::new();
            for nth in 0..60_u8 {
                let (at, len) = (rng.index(5 * BLOCK), rng.index(3 * BLOCK));
                if rng.odds(1, 3) {
                    content.set_len(at);
                    plain.resize(at, 0);
                } else {
                    let bytes = vec![nth; len];
                    content.write(at, &bytes);
                    if plain.len() < at + len {
                        plain.resize(at + len, 0);
                    }
                    plain[at..at + len].copy_from_slice(&bytes);
                }
                assert_eq!((content.len(), content.to_vec()), (plain.len(), plain.clone()));
                let (from, wanted) = (rng.index(6 * BLOCK), rng.index(2 * BLOCK));
                let mut out = vec![7; wanted];
                let is_there = content.read(from, &mut out);
                assert_eq!(is_there.then_some(&out[..]), plain.get(from..from + wanted));
                assert!(is_there || out == vec![7; wanted], "what is not there changes nothing");
                copies.push((content.clone(), plain.clone()));
            }
            for (content, plain) in copies {
                assert_eq!(content.to_vec(), plain, "a copy stays as it was");
            }
        }
    }

    #[test]
    fn zeros_that_were_written_equal_those_that_were_not() {
        let (mut written, mut grown) = (Content::from(&[0; 9000][..]), Content::default());
        grown.set_len(9000);
        assert_eq!(written, grown);
        written.write(8000, &[1]);
        assert_ne!(written, grown);
        grown.set_len(8999);
        assert_ne!(Content::from(&[0; 9000][..]), grown, "another length");
    }

    #[test]
    fn offset_that_no_file_has_is_not_read() {
        assert!(!Content::from(&[1; 10][..]).read(usize::MAX, &mut [0; 2]));
    }
}
