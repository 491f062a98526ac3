//! Questions to node databases while the store is away: to those of this master's workers, and by
//! way of other masters to those of theirs.
//!
//! 1. What another master asks goes to this one's workers, never to a third master.
//! 2. Asking other masters takes `store_timeout` at most.

use std::{future::Future, time::Duration};

use futures_util::future::select_ok;

use super::{Driver, reads::unread};
use crate::{
    comm::{Link, Responder},
    model::{
        ids::{BoardName, Post, Role, SessionKey},
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
        self.reads.weak_turn += 1;
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
        &self,
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

    /// Looks a session up in node databases; if no worker of its own has it, `cached` is as good.
    pub(super) fn ask_replicas_for(
        &mut self,
        key: SessionKey,
        cached: Option<SessionRow>,
    ) -> impl Future<Output = Option<SessionRow>> + Send + use<> {
        self.reads.weak_turn += 1;
        let (own, far) = (self.replicas(), self.peers_in_turn());
        let (env, wait) = (self.env.clone(), self.config.store_timeout);
        async move {
            let request = Request::Session(key);
            let near = one_by_one(own, request.clone(), wait, session).await.or(cached);
            if near.is_some() {
                return near;
            }
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
            Role::Master => self.replicas_for_a_peer(),
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
        let (copies, wait) = (self.replicas_for_a_peer(), self.wait_for_a_peer());
        self.env.spawn("serve-session", async move {
            let row = one_by_one(copies, Request::Session(key), wait, session).await;
            let _ = reply.send(&Response::Session(row.or(cached)));
        });
    }

    /// Reads posts from a node database of an own worker, or from memory.
    fn ask_own_replicas(
        &self,
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
        &self,
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

    fn page_of_memory(&self, board: &BoardName, range: Range, limit: u32) -> Option<Page> {
        let posts = self.tails.read(board, range, limit as usize)?;
        Some(Page {
            posts: posts.iter().map(|post| Post::clone(post)).collect(),
            last_seq: self.tails.last(board).unwrap_or_default(),
            epoch: self.tails.epoch(),
            as_of_ms: self.tails.as_of_ms(),
        })
    }

    /// Returns links to workers, beginning with the one whose turn it is.
    fn replicas(&self) -> Vec<Link> {
        self.in_turn(self.links.workers().cloned().collect(), usize::from(REPLICAS_MAX))
    }

    /// Returns links to other masters, beginning with the one whose turn it is.
    fn peers_in_turn(&self) -> Vec<Link> {
        let peers = self.core.peers().filter_map(|(_, link)| self.links.get(link).cloned());
        self.in_turn(peers.collect(), PEERS_MAX)
    }

    fn in_turn(&self, mut links: Vec<Link>, max: usize) -> Vec<Link> {
        if !links.is_empty() {
            let turn = usize::try_from(self.reads.weak_turn).unwrap_or(0) % links.len();
            links.rotate_left(turn);
        }
        links.truncate(max);
        links
    }

    fn replicas_for_a_peer(&mut self) -> Vec<Link> {
        self.reads.weak_turn += 1;
        self.replicas()
    }

    /// Returns the time for one worker, so that all of them fit into the time of the asker.
    fn wait_for_a_peer(&self) -> Duration {
        self.config.store_timeout / u32::from(REPLICAS_MAX)
    }
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
