//! Writes `keys/pool.der` anew: the simulation's pool of RSA pairs, which guard nothing.

use std::{env, fs, io, path::Path};

use chatchat::crypto::keys::{KeyBounds, KeyPair};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const PAIRS: usize = 448;
#[expect(clippy::disallowed_methods, reason = "these keys protect nothing")]
const BOUNDS: KeyBounds = KeyBounds::weak_for_simulation();

fn main() -> io::Result<()> {
    let mut rng = ChaCha20Rng::seed_from_u64(0);
    let mut out = Vec::new();
    for _ in 0..PAIRS {
        let pair = KeyPair::generate(&mut rng, 1024, BOUNDS);
        let der = pair.and_then(|pair| pair.to_pkcs8_der()).map_err(io::Error::other)?;
        let len = u16::try_from(der.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&der);
    }
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    fs::write(Path::new(&root).join("keys/pool.der"), out)
}
