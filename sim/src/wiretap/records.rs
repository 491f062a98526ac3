//! Repeated nonces of sealed records, as a listener can see them.
//!
//! A listener knows neither keys nor nonces. But texts whose first [`START_LEN`] bytes are equal, and
//! short texts that are equal as a whole, are equal there again once one key and one nonce sealed them.
//! Otherwise these bytes are random, and never equal by chance. Nodes say the same thing over and
//! over, such as that they live, so that a nonce that is used again soon shows.

use chatchat::crypto::record::{HEADER_LEN, body_len};

/// Bytes of a record's body that are compared. A body holds its tag, so that none is shorter.
const START_LEN: usize = 16;
/// Length of the length before a plain frame, in bytes.
const PLAIN_HEAD_LEN: usize = 4;

type Start = [u8; START_LEN];

/// Beginnings of the bodies of all records that were seen.
#[derive(Default)]
pub(super) struct Records(Vec<Start>);

impl Records {
    /// Takes what one end of a link said from the connection's beginning: a plain frame of the handshake,
    /// then records. The last one may be cut short.
    pub(super) fn take(&mut self, said: &[u8]) {
        let Some((len, rest)) = said.split_first_chunk::<PLAIN_HEAD_LEN>() else { return };
        let mut rest = rest.get(u32::from_le_bytes(*len) as usize..).unwrap_or_default();
        while let Some((header, after)) = rest.split_first_chunk::<HEADER_LEN>()
            && let Ok(len) = body_len(*header)
            && let Some((body, after)) = after.split_at_checked(len)
        {
            self.0.extend(body.first_chunk::<START_LEN>());
            rest = after;
        }
    }

    /// Returns how many records there are.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns how many records begin as one before them.
    pub(super) fn repeated(mut self) -> usize {
        self.0.sort_unstable();
        self.0.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }
}

#[cfg(test)]
mod tests {
    use chatchat::crypto::{
        record::{RecordKind, Sealer, Side, link},
        secret::Secret,
    };

    use super::*;

    const BEAT: &[u8] = &[7, 1];

    fn sealer(secret: u8, side: Side) -> Sealer {
        link(&Secret::from_slice(&[secret; 32]).expect("32 bytes"), side).0
    }

    /// Returns what an end says: its part of a handshake, and some records.
    fn said(sealer: &mut Sealer, texts: &[&[u8]]) -> Vec<u8> {
        let mut said = vec![3, 0, 0, 0, 1, 2, 3];
        for text in texts {
            sealer.seal(RecordKind::Data, text, &mut said).expect("short");
        }
        said
    }

    fn repeated(ends: &[Vec<u8>]) -> (usize, usize) {
        let mut records = Records::default();
        for said in ends {
            records.take(said);
        }
        (records.len(), records.repeated())
    }

    #[test]
    fn same_text_under_other_keys_and_nonces_never_looks_alike() {
        let ends = [(1, Side::Dialer), (1, Side::Acceptor), (2, Side::Dialer)];
        let ends = ends.map(|(secret, side)| said(&mut sealer(secret, side), &[BEAT; 300]));
        assert_eq!(repeated(&ends), (900, 0));
    }

    #[test]
    fn repeated_nonce_is_seen_in_records_that_begin_alike() {
        let long = |end: &str| format!("a text of the same beginning {end}").into_bytes();
        let (one, other) = (long("and one end"), long("and another one"));
        let first = said(&mut sealer(1, Side::Dialer), &[BEAT, &one, b"something"]);
        let again = said(&mut sealer(1, Side::Dialer), &[BEAT, &other, b"some other thing"]);
        assert_eq!(repeated(&[first, again]), (6, 2));
    }

    #[test]
    fn what_was_cut_short_is_no_record() {
        let whole = said(&mut sealer(1, Side::Dialer), &[BEAT, BEAT]);
        for (len, records) in [(0, 0), (5, 0), (7, 0), (29, 0), (30, 1), (52, 1), (53, 2)] {
            assert_eq!(repeated(&[whole[..len].to_vec()]).0, records, "{len} bytes");
        }
        let plain = b"\xff\xff\xff\xff and nothing more".to_vec();
        assert_eq!(repeated(&[plain, Vec::new()]), (0, 0));
    }
}
