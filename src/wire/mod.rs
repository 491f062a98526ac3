//! Length-prefixed bounded frames and the codec.
