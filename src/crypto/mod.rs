//! Keys, handshake, sealed records, the fanout envelope: pure functions over bytes.
//!
//! RSA carries and signs keys, AES-256-GCM carries what is said. Nothing here waits, reads a
//! clock or draws a random byte of its own: generators are handed in.
//!
//! 1. A key has one use: an identity signs, a handshake or common key unwraps.
//! 2. A private key decrypts a peer's bytes only after a signature over them was verified.
//! 3. Each signature, wrap and derived key has a label `chatchat/v1/..` of its own.
//! 4. What is signed or hashed is the bytes that were received, never a re-encoding.
//! 5. A nonce is never an argument: counters belong to the value that holds the key.
//! 6. Secret types have no `Debug` and no `Serialize`, and erase themselves.

pub mod admission;
pub mod epoch;
pub mod fanout;
pub mod handshake;
pub mod keys;
pub mod record;
pub mod secret;
mod signed;
