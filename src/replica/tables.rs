//! Tables of the node database, and conversions between rows and values. Rows are checked like
//! input from a stranger: a disk may have changed them, and redb compares its own checksums only
//! when it checks the whole file. Each row but those of the order of sessions ends with a CRC-32
//! over its table, key and values.

use redb::{Database, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::ReplicaError;
use crate::model::{
    ids::{Author, BoardName, NodeId, Post, PostId, PostText, Registration, Role, Seq, UserId},
    message::{Fact, Member, MemberState},
};

/// Number of the rows' layout. Another number on disk makes the file unreadable here.
const FORMAT: u64 = 2;
const META_FORMAT: &str = "format";
pub(super) const META_EPOCH: &str = "epoch";
pub(super) const META_SAVES: &str = "saves";
/// Next place in the order of sessions.
pub(super) const META_NEXT: &str = "next";

pub(super) type Name = &'static str;
type Id = &'static [u8; 16];
pub(super) type Key = &'static [u8; 32];
/// `(value, check)`
pub(super) type NumberRow = (u64, u32);
/// `(last place, as_of_ms, check)`
pub(super) type BoardRow = (u64, u64, u32);
/// `(id, author, author's name, text, posted_at_ms, check)`
pub(super) type PostRow = (Id, Id, Name, Name, u64, u32);
/// `(place in the order, closed, user, user's name, check)`
pub(super) type SessionRow = (u64, bool, Id, Name, u32);
/// `(role, registration, state, master, name, link, http, spki, check)`
pub(super) type MemberRow = (u8, u64, u8, Id, Name, Option<Name>, Option<Name>, &'static [u8], u32);

pub(super) const META: TableDefinition<'_, Name, NumberRow> = TableDefinition::new("meta");
pub(super) const BOARDS: TableDefinition<'_, Name, BoardRow> = TableDefinition::new("boards");
pub(super) const POSTS: TableDefinition<'_, (Name, u64), PostRow> = TableDefinition::new("posts");
pub(super) const SESSIONS: TableDefinition<'_, Key, SessionRow> = TableDefinition::new("sessions");
/// Sessions by their last write, the least recent first.
pub(super) const ORDER: TableDefinition<'_, u64, Key> = TableDefinition::new("session_order");
pub(super) const MARKS: TableDefinition<'_, (Key, Name), NumberRow> =
    TableDefinition::new("read_marks");
pub(super) const MEMBERS: TableDefinition<'_, Id, MemberRow> = TableDefinition::new("members");

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, Name, NumberRow>,
    pub(super) boards: Table<'t, Name, BoardRow>,
    pub(super) posts: Table<'t, (Name, u64), PostRow>,
    pub(super) sessions: Table<'t, Key, SessionRow>,
    pub(super) order: Table<'t, u64, Key>,
    pub(super) marks: Table<'t, (Key, Name), NumberRow>,
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
            marks: txn.open_table(MARKS)?,
            members: txn.open_table(MEMBERS)?,
        })
    }

    /// Creates the tables of a new file and checks those of an old one.
    pub(super) fn prepare(db: &Database) -> Result<(), ReplicaError> {
        let txn = db.begin_write()?;
        {
            let mut tables = Tables::open(&txn)?;
            let format = number(&tables.meta, META_FORMAT)?;
            if format != 0 && format != FORMAT {
                return Err(ReplicaError::Corrupt { table: "meta" });
            }
            tables.meta.insert(META_FORMAT, number_row(META_FORMAT, FORMAT))?;
        }
        Ok(txn.commit()?)
    }

    /// Drops posts and sessions; the directory stays.
    pub(super) fn empty(txn: &WriteTransaction) -> Result<(), ReplicaError> {
        txn.delete_table(BOARDS)?;
        txn.delete_table(POSTS)?;
        txn.delete_table(SESSIONS)?;
        txn.delete_table(ORDER)?;
        txn.delete_table(MARKS)?;
        Ok(())
    }
}

/// Returns the check of a row of a table, over its parts and their lengths.
fn check(table: &str, parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for part in [table.as_bytes()].iter().chain(parts) {
        crc.update(&(part.len() as u64).to_le_bytes());
        crc.update(part);
    }
    crc.finalize()
}

/// Returns a value, if its row has the check that it should have.
fn checked<T>(table: &'static str, is: u32, should: u32, value: T) -> Result<T, ReplicaError> {
    if is == should { Ok(value) } else { Err(ReplicaError::Corrupt { table }) }
}

pub(super) fn number_row(name: &str, value: u64) -> (u64, u32) {
    (value, check("meta", &[name.as_bytes(), &value.to_le_bytes()]))
}

/// Returns a number of the meta table; 0 if it is not there.
pub(super) fn number(
    meta: &impl ReadableTable<Name, NumberRow>,
    name: &str,
) -> Result<u64, ReplicaError> {
    let Some(row) = meta.get(name)? else { return Ok(0) };
    let (value, sum) = row.value();
    checked("meta", sum, number_row(name, value).1, value)
}

pub(super) fn board_row(name: &str, last: u64, as_of_ms: u64) -> (u64, u64, u32) {
    let parts: [&[u8]; 3] = [name.as_bytes(), &last.to_le_bytes(), &as_of_ms.to_le_bytes()];
    (last, as_of_ms, check("boards", &parts))
}

/// Returns the last place of a board and the time up to which it is complete.
pub(super) fn board(name: &str, row: (u64, u64, u32)) -> Result<(u64, u64), ReplicaError> {
    let (last, as_of_ms, sum) = row;
    checked("boards", sum, board_row(name, last, as_of_ms).2, (last, as_of_ms))
}

/// Returns a board's values, if it is known.
pub(super) fn board_at(
    boards: &impl ReadableTable<Name, BoardRow>,
    name: &str,
) -> Result<Option<(u64, u64)>, ReplicaError> {
    boards.get(name)?.map(|row| board(name, row.value())).transpose()
}

pub(super) fn mark_row(key: &[u8; 32], board: &str, seq: u64) -> (u64, u32) {
    (seq, check("read_marks", &[key, board.as_bytes(), &seq.to_le_bytes()]))
}

pub(super) fn mark(key: &[u8; 32], board: &str, row: (u64, u32)) -> Result<u64, ReplicaError> {
    checked("read_marks", row.1, mark_row(key, board, row.0).1, row.0)
}

pub(super) fn session_row<'a>(
    key: &[u8; 32],
    place: u64,
    closed: bool,
    user: &'a [u8; 16],
    name: &'a str,
) -> (u64, bool, &'a [u8; 16], &'a str, u32) {
    let parts: [&[u8]; 5] = [key, &place.to_le_bytes(), &[closed.into()], user, name.as_bytes()];
    (place, closed, user, name, check("sessions", &parts))
}

/// Returns place, whether it is closed, user and name of a session.
pub(super) fn session<'a>(
    key: &[u8; 32],
    (place, closed, user, name, sum): (u64, bool, &'a [u8; 16], &'a str, u32),
) -> Result<(u64, bool, &'a [u8; 16], &'a str), ReplicaError> {
    let should = session_row(key, place, closed, user, name).4;
    checked("sessions", sum, should, (place, closed, user, name))
}

type PostRef<'a> = (&'a [u8; 16], &'a [u8; 16], &'a str, &'a str, u64, u32);

fn post_check(board: &str, seq: u64, row: &PostRef<'_>) -> u32 {
    let (id, author, name, text, posted_at_ms, _) = row;
    let (seq, posted_at) = (seq.to_le_bytes(), posted_at_ms.to_le_bytes());
    let parts: [&[u8]; 7] =
        [board.as_bytes(), &seq, *id, *author, name.as_bytes(), text.as_bytes(), &posted_at];
    check("posts", &parts)
}

pub(super) fn post_row(post: &Post) -> PostRef<'_> {
    let (id, author) = (&post.id.0, &post.author);
    let (name, text) = (author.name.as_str(), post.text.as_str());
    let mut row = (id, &author.id.0, name, text, post.posted_at_ms, 0);
    row.5 = post_check(post.board.as_str(), post.seq.0, &row);
    row
}

pub(super) fn post(board: &BoardName, seq: u64, row: PostRef<'_>) -> Result<Post, ReplicaError> {
    const WRONG: ReplicaError = ReplicaError::Corrupt { table: "posts" };
    let should = post_check(board.as_str(), seq, &row);
    let (id, author, name, text, posted_at_ms, sum) = row;
    checked("posts", sum, should, ())?;
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
    (u8, u64, u8, &'a [u8; 16], &'a str, Option<&'a str>, Option<&'a str>, &'a [u8], u32);

fn member_check(node: &[u8; 16], row: &MemberRef<'_>) -> u32 {
    let (role, registration, state, master, name, link, http, spki, _) = row;
    // One byte says whether an address is there.
    let whole = |it: &Option<&str>| it.map_or_else(Vec::new, |it| [b"+", it.as_bytes()].concat());
    let parts: [&[u8]; 9] = [
        node,
        &[*role],
        &registration.to_le_bytes(),
        &[*state],
        *master,
        name.as_bytes(),
        &whole(link),
        &whole(http),
        spki,
    ];
    check("members", &parts)
}

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
    let mut row = (
        role,
        fact.registration.0,
        state,
        &fact.master.0,
        member.name.as_str(),
        member.link.as_deref(),
        member.http.as_deref(),
        member.spki.as_slice(),
        0,
    );
    row.8 = member_check(&fact.node.0, &row);
    row
}

pub(super) fn member(node: &[u8; 16], row: MemberRef<'_>) -> Result<Member, ReplicaError> {
    const WRONG: ReplicaError = ReplicaError::Corrupt { table: "members" };
    let should = member_check(node, &row);
    let (role, registration, state, master, name, link, http, spki, sum) = row;
    checked("members", sum, should, ())?;
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
