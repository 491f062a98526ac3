//! Tables of the node database, and conversions between rows and values. Rows are checked like
//! input from a stranger: a disk may have changed them.

use redb::{Database, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::ReplicaError;
use crate::model::{
    ids::{Author, BoardName, NodeId, Post, PostId, PostText, Registration, Role, Seq, UserId},
    message::{Fact, Member, MemberState},
};

/// Number of the rows' layout. A file of the number before is brought up to it, and one of any other is
/// unreadable here.
const FORMAT: u64 = 4;
/// Number of the layout before, in which closed sessions stood in one order with the open ones.
const FORMAT_BEFORE: u64 = 3;
const META_FORMAT: &str = "format";
pub(super) const META_EPOCH: &str = "epoch";
pub(super) const META_SAVES: &str = "saves";
/// Next place in the order of sessions.
pub(super) const META_NEXT: &str = "next";

pub(super) type Name = &'static str;
type Id = &'static [u8; 16];
pub(super) type Key = &'static [u8; 32];
/// `(id, author, author's name, text, posted_at_ms)`
pub(super) type PostRow = (Id, Id, Name, Name, u64);
/// `(place in its order, closed, user, user's name)`
pub(super) type SessionRow = (u64, bool, Id, Name);
/// `(role, registration, state, master, name, link, http, spki)`
pub(super) type MemberRow = (u8, u64, u8, Id, Name, Option<Name>, Option<Name>, &'static [u8]);

pub(super) const META: TableDefinition<'_, Name, u64> = TableDefinition::new("meta");
/// `(last place, as_of_ms)`
pub(super) const BOARDS: TableDefinition<'_, Name, (u64, u64)> = TableDefinition::new("boards");
pub(super) const POSTS: TableDefinition<'_, (Name, u64), PostRow> = TableDefinition::new("posts");
pub(super) const SESSIONS: TableDefinition<'_, Key, SessionRow> = TableDefinition::new("sessions");
/// Open sessions by their last write, the least recent first.
pub(super) const ORDER: TableDefinition<'_, u64, Key> = TableDefinition::new("session_order");
/// Sessions that are remembered as closed, those that were closed first ahead.
pub(super) const CLOSED: TableDefinition<'_, u64, Key> = TableDefinition::new("closed_order");
pub(super) const MARKS: TableDefinition<'_, (Key, Name), u64> = TableDefinition::new("read_marks");
pub(super) const MEMBERS: TableDefinition<'_, Id, MemberRow> = TableDefinition::new("members");

/// `(author, id)` to `(board, author's name, text, time it was put here by this node's clock)`
pub(super) const HELD: TableDefinition<'_, (Id, Id), (Name, Name, Name, u64)> =
    TableDefinition::new("held_posts");

/// All tables of what the store knows, open for writing.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, Name, u64>,
    pub(super) boards: Table<'t, Name, (u64, u64)>,
    pub(super) posts: Table<'t, (Name, u64), PostRow>,
    pub(super) sessions: Table<'t, Key, SessionRow>,
    pub(super) order: Table<'t, u64, Key>,
    pub(super) closed: Table<'t, u64, Key>,
    pub(super) marks: Table<'t, (Key, Name), u64>,
    pub(super) members: Table<'t, Id, MemberRow>,
}

impl<'t> Tables<'t> {
    /// Opens all tables, and creates those that are missing.
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, ReplicaError> {
        Ok(Self {
            meta: txn.open_table(META)?,
            boards: txn.open_table(BOARDS)?,
            posts: txn.open_table(POSTS)?,
            sessions: txn.open_table(SESSIONS)?,
            order: txn.open_table(ORDER)?,
            closed: txn.open_table(CLOSED)?,
            marks: txn.open_table(MARKS)?,
            members: txn.open_table(MEMBERS)?,
        })
    }

    /// Creates the tables of a new file, or checks those of an old one and brings them to [`FORMAT`], in
    /// one transaction.
    pub(super) fn prepare(db: &Database) -> Result<(), ReplicaError> {
        let txn = db.begin_write()?;
        // Before the other tables are opened: those of another format may have other types.
        let format = format_of(&txn)?;
        match format {
            Some(format) if format < FORMAT_BEFORE => {
                return Err(ReplicaError::OlderFormat(format));
            }
            Some(format) if format > FORMAT => return Err(ReplicaError::NewerFormat(format)),
            _ => {}
        }
        let is_of_before = format == Some(FORMAT_BEFORE);
        {
            let mut tables = Tables::open(&txn)?;
            if is_of_before {
                tables.part_orders()?;
            }
            tables.meta.insert(META_FORMAT, FORMAT)?;
            // Files of before have none: it is empty then.
            txn.open_table(HELD)?;
        }
        txn.commit()?;
        if is_of_before {
            tracing::info!(from = FORMAT_BEFORE, to = FORMAT, "the node database has a new format");
        }
        Ok(())
    }

    /// Gives closed sessions an order of their own. They keep their places: those of both orders come from
    /// one counter, and a session had its place from when it was closed in the format before too.
    fn part_orders(&mut self) -> Result<(), ReplicaError> {
        for row in self.sessions.iter()? {
            let (key, row) = row?;
            let (place, is_closed, ..) = row.value();
            if !is_closed {
                continue;
            }
            let stood = self.order.remove(place)?.is_some_and(|stood| stood.value() == key.value());
            if !stood {
                return Err(ReplicaError::Corrupt { table: "session_order" });
            }
            self.closed.insert(place, key.value())?;
        }
        Ok(())
    }

    /// Drops posts and sessions; the directory and the posts that wait stay.
    pub(super) fn empty(txn: &WriteTransaction) -> Result<(), ReplicaError> {
        txn.delete_table(BOARDS)?;
        txn.delete_table(POSTS)?;
        txn.delete_table(SESSIONS)?;
        txn.delete_table(ORDER)?;
        txn.delete_table(CLOSED)?;
        txn.delete_table(MARKS)?;
        Ok(())
    }
}

/// Returns the number of the file's layout; `None` if the file is new.
fn format_of(txn: &WriteTransaction) -> Result<Option<u64>, ReplicaError> {
    let meta = txn.open_table(META)?;
    let format = meta.get(META_FORMAT)?.map(|row| row.value());
    Ok(format)
}

pub(super) fn post_row(post: &Post) -> (&[u8; 16], &[u8; 16], &str, &str, u64) {
    let author = &post.author;
    (&post.id.0, &author.id.0, author.name.as_str(), post.text.as_str(), post.posted_at_ms)
}

pub(super) fn post(
    board: &BoardName,
    seq: u64,
    (id, author, name, text, posted_at_ms): (&[u8; 16], &[u8; 16], &str, &str, u64),
) -> Result<Post, ReplicaError> {
    const WRONG: ReplicaError = ReplicaError::Corrupt { table: "posts" };
    Ok(Post {
        id: PostId(*id),
        board: board.clone(),
        seq: Seq(seq),
        author: author_of(author, name).ok_or(WRONG)?,
        text: text.parse::<PostText>().map_err(|_| WRONG)?,
        posted_at_ms,
    })
}

pub(super) fn author_of(id: &[u8; 16], name: &str) -> Option<Author> {
    Some(Author { id: UserId(*id), name: name.parse().ok()? })
}

pub(super) type MemberRef<'a> =
    (u8, u64, u8, &'a [u8; 16], &'a str, Option<&'a str>, Option<&'a str>, &'a [u8]);

pub(super) fn member_row(member: &Member) -> MemberRef<'_> {
    let fact = &member.fact;
    let role = match fact.role {
        Role::Master => 0,
        Role::Worker => 1,
    };
    let state = match fact.state {
        MemberState::In => 0,
        MemberState::Failed => 1,
        MemberState::Left => 2,
    };
    (
        role,
        fact.registration.0,
        state,
        &fact.master.0,
        &member.name,
        member.link.as_deref(),
        member.http.as_deref(),
        &member.spki,
    )
}

pub(super) fn member(
    node: &[u8; 16],
    (role, registration, state, master, name, link, http, spki): MemberRef<'_>,
) -> Result<Member, ReplicaError> {
    const WRONG: ReplicaError = ReplicaError::Corrupt { table: "members" };
    let role = match role {
        0 => Role::Master,
        1 => Role::Worker,
        _ => return Err(WRONG),
    };
    let state = match state {
        0 => MemberState::In,
        1 => MemberState::Failed,
        2 => MemberState::Left,
        _ => return Err(WRONG),
    };
    Ok(Member {
        fact: Fact {
            node: NodeId(*node),
            role,
            registration: Registration(registration),
            state,
            master: NodeId(*master),
        },
        name: name.to_owned(),
        link: link.map(str::to_owned),
        http: http.map(str::to_owned),
        spki: spki.to_owned(),
    })
}
