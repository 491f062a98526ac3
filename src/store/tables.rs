//! Tables and columns that a copy from one engine to another carries, in one list.
//!
//! 1. Whatever either engine keeps stands here: in [`TABLES`], or among the single rows, which the two
//!    keep in different tables ([`SINGLE_IN_SQLITE`], [`SINGLE_IN_POSTGRES`]) and a copy sets by
//!    itself. A test of each engine compares its schema with the list.
//! 2. A value has the same meaning in both engines; only flags have another type, and a column `user`
//!    is called `author` in PostgreSQL, where `user` is a reserved word.

/// Maximum number of rows that are in memory at once.
pub(super) const PAGE_ROWS: usize = 500;

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    /// Number 0 or 1 in SQLite, a boolean in PostgreSQL.
    Flag,
    Text,
    Bytes,
}

/// Column of a table, by its name in SQLite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

impl Column {
    /// Returns its name in PostgreSQL.
    pub(super) fn in_postgres(self) -> &'static str {
        if self.name == "user" { "author" } else { self.name }
    }
}

/// Table of the same name in both engines.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Number of its first columns that are its primary key.
    pub(super) key: usize,
    pub(super) columns: &'static [Column],
    /// Condition on its rows in SQLite; the others are among the single rows.
    pub(super) only: Option<&'static str>,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Numbers that rows alone do not show: the clock, and the last numbers that were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) clock_ms: u64,
    pub(super) writes: u64,
    pub(super) boards: u64,
    pub(super) closed_sessions: u64,
    pub(super) cancels: u64,
    pub(super) dead_letters: u64,
}

/// Tables of SQLite that have one row or the engine's own numbers, with their columns.
#[cfg(test)]
pub(super) const SINGLE_IN_SQLITE: [(&str, &[&str]); 2] = [
    ("cluster", &["one", "cluster", "epoch", "min_reader"]),
    // SQLite's own.
    ("sqlite_sequence", &["name", "seq"]),
];

/// Tables of PostgreSQL that have one row, with their columns.
#[cfg(test)]
pub(super) const SINGLE_IN_POSTGRES: [(&str, &[&str]); 2] = [
    ("chatchat_store", &["one", "steps", "min_reader", "cluster", "epoch"]),
    ("clock", &["one", "at", "writes", "closed"]),
];

/// Columns that PostgreSQL numbers by itself.
pub(super) const NUMBERED: [(&str, &str); 3] =
    [("boards", "board"), ("cancels", "number"), ("dead_letters", "number")];

/// Tables whose rows are carried over, in the order of a copy.
pub(super) const TABLES: [Table; 19] = [
    Table {
        only: Some("name <> 'clock'"),
        ..table("meta", 1, const { &[text("name"), int("value")] })
    },
    table(
        "masters",
        1,
        const {
            &[
                bytes("node"),
                int("incarnation"),
                int("beat"),
                text("http"),
                text("link"),
                bytes("spki"),
                text("name"),
                flag("draining"),
                bytes("guard"),
                flag("listed"),
                int("touched_at"),
            ]
        },
    ),
    table(
        "leases",
        1,
        const {
            &[
                text("resource"),
                int("epoch"),
                int("lease"),
                int("n"),
                bytes("worker"),
                bytes("batch"),
            ]
        },
    ),
    table(
        "lease_terms",
        1,
        const {
            &[
                text("resource"),
                int("lease"),
                bytes("node"),
                int("incarnation"),
                int("ttl"),
                int("ends_at"),
                bytes("wisher"),
                int("wisher_incarnation"),
                int("wished_at"),
            ]
        },
    ),
    table(
        "boards",
        1,
        const { &[int("board"), text("name"), int("last_seq"), int("last_posted_at")] },
    ),
    table(
        "posts",
        2,
        const {
            &[
                int("board"),
                int("seq"),
                bytes("user"),
                bytes("id"),
                text("name"),
                text("text"),
                int("posted_at"),
                int("epoch"),
                int("lease"),
                int("n"),
                bytes("worker"),
            ]
        },
    ),
    table("post_ids", 2, const { &[bytes("user"), bytes("id"), int("board"), int("seq")] }),
    table("cancels", 1, const { &[int("number"), bytes("user"), bytes("id"), int("at")] }),
    table(
        "sessions",
        1,
        const { &[bytes("key"), bytes("user"), text("name"), int("opened_at"), int("used_at")] },
    ),
    table("session_digests", 1, const { &[int("bucket"), int("digest")] }),
    table("closed_sessions", 1, const { &[int("number"), bytes("key"), int("closed_at")] }),
    table("read_marks", 2, const { &[bytes("user"), int("board"), int("seq")] }),
    table(
        "tickets",
        1,
        const { &[bytes("ticket"), bytes("key"), int("ends_at"), bytes("new_key")] },
    ),
    table(
        "presence",
        1,
        const { &[bytes("key"), bytes("master"), int("since"), int("last_seen")] },
    ),
    table(
        "dead_letters",
        1,
        const {
            &[
                int("number"),
                text("resource"),
                bytes("user"),
                bytes("id"),
                text("name"),
                text("text"),
                text("why"),
                int("at"),
            ]
        },
    ),
    table(
        "join_tokens",
        1,
        const {
            &[
                bytes("id"),
                bytes("guard"),
                bytes("bearer_sha256"),
                text("role"),
                int("uses_left"),
                int("ends_at"),
            ]
        },
    ),
    table(
        "enrolled",
        1,
        const {
            &[
                bytes("node"),
                bytes("fingerprint"),
                text("role"),
                bytes("guard"),
                bytes("token"),
                int("used_at"),
            ]
        },
    ),
    table("denied", 1, const { &[bytes("node"), int("at")] }),
    table(
        "writes",
        1,
        const {
            &[
                int("number"),
                text("resource"),
                int("epoch"),
                int("lease"),
                int("n"),
                bytes("node"),
                text("kind"),
                int("rows"),
                int("at"),
            ]
        },
    ),
];

const fn table(name: &'static str, key: usize, columns: &'static [Column]) -> Table {
    Table { name, key, columns, only: None }
}

const fn int(name: &'static str) -> Column {
    Column { name, kind: Kind::Int }
}

const fn flag(name: &'static str) -> Column {
    Column { name, kind: Kind::Flag }
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, kind: Kind::Bytes }
}

impl Table {
    /// Returns the names of its columns in SQLite, with commas.
    pub(super) fn names_in_sqlite(&self) -> String {
        list(self.columns.iter().map(|column| column.name))
    }

    /// Returns the names of its columns in PostgreSQL, with commas.
    pub(super) fn names_in_postgres(&self) -> String {
        list(self.columns.iter().map(|column| column.in_postgres()))
    }

    /// Returns the select of its rows in SQLite, in the order of the key.
    pub(super) fn select_in_sqlite(&self) -> String {
        let only = self.only.map(|only| format!(" WHERE {only}")).unwrap_or_default();
        let key = list(self.columns.iter().take(self.key).map(|column| column.name));
        format!("SELECT {} FROM {}{only} ORDER BY {key}", self.names_in_sqlite(), self.name)
    }

    /// Returns the select of its rows in PostgreSQL, in the order of the key.
    pub(super) fn select_in_postgres(&self) -> String {
        let key = list(self.columns.iter().take(self.key).map(|column| column.in_postgres()));
        format!("SELECT {} FROM {} ORDER BY {key}", self.names_in_postgres(), self.name)
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_name_each_engines_columns_in_the_order_of_the_key() {
        let marks = TABLES.iter().find(|table| table.name == "read_marks").expect("it is there");
        let sqlite = "SELECT user, board, seq FROM read_marks ORDER BY user, board";
        let postgres = "SELECT author, board, seq FROM read_marks ORDER BY author, board";
        assert_eq!(marks.select_in_sqlite(), sqlite);
        assert_eq!(marks.select_in_postgres(), postgres);
        let meta = "SELECT name, value FROM meta WHERE name <> 'clock' ORDER BY name";
        assert_eq!(TABLES[0].select_in_sqlite(), meta);
    }
}
