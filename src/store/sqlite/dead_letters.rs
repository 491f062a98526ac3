//! Dead letters: tasks that ended without an outcome, kept for operators.

use rusqlite::params;

use super::{
    Tx,
    sql::{Columns, int, malformed},
};
use crate::{
    model::{
        ids::{Author, PostId, UserId},
        rows::{DeadLetter, NewPost, StoreError},
    },
    store::bounds::{LETTERS_MAX, WHY_LEN_MAX},
};

impl Tx<'_> {
    pub(super) fn put_dead_letter(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let resource = letter.resource.to_string();
        let post = letter.post.as_ref();
        let why: String = letter.why.chars().take(WHY_LEN_MAX).collect();
        // Repeating is safe: a post has one letter, all else one per reason.
        if let Some(post) = post {
            let mut replace =
                self.db.prepare_cached("DELETE FROM dead_letters WHERE user = ?1 AND id = ?2")?;
            replace.execute(params![post.author.id.0, post.id.0])?;
        } else {
            let mut replace = self.db.prepare_cached(
                "DELETE FROM dead_letters
                 WHERE user IS NULL AND id IS NULL AND resource = ?1 AND why = ?2",
            )?;
            replace.execute(params![resource, why])?;
        }
        let mut put = self.db.prepare_cached(
            "INSERT INTO dead_letters (resource, user, id, name, text, why, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        put.execute(params![
            resource,
            post.map(|post| post.author.id.0),
            post.map(|post| post.id.0),
            post.map(|post| post.author.name.as_str()),
            post.map(|post| post.text.as_str()),
            why,
            int(self.now_ms)
        ])?;
        if self.count("dead_letters")? > LETTERS_MAX {
            let mut trim = self.db.prepare_cached(
                "DELETE FROM dead_letters WHERE number = (SELECT min(number) FROM dead_letters)",
            )?;
            trim.execute([])?;
        }
        Ok(())
    }

    pub(super) fn dead_letters(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT number, resource, user, id, name, text, why, at FROM dead_letters
             WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
        )?;
        let limit = u64::from(limit).min(LETTERS_MAX);
        let rows = find.query_map([before.map_or(i64::MAX, int), int(limit)], |row| {
            let resource: String = row.get(1)?;
            let post = match row.bytes_or_null(2)? {
                Some(user) => Some(NewPost {
                    id: PostId(row.get(3)?),
                    author: Author { id: UserId(user), name: row.word(4)? },
                    text: row.word(5)?,
                }),
                None => None,
            };
            Ok(DeadLetter {
                number: row.nat(0)?,
                resource: resource.parse().map_err(|why| malformed(1, &why))?,
                post,
                why: row.get(6)?,
                at_ms: row.nat(7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn drop_dead_letter(&self, number: u64) -> Result<(), StoreError> {
        let mut delete = self.db.prepare_cached("DELETE FROM dead_letters WHERE number = ?1")?;
        delete.execute([int(number)])?;
        Ok(())
    }
}
