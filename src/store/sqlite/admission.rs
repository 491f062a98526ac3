//! Admission lists: join tokens, enrolled nodes, denied nodes.
//!
//! 1. No row lets its reader enrol: of a bearer only the SHA-256 is kept.
//! 2. A use of a token is consumed in the transaction that enrols the node.
//! 3. A full list of nodes lets go of the one unused longest, never of one used within a week.
//! 4. A spent token stays listed as a guard until its end; a denied node stays denied.

use rusqlite::{OptionalExtension, Row, params};
use subtle::ConstantTimeEq;

use super::{
    Tx, refused,
    sql::{Columns, int, malformed},
};
use crate::{
    model::{
        bounds::NODES_MAX,
        ids::{Fingerprint, NodeId, Role},
        rows::{Admission, Enrolled, JoinToken, StoreError},
    },
    store::bounds::{ENROLLED_MAX, TOKEN_TTL_MAX_MS, TOKENS_MAX, UNUSED_MS, USE_AGAIN_MS},
};

impl Tx<'_> {
    pub(super) fn put_join_token(&self, token: &JoinToken) -> Result<(), StoreError> {
        let latest_ms = self.latest_ms()?;
        let mut purge = self.db.prepare_cached("DELETE FROM join_tokens WHERE ends_at <= ?1")?;
        purge.execute([int(latest_ms)])?;
        if let Some(kept) = self.join_token(&token.id)? {
            let same = kept.guard == token.guard && kept.bearer_sha256 == token.bearer_sha256;
            return if same { Ok(()) } else { Err(refused("this token id is taken")) };
        }
        if self.count("join_tokens")? >= TOKENS_MAX {
            return Err(refused(format!("{TOKENS_MAX} join tokens are the most")));
        }
        // Its life begins at the time by which its end is judged, which is later than now after the
        // clock went back.
        let back_ms = latest_ms.saturating_sub(self.now_ms);
        let end_max_ms = latest_ms.saturating_add(TOKEN_TTL_MAX_MS);
        let mut put = self.db.prepare_cached(
            "INSERT INTO join_tokens (id, guard, bearer_sha256, role, uses_left, ends_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        put.execute(params![
            token.id,
            token.guard,
            token.bearer_sha256,
            token.role.to_string(),
            token.uses_left,
            int(token.ends_at_ms.saturating_add(back_ms).min(end_max_ms))
        ])?;
        Ok(())
    }

    pub(super) fn revoke_join_token(&self, id: &[u8; 8]) -> Result<(), StoreError> {
        self.db.prepare_cached("DELETE FROM join_tokens WHERE id = ?1")?.execute([id])?;
        Ok(())
    }

    fn join_token(&self, id: &[u8; 8]) -> Result<Option<JoinToken>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT id, guard, bearer_sha256, role, uses_left, ends_at FROM join_tokens
             WHERE id = ?1 AND ends_at > ?2",
        )?;
        Ok(find.query_row(params![id, int(self.latest_ms()?)], join_token).optional()?)
    }

    pub(super) fn admission(&self) -> Result<Admission, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT id, guard, bearer_sha256, role, uses_left, ends_at FROM join_tokens
             WHERE ends_at > ?1 ORDER BY id",
        )?;
        let now = int(self.latest_ms()?);
        let tokens = find.query_map([now], join_token)?.collect::<Result<_, _>>()?;
        let mut find = self
            .db
            .prepare_cached("SELECT node, fingerprint, role, guard FROM enrolled ORDER BY node")?;
        let allowed = find.query_map([], enrolled)?.collect::<Result<_, _>>()?;
        let mut find = self.db.prepare_cached("SELECT node FROM denied ORDER BY node")?;
        let denied =
            find.query_map([], |row| Ok(NodeId(row.get(0)?)))?.collect::<Result<_, _>>()?;
        Ok(Admission { tokens, allowed, denied })
    }

    pub(super) fn enrol(
        &self,
        token: &[u8; 8],
        bearer_sha256: &[u8; 32],
        node: &Enrolled,
    ) -> Result<Enrolled, StoreError> {
        if NodeId::of(&node.fingerprint) != node.node {
            return Err(refused("the node id is not its key's"));
        }
        if self.is_denied(node.node)? {
            return Err(refused("this node was expelled"));
        }
        let mut find = self.db.prepare_cached(
            "SELECT node, fingerprint, role, guard FROM enrolled WHERE node = ?1",
        )?;
        if let Some(kept) = find.query_row([node.node.0], enrolled).optional()? {
            // Its Welcome was lost, or it moved: the identity counts, not the token.
            return if kept.role == node.role && kept.fingerprint == node.fingerprint {
                self.use_nodes(&[node.node])?;
                Ok(kept)
            } else {
                Err(refused("this node is enrolled as something else"))
            };
        }
        let good = self.join_token(token)?.filter(|token| {
            bool::from(token.bearer_sha256.ct_eq(bearer_sha256))
                && token.role == node.role
                && token.uses_left > 0
        });
        if good.is_none() {
            // One answer for all reasons: it must not help to guess.
            return Err(refused("the join token does not admit this node"));
        }
        if self.count("enrolled")? >= ENROLLED_MAX && !self.let_go_of_a_node()? {
            return Err(refused(format!("{ENROLLED_MAX} nodes are the most")));
        }
        let mut consume = self
            .db
            .prepare_cached("UPDATE join_tokens SET uses_left = uses_left - 1 WHERE id = ?1")?;
        consume.execute([token])?;
        let mut put = self.db.prepare_cached(
            "INSERT INTO enrolled (node, fingerprint, role, guard, token, used_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        put.execute(params![
            node.node.0,
            node.fingerprint.0,
            node.role.to_string(),
            node.guard,
            token,
            int(self.now_ms)
        ])?;
        Ok(node.clone())
    }

    pub(super) fn use_nodes(&self, nodes: &[NodeId]) -> Result<(), StoreError> {
        let mut put = self
            .db
            .prepare_cached("UPDATE enrolled SET used_at = ?2 WHERE node = ?1 AND used_at < ?3")?;
        for node in nodes.iter().take(NODES_MAX) {
            let before = self.now_ms.saturating_sub(USE_AGAIN_MS);
            put.execute(params![node.0, int(self.now_ms), int(before)])?;
        }
        Ok(())
    }

    /// Drops the node that was unused longest. Returns whether there was one that may go.
    fn let_go_of_a_node(&self) -> Result<bool, StoreError> {
        if !self.are_ages_good()? {
            return Ok(false);
        }
        let mut drop = self.db.prepare_cached(
            "DELETE FROM enrolled WHERE node =
                 (SELECT node FROM enrolled WHERE used_at < ?1 ORDER BY used_at, node LIMIT 1)",
        )?;
        Ok(drop.execute([int(self.now_ms.saturating_sub(UNUSED_MS))])? == 1)
    }

    pub(super) fn deny(&self, node: NodeId) -> Result<(), StoreError> {
        let mut revoke = self.db.prepare_cached(
            "DELETE FROM join_tokens WHERE id IN (SELECT token FROM enrolled WHERE node = ?1)",
        )?;
        revoke.execute([node.0])?;
        let mut put = self.db.prepare_cached(
            "INSERT INTO denied (node, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?;
        put.execute(params![node.0, int(self.now_ms)])?;
        for sql in [
            "DELETE FROM enrolled WHERE node = ?1",
            "UPDATE masters SET listed = 0 WHERE node = ?1",
        ] {
            self.db.prepare_cached(sql)?.execute([node.0])?;
        }
        Ok(())
    }

    pub(super) fn is_denied(&self, node: NodeId) -> Result<bool, StoreError> {
        Ok(self.db.prepare_cached("SELECT 1 FROM denied WHERE node = ?1")?.exists([node.0])?)
    }
}

fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Role> {
    let text: String = row.get(column)?;
    [Role::Master, Role::Worker]
        .into_iter()
        .find(|role| role.to_string() == text)
        .ok_or_else(|| malformed(column, &format!("no such role: {text}")))
}

fn join_token(row: &Row<'_>) -> rusqlite::Result<JoinToken> {
    Ok(JoinToken {
        id: row.get(0)?,
        guard: row.get(1)?,
        bearer_sha256: row.get(2)?,
        role: role(row, 3)?,
        uses_left: row.small(4)?,
        ends_at_ms: row.nat(5)?,
    })
}

fn enrolled(row: &Row<'_>) -> rusqlite::Result<Enrolled> {
    Ok(Enrolled {
        node: NodeId(row.get(0)?),
        fingerprint: Fingerprint(row.get(1)?),
        role: role(row, 2)?,
        guard: row.get(3)?,
    })
}
