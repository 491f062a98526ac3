//! Admission lists: join tokens, enrolled nodes, denied nodes.
//!
//! 1. No row lets its reader enrol: of a bearer only the SHA-256 is kept.
//! 2. A use of a token is consumed in the transaction that enrols the node.
//! 3. A full list of nodes lets go of the one unused longest, never of one used within a week.
//! 4. A spent token stays listed as a guard until its end; a denied node stays denied.

use subtle::ConstantTimeEq;
use tokio_postgres::Row;

use super::{
    sql::{Columns, Outcome, int, malformed},
    tx::{Tx, each},
};
use crate::{
    model::{
        bounds::NODES_MAX,
        ids::{Fingerprint, NodeId, Role},
        rows::{Admission, Enrolled, JoinToken},
    },
    store::{
        bounds::{ENROLLED_MAX, TOKEN_TTL_MAX_MS, TOKENS_MAX, UNUSED_MS, USE_AGAIN_MS},
        refused,
    },
};

impl Tx<'_> {
    pub(super) async fn put_join_token(&self, token: &JoinToken) -> Outcome<()> {
        let latest_ms = self.latest_ms();
        self.db.run("DELETE FROM join_tokens WHERE ends_at <= $1", &[&int(latest_ms)]).await?;
        if let Some(kept) = self.join_token(&token.id).await? {
            let same = kept.guard == token.guard && kept.bearer_sha256 == token.bearer_sha256;
            return if same { Ok(()) } else { Err(refused("this token id is taken").into()) };
        }
        if self.count("SELECT count(*) FROM join_tokens").await? >= TOKENS_MAX {
            return Err(refused(format!("{TOKENS_MAX} join tokens are the most")).into());
        }
        let sql = "INSERT INTO join_tokens (id, guard, bearer_sha256, role, uses_left, ends_at)
             VALUES ($1, $2, $3, $4, $5, $6)";
        // Its life begins at the time by which its end is judged, which is later than now after the
        // clock went back.
        let back_ms = latest_ms.saturating_sub(self.now_ms);
        let end_max_ms = latest_ms.saturating_add(TOKEN_TTL_MAX_MS);
        let ends_at = int(token.ends_at_ms.saturating_add(back_ms).min(end_max_ms));
        let (role, uses) = (token.role.to_string(), i64::from(token.uses_left));
        let (id, guard, bearer) = (&token.id[..], &token.guard[..], &token.bearer_sha256[..]);
        self.db.run(sql, &[&id, &guard, &bearer, &role, &uses, &ends_at]).await.map(drop)
    }

    pub(super) async fn revoke_join_token(&self, id: &[u8; 8]) -> Outcome<()> {
        self.db.run("DELETE FROM join_tokens WHERE id = $1", &[&&id[..]]).await.map(drop)
    }

    async fn join_token(&self, id: &[u8; 8]) -> Outcome<Option<JoinToken>> {
        let sql = "SELECT id, guard, bearer_sha256, role, uses_left, ends_at FROM join_tokens
             WHERE id = $1 AND ends_at > $2 FOR UPDATE";
        let row = self.db.row(sql, &[&&id[..], &int(self.latest_ms())]).await?;
        row.map(|row| join_token(&row)).transpose()
    }

    pub(super) async fn admission(&self) -> Outcome<Admission> {
        let snapshot = self.snapshot().await?;
        let sql = "SELECT id, guard, bearer_sha256, role, uses_left, ends_at FROM join_tokens
             WHERE ends_at > greatest($1, (SELECT at FROM clock)) ORDER BY id";
        let tokens = snapshot.db.rows(sql, &[&int(snapshot.now_ms)]).await?;
        let sql = "SELECT node, fingerprint, role, guard FROM enrolled ORDER BY node";
        let allowed = snapshot.db.rows(sql, &[]).await?;
        let denied = snapshot.db.rows("SELECT node FROM denied ORDER BY node", &[]).await?;
        snapshot.end_snapshot().await?;
        Ok(Admission {
            tokens: each(&tokens, join_token)?,
            allowed: each(&allowed, enrolled)?,
            denied: each(&denied, |row| Ok(NodeId(row.bytes(0)?)))?,
        })
    }

    pub(super) async fn enrol(
        &self,
        token: &[u8; 8],
        bearer_sha256: &[u8; 32],
        node: &Enrolled,
    ) -> Outcome<Enrolled> {
        if NodeId::of(&node.fingerprint) != node.node {
            return Err(refused("the node id is not its key's").into());
        }
        if self.is_denied(node.node).await? {
            return Err(refused("this node was expelled").into());
        }
        let find = "SELECT node, fingerprint, role, guard FROM enrolled WHERE node = $1";
        let id = &node.node.0[..];
        if let Some(row) = self.db.row(find, &[&id]).await? {
            let kept = enrolled(&row)?;
            // Its Welcome was lost, or it moved: the identity counts, not the token.
            return if kept.role == node.role && kept.fingerprint == node.fingerprint {
                self.use_nodes(&[node.node]).await?;
                Ok(kept)
            } else {
                Err(refused("this node is enrolled as something else").into())
            };
        }
        let good = self.join_token(token).await?.filter(|token| {
            bool::from(token.bearer_sha256.ct_eq(bearer_sha256))
                && token.role == node.role
                && token.uses_left > 0
        });
        if good.is_none() {
            // One answer for all reasons: it must not help to guess.
            return Err(refused("the join token does not admit this node").into());
        }
        let count = self.count("SELECT count(*) FROM enrolled").await?;
        if count >= ENROLLED_MAX && !self.let_go_of_a_node().await? {
            return Err(refused(format!("{ENROLLED_MAX} nodes are the most")).into());
        }
        let token = &token[..];
        let consume = "UPDATE join_tokens SET uses_left = uses_left - 1 WHERE id = $1";
        self.db.run(consume, &[&token]).await?;
        let sql = "INSERT INTO enrolled (node, fingerprint, role, guard, token, used_at)
             VALUES ($1, $2, $3, $4, $5, $6)";
        let (fingerprint, role) = (&node.fingerprint.0[..], node.role.to_string());
        let (guard, now) = (&node.guard[..], int(self.now_ms));
        self.db.run(sql, &[&id, &fingerprint, &role, &guard, &token, &now]).await?;
        Ok(node.clone())
    }

    pub(super) async fn use_nodes(&self, nodes: &[NodeId]) -> Outcome<()> {
        let nodes: Vec<_> = nodes.iter().take(NODES_MAX).map(|node| &node.0[..]).collect();
        let sql = "UPDATE enrolled SET used_at = $2 WHERE node IN (
                 SELECT node FROM enrolled WHERE node = ANY($1::bytea[]) AND used_at < $3
                 ORDER BY node FOR UPDATE)";
        let before = int(self.now_ms.saturating_sub(USE_AGAIN_MS));
        self.db.run(sql, &[&nodes, &int(self.now_ms), &before]).await.map(drop)
    }

    /// Drops the node that was unused longest. Returns whether there was one that may go.
    async fn let_go_of_a_node(&self) -> Outcome<bool> {
        if !self.are_ages_good().await? {
            return Ok(false);
        }
        let sql = "DELETE FROM enrolled WHERE node =
             (SELECT node FROM enrolled WHERE used_at < $1 ORDER BY used_at, node LIMIT 1)";
        let before = int(self.now_ms.saturating_sub(UNUSED_MS));
        Ok(self.db.run(sql, &[&before]).await? == 1)
    }

    pub(super) async fn deny(&self, node: NodeId) -> Outcome<()> {
        let id = &node.0[..];
        let sql = "INSERT INTO denied (node, at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.db.run(sql, &[&id, &int(self.now_ms)]).await?;
        for sql in [
            "DELETE FROM join_tokens WHERE id IN (SELECT token FROM enrolled WHERE node = $1)",
            "DELETE FROM enrolled WHERE node = $1",
            "UPDATE masters SET listed = FALSE WHERE node = $1",
        ] {
            self.db.run(sql, &[&id]).await?;
        }
        Ok(())
    }

    pub(super) async fn is_denied(&self, node: NodeId) -> Outcome<bool> {
        let sql = "SELECT node FROM denied WHERE node = $1";
        Ok(self.db.row(sql, &[&&node.0[..]]).await?.is_some())
    }
}

fn role(row: &Row, column: usize) -> Outcome<Role> {
    let text: &str = row.try_get(column)?;
    [Role::Master, Role::Worker]
        .into_iter()
        .find(|role| role.to_string() == text)
        .ok_or_else(|| malformed(column, &format_args!("no such role: {text}")))
}

fn join_token(row: &Row) -> Outcome<JoinToken> {
    Ok(JoinToken {
        id: row.bytes(0)?,
        guard: row.bytes(1)?,
        bearer_sha256: row.bytes(2)?,
        role: role(row, 3)?,
        uses_left: row.small(4)?,
        ends_at_ms: row.nat(5)?,
    })
}

fn enrolled(row: &Row) -> Outcome<Enrolled> {
    Ok(Enrolled {
        node: NodeId(row.bytes(0)?),
        fingerprint: Fingerprint(row.bytes(1)?),
        role: role(row, 2)?,
        guard: row.bytes(3)?,
    })
}
