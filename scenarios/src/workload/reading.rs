//! Last steps of a run: people ask for unknown outcomes, then read everything from every master.

use std::{collections::BTreeSet, time::Duration};

use chatchat::{
    client::{Answer, Failure, Request},
    model::{
        ids::{BoardName, PostId, Seq},
        rows::Range,
        stream::Consistency,
    },
};

use super::person::{OpenPage, Person};

/// Number of people who read boards whole; the others read their ends.
const WHOLE_READERS: usize = 3;
/// Number of people who read from every master; each of the others reads from one of them, so that
/// a crowd's last reading grows with its people and not with its people times the masters.
const EVERYWHERE_READERS: usize = 64;
/// Number of people from which most ask for the first [`FIRST_PEOPLE`] of the active ones: a list
/// of a crowd, told to each of a crowd, is quadratic.
const CROWD: usize = 512;
const FIRST_PEOPLE: u32 = 100;
/// Posts in one answer: what masters give at most.
const PAGE: u32 = 200;

impl Person {
    /// Asks what became of this session's posts that have no outcome yet.
    pub(super) async fn ask_for_unknown(&self, page: &OpenPage, deadline: Duration) {
        let unknown: Vec<PostId> = {
            let history = self.recorder.history();
            let mine = || history.sent().filter(|sent| sent.operation.who == page.who);
            let known: BTreeSet<_> = mine()
                .filter(|sent| sent.operation.committed().is_some())
                .map(|sent| sent.id)
                .collect();
            let open = mine().filter(|s| !known.contains(&s.id) && !s.operation.did_nothing());
            open.map(|sent| sent.id).collect::<BTreeSet<_>>().into_iter().collect()
        };
        for id in unknown {
            // A page goes on to another master when its own cannot serve it.
            let mut masters: Vec<_> = self.stage.masters.iter().map(String::as_str).collect();
            let own = page.client.master();
            masters.sort_by_key(|master| *master != own);
            self.ask_until(page, &masters, &Request::Outcome { id }, deadline).await;
        }
    }

    /// Reads boards, people and the session from every master, or from one in a crowd.
    pub(super) async fn read_everything(&self, page: &OpenPage, within: Duration) {
        let deadline = self.stage.clock.now() + within;
        let mut masters = &self.stage.masters[..];
        if self.number >= EVERYWHERE_READERS {
            let own = self.number % masters.len().max(1);
            masters = masters.get(own..=own).unwrap_or_default();
        }
        for master in masters {
            for board in &self.stage.workload.boards {
                if self.number < WHOLE_READERS {
                    self.read_whole(page, master, board, deadline).await;
                } else {
                    let last = slice_of(board, Range::Last, 50);
                    self.ask_until(page, &[master.as_str()], &last, deadline).await;
                }
            }
            self.ask_until(page, &[master.as_str()], &self.list_of_people(), deadline).await;
            self.ask_until(page, &[master.as_str()], &Request::Restore, deadline).await;
        }
    }

    /// Returns the question for who is active.
    pub(super) fn list_of_people(&self) -> Request {
        if self.stage.workload.people < CROWD || self.number < WHOLE_READERS {
            Request::Users
        } else {
            Request::FirstUsers { limit: FIRST_PEOPLE }
        }
    }

    async fn read_whole(
        &self,
        page: &OpenPage,
        master: &str,
        board: &BoardName,
        deadline: Duration,
    ) {
        let mut after = Seq(0);
        loop {
            let request = slice_of(board, Range::After(after), PAGE);
            match self.ask_until(page, &[master], &request, deadline).await {
                Some(Answer::Page(slice)) if slice.truncated => match slice.posts.last() {
                    Some(last) if last.seq > after => after = last.seq,
                    _ => return,
                },
                _ => return,
            }
        }
    }

    /// Asks masters in turn until one answers; what stays unanswered is noted.
    async fn ask_until(
        &self,
        page: &OpenPage,
        masters: &[&str],
        request: &Request,
        deadline: Duration,
    ) -> Option<Answer> {
        let mut wait = Duration::from_millis(200);
        let mut in_turn = masters.iter().cycle();
        loop {
            let master = in_turn.next()?;
            let failure = match page.client.call_at(master, request).await {
                Ok(reply) => return Some(reply),
                Err(failure) => failure,
            };
            let is_final = matches!(failure, Failure::Refused { .. });
            if is_final || self.stage.clock.now() + wait >= deadline {
                let what = format!("{}: {master} does not answer {request:?}: {failure}", page.who);
                let post = match request {
                    Request::Outcome { id } => Some(*id),
                    _ => None,
                };
                self.recorder.gives_up(page.who.person, post, what);
                return None;
            }
            self.env.sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }
}

fn slice_of(board: &BoardName, range: Range, limit: u32) -> Request {
    Request::Read { board: board.clone(), range, limit, wanted: Consistency::Strong }
}
