//! Keys, handshake, sealed records and the fanout envelope: pure functions over bytes.
//!
//! RSA wraps and signs keys; AES-256-GCM seals messages. Nothing here waits or reads a clock, and
//! random bytes come only from generators that the caller passes in.
//!
//! 1. A key has one use: an identity signs, a handshake or common key unwraps.
//! 2. A private key decrypts a peer's bytes only after a signature over them was verified.
//! 3. Each signature, wrap and derived key has a label `chatchat/v1/..` of its own.
//! 4. Signatures and hashes cover the bytes as received, never a re-encoding.
//! 5. A nonce is never an argument: the value that holds the key also holds the counter.
//! 6. Secret types have no `Debug` and no `Serialize`, and erase themselves.

pub mod admission;
pub mod epoch;
pub mod fanout;
pub mod handshake;
pub mod keys;
pub mod record;
pub mod secret;
mod signed;
