//! Certificates and keys in files.

use std::{fmt::Display, fs::File, io::Read, path::Path};

use zeroize::Zeroizing;

use super::{ProgramError, process::only_ours};
use crate::{
    client::{Trust, TrustError},
    http::{Tls, TlsError},
};

/// Largest file of certificates or of a key, in bytes: the bundle of all public authorities fits.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a certificate and its private key.
///
/// # Errors
/// [`ProgramError::Usage`], which names the file. Others must not be able to read the key's.
pub(super) fn server(cert: &Path, key: &Path) -> Result<Tls, ProgramError> {
    let (cert_pem, key_pem) = read_pair(cert, key)?;
    Tls::new(&cert_pem, &key_pem).map_err(|why| of_pair(cert, key, &why))
}

/// Reads both again, for the connections to come.
///
/// # Errors
/// As [`server`]; those in use stay.
pub(super) fn renew(tls: &Tls, cert: &Path, key: &Path) -> Result<(), ProgramError> {
    let (cert_pem, key_pem) = read_pair(cert, key)?;
    tls.replace(&cert_pem, &key_pem).map_err(|why| of_pair(cert, key, &why))
}

/// Reads certificates by which masters are known.
///
/// # Errors
/// [`ProgramError::Usage`], which names the file.
pub(super) fn trust(
    file: &Path,
    of: impl FnOnce(&[u8]) -> Result<Trust, TrustError>,
) -> Result<Trust, ProgramError> {
    of(&read(file)?).map_err(|why| refused(file, &why))
}

type Pem = Zeroizing<Vec<u8>>;

fn read_pair(cert: &Path, key: &Path) -> Result<(Pem, Pem), ProgramError> {
    only_ours(key, "have a new key certified")?;
    Ok((read(cert)?, read(key)?))
}

fn read(file: &Path) -> Result<Pem, ProgramError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let opened = File::open(file).map(|file| file.take(FILE_BYTES_MAX + 1));
    let read = opened.and_then(|mut file| file.read_to_end(&mut bytes));
    let len = read.map_err(|why| refused(file, &why))?;
    if len as u64 > FILE_BYTES_MAX {
        return Err(refused(file, &"is over 1 MiB"));
    }
    Ok(bytes)
}

fn of_pair(cert: &Path, key: &Path, why: &TlsError) -> ProgramError {
    match why {
        TlsError::NoCertificate | TlsError::Certificate(_) => refused(cert, why),
        TlsError::Key(_) => refused(key, why),
        TlsError::Unusable(_) => {
            ProgramError::Usage(format!("{}, {}: {why}", cert.display(), key.display()))
        }
    }
}

fn refused(file: &Path, why: &dyn Display) -> ProgramError {
    ProgramError::Usage(format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{env::real::TempDir, testing::certificates::self_signed};

    fn write(dir: &TempDir, name: &str, text: &str, mode: u32) -> std::path::PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    #[test]
    fn pair_that_cannot_be_used_is_refused_by_the_name_of_its_file() {
        let dir = TempDir::new().expect("a directory");
        let (one, other) = (self_signed(&["a.example"]), self_signed(&["a.example"]));
        let cert = write(&dir, "c.pem", &one.certificate, 0o644);
        let key = write(&dir, "k.pem", &one.key, 0o600);
        let tls = server(&cert, &key).expect("a pair");
        let open = write(&dir, "open.pem", &one.key, 0o640);
        let foreign = write(&dir, "foreign.pem", &other.key, 0o600);
        let none = write(&dir, "none.pem", "no PEM at all\n", 0o600);
        let large = write(&dir, "large.pem", &"-".repeat(1024 * 1024 + 1), 0o600);
        let missing = dir.path().join("missing.pem");
        let pairs = [
            (&cert, &open, "open.pem may be read by others (mode 0640)"),
            (&cert, &foreign, "foreign.pem: certificate and key cannot be used"),
            (&none, &key, "none.pem: there is no certificate"),
            (&cert, &none, "none.pem: the private key cannot be read"),
            (&large, &key, "large.pem: is over 1 MiB"),
            (&cert, &missing, "missing.pem: No such file"),
        ];
        for (cert, key, why) in pairs {
            let said = server(cert, key).expect_err("refused").to_string();
            assert!(said.contains(why), "{said}");
            let said = renew(&tls, cert, key).expect_err("refused").to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
