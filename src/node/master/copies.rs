//! Questions to node databases while the store is away: to those of this master's workers, and by
//! way of other masters to those of theirs.
//!
//! 1. What another master asks goes to this one's workers, never to a third master.
//! 2. Asking other masters takes `store_timeout` at most.
//! 3. Other masters are asked for at most `FAR_LOOKUPS_MAX` sessions at a time; who asks for more has
//!    the answer of this one's workers alone.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::select_ok;

use super::{Driver, reads::unread};
use crate::{
    comm::{Link, Responder},
    model::{
        ids::{BoardName, LinkId, NodeId, Post, Role, SessionKey},
        message::{Request, Response},
        rows::{Page, Range, SessionRow, StoreError},
    },
    node::handle::{Consistency, Read, Reply, RequestError},
};

/// The most workers that are asked for a weak read before memory answers.
const REPLICAS_MAX: u8 = 3;
/// The most other masters that are asked.
const PEERS_MAX: usize = 2;

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
        let (own, far) = (self.replicas(), self.peers_in_turn());
        let (env, wait) = (self.env.clone(), self.config.store_timeout);
        let places = Arc::clone(&self.reads.far_lookups);
        async move {
            let request = Request::Session(key);
            let near = one_by_one(own, request.clone(), wait, session).await.or(cached);
            if near.is_some() {
                return near;
            }
            let _place = places.try_acquire().ok()?;
            let row = first_of(far, &request, wait, session).await;
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
            Role::Master => self.replicas(),
            Role::Worker => Vec::new(),
        };
        let (store, wait) = (self.store.clone(), self.wait_for_a_peer());
        self.env.spawn("serve-read", async move {
            let request = Request::Read { board: board.clone(), range, limit };
            let page = match one_by_one(copies, request, wait, page).await {
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
        let (copies, wait) = (self.replicas(), self.wait_for_a_peer());
        self.env.spawn("serve-session", async move {
            let row = one_by_one(copies, Request::Session(key), wait, session).await;
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
        let (links, wait) = (self.replicas(), self.config.store_timeout);
        let memory = self.page_of_memory(&board, range, limit);
        let env = self.env.clone();
        async move {
            let request = Request::Read { board, range, limit };
            let told = one_by_one(links, request, wait, page).await;
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
        let (links, wait) = (self.peers_in_turn(), self.config.store_timeout);
        let env = self.env.clone();
        async move {
            let request = Request::Read { board, range, limit };
            let told = first_of(links, &request, wait, page).await;
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

    /// Returns links to workers, beginning with the one whose turn it is.
    fn replicas(&mut self) -> Vec<Link> {
        let workers = self.links.workers().cloned().collect();
        let mut links = in_turn(&mut self.reads.worker_turn, workers);
        links.truncate(usize::from(REPLICAS_MAX));
        links
    }

    /// Returns links to other masters, beginning with the one whose turn it is. One without workers has
    /// its memory alone: it is asked where no master has any.
    fn peers_in_turn(&mut self) -> Vec<Link> {
        let peers = in_turn(&mut self.reads.peer_turn, self.core.peers().collect());
        let link = |(_, link): &(NodeId, LinkId)| self.links.get(*link).cloned();
        let has_workers = |(node, _): &&(NodeId, LinkId)| self.core.registry().has_workers(node);
        let with: Vec<_> =
            peers.iter().filter(has_workers).filter_map(link).take(PEERS_MAX).collect();
        if with.is_empty() { peers.iter().filter_map(link).take(PEERS_MAX).collect() } else { with }
    }

    /// Returns the time for one worker, so that all of them and the store fit into the time of the asker.
    fn wait_for_a_peer(&self) -> Duration {
        self.config.store_timeout / (u32::from(REPLICAS_MAX) + 1)
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

/// Asks one node after another until one knows.
async fn one_by_one<T>(
    links: Vec<Link>,
    request: Request,
    limit: Duration,
    take: fn(Response) -> Option<T>,
) -> Option<T> {
    for link in links {
        let answer = link.call(request.clone(), limit).await.ok();
        let told = answer.and_then(take);
        if told.is_some() {
            return told;
        }
    }
    None
}

/// Asks all these nodes at a time and takes the first answer of one that knows.
async fn first_of<T>(
    links: Vec<Link>,
    request: &Request,
    limit: Duration,
    take: fn(Response) -> Option<T>,
) -> Option<T> {
    if links.is_empty() {
        return None;
    }
    let ask = |link: Link| {
        let request = request.clone();
        Box::pin(async move {
            let answer = link.call(request, limit).await.ok();
            answer.and_then(take).ok_or(())
        })
    };
    let told = select_ok(links.into_iter().map(ask)).await.ok();
    told.map(|(told, _)| told)
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
}
