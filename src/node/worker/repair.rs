//! Repair of a board of the node database: missing posts come from the master, else from the store.
//!
//! 1. It reads on from the board's last place, also where posts up to there were dropped to make room. So a
//!    board is read once and its repair ends, however many posts the store has; the newest of all boards stay.

use std::time::Duration;

use super::{database::Database, input::Input};
use crate::{
    comm::Link,
    env::Env,
    model::{
        ids::{BoardName, Seq},
        message::{Request, Response},
        rows::{Page, Range},
    },
    store::Store,
};

/// Maximum number of posts in one request.
const PAGE_POSTS: u32 = 500;

/// Sources of a repair, and the time-out of each.
pub(super) struct Sources {
    pub link: Option<Link>,
    pub store: Store,
    pub master_timeout: Duration,
    pub store_timeout: Duration,
}

/// Fetches and applies one page of what a board lacks.
pub(super) async fn repair(
    env: &Env,
    database: &Database,
    from: Sources,
    board: BoardName,
) -> Input {
    let (progress, lacks) = match try_repair(env, database, from, &board).await {
        Some((posts, lacks)) => (posts > 0, lacks),
        None => (false, true),
    };
    Input::Repaired { board, progress, lacks }
}

/// Returns the number of new posts, and whether the board still lacks some; `None` when no source
/// answered.
async fn try_repair(
    env: &Env,
    database: &Database,
    from: Sources,
    board: &BoardName,
) -> Option<(u64, bool)> {
    let name = board.clone();
    let after = database.read(move |replica| replica.last(&name)).await?.unwrap_or_default();
    let range = Range::After(after);
    if let Some(link) = &from.link {
        let request = Request::Read { board: board.clone(), range, limit: PAGE_POSTS };
        if let Ok(Response::Page(Some(page))) = link.call(request, from.master_timeout).await
            && goes_on(&page, after)
        {
            return take(database, board, page).await;
        }
    }
    let read = from.store.read(board.clone(), range, PAGE_POSTS);
    let page = env.timeout(from.store_timeout, read).await.ok()?.ok()?;
    take(database, board, page).await
}

/// Whether a page begins right after `after`; a master's memory may begin later or end here.
fn goes_on(page: &Page, after: Seq) -> bool {
    page.posts.first().is_some_and(|post| post.seq == after.next())
}

async fn take(database: &Database, board: &BoardName, page: Page) -> Option<(u64, bool)> {
    let applied = database.apply_page(board.clone(), page).await?;
    Some((applied.posts, applied.gaps.iter().any(|gap| gap.board == *board)))
}

#[cfg(test)]
mod tests;
