//! Dead letters: tasks that ended without an outcome, kept for operators.

use super::{
    sql::{Columns, Outcome, int},
    tx::{Tx, each, parsed},
};
use crate::{
    model::{
        ids::{Author, PostId, UserId},
        rows::{DeadLetter, NewPost},
    },
    store::bounds::{LETTERS_MAX, WHY_LEN_MAX},
};

impl Tx<'_> {
    pub(super) async fn put_dead_letter(&self, letter: &DeadLetter) -> Outcome<()> {
        let resource = letter.resource.to_string();
        let post = letter.post.as_ref();
        // PostgreSQL's texts hold no NUL.
        let why: String = letter.why.chars().filter(|c| *c != '\0').take(WHY_LEN_MAX).collect();
        let author = post.map(|post| &post.author.id.0[..]);
        let id = post.map(|post| &post.id.0[..]);
        // Repeating is safe: a post has one letter, all else one per reason.
        if post.is_some() {
            let sql = "DELETE FROM dead_letters WHERE author = $1 AND id = $2";
            self.db.run(sql, &[&author, &id]).await?;
        } else {
            let sql = "DELETE FROM dead_letters
                 WHERE author IS NULL AND id IS NULL AND resource = $1 AND why = $2";
            self.db.run(sql, &[&resource, &why]).await?;
        }
        let sql = "INSERT INTO dead_letters (resource, author, id, name, text, why, at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let name = post.map(|post| post.author.name.as_str());
        let text = post.map(|post| post.text.as_str());
        let at = int(self.now_ms);
        self.db.run(sql, &[&resource, &author, &id, &name, &text, &why, &at]).await?;
        if self.count("SELECT count(*) FROM dead_letters").await? > LETTERS_MAX {
            let sql = "DELETE FROM dead_letters
                 WHERE number = (SELECT min(number) FROM dead_letters)";
            self.db.run(sql, &[]).await?;
        }
        Ok(())
    }

    pub(super) async fn dead_letters(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Outcome<Vec<DeadLetter>> {
        let sql = "SELECT number, resource, author, id, name, text, why, at FROM dead_letters
             WHERE number < $1 ORDER BY number DESC LIMIT $2";
        let limit = int(u64::from(limit).min(LETTERS_MAX));
        let before = before.map_or(i64::MAX, int);
        each(&self.db.rows(sql, &[&before, &limit]).await?, |row| {
            let post = match row.bytes_or_null(2)? {
                Some(user) => Some(NewPost {
                    id: PostId(row.bytes(3)?),
                    author: Author { id: UserId(user), name: row.word(4)? },
                    text: row.word(5)?,
                }),
                None => None,
            };
            Ok(DeadLetter {
                number: row.nat(0)?,
                resource: parsed(row, 1)?,
                post,
                why: row.try_get(6)?,
                at_ms: row.nat(7)?,
            })
        })
    }

    pub(super) async fn drop_dead_letter(&self, number: u64) -> Outcome<()> {
        let sql = "DELETE FROM dead_letters WHERE number = $1";
        self.db.run(sql, &[&int(number)]).await.map(drop)
    }
}
