//! Output of the commands. Of people's texts, what could steer a terminal is replaced, and what
//! nobody sees is left out.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fmt::Write,
    io::{self, IsTerminal},
};

use jiff::{Timestamp, tz::TimeZone};
use toml::Value;
use unicode_width::UnicodeWidthStr;

use crate::{
    api::{
        Cluster, ClusterState, DeadLetterList, JoinInvitation, JoinTokenList, NodeState,
        PendingEvent, PostList, StoreReach, UserList,
    },
    model::{
        ids::{NodeId, Post, Resource, Role},
        message::MemberState,
        names,
        stream::{Consistency, HeldState},
    },
};

/// Mark of an answer that is not the store's.
const WEAK: &str = "(the store is away: this may be old)\n";

/// Whether what is shown may have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// Text alone.
    Off,
    /// Text and the sequences by which a terminal colours it.
    On,
}

impl Colours {
    /// Returns what suits stdout: colours on a terminal, unless `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal(), env::var_os("NO_COLOR").as_deref())
    }

    /// Decides as <https://no-color.org> says: an empty variable counts as none.
    fn of(is_terminal: bool, no_color: Option<&OsStr>) -> Self {
        let is_refused = no_color.is_some_and(|value| !value.is_empty());
        if is_terminal && !is_refused { Self::On } else { Self::Off }
    }

    /// Formats where the store is, so that an absence catches the eye.
    const fn store(self, at: StoreReach) -> &'static str {
        match (at, self) {
            (StoreReach::Here, _) => "here",
            (StoreReach::Away, Self::Off) => "AWAY",
            (StoreReach::Away, Self::On) => "\u{1b}[1;31mAWAY\u{1b}[0m",
        }
    }
}

/// Formats a post as `2026-11-26 12:03:44 Ann: hello` in the time of this zone, further lines
/// indented.
pub(super) fn post(post: &Post, zone: &TimeZone) -> String {
    let clock = clock(post.posted_at_ms, zone);
    let text = plain(post.text.as_str()).replace('\n', &format!("\n{:20}", ""));
    format!("{clock} {}: {text}\n", cell(post.author.name.as_str()))
}

/// Formats a part of a board, marked if it may be old.
pub(super) fn page(page: &PostList, zone: &TimeZone) -> String {
    let mut out: String = page.posts.iter().map(|written| post(written, zone)).collect();
    if page.consistency == Consistency::Weak {
        out.push_str(WEAK);
    }
    out
}

/// Returns a line when the master's reach to the store has turned, and notes what it is now.
pub(super) fn turned(known: &mut Consistency, now: Consistency) -> Option<&'static str> {
    if std::mem::replace(known, now) == now {
        return None;
    }
    Some(match now {
        Consistency::Weak => "the store is away: what is shown may be old, and posts are held",
        Consistency::Strong => "the store is back: what is shown is complete",
    })
}

/// Formats what became of an own post that is held, or was.
pub(super) fn pending(event: &PendingEvent) -> String {
    let became = match event.state {
        HeldState::Pending => "is held until the store is back",
        HeldState::Committed => "is in its board",
        HeldState::Cancelled => "was cancelled",
        HeldState::DeadLetter => "could not be written; post --id sends it again",
        HeldState::Refused => "was refused",
    };
    format!("your post {} {became}", event.id)
}

/// Formats a time in ms since the Unix epoch.
fn clock(ms: u64, zone: &TimeZone) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    zone.to_datetime(at.unwrap_or_default()).strftime("%F %T").to_string()
}

/// Replaces controls and characters that turn the direction of text, which could make a line read
/// as another; leaves out what has no width of its own.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => Some(c),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some('\u{fffd}')
        }
        '\u{2028}' | '\u{2029}' => Some('\n'),
        c if c.is_control() => Some('\u{fffd}'),
        c => (!names::is_ignorable(c)).then_some(c),
    };
    text.chars().filter_map(shown).collect()
}

/// Makes a text plain and puts it on one line.
fn cell(text: &str) -> String {
    plain(text).replace(['\n', '\t'], " ")
}

/// Formats the active people.
pub(super) fn users(list: &UserList, now_ms: u64) -> String {
    let rows = list.users.iter().map(|user| {
        let ago = now_ms.saturating_sub(user.last_seen) / 1000;
        vec![cell(user.name.as_str()), user.id.to_string(), format!("{ago} s ago")]
    });
    let mut out = table(&["NAME", "ID", "LAST SEEN"], rows.collect());
    if list.consistency == Consistency::Weak {
        out.push_str(WEAK);
    }
    out
}

/// Formats an invitation as lines of a worker's settings file.
pub(super) fn invitation(made: &JoinInvitation) -> String {
    let pins: Vec<_> = made.pins.iter().map(ToString::to_string).collect();
    let (masters, pins) = (Value::from(made.masters.clone()), Value::from(pins));
    let token = Value::from(made.token.as_str());
    format!("masters = {masters}\npins = {pins}\ntoken = {token}\n")
}

/// Formats the join tokens that have not ended.
pub(super) fn join_tokens(list: &JoinTokenList) -> String {
    if list.tokens.is_empty() {
        return "no join token is open; token new makes one\n".to_owned();
    }
    let rows = list.tokens.iter().map(|token| {
        let minutes = token.ends_at.saturating_sub(list.now) / 60_000;
        let ends = format!("in {} h {:02} min", minutes / 60, minutes % 60);
        vec![token.id.to_string(), token.role.to_string(), token.uses_left.to_string(), ends]
    });
    table(&["ID", "ROLE", "USES LEFT", "ENDS"], rows.collect())
}

/// Formats dead letters, the newest first.
pub(super) fn dead_letters(list: &DeadLetterList, zone: &TimeZone) -> String {
    if list.letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let rows = list.letters.iter().map(|letter| {
        let (author, text) = match &letter.post {
            Some(post) => (cell(post.author.name.as_str()), cell(post.text.as_str())),
            None => ("-".to_owned(), "(no post)".to_owned()),
        };
        let shown: String = text.chars().take(40).collect();
        let text = if shown.len() < text.len() { shown + "…" } else { shown };
        let number = letter.number.to_string();
        vec![
            number,
            clock(letter.at, zone),
            letter.resource.clone(),
            author,
            text,
            cell(&letter.why),
        ]
    });
    let head = ["NUMBER", "GIVEN UP", "RESOURCE", "AUTHOR", "TEXT", "WHY"];
    let mut out = table(&head, rows.collect());
    if let Some(last) = list.letters.last().filter(|_| list.truncated) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "(dead-letters list --before {} shows older ones)", last.number);
    }
    out
}

/// Formats the fingerprints of identity files.
pub(super) fn fingerprints(rows: Vec<Vec<String>>) -> String {
    table(&["FILE", "NODE", "FINGERPRINT"], rows)
}

/// Formats the cluster as people see it.
pub(super) fn cluster(cluster: &Cluster, colours: Colours) -> String {
    let names: BTreeMap<_, _> =
        cluster.nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
    let rows = cluster.nodes.iter().map(|node| {
        vec![
            node.role.to_string(),
            cell(&node.name),
            node.id.short(),
            state(node.state).to_owned(),
            name_of(&names, node.master),
            reach(node.reaches_store).to_owned(),
            node.http.clone().unwrap_or_default(),
            node.failed.as_ref().map_or_else(String::new, |failed| cell(&failed.why)),
            node.failed.as_ref().map_or_else(String::new, |failed| failed.times.to_string()),
        ]
    });
    let head = ["ROLE", "NAME", "ID", "STATE", "MASTER", "STORE", "FRONT END", "WHY", "TIMES"];
    let table = table(&head, rows.collect());
    format!(
        "store: {}{}\n\n{table}\n(failed lists, queues and epochs are shown with --data-dir)\n",
        colours.store(cluster.store),
        cluster.store_reason.map_or_else(String::new, |reason| format!(" ({reason})")),
    )
}

/// Formats the cluster as operators see it, put together from each master's view.
pub(super) fn status(
    answered: &[(String, Result<ClusterState, String>)],
    colours: Colours,
) -> String {
    let views: Vec<&ClusterState> = answered.iter().filter_map(|(_, s)| s.as_ref().ok()).collect();
    let mut names = BTreeMap::new();
    for node in views.iter().flat_map(|view| &view.nodes) {
        names.insert(node.id, node.name.as_str());
    }
    let mut out = String::new();
    let epochs: BTreeMap<_, Vec<_>> = views.iter().fold(BTreeMap::new(), |mut epochs, view| {
        let at = colours.store(StoreReach::from(view.store));
        let seen: &mut Vec<String> = epochs.entry(view.store_epoch.0).or_default();
        seen.push(format!("{at} for {}", name_of(&names, view.node)));
        epochs
    });
    for (epoch, seen) in epochs {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "store epoch {epoch}: {}", seen.join(", "));
    }
    for view in &views {
        if let Some(away) = &view.store_away {
            let (name, why) = (name_of(&names, view.node), cell(&away.why));
            let _ = writeln!(out, "  {name}: {}: {why}", away.reason);
        }
    }
    let _ = write!(out, "\nMASTERS\n{}", masters(answered, &names));
    let _ = write!(out, "\nWORKERS\n{}", workers(&views, &names));
    let _ = write!(out, "\nFAILED LISTS\n{}", failed(&views, &names));
    let _ = write!(out, "\nQUEUES\n{}", queues(&views, &names));
    out
}

fn masters(
    answered: &[(String, Result<ClusterState, String>)],
    names: &BTreeMap<NodeId, &str>,
) -> String {
    let rows = answered.iter().map(|(name, view)| match view {
        Err(why) => vec![name.clone(), String::new(), format!("no answer: {}", cell(why))],
        Ok(view) => {
            let me = view.nodes.iter().find(|node| node.id == view.node);
            vec![
                name_of(names, view.node),
                view.node.short(),
                me.map_or("starting", |node| state(node.state)).to_owned(),
                view.domain.incarnation.to_string(),
                view.key_epoch.to_string(),
                format!("{} s", view.keys.age_ms / 1000),
                lacking(view, names),
                view.streams.to_string(),
                me.map_or_else(|| "-".to_owned(), release),
                me.and_then(|node| node.http.clone()).unwrap_or_default(),
            ]
        }
    });
    let head = [
        "NAME",
        "ID",
        "STATE",
        "INCARNATION",
        "KEY EPOCH",
        "KEY AGE",
        "KEY LACKING",
        "STREAMS",
        "RELEASE",
        "FRONT END",
    ];
    table(&head, rows.collect())
}

/// Formats the workers that do not hold the newest common key, and what went wrong with keys.
fn lacking(view: &ClusterState, names: &BTreeMap<NodeId, &str>) -> String {
    const NAMES_MAX: usize = 3;
    let (keys, all) = (&view.keys, view.keys.lacking.len());
    let mut parts: Vec<String> =
        keys.lacking.iter().take(NAMES_MAX).map(|id| name_of(names, *id)).collect();
    if all > NAMES_MAX {
        parts.push(format!("{} more", all - NAMES_MAX));
    }
    if keys.alarms > 0 {
        parts.push(format!("{} ALARMS", keys.alarms));
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

/// Formats the workers, each as its own master sees it, or else as any master does.
fn workers(views: &[&ClusterState], names: &BTreeMap<NodeId, &str>) -> String {
    let mut best: BTreeMap<NodeId, &NodeState> = BTreeMap::new();
    for view in views {
        for node in view.nodes.iter().filter(|node| node.role == Role::Worker) {
            let is_own = node.master == view.node;
            let fact = (node.registration, node.state);
            let known = best.get(&node.id).map(|known| (known.registration, known.state));
            if known.is_none_or(|known| fact > known || fact == known && is_own) {
                best.insert(node.id, node);
            }
        }
    }
    let mut best: Vec<_> = best.into_values().collect();
    best.sort_by_key(|node| (node.name.as_str(), node.id));
    let rows = best.into_iter().map(|node| {
        vec![
            cell(&node.name),
            node.id.short(),
            state(node.state).to_owned(),
            node.registration.to_string(),
            name_of(names, node.master),
            reach(node.reaches_store).to_owned(),
            node.in_flight.to_string(),
            node.resident_bytes.map_or_else(String::new, memory),
            node.held_posts.to_string(),
            release(node),
        ]
    });
    let head = [
        "NAME",
        "ID",
        "STATE",
        "REGISTRATION",
        "MASTER",
        "STORE",
        "IN FLIGHT",
        "MEMORY",
        "HELD POSTS",
        "RELEASE",
    ];
    table(&head, rows.collect())
}

/// Formats the release that a node runs, as far as it says so.
fn release(node: &NodeState) -> String {
    node.release.as_deref().map_or_else(|| "-".to_owned(), cell)
}

fn memory(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn failed(views: &[&ClusterState], names: &BTreeMap<NodeId, &str>) -> String {
    let rows = views.iter().flat_map(|view| {
        view.failed.iter().map(|failed| {
            vec![
                name_of(names, view.node),
                name_of(names, failed.id),
                failed.registration.to_string(),
                format!("{} s", failed.for_ms / 1000),
                failed.times.to_string(),
                cell(&failed.why),
            ]
        })
    });
    table(&["MASTER", "WORKER", "REGISTRATION", "FOR", "TIMES", "WHY"], rows.collect())
}

fn queues(views: &[&ClusterState], names: &BTreeMap<NodeId, &str>) -> String {
    let rows = views.iter().flat_map(|view| {
        view.queues.iter().map(|queue| {
            vec![
                name_of(names, view.node),
                resource(&queue.resource, names),
                queue.held.to_string(),
                queue.holder.map_or_else(|| "-".to_owned(), |id| name_of(names, id)),
                queue.token.map_or_else(|| "-".to_owned(), |token| token.to_string()),
                queue.waiting.to_string(),
                queue.in_flight.to_string(),
            ]
        })
    });
    let head = ["MASTER", "RESOURCE", "HELD", "HOLDER", "TOKEN", "WAITING", "IN FLIGHT"];
    table(&head, rows.collect())
}

fn name_of(names: &BTreeMap<NodeId, &str>, id: NodeId) -> String {
    names.get(&id).map_or_else(|| id.short(), |name| cell(name))
}

/// Formats a resource with the master's name in place of its id.
fn resource(text: &str, names: &BTreeMap<NodeId, &str>) -> String {
    match text.parse() {
        Ok(Resource::Sessions(master)) => format!("sessions:{}", name_of(names, master)),
        _ => cell(text),
    }
}

const fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::In => "in",
        MemberState::Failed => "failed",
        MemberState::Left => "left",
    }
}

const fn reach(reaches: Option<bool>) -> &'static str {
    match reaches {
        Some(true) => "here",
        Some(false) => "away",
        None => "-",
    }
}

/// Formats rows in columns, each as wide as its widest cell; the last one is not padded.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return "none\n".to_owned();
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    // A row that says something else in its last cell does not widen a column.
    let columns = rows[0].len();
    let width = |nth: usize| {
        let whole = rows.iter().filter(|row| row.len() == columns || nth + 1 < row.len());
        whole.filter_map(|row| row.get(nth)).map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (nth, cell) in row.iter().enumerate() {
            let pad = widths[nth].saturating_sub(cell.width());
            let _ = write!(line, "{cell}{:pad$}  ", "");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            DeadLetter, FailedNode, JoinTokenState, KeyState, LeaseOwner, Node, QueueState,
            StoreAbsence, UnsentPost,
        },
        model::{
            absence::AwayReason,
            ids::{
                Author, BoardName, Domain, Fingerprint, Incarnation, KeyEpoch, PostId,
                Registration, Seq, StoreEpoch, Token, TokenId, UserId,
            },
        },
    };

    fn id(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    #[test]
    fn invitation_is_shown_as_lines_of_a_settings_file() {
        let made = JoinInvitation {
            token: "CHAT1.a.b.c".to_owned(),
            masters: vec!["127.0.0.1:8180".to_owned(), "h:1".to_owned()],
            pins: vec![Fingerprint([0xab; 32])],
        };
        let pin = "ab".repeat(32);
        assert_eq!(
            invitation(&made),
            format!(
                "masters = [\"127.0.0.1:8180\", \"h:1\"]\npins = [\"{pin}\"]\ntoken = \"CHAT1.a.b.c\"\n"
            )
        );
    }

    #[test]
    fn join_tokens_are_shown_with_the_time_they_have_left() {
        let id = TokenId([0xab; 8]);
        let (role, ends_at) = (Role::Worker, 1000 + 23 * 3_600_000 + 61_000);
        let token = JoinTokenState { id, role, uses_left: 1, ends_at };
        let shown = join_tokens(&JoinTokenList { now: 1000, tokens: vec![token] });
        let row: Vec<_> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, ["abababababababab", "worker", "1", "in", "23", "h", "01", "min"]);
    }

    #[test]
    fn dead_letters_are_shown_with_post_and_reason_and_cannot_steer_a_terminal() {
        let author = Author { id: UserId([1; 16]), name: "Ann".parse().unwrap() };
        let text = format!("\u{1b}[2J{}", "long ".repeat(20)).parse().unwrap();
        let post = UnsentPost { id: PostId([2; 16]), author, text };
        let why = "worker-0: no\nanswer".to_owned();
        let resource = "board:lobby".to_owned();
        let letter = DeadLetter { number: 7, resource, post: Some(post), why, at: 1000 };
        let mut list = DeadLetterList { letters: vec![letter], truncated: false };
        let shown = dead_letters(&list, &TimeZone::UTC);
        let row = shown.lines().last().unwrap();
        assert!(row.starts_with("7       1970-01-01 00:00:01  board:lobby  Ann"), "{row}");
        assert!(row.ends_with("worker-0: no answer") && row.contains('…'), "{row}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        list.truncated = true;
        let more = "(dead-letters list --before 7 shows older ones)\n";
        assert_eq!(dead_letters(&list, &TimeZone::UTC), shown + more);
        let none = DeadLetterList { letters: vec![], truncated: false };
        assert_eq!(dead_letters(&none, &TimeZone::UTC), "no dead letters\n");
    }

    fn node(n: u8, role: Role, name: &str, master: u8) -> NodeState {
        NodeState {
            id: id(n),
            name: name.to_owned(),
            role,
            registration: Registration(3),
            state: MemberState::In,
            master: id(master),
            http: (role == Role::Master).then(|| "http://127.0.0.1:8080".to_owned()),
            reaches_store: Some(true),
            in_flight: 1,
            resident_bytes: Some(13 << 20),
            held_posts: 2,
            release: (role == Role::Master).then(|| "0.2.0".to_owned()),
        }
    }

    #[test]
    fn people_are_shown_why_a_worker_of_a_failed_list_failed_and_how_often() {
        let listed = FailedNode {
            id: id(2),
            registration: Registration(3),
            why: "si\nlent".to_owned(),
            for_ms: 900,
            times: 2,
        };
        let worker = |state| NodeState { state, ..node(2, Role::Worker, "worker-0", 1) };
        let shown = |state, registration| {
            let failed =
                [FailedNode { registration: Registration(registration), ..listed.clone() }];
            let all = [node(1, Role::Master, "north", 1), worker(state)];
            let view = Cluster {
                node: id(1),
                store: StoreReach::Here,
                store_reason: None,
                key_epoch: KeyEpoch(1),
                key_age_ms: 1,
                nodes: all.map(|node| Node::new(node, &failed)).to_vec(),
            };
            let text = cluster(&view, Colours::Off);
            let row = text.lines().find(|line| line.contains("worker-0")).unwrap();
            row.trim_end().to_owned()
        };
        assert!(shown(MemberState::Failed, 3).ends_with("si lent  2"));
        assert!(!shown(MemberState::Failed, 2).contains("lent"), "an earlier registration failed");
        assert!(!shown(MemberState::In, 3).contains("lent"));
    }

    #[test]
    fn status_shows_masters_workers_failed_lists_queues_and_epochs() {
        let view = ClusterState {
            node: id(1),
            domain: Domain { master: id(1), incarnation: Incarnation(2) },
            key_epoch: KeyEpoch(4),
            keys: KeyState { age_ms: 61_000, lacking: vec![id(2)], ..KeyState::default() },
            store_epoch: StoreEpoch(7),
            store: Consistency::Strong,
            store_away: None,
            store_absences: Vec::new(),
            refusals: Vec::new(),
            nodes: vec![node(1, Role::Master, "m0", 1), node(2, Role::Worker, "w0", 1)],
            failed: vec![FailedNode {
                id: id(2),
                registration: Registration(2),
                why: "no answer".to_owned(),
                for_ms: 4200,
                times: 1,
            }],
            queues: vec![QueueState {
                resource: "board:lobby".to_owned(),
                held: LeaseOwner::Mine,
                holder: Some(id(1)),
                token: Some(Token { epoch: StoreEpoch(7), lease: 1, n: 9 }),
                waiting: 3,
                in_flight: 2,
            }],
            boards: Vec::new(),
            streams: 5,
        };
        let answered = [
            ("m0".to_owned(), Ok(view)),
            ("m1".to_owned(), Err("it cannot be reached".to_owned())),
        ];
        let text = status(&answered, Colours::Off);
        let wanted = "\
store epoch 7: here for m0

MASTERS
NAME  ID        STATE  INCARNATION  KEY EPOCH  KEY AGE  KEY LACKING  STREAMS  RELEASE  FRONT END
m0    01010101  in     2            4          61 s     w0           5        0.2.0    http://127.0.0.1:8080
m1              no answer: it cannot be reached

WORKERS
NAME  ID        STATE  REGISTRATION  MASTER  STORE  IN FLIGHT  MEMORY  HELD POSTS  RELEASE
w0    02020202  in     3             m0      here   1          13 MiB  2           -

FAILED LISTS
MASTER  WORKER  REGISTRATION  FOR  TIMES  WHY
m0      w0      2             4 s  1      no answer

QUEUES
MASTER  RESOURCE     HELD  HOLDER  TOKEN  WAITING  IN FLIGHT
m0      board:lobby  mine  m0      7.1.9  3        2
";
        assert_eq!(text, wanted, "{text}");
        assert_eq!(status(&answered, Colours::On), wanted, "only an absence has a colour");
    }

    #[test]
    fn absence_of_the_store_is_shown_in_capitals_and_in_red_where_colours_are() {
        let away = |n: u8, away: Option<StoreAbsence>| ClusterState {
            node: id(n),
            domain: Domain { master: id(n), incarnation: Incarnation(2) },
            key_epoch: KeyEpoch(4),
            keys: KeyState::default(),
            store_epoch: StoreEpoch(7),
            store: away.as_ref().map_or(Consistency::Strong, |_| Consistency::Weak),
            store_away: away,
            store_absences: Vec::new(),
            refusals: Vec::new(),
            nodes: vec![node(n, Role::Master, &format!("m{n}"), n)],
            failed: Vec::new(),
            queues: Vec::new(),
            boards: Vec::new(),
            streams: 0,
        };
        let why = "no such\u{1b}[2J file".to_owned();
        let gone = StoreAbsence { reason: AwayReason::Gone, why };
        let reason = gone.reason;
        let answered =
            [("m0".to_owned(), Ok(away(0, None))), ("m1".to_owned(), Ok(away(1, Some(gone))))];
        let begin = |red: &str, end: &str| {
            format!(
                "store epoch 7: here for m0, {red}AWAY{end} for m1\n  m1: {reason}: no such\u{fffd}[2J file\n\nMASTERS\n"
            )
        };
        let plain = status(&answered, Colours::Off);
        assert!(plain.starts_with(&begin("", "")) && !plain.contains('\u{1b}'), "{plain}");
        let red = status(&answered, Colours::On);
        assert!(red.starts_with(&begin("\u{1b}[1;31m", "\u{1b}[0m")), "{red}");
        assert_eq!(red.matches('\u{1b}').count(), 2, "{red}");
    }

    #[test]
    fn colours_are_for_terminals_whose_reader_did_not_refuse_them() {
        for (is_terminal, no_color, want) in [
            (true, None, Colours::On),
            (true, Some(""), Colours::On),
            (true, Some("1"), Colours::Off),
            (false, None, Colours::Off),
        ] {
            let shown = Colours::of(is_terminal, no_color.map(OsStr::new));
            assert_eq!(shown, want, "{is_terminal} {no_color:?}");
        }
    }

    fn written(text: &str) -> Post {
        Post {
            id: PostId([1; 16]),
            board: BoardName::lobby(),
            seq: Seq(1),
            author: Author { id: UserId([1; 16]), name: "Ann".parse().unwrap() },
            text: text.parse().unwrap(),
            posted_at_ms: 1_774_746_000_000,
        }
    }

    #[test]
    fn page_is_marked_when_it_may_be_old() {
        let list = |consistency| PostList {
            posts: vec![written("x")],
            last_seq: Seq(1),
            epoch: StoreEpoch(7),
            consistency,
            as_of: 1,
            truncated: false,
        };
        let line = "2026-03-29 01:00:00 Ann: x\n";
        assert_eq!(page(&list(Consistency::Strong), &TimeZone::UTC), line);
        let weak = page(&list(Consistency::Weak), &TimeZone::UTC);
        assert_eq!(weak, format!("{line}(the store is away: this may be old)\n"));
    }

    #[test]
    fn turns_of_the_store_are_told_once_each() {
        let (strong, weak) = (Consistency::Strong, Consistency::Weak);
        let mut known = strong;
        let told = [strong, weak, weak, strong, strong].map(|now| turned(&mut known, now));
        let words = told.map(|line| line.and_then(|line| line.split(':').next()));
        assert_eq!(words, [None, Some("the store is away"), None, Some("the store is back"), None]);
    }

    #[test]
    fn own_post_is_told_with_what_became_of_it() {
        let event = PendingEvent { id: PostId([0x11; 16]), state: HeldState::Committed };
        assert_eq!(
            pending(&event),
            "your post 11111111-1111-1111-1111-111111111111 is in its board"
        );
    }

    #[test]
    fn control_characters_of_a_post_are_replaced() {
        let shown = post(&written("red \u{1b}[31m\nand more\u{7}"), &TimeZone::UTC);
        let indent = " ".repeat(20);
        assert_eq!(
            shown,
            format!("2026-03-29 01:00:00 Ann: red \u{fffd}[31m\n{indent}and more\u{fffd}\n")
        );
    }

    #[test]
    fn direction_controls_and_hidden_characters_of_a_post_do_not_reach_the_terminal() {
        let shown = post(&written("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{85}f"), &TimeZone::UTC);
        assert_eq!(shown, "2026-03-29 01:00:00 Ann: a\u{fffd}b\u{fffd}cde\u{fffd}f\n");
    }

    #[test]
    fn post_is_dated_in_the_zone_of_the_reader() {
        // The night in which central Europe's clocks go forward.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        assert_eq!(post(&written("x"), &zone), "2026-03-29 03:00:00 Ann: x\n");
    }

    #[test]
    fn columns_count_the_cells_of_the_terminal() {
        let rows = vec![
            vec!["\u{65e5}\u{672c}".to_owned(), "x".to_owned()],
            vec!["e\u{301}".to_owned(), "y".to_owned()],
        ];
        assert_eq!(table(&["N", "V"], rows), "N     V\n\u{65e5}\u{672c}  x\ne\u{301}     y\n");
        assert_eq!(cell("two\nlines"), "two lines");
    }
}
