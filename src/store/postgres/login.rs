//! Users of workers at the server: one for each worker that has no other login, in one group that has
//! the rights.
//!
//! 1. A worker's user reads and writes the rows that a worker needs. It changes no table, makes no
//!    user, and reads no secret of admission, such as a guard.
//! 2. The server is never shown a password, only its SCRAM verifier: statements may be logged there.
//! 3. A user is made or changed in turn and for an enrolled node only, so that none is opened again
//!    behind an expulsion.
//! 4. Rights are granted to the group: a table's list of rights has room for hundreds, not for
//!    thousands.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;

use super::{
    connect::{MAKES_LOGINS, WAY_OUT},
    sql::{Failure, Outcome, words_of},
    tx::Tx,
};
use crate::{
    model::{
        ids::NodeId,
        login::{StorePassword, StoreUser},
    },
    store::refused,
};

/// Rights of the workers' group, by table. A table that is not named is none of theirs.
const RIGHTS: [(&str, &str); 15] = [
    ("chatchat_store", "SELECT"),
    ("clock", "SELECT, UPDATE"),
    // All but `guard`.
    (
        "masters",
        "SELECT (node, incarnation, beat, http, link, spki, name, draining, listed, touched_at)",
    ),
    ("leases", "SELECT, UPDATE"),
    ("boards", "SELECT, INSERT, UPDATE"),
    ("posts", "SELECT, INSERT"),
    ("post_ids", "SELECT, INSERT, UPDATE, DELETE"),
    ("cancels", "SELECT, INSERT, DELETE"),
    ("sessions", "SELECT, INSERT, UPDATE, DELETE"),
    ("session_digests", "SELECT, INSERT, UPDATE"),
    ("closed_sessions", "SELECT, INSERT"),
    ("read_marks", "SELECT, INSERT, UPDATE, DELETE"),
    ("tickets", "SELECT, INSERT, UPDATE, DELETE"),
    ("presence", "SELECT, DELETE"),
    ("writes", "INSERT"),
];

/// Most connections of one worker: those that it holds, and as many that the server has not yet
/// noticed to be over, several times.
const CONNECTIONS_MAX: usize = 32;

impl Tx<'_> {
    /// Returns whether this user may make others.
    pub(super) async fn makes_logins(&self) -> Outcome<bool> {
        let row = self.db.row(MAKES_LOGINS, &[]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
    }

    /// Makes the user of a node, or gives it this password. Repeating it is safe.
    pub(super) async fn put_login(
        &self,
        node: NodeId,
        password: &StorePassword,
    ) -> Outcome<StoreUser> {
        let find = "SELECT node FROM enrolled WHERE node = $1";
        if self.db.row(find, &[&&node.0[..]]).await?.is_none() {
            return Err(refused("this node is not enrolled").into());
        }
        if !self.makes_logins().await? {
            let why = format!("the masters' user of the store may make no others; {WAY_OUT}");
            return Err(refused(why).into());
        }
        let cluster = self.cluster().await?.cluster;
        let group = StoreUser::of_workers(&cluster);
        if !self.is_user(&group).await? {
            self.db.batch_of(&format!("CREATE ROLE {group} NOLOGIN")).await?;
        }
        self.grant_rights(&group).await?;
        let user = StoreUser::of_node(&cluster, node);
        let verb = if self.is_user(&user).await? { "ALTER" } else { "CREATE" };
        let verifier = verifier(password, salt(password, &user));
        let sql = format!(
            "{verb} ROLE {user} LOGIN INHERIT CONNECTION LIMIT {CONNECTIONS_MAX} PASSWORD '{verifier}';
             GRANT {group} TO {user}"
        );
        self.db.batch_of(&sql).await?;
        Ok(user)
    }

    /// Closes the user of a node that was denied, and ends its sessions. Does nothing if it has none.
    /// Repeating it is safe. Begin no transaction before it: each statement counts at once.
    pub(super) async fn close_login(&self, node: NodeId) -> Outcome<()> {
        let user = StoreUser::of_node(&self.cluster().await?.cluster, node);
        self.close(&user).await.map_err(|failure| match failure {
            Failure::Sql(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                let why = format!(
                    "the node is denied, but its user of the store may still log in: {}; as a \
                     superuser, ALTER ROLE {user} NOLOGIN and end its sessions",
                    words_of(&error)
                );
                refused(why).into()
            }
            other => other,
        })
    }

    async fn close(&self, user: &StoreUser) -> Outcome<()> {
        let find = "SELECT rolcanlogin, pg_has_role($1::name, 'USAGE') FROM pg_roles
             WHERE rolname = $1::name";
        let Some(row) = self.db.row(find, &[&user.as_str()]).await? else { return Ok(()) };
        let (may_log_in, is_member): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        if may_log_in {
            self.db.batch_of(&format!("ALTER ROLE {user} NOLOGIN")).await?;
        }
        if !is_member {
            // Who is no superuser ends the sessions of those alone whose rights it has.
            self.db.batch_of(&format!("GRANT {user} TO CURRENT_USER")).await?;
        }
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1::name";
        self.db.rows(end, &[&user.as_str()]).await.map(drop)
    }

    async fn is_user(&self, user: &StoreUser) -> Outcome<bool> {
        let find = "SELECT 1::bigint FROM pg_roles WHERE rolname = $1::name";
        Ok(self.db.row(find, &[&user.as_str()]).await?.is_some())
    }

    /// Gives the group its rights. All of them each time: tables that were restored may lack some.
    async fn grant_rights(&self, group: &StoreUser) -> Outcome<()> {
        let state =
            "SELECT quote_ident(current_database()::text), quote_ident(current_schema()::text),
                 has_database_privilege($1::name, current_database()::text, 'CONNECT'),
                 has_schema_privilege($1::name, current_schema()::text, 'USAGE')";
        let row = self.db.one(state, &[&group.as_str()]).await?;
        let (database, schema): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let mut sql = String::new();
        if !row.try_get::<_, bool>(2)? {
            sql += &format!("GRANT CONNECT ON DATABASE {database} TO {group};");
        }
        if !row.try_get::<_, bool>(3)? {
            sql += &format!("GRANT USAGE ON SCHEMA {schema} TO {group};");
        }
        for (table, rights) in RIGHTS {
            sql += &format!("GRANT {rights} ON {table} TO {group};");
        }
        self.db.forget_warning();
        self.db.batch_of(&sql).await?;
        // What was not granted is a warning, unless nothing was.
        match self.db.warning() {
            Some(why) => Err(refused(format!("rights of workers: {why}")).into()),
            None => Ok(()),
        }
    }
}

/// Returns the salt of a verifier. It depends on the password, which is random, so that repeating an
/// operation changes nothing.
fn salt(password: &StorePassword, user: &StoreUser) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update("chatchat/v1/store/salt\0");
    hash.update(user.as_str());
    hash.update(password.text().as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// Returns what the server keeps of a password: a verifier of SCRAM-SHA-256 (RFC 5802, RFC 7677).
fn verifier(password: &StorePassword, salt: [u8; 16]) -> String {
    const ITERATIONS: u32 = 4096;
    let text = password.text();
    // The salt, and the number of the one block.
    let mut last = mac(text.as_bytes(), &[&salt, &1_u32.to_be_bytes()]);
    let mut salted = last;
    for _ in 1..ITERATIONS {
        last = mac(text.as_bytes(), &[&last]);
        salted.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    let stored: [u8; 32] = Sha256::digest(mac(&salted, &[b"Client Key"])).into();
    let server = mac(&salted, &[b"Server Key"]);
    let [salt, stored, server] =
        [&salt[..], &stored[..], &server[..]].map(|it| STANDARD.encode(it));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

/// Returns the HMAC-SHA-256 under a key of at most 64 bytes.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    debug_assert!(key.len() <= 64, "a longer key is hashed first");
    // A shorter key is filled with zeros, by definition.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifier_of_a_password_is_the_one_that_the_standard_says() {
        // As Python's hashlib.pbkdf2_hmac and hmac compute it.
        let password = StorePassword::new([0x5a; 32]);
        insta::assert_snapshot!(verifier(&password, *b"0123456789abcdef"), @"SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$BHL5S5K1+2d91PaCoKWSqBAATUc+s5pDri/xHnsd+BU=:9CKLSjJ9Y5gMwpHYHuAVtaI2thz0v48gZqOYRX9QBWw=");
    }
}
