//! Certificates for tests of TLS.

/// Certificate that vouches for itself, with its private key, both as the text of a PEM file.
pub(crate) struct SelfSigned {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes a certificate for these names and addresses.
pub(crate) fn self_signed(names: &[&str]) -> SelfSigned {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("names");
    SelfSigned { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}
