//! Changes of valid inputs: most of what is interesting lies near what is valid.

use dst_env::rng::Rng;

/// Largest input, in bytes: a record's largest and a little more would only take time.
const LEN_MAX: usize = 16 * 1024;
/// Bytes and numbers at which lengths and kinds change their meaning.
const EDGES: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, b'"'];

/// Returns an input: random bytes, a seed, or one that was changed in a few places.
#[must_use]
pub fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    if seeds.is_empty() || rng.odds(1, 16) {
        let mut bytes = vec![0; rng.index(200)];
        rng.fill(&mut bytes);
        return bytes;
    }
    let mut bytes = rng.pick(seeds).clone();
    for _ in 0..rng.below(5) {
        change(rng, &mut bytes, seeds);
    }
    bytes.truncate(LEN_MAX);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    if bytes.is_empty() {
        bytes.push(*rng.pick(&EDGES));
        return;
    }
    let at = rng.index(bytes.len());
    let to = (at + 1 + rng.index(16)).min(bytes.len());
    match rng.below(10) {
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 | 3 => bytes[at] = *rng.pick(&EDGES),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..to)),
        6 => {
            let part = bytes[at..to].to_vec();
            bytes.splice(at..at, part);
        }
        7 => {
            let mut fresh = vec![0; 1 + rng.index(8)];
            rng.fill(&mut fresh);
            bytes.splice(at..at, fresh);
        }
        8 => {
            let other = rng.pick(seeds);
            let from = rng.index(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        // A length of 2, 4 or 8 bytes in the codec's form, where a shorter one stood.
        _ => {
            let (mark, len) = *rng.pick(&[(0xfb, 2), (0xfc, 4), (0xfd, 8)]);
            let mut number = vec![mark];
            number.extend_from_slice(&rng.word().to_le_bytes()[..len]);
            bytes.splice(at..=at, number);
        }
    }
}
