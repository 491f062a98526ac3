//! Keys, handshake, sealed records, the fanout envelope: pure functions over bytes.
