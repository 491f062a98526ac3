//! Poll of the store: what a master touches there, and what it reads, at intervals, and sooner when the
//! store tells of posts that this master lacks.
//!
//! 1. Ends that the store tells of are looked at a moment later, as most posts come by a link meanwhile.
//! 2. They bring the poll forward at most [`WAKES_PER_INTERVAL`] times in `store_poll_interval`, however
//!    many there are.

use std::time::Duration;

use super::{
    Driver,
    closings::Closings,
    input::{Input, Polled},
};
use crate::{
    model::{
        ids::{BoardName, Seq, SessionKey},
        message::MemberState,
        rows::{Boards, Page, Range, StoreError},
        time::Mono,
    },
    node::handle::MasterInfo,
    protocol::{master::WEAK_AFTER, store_watch::StoreWatch},
    store::{
        OwnEnds, RETRY_INTERVAL_MAX,
        new_ends::{Ends, merge},
    },
};

/// The most posts of one read for a tail.
const FETCH_MAX: u32 = 500;

/// Most polls that posts which others wrote bring forward in one `store_poll_interval`.
const WAKES_PER_INTERVAL: u32 = 10;

/// Longest time between the beginnings of two touches of this master's row, unless one takes longer:
/// without a write it is weak.
const TOUCH_INTERVAL_MAX: Duration = Duration::from_secs(1);
const _: () = assert!(2 * TOUCH_INTERVAL_MAX.as_millis() <= WEAK_AFTER.as_millis());

/// Time between two marks of the nodes that are in as used.
const USE_INTERVAL: Duration = Duration::from_secs(3600);

/// Something that is done again a while after it ended.
struct Repeated {
    at: Mono,
    /// When it began last.
    began: Mono,
    is_running: bool,
    /// Whether it begins anew as soon as it ends.
    is_wanted: bool,
}

impl Repeated {
    /// Returns whether it is to begin now; then counts it as running.
    fn begin(&mut self, now: Mono) -> bool {
        let begins = !self.is_running && now >= self.at;
        if begins {
            (self.began, self.is_running) = (now, true);
        }
        begins
    }

    /// Ends it, to begin again at that time.
    fn end(&mut self, again_at: Mono) {
        self.at = if std::mem::take(&mut self.is_wanted) { Mono::ZERO } else { again_at };
        self.is_running = false;
    }

    /// Ends it, to begin again so long after it began, or at once if it took longer.
    fn end_turn(&mut self, interval: Duration) {
        self.end(self.began + interval);
    }

    /// Brings the next time forward; one that is under way may have begun too early to count.
    fn want(&mut self, now: Mono) {
        self.at = now;
        self.is_wanted = self.is_running;
    }

    fn next_deadline(&self) -> Option<Mono> {
        (!self.is_running).then_some(self.at)
    }
}

/// Ends of boards that the store told of, until they are compared with what this master has.
#[derive(Default)]
struct Heard {
    /// Those to look at next.
    ends: Ends,
    look_at: Option<Mono>,
    /// Those heard since `look_at` was set: they have a moment of their own.
    fresh: Ends,
    /// When the poll may be brought forward again.
    wake_from: Mono,
}

impl Heard {
    /// Takes ends in, to be looked at after a moment in which links may bring the posts.
    fn add(&mut self, now: Mono, ends: Ends, interval: Duration) {
        if self.look_at.is_some() {
            return merge(&mut self.fresh, ends);
        }
        self.ends = ends;
        self.look_at = Some(self.wake_from.max(now + moment(interval)));
    }

    /// Returns whether it is time to look, and this master lacks something.
    fn wakes(
        &mut self,
        now: Mono,
        last: impl Fn(&BoardName) -> Option<Seq>,
        interval: Duration,
    ) -> bool {
        if self.look_at.take_if(|at| now >= *at).is_none() {
            return false;
        }
        let lacks = |(board, end): (BoardName, Seq)| last(&board).is_none_or(|have| have < end);
        let wakes = std::mem::take(&mut self.ends).into_iter().any(lacks);
        if wakes {
            self.wake_from = now + interval / WAKES_PER_INTERVAL;
        }
        self.ends = std::mem::take(&mut self.fresh);
        if !self.ends.is_empty() {
            self.look_at = Some(self.wake_from.max(now + moment(interval)));
        }
        wakes
    }
}

/// Returns the time that links have to bring posts that the store told of.
fn moment(interval: Duration) -> Duration {
    interval / (2 * WAKES_PER_INTERVAL)
}

/// Schedule of the poll, and how far it has come.
pub(super) struct StorePoll {
    touch: Repeated,
    read: Repeated,
    heard: Heard,
    /// When the nodes that are in are marked as used again.
    use_at: Mono,
    pub(super) closings: Closings,
    /// Masters that are in, this one too, ordered by id.
    masters: Vec<MasterInfo>,
    pub(super) watch: StoreWatch,
    pub(super) own_ends: OwnEnds,
}

impl StorePoll {
    pub(super) fn new(now: Mono, me: MasterInfo, own_ends: OwnEnds) -> Self {
        let first = || Repeated { at: now, began: now, is_running: false, is_wanted: false };
        Self {
            touch: first(),
            read: first(),
            heard: Heard::default(),
            use_at: now,
            closings: Closings::default(),
            masters: vec![me],
            watch: StoreWatch::default(),
            own_ends,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let all = [self.touch.next_deadline(), self.read.next_deadline(), self.heard.look_at];
        all.into_iter().flatten().min()
    }

    /// Brings the next touch forward.
    pub(super) fn touch_now(&mut self, now: Mono) {
        self.touch.want(now);
    }

    /// Brings the next round of reads forward.
    pub(super) fn read_now(&mut self, now: Mono) {
        self.read.want(now);
    }

    pub(super) fn masters(&self) -> &[MasterInfo] {
        &self.masters
    }
}

impl Driver {
    /// Touches this master's row, and reads all that others write, when it is time.
    pub(super) fn poll_store(&mut self, now: Mono) {
        if self.poll.touch.begin(now) {
            let (store, holder) = (self.store.clone(), self.me.holder);
            let draining = self.drain.is_some();
            self.spawn("touch", async move {
                Input::MasterTouched(store.touch_master(holder, draining).await)
            });
        }
        let interval = self.config.store_poll_interval;
        if self.poll.heard.wakes(now, |board| self.tails.last(board), interval) {
            self.poll.read_now(now);
        }
        if self.poll.read.begin(now) {
            self.use_nodes(now);
            let (store, mark) = (self.store.clone(), self.poll.closings.of_poll());
            let read = self.gate.lists().begin_read();
            self.spawn("poll", async move {
                let mut polled =
                    Polled { boards: None, masters: None, admission: None, closed: None };
                // A store that is away makes one question wait, not four.
                polled.boards = store.boards().await.ok();
                if polled.boards.is_some() {
                    polled.masters = store.masters().await.ok();
                    polled.admission = store.admission().await.ok().map(|lists| (read, lists));
                    if let Some(from) = mark {
                        let page = store.closings(from.place).await.ok();
                        polled.closed = page.map(|page| (from, page));
                    }
                }
                Input::StorePolled(Box::new(polled))
            });
        }
    }

    /// Notes where the store says that others wrote.
    pub(super) fn on_new_ends(&mut self, now: Mono, ends: Ends) {
        self.poll.heard.add(now, ends, self.config.store_poll_interval);
    }

    /// Marks the nodes that are in as used, so that the store keeps their enrolments.
    fn use_nodes(&mut self, now: Mono) {
        if now < self.poll.use_at {
            return;
        }
        self.poll.use_at = now + USE_INTERVAL;
        let members = self.core.registry().members();
        let is_in = members.filter(|member| member.fact.state == MemberState::In);
        let nodes = is_in.map(|member| member.fact.node).collect();
        let store = self.store.clone();
        self.env.spawn("use-nodes", async move {
            // The next hour's mark is soon enough.
            let _ = store.use_nodes(nodes).await;
        });
    }

    pub(super) fn on_touched(&mut self, now: Mono, answer: &Result<(), StoreError>) {
        let interval = self.config.store_poll_interval.min(TOUCH_INTERVAL_MAX);
        self.poll.touch.end_turn(interval);
        self.poll.watch.on_answer(answer);
        self.core.on_store_write(now, answer.is_ok(), &mut self.out);
    }

    pub(super) fn on_polled(&mut self, now: Mono, polled: Polled) {
        let interval = self.config.store_poll_interval;
        let retry = interval.min(RETRY_INTERVAL_MAX);
        self.poll.read.end(now + if polled.boards.is_some() { interval } else { retry });
        if polled.is_outdated(self.tails.epoch()) {
            // Another read found the store replaced: its lists are not those of the store before.
            return self.poll.own_ends.set(self.known_boards().value);
        }
        let Polled { boards, masters, admission, closed } = polled;
        if let Some(boards) = boards {
            self.take_boards(&boards);
            self.check_sessions();
            self.want_users();
            self.poll.own_ends.set(self.known_boards().value);
        }
        if let Some(rows) = &masters {
            self.gate.lists().set_masters(rows);
        }
        self.core.on_masters(now, masters, &mut self.out);
        self.note_masters();
        self.note_directory();
        if let Some((read, admission)) = admission {
            self.gate.lists().set_admission(read, admission);
        }
        self.cut_expelled();
        if let Some((from, page)) = closed {
            self.on_closings(from, Some(page));
        }
    }

    /// Tells streams when the list of masters changed.
    fn note_masters(&mut self) {
        let mut masters: Vec<MasterInfo> = self
            .core
            .watch()
            .rows()
            .filter(|(row, is_in)| *is_in && !row.draining && row.node != self.me.info.id)
            .map(|(row, _)| MasterInfo {
                id: row.node,
                name: row.name.clone(),
                http: row.http.clone(),
            })
            .collect();
        masters.push(self.me.info.clone());
        masters.sort();
        if masters != self.poll.masters {
            self.poll.masters = masters;
            self.streams.table.set_masters(&self.poll.masters);
            self.deliver_all();
        }
    }

    /// Takes in the ends of all boards, as the store has them. In a new epoch all that was read of the store
    /// before is read anew.
    pub(super) fn take_boards(&mut self, boards: &Boards) {
        let noted = self.tails.on_boards(boards);
        if noted.new_epoch {
            let now = self.env.now();
            self.core.on_store_epoch(now, boards.epoch, &mut self.out);
            self.reads.tails.clear();
            // What the store lacks now, nobody may go on with: neither by requests nor by a stream.
            self.people.sessions.forget(self.streams.table.sessions());
            self.poll.closings.on_epoch(boards.epoch);
            self.deliver_all();
            self.check_sessions();
        }
        for (board, have) in noted.behind {
            self.fetch(board, have);
        }
    }

    /// Reads the posts that a tail lacks, unless that is under way.
    pub(super) fn fetch(&mut self, board: BoardName, have: Seq) {
        if !self.reads.tails.insert(board.clone()) {
            return;
        }
        let store = self.store.clone();
        self.spawn("fetch", async move {
            let range = Range::After(have);
            let answer = store.read(board.clone(), range, FETCH_MAX).await;
            Input::TailRead { board, answer }
        });
    }

    pub(super) fn on_tail_page(&mut self, board: BoardName, answer: Result<Page, StoreError>) {
        self.reads.tails.remove(&board);
        // Without an answer the next poll finds the same gap.
        let Ok(page) = answer else { return };
        self.tails.apply(page.epoch, &board, &page.posts);
        self.deliver(&board);
        if let Some(have) = self.tails.last(&board)
            && have < page.last_seq
            && page.epoch == self.tails.epoch()
            && !page.posts.is_empty()
        {
            self.fetch(board, have);
        }
    }

    /// Tells the store which sessions are active here, and which left.
    pub(super) fn touch_sessions(&mut self, now: Mono) {
        let due = self.people.presence.due(now);
        if let Some(keys) = due.touch {
            let (store, me) = (self.store.clone(), self.me.holder.node);
            self.spawn("presence", async move {
                let answer = store.touch_sessions(me, keys.clone()).await;
                Input::SessionsTouched { keys, answer }
            });
        }
        if !due.used.is_empty() {
            let store = self.store.clone();
            self.spawn("use-sessions", async move {
                let answer = store.use_sessions(due.used.clone()).await;
                Input::SessionsUsed { keys: due.used, answer }
            });
        }
        if !due.leave.is_empty() {
            let (store, me) = (self.store.clone(), self.me.holder.node);
            self.spawn("leave", async move {
                // A row that was not heard of is out by its age soon.
                let _ = store.leave_sessions(me, due.leave).await;
                Input::SessionsLeft
            });
        }
    }

    pub(super) fn on_sessions_touched(
        &mut self,
        keys: &[SessionKey],
        answer: Result<u64, StoreError>,
    ) {
        let now = self.env.now();
        self.people.presence.on_touched(now, keys, answer.as_ref().ok().copied());
        self.core.on_store_write(now, answer.is_ok(), &mut self.out);
        if answer.is_ok() {
            self.want_users();
        } else {
            self.give_up_users();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn ends(seq: u64) -> Ends {
        Ends::from([(BoardName::lobby(), Seq(seq))])
    }

    #[test]
    fn post_that_a_link_brings_meanwhile_wakes_nobody() {
        let mut heard = Heard::default();
        heard.add(at(0), ends(7), INTERVAL);
        assert_eq!(heard.look_at, Some(at(50)));
        assert!(!heard.wakes(at(49), |_| Some(Seq(6)), INTERVAL), "links have a moment");
        assert!(!heard.wakes(at(50), |_| Some(Seq(7)), INTERVAL));
        assert_eq!(heard.look_at, None);
    }

    #[test]
    fn touch_that_takes_longer_than_its_interval_is_followed_by_the_next_at_once() {
        let mut touch = Repeated { at: at(0), began: at(0), is_running: false, is_wanted: false };
        for (begins, ends, next) in
            [(0, 10, 1000), (1000, 1900, 2000), (2000, 3500, 3500), (3500, 3510, 4500)]
        {
            assert!(touch.begin(at(begins)));
            assert!(touch.next_deadline().is_none() && !touch.begin(at(ends)), "it runs");
            touch.end_turn(TOUCH_INTERVAL_MAX);
            assert_eq!(touch.next_deadline().map(|due| due.max(at(ends))), Some(at(next)));
        }
    }

    #[test]
    fn lacking_post_and_unknown_board_bring_the_poll_forward_once() {
        for have in [Some(Seq(6)), None] {
            let mut heard = Heard::default();
            heard.add(at(0), ends(7), INTERVAL);
            assert!(heard.wakes(at(50), |_| have, INTERVAL));
            assert!(!heard.wakes(at(1000), |_| have, INTERVAL), "the poll brings it, or the next");
        }
    }

    #[test]
    fn steady_posts_that_links_bring_a_little_later_wake_nobody() {
        let mut heard = Heard::default();
        for ms in 0..10_000_u64 {
            heard.add(at(ms), ends(ms + 1), INTERVAL);
            let have = |_: &BoardName| Some(Seq((ms + 1).saturating_sub(30)));
            assert!(!heard.wakes(at(ms), have, INTERVAL), "at {ms} ms");
        }
    }

    #[test]
    fn burst_brings_the_poll_forward_ten_times_in_an_interval() {
        let (mut heard, mut wakes) = (Heard::default(), 0);
        for ms in 0..10_000 {
            heard.add(at(ms), ends(ms + 1), INTERVAL);
            wakes += u32::from(heard.wakes(at(ms), |_| Some(Seq(0)), INTERVAL));
        }
        assert!((90..=100).contains(&wakes), "{wakes} in ten intervals");
    }
}
