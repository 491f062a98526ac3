//! Login of a worker at a shared store that is a server: its user there, and the password.
//!
//! 1. A password is shown nowhere: neither `Debug` nor an error names it.
//! 2. A user's name needs no quoting in SQL.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::ids::{Malformed, NodeId};

/// Name of a user at the store's server: 1 to 63 of a-z, 0-9 and `_`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreUser(String);

impl StoreUser {
    /// Longest name that PostgreSQL keeps whole, in bytes.
    pub const LEN_MAX: usize = 63;

    /// Returns the name of a node of a cluster. The cluster's id is cut, so that the name fits: it
    /// only has to tell the clusters of one server apart.
    #[must_use]
    pub fn of_node(cluster: &[u8; 16], node: NodeId) -> Self {
        Self(format!("{}{}", Self::prefix_of_nodes(cluster), hex::encode(node.0)))
    }

    /// Returns the name of the group of all workers of a cluster.
    #[must_use]
    pub fn of_workers(cluster: &[u8; 16]) -> Self {
        Self(format!("{}_workers", Self::prefix(cluster)))
    }

    /// Returns how the names of a cluster's nodes begin.
    #[must_use]
    pub fn prefix_of_nodes(cluster: &[u8; 16]) -> String {
        format!("{}_", Self::prefix(cluster))
    }

    fn prefix(cluster: &[u8; 16]) -> String {
        let (head, _) = cluster.split_at(8);
        format!("chatchat_{}", hex::encode(head))
    }

    /// Returns the name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for StoreUser {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let fits = text.len() <= Self::LEN_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(is_plain);
        let why = "want 1 to 63 of a-z, 0-9 and '_', beginning with a letter";
        fits.then_some(Self(text)).ok_or(Malformed { what: "store user", why })
    }
}

impl From<StoreUser> for String {
    fn from(user: StoreUser) -> Self {
        user.0
    }
}

impl fmt::Display for StoreUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Password of a user at the store's server: 32 random bytes, whose hex digits are its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct StorePassword([u8; 32]);

impl StorePassword {
    /// Makes a password of random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the text that the server is shown.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0))
    }
}

impl fmt::Debug for StorePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorePassword")
    }
}

/// Login of a worker at the store's server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLogin {
    /// Name of the user.
    pub user: StoreUser,
    /// Password of the user.
    pub password: StorePassword,
}

impl StoreLogin {
    /// Returns the login as the text of a file: user and password, a line each.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}\n{}\n", self.user, *self.password.text()))
    }

    /// Reads what [`Self::text`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (user, password) = text.strip_suffix('\n')?.split_once('\n')?;
        let user = StoreUser::try_from(user.to_owned()).ok()?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(password, &mut bytes).ok()?;
        Some(Self { user, password: StorePassword(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> StoreLogin {
        let user = StoreUser::of_node(&[0xab; 16], NodeId([0xcd; 16]));
        StoreLogin { user, password: StorePassword([0xef; 32]) }
    }

    #[test]
    fn user_of_a_node_is_a_name_that_the_server_keeps_whole() {
        let user = login().user;
        insta::assert_snapshot!(user, @"chatchat_abababababababab_cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd");
        assert_eq!(StoreUser::try_from(user.to_string()), Ok(user.clone()));
        let group = StoreUser::of_workers(&[0xab; 16]);
        assert_eq!(group.as_str(), "chatchat_abababababababab_workers");
        assert!(user.as_str().starts_with(&StoreUser::prefix_of_nodes(&[0xab; 16])));
        assert_eq!(StoreUser::try_from(group.to_string()), Ok(group));
        for refused in ["", "_a", "1a", "A", "a-b", "a\"b", "a'b", "\u{e4}", &"a".repeat(64)] {
            assert!(StoreUser::try_from(refused.to_owned()).is_err(), "{refused}");
        }
    }

    #[test]
    fn text_of_a_login_is_read_back_and_nothing_else_is() {
        let login = login();
        let text = login.text();
        assert_eq!(StoreLogin::parse(text.as_bytes()).as_ref(), Some(&login));
        let (user, password) = (login.user.to_string(), login.password.text());
        for other in [
            String::new(),
            user.clone(),
            format!("{user}\n{}", *password),
            format!("{user}\n{}\n\n", *password),
            format!("{user}\n{}00\n", *password),
            format!("{user}\nnot hex\n"),
            format!("drop table\n{}\n", *password),
        ] {
            assert_eq!(StoreLogin::parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(StoreLogin::parse(&[0xff; 80]), None);
    }

    #[test]
    fn password_is_shown_nowhere() {
        let shown = format!("{:?}", login());
        assert!(!shown.contains("efef") && !shown.contains("239"), "{shown}");
    }
}
