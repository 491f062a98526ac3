//! Reads of the node database. Each sees one snapshot; none waits for a writer.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::{
    PAGE_BYTES_MAX, PAGE_POSTS_MAX, Replica, ReplicaError, bound,
    tables::{
        BOARDS, CLOSED, MARKS, MEMBERS, META, META_EPOCH, Name, POSTS, PostRow, SESSIONS,
        author_of, member, post,
    },
};
use crate::model::{
    copies::SessionRoom,
    ids::{BoardName, Post, Seq, SessionKey, StoreEpoch},
    message::Member,
    rows::{Boards, Page, Range, SessionRow},
};

/// Snapshot of the database.
pub(super) struct Reader(pub(super) ReadTransaction);

impl Reader {
    pub(super) fn begin(db: &Database) -> Result<Self, ReplicaError> {
        Ok(Self(db.begin_read()?))
    }

    pub(super) fn epoch(&self) -> Result<StoreEpoch, ReplicaError> {
        let epoch = self.0.open_table(META)?.get(META_EPOCH)?.map_or(0, |row| row.value());
        Ok(StoreEpoch(epoch))
    }

    /// Returns an open session, `None` if it is closed or not known here.
    pub(super) fn session(&self, key: SessionKey) -> Result<Option<SessionRow>, ReplicaError> {
        const WRONG: ReplicaError = ReplicaError::Corrupt { table: "sessions" };
        let Some(row) = self.0.open_table(SESSIONS)?.get(&key.0)? else { return Ok(None) };
        let (_, closed, id, name) = row.value();
        if closed {
            return Ok(None);
        }
        let user = author_of(id, name).ok_or(WRONG)?;
        let mut read_marks = Vec::new();
        for row in self.0.open_table(MARKS)?.range((&key.0, "")..(&key.0, "{"))? {
            let (place, seq) = row?;
            let board = place.value().1.parse().map_err(|_| WRONG)?;
            read_marks.push((board, Seq(seq.value())));
        }
        Ok(Some(SessionRow { key, user, read_marks }))
    }
}

/// Returns the posts `from..=to`, at most `limit` from the near end, always ascending.
fn posts_in(
    table: &impl ReadableTable<(Name, u64), PostRow>,
    board: &BoardName,
    (from, to): (u64, u64),
    limit: u32,
    from_end: bool,
) -> Result<Vec<Post>, ReplicaError> {
    if from > to {
        return Ok(Vec::new());
    }
    let name = board.as_str();
    let mut rows = table.range((name, from)..=(name, to))?;
    let mut next = if from_end { to } else { from };
    let mut posts = Vec::new();
    let mut bytes = 0;
    for _ in 0..limit {
        if !(from..=to).contains(&next) {
            break;
        }
        // Invariant 1: there is a row for each place.
        const WRONG: ReplicaError = ReplicaError::Corrupt { table: "posts" };
        let (key, row) = if from_end { rows.next_back() } else { rows.next() }.ok_or(WRONG)??;
        let (_, seq) = key.value();
        if seq != next {
            return Err(WRONG);
        }
        let post = post(board, seq, row.value())?;
        bytes += post.text.as_str().len();
        if bytes > PAGE_BYTES_MAX && !posts.is_empty() {
            break;
        }
        posts.push(post);
        next = if from_end { next - 1 } else { next + 1 };
    }
    if from_end {
        posts.reverse();
    }
    Ok(posts)
}

impl Replica {
    /// Returns posts of a board, `None` if it is not known here, if nothing is known of the store yet, or
    /// if the range begins with posts that were dropped. At most `limit`, [`PAGE_POSTS_MAX`] posts and
    /// about [`PAGE_BYTES_MAX`] bytes, nearest to where the range begins.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn read(
        &self,
        board: &BoardName,
        range: Range,
        limit: u32,
    ) -> Result<Option<Page>, ReplicaError> {
        let observed = self.observed();
        self.db.read(|reader| {
            let row = reader.0.open_table(BOARDS)?.get(board.as_str())?.map(|row| row.value());
            let (Some((last, as_of)), epoch @ StoreEpoch(1..)) = (row, reader.epoch()?) else {
                return Ok(None);
            };
            let table = reader.0.open_table(POSTS)?;
            let first = bound::first_of(&table, board.as_str())?;
            let first = first.map_or(last + 1, |(seq, _)| seq);
            let (span, from_end) = match range {
                Range::After(seq) => ((seq.0.saturating_add(1), last), false),
                Range::Before(seq) => ((first, last.min(seq.0.saturating_sub(1))), true),
                Range::Last => ((first, last), true),
            };
            // Of what there is in the range, the part that is wanted first.
            let near = if from_end { span.1 } else { span.0 };
            if (1..first).contains(&near) && near <= last {
                return Ok(None);
            }
            Ok(Some(Page {
                posts: posts_in(&table, board, span, limit.min(PAGE_POSTS_MAX), from_end)?,
                last_seq: Seq(last),
                epoch,
                as_of_ms: observed.as_of(epoch, board, as_of),
            }))
        })
    }

    /// Returns the last place of a board, `None` if it is not known here. The posts up to there may have
    /// been dropped, all of them too.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn last(&self, board: &BoardName) -> Result<Option<Seq>, ReplicaError> {
        self.db.read(|reader| {
            let row = reader.0.open_table(BOARDS)?.get(board.as_str())?.map(|row| row.value());
            Ok(row.map(|(last, _)| Seq(last)))
        })
    }

    /// Returns the last place of every board, and the store time up to which all are complete.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn boards(&self) -> Result<Boards, ReplicaError> {
        let observed = self.observed();
        self.db.read(|reader| {
            let epoch = reader.epoch()?;
            let mut boards = Vec::new();
            let mut oldest = None;
            for row in reader.0.open_table(BOARDS)?.iter()? {
                let (name, row) = row?;
                let (last, as_of) = row.value();
                let name: BoardName =
                    name.value().parse().map_err(|_| ReplicaError::Corrupt { table: "boards" })?;
                let as_of = observed.as_of(epoch, &name, as_of);
                oldest = Some(oldest.map_or(as_of, |oldest: u64| oldest.min(as_of)));
                boards.push((name, Seq(last)));
            }
            Ok(Boards { boards, epoch, as_of_ms: oldest.unwrap_or(0) })
        })
    }

    /// Returns an open session, `None` if it is closed or not known here.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn session(&self, key: SessionKey) -> Result<Option<SessionRow>, ReplicaError> {
        self.db.read(|reader| reader.session(key))
    }

    /// Returns the number of sessions, remembered closed ones included.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn session_count(&self) -> Result<u64, ReplicaError> {
        self.db.read(|reader| Ok(reader.0.open_table(SESSIONS)?.len()?))
    }

    /// Returns how many sessions that are new here have room. Closed ones make room for open ones.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn session_room(&self) -> Result<SessionRoom, ReplicaError> {
        self.db.read(|reader| {
            let all = reader.0.open_table(SESSIONS)?.len()?;
            let closed = reader.0.open_table(CLOSED)?.len()?;
            let max = self.limits.sessions_max;
            let open = max.saturating_sub(all.saturating_sub(closed));
            Ok(SessionRoom { open, closed: max.saturating_sub(all) })
        })
    }

    /// Returns the directory, in the order of ids.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn members(&self) -> Result<Vec<Member>, ReplicaError> {
        self.db.read(|reader| {
            let mut members = Vec::new();
            for row in reader.0.open_table(MEMBERS)?.iter()? {
                let (node, row) = row?;
                members.push(member(node.value(), row.value())?);
            }
            Ok(members)
        })
    }
}
