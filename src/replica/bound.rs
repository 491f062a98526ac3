//! Bound on the posts of a node database: the oldest of all boards go first.

use std::{cmp::Reverse, collections::BinaryHeap};

use redb::{ReadableTable, ReadableTableMetadata};

use super::{
    ReplicaError,
    tables::{Name, PostRow, Tables},
};

/// Most posts of one board that go at a time, before the boards are compared again.
const RUN: u64 = 64;

/// Part of the bound that is made free at once, so that the boards are seldom compared.
const PART: u64 = 64;

/// Drops posts until there are a little fewer than `max`, if there are more. The age of a board is that
/// of its first post.
pub(super) fn drop_oldest(tables: &mut Tables<'_>, max: u64) -> Result<(), ReplicaError> {
    let have = tables.posts.len()?;
    if have <= max {
        return Ok(());
    }
    let mut surplus = have - (max - max / PART);
    let mut boards = Vec::new();
    for row in tables.boards.iter()? {
        boards.push(row?.0.value().to_owned());
    }
    let mut oldest = BinaryHeap::new();
    for board in boards {
        let first = first_of(&tables.posts, &board)?;
        oldest.extend(first.map(|(seq, time)| Reverse((time, board, seq))));
    }
    while surplus > 0
        && let Some(Reverse((_, board, first))) = oldest.pop()
    {
        let until = first.saturating_add(RUN.min(surplus));
        let before = tables.posts.len()?;
        tables.posts.retain_in((board.as_str(), first)..(board.as_str(), until), |_, _| false)?;
        surplus = surplus.saturating_sub(before - tables.posts.len()?);
        let next = first_of(&tables.posts, &board)?;
        oldest.extend(next.map(|(seq, time)| Reverse((time, board, seq))));
    }
    Ok(())
}

/// Returns the place and the time of a board's first post; `None` if it has none.
pub(super) fn first_of(
    posts: &impl ReadableTable<(Name, u64), PostRow>,
    board: &str,
) -> Result<Option<(u64, u64)>, ReplicaError> {
    let first = posts.range((board, 0)..=(board, u64::MAX))?.next().transpose()?;
    Ok(first.map(|(key, row)| (key.value().1, row.value().4)))
}
