//! Questions to node databases while the store is away: to those of this master's workers, and by
//! way of other masters to those of theirs.
//!
//! 1. What another master asks goes to this one's workers, never to a third master.
//! 2. Asking this master's workers takes `store_timeout` at most, and asking other masters as long again.
//! 3. For a session every worker is asked, and every other master that has workers, until one knows it; a
//!    silent one takes its share of the time alone. A page of posts is asked of a few.
//! 4. Other masters are asked for at most `FAR_LOOKUPS_MAX` sessions at a time; who asks for more has
//!    the answer of this one's workers alone.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    Driver,
    asking::{ask_in_groups, limit_to_pass_on},
    reads::unread,
};
use crate::{
    comm::{Link, Responder},
    env::Env,
    model::{
        bounds::IN_FLIGHT_MAX,
        ids::{BoardName, LinkId, NodeId, Post, Role, SessionKey},
        message::{Request, Response},
        rows::{Page, Range, SessionRow, StoreError},
    },
    node::handle::{Consistency, Read, Reply, RequestError},
    protocol::sessions::LOOKUPS_MAX,
};

/// Most workers that are asked for posts, one at a time, before memory answers.
const PAGE_WORKERS_MAX: usize = 3;
/// Most other masters that are asked for posts, at the same time.
const PAGE_PEERS_MAX: usize = 2;
/// Workers that are asked for a session at a time, if [`SESSION_GROUPS_MAX`] times as many are all.
const SESSION_GROUP: usize = 3;
/// Most groups of workers that are asked for a session, one after another.
const SESSION_GROUPS_MAX: usize = 4;
/// Other masters that are asked for a session at a time.
const SESSION_PEERS: usize = 8;

const _: () =
    assert!(LOOKUPS_MAX <= IN_FLIGHT_MAX / 4, "look-ups at every worker leave other calls room");

impl Driver {
    /// Answers a read that was asked for as weak. The store answers where no copy is, such as at a
    /// master without workers.
    pub(super) fn weak_posts(
        &mut self,
        board: BoardName,
        range: Range,
        limit: u32,
        reply: Reply<Read<Page>>,
    ) {
        let own = self.ask_own_replicas(board.clone(), range, limit);
        let (store, far) = (self.store.clone(), self.ask_peers(board.clone(), range, limit));
        self.env.spawn("weak-read", async move {
            let answer = match own.await {
                Some(value) => Ok(value),
                None => match store.read(board, range, limit).await {
                    Ok(value) => Ok(value),
                    Err(StoreError::Away { .. }) => far.await.ok_or(RequestError::Away),
                    Err(error) => Err(unread(&error)),
                },
            };
            let _ = reply.send(answer.map(|value| Read { value, consistency: Consistency::Weak }));
        });
    }

    /// Reads posts from node databases of own workers, from this master's memory if none of them has
    /// the posts, and else from other masters.
    pub(super) fn ask_replicas(
        &mut self,
        board: BoardName,
        range: Range,
        limit: u32,
    ) -> impl Future<Output = Result<Read<Page>, RequestError>> + Send + use<> {
        let own = self.ask_own_replicas(board.clone(), range, limit);
        let far = self.ask_peers(board, range, limit);
        async move {
            let value = match own.await {
                Some(page) => page,
                None => far.await.ok_or(RequestError::Away)?,
            };
            Ok(Read { value, consistency: Consistency::Weak })
        }
    }

    /// Looks a session up in node databases; if no worker of its own has it, `cached` is as good. Other
    /// masters are asked for a few sessions at a time: made-up keys go through all of them.
    pub(super) fn ask_replicas_for(
        &mut self,
        key: SessionKey,
        cached: Option<SessionRow>,
    ) -> impl Future<Output = Option<SessionRow>> + Send + use<> {
        let (own, far) = (self.workers_in_turn(), self.peers_in_turn());
        let (env, limit) = (self.env.clone(), self.config.store_timeout);
        let places = Arc::clone(&self.reads.far_lookups);
        async move {
            let request = Request::Session(key);
            let near = ask_for_session(&env, own, &request, limit).await.or(cached);
            if near.is_some() {
                return near;
            }
            let _place = places.try_acquire().ok()?;
            let row = ask_all(&env, far, SESSION_PEERS, &request, limit, session).await;
            if row.is_some() {
                env.sometimes("a node database behind another master knew a session");
            }
            row
        }
    }

    /// Answers a node with posts of a board: from memory, else from the store. Another master asks
    /// while the store is away for it, so its answer comes from workers' node databases before the
    /// store is tried.
    pub(super) fn serve_read(
        &mut self,
        role: Role,
        board: BoardName,
        range: Range,
        limit: u32,
        reply: Responder,
    ) {
        if let Some(page) = self.page_of_memory(&board, range, limit) {
            let _ = reply.send(&Response::Page(Some(page)));
            return;
        }
        let copies = match role {
            Role::Master => self.page_workers(),
            Role::Worker => Vec::new(),
        };
        let (store, limit_of_copies) = (self.store.clone(), self.limit_for_a_peer(&reply));
        let env = self.env.clone();
        self.env.spawn("serve-read", async move {
            let request = Request::Read { board: board.clone(), range, limit };
            let told = ask_all(&env, copies, 1, &request, limit_of_copies, page).await;
            let page = match told {
                Some(page) => Some(page),
                None => store.read(board, range, limit).await.ok(),
            };
            let _ = reply.send(&Response::Page(page));
        });
    }

    /// Answers another master with a session that this one's workers know, or its memory.
    pub(super) fn serve_session(&mut self, key: SessionKey, reply: Responder) {
        if self.people.sessions.is_closed(&key) {
            let _ = reply.send(&Response::Session(None));
            return;
        }
        let cached = self.people.sessions.get(&key).cloned();
        let (copies, limit) = (self.workers_in_turn(), self.limit_for_a_peer(&reply));
        let env = self.env.clone();
        self.env.spawn("serve-session", async move {
            let row = ask_for_session(&env, copies, &Request::Session(key), limit).await;
            let _ = reply.send(&Response::Session(row.or(cached)));
        });
    }

    /// Reads posts from a node database of an own worker, or from memory.
    fn ask_own_replicas(
        &mut self,
        board: BoardName,
        range: Range,
        limit: u32,
    ) -> impl Future<Output = Option<Page>> + Send + use<> {
        let (links, wait) = (self.page_workers(), self.config.store_timeout);
        let memory = self.page_of_memory(&board, range, limit);
        let env = self.env.clone();
        async move {
            let request = Request::Read { board, range, limit };
            let told = ask_all(&env, links, 1, &request, wait, page).await;
            if told.is_some() {
                env.sometimes("a worker's node database answered a read");
            }
            told.or(memory)
        }
    }

    /// Reads posts from what other masters and their workers have.
    fn ask_peers(
        &mut self,
        board: BoardName,
        range: Range,
        limit: u32,
    ) -> impl Future<Output = Option<Page>> + Send + use<> {
        let (mut links, wait) = (self.peers_in_turn(), self.config.store_timeout);
        links.truncate(PAGE_PEERS_MAX);
        let env = self.env.clone();
        async move {
            let request = Request::Read { board, range, limit };
            let told = ask_all(&env, links, PAGE_PEERS_MAX, &request, wait, page).await;
            if told.is_some() {
                env.sometimes("another master answered a read");
            }
            told
        }
    }

    /// Returns posts of a board from memory, as new as that is.
    pub(super) fn page_of_memory(
        &self,
        board: &BoardName,
        range: Range,
        limit: u32,
    ) -> Option<Page> {
        let posts = self.tails.read(board, range, limit as usize)?;
        Some(Page {
            posts: posts.iter().map(|post| Post::clone(post)).collect(),
            last_seq: self.tails.last(board).unwrap_or_default(),
            epoch: self.tails.epoch(),
            as_of_ms: self.tails.as_of_ms(),
        })
    }

    /// Returns links to all workers, beginning with the one whose turn it is.
    fn workers_in_turn(&mut self) -> Vec<Link> {
        let workers = self.links.workers().cloned().collect();
        in_turn(&mut self.reads.worker_turn, workers)
    }

    /// Returns links to the workers that are asked for posts.
    fn page_workers(&mut self) -> Vec<Link> {
        let mut links = self.workers_in_turn();
        links.truncate(PAGE_WORKERS_MAX);
        links
    }

    /// Returns links to other masters, beginning with the one whose turn it is. One without workers has
    /// its memory alone: it is asked where no master has any.
    fn peers_in_turn(&mut self) -> Vec<Link> {
        let peers = in_turn(&mut self.reads.peer_turn, self.core.peers().collect());
        let link = |(_, link): &(NodeId, LinkId)| self.links.get(*link).cloned();
        let has_workers = |(node, _): &&(NodeId, LinkId)| self.core.registry().has_workers(node);
        let with: Vec<_> = peers.iter().filter(has_workers).filter_map(link).collect();
        if with.is_empty() { peers.iter().filter_map(link).collect() } else { with }
    }

    /// Returns the time for all workers, so that they and the store fit into the time that another master
    /// has left, which waits for this reply.
    pub(super) fn limit_for_a_peer(&self, reply: &Responder) -> Duration {
        limit_to_pass_on(self.config.store_timeout, reply.deadline().since(self.env.now()))
    }
}

/// Returns these, beginning with the one whose turn it is, and raises the turn.
fn in_turn<T>(turn: &mut u64, mut all: Vec<T>) -> Vec<T> {
    *turn = turn.wrapping_add(1);
    if !all.is_empty() {
        let first = usize::try_from(*turn).unwrap_or(0) % all.len();
        all.rotate_left(first);
    }
    all
}

/// Asks all these workers for a session.
async fn ask_for_session(
    env: &Env,
    links: Vec<Link>,
    request: &Request,
    limit: Duration,
) -> Option<SessionRow> {
    let size = group_of(links.len());
    ask_all(env, links, size, request, limit, session).await
}

/// Returns how many of so many workers are asked for a session at a time.
const fn group_of(workers: usize) -> usize {
    let least = workers.div_ceil(SESSION_GROUPS_MAX);
    if least > SESSION_GROUP { least } else { SESSION_GROUP }
}

/// Asks all these nodes within the limit, so many at a time, until one knows.
async fn ask_all<T>(
    env: &Env,
    links: Vec<Link>,
    size: usize,
    request: &Request,
    limit: Duration,
    take: fn(Response) -> Option<T>,
) -> Option<T> {
    let ask = |link: Link, limit: Duration| {
        let request = request.clone();
        async move { link.call(request, limit).await.ok().and_then(take) }
    };
    ask_in_groups(env, links, size, limit, ask).await
}

fn page(response: Response) -> Option<Page> {
    match response {
        Response::Page(page) => page,
        _ => None,
    }
}

fn session(response: Response) -> Option<SessionRow> {
    match response {
        Response::Session(row) => row,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_those_who_take_turns_is_the_first_as_often_whatever_else_is_counted() {
        let (mut workers, mut peers) = (0, 0);
        let mut firsts = [[0; 2], [0; 2]];
        for _ in 0..10 {
            // A read asks workers and then masters: one counter for both would skip every other.
            firsts[0][in_turn(&mut workers, vec![0, 1])[0]] += 1;
            firsts[1][in_turn(&mut peers, vec![0, 1])[0]] += 1;
        }
        assert_eq!(firsts, [[5, 5], [5, 5]]);
        assert_eq!(in_turn(&mut peers, vec![1, 2, 3]), [3, 1, 2]);
        assert!(in_turn(&mut peers, Vec::<u8>::new()).is_empty());
    }

    #[test]
    fn few_workers_are_asked_three_at_a_time_and_any_number_in_four_groups() {
        let groups =
            [1, 3, 8, 12, 13, 1000].map(|all: usize| (group_of(all), all.div_ceil(group_of(all))));
        assert_eq!(groups, [(3, 1), (3, 1), (3, 3), (3, 4), (4, 4), (250, 4)]);
    }
}
