//! Story: the cluster, the people, the faults and the expectations, as data.
//!
//! [`Story::parse`] reads the text of a story file. It refuses what does not make sense, with a
//! sentence that says what is wrong and what would be right. A world decides for itself which
//! kinds of faults it can carry out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use chatchat::{
    config::{Config, parse_duration},
    model::{bounds::LINK_VERSIONS, ids::BoardName},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    cluster::Cluster,
    fault::{Action, Fault, Kind, RawFault, Start},
    lines, nearest,
    property::Property,
    reach,
    target::Target,
};

/// Story that was read whole and checked.
#[derive(Clone, Debug)]
pub struct Story {
    /// Name of the file without `.toml`.
    pub name: String,
    /// Subject of the story, in a sentence.
    pub about: String,
    /// Time that people chat before everything is healed.
    pub duration: Duration,
    /// Cluster to start.
    pub cluster: Cluster,
    /// People and what they do.
    pub workload: Workload,
    /// Faults in the order of the file.
    pub faults: Vec<Fault>,
    /// Seeded faults on top of these.
    pub swarm: Option<Swarm>,
    /// Properties that must hold.
    pub expect: Expect,
    source: Source,
}

/// Text that a story was read from, so that a later refusal says where to look.
#[derive(Clone, Debug, Default)]
struct Source {
    file: String,
    text: String,
}

/// Workload of a story.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// Number of people; they are numbered from 0.
    pub people: usize,
    /// Rate of posts by all people together.
    pub posts_per_second: f64,
    /// Boards that people use; `lobby` always exists, the others are created first.
    pub boards: Vec<BoardName>,
    /// Posts that people write as fast as they can when they come: the boards' past.
    pub past: usize,
    /// Pauses in which nobody begins a post for 5 s, per minute.
    pub pauses_per_minute: f64,
    /// Share of posts whose text is as long as a text may be.
    pub long_posts: f64,
    /// Share of people who write and read and follow no stream, as programs do.
    pub without_stream: f64,
    /// People who share one machine, and so one address. A fault of a shared machine names the
    /// first of them.
    pub people_per_machine: usize,
    /// Times per minute at which an operator lists the dead letters and retries or drops each; 0 for no
    /// operator.
    pub operator_rounds_per_minute: f64,
    /// Other behaviour of people.
    pub habits: Habits,
}

/// Rate of each behaviour, per person and minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Habits {
    /// Sends one id through two masters at once.
    pub duplicate_send: f64,
    /// Forgets all but the session, restores it and reads its boards again.
    pub reload: f64,
    /// Stops reading its stream for a while.
    pub slow_reader: f64,
    /// Opens a second stream of the same session.
    pub two_tabs: f64,
    /// Logs out and comes back as somebody new.
    pub leave: f64,
    /// Asks what became of a post.
    pub ask_outcome: f64,
    /// Sends what no client of ours would.
    pub hostile_bytes: f64,
    /// Restores its session, or one that it logged out of before, at a master drawn at random, or
    /// asks it something else.
    pub visit: f64,
    /// Sends the id of a settled post, or of one that is not settled yet, with another text or to
    /// another board; or both posts at once, at two masters.
    pub same_id: f64,
    /// Reads from a cursor of another store, ahead of the boards, far back or of no board.
    pub forged_cursor: f64,
    /// Moves the session to another master by a ticket, and tries the ticket again, or at two masters
    /// at once; uses the session that it gives for a moment.
    pub handover: f64,
    /// Keeps a connection open for up to 40 s between two requests.
    pub keep_alive: f64,
    /// Writes 10 to 29 posts to a board, one after another.
    pub burst: f64,
}

/// Seeded faults on top of the plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swarm {
    /// Kinds to choose from; each seed leaves whole kinds out and raises others.
    pub kinds: Vec<Kind>,
    /// Rate of faults.
    pub per_minute: f64,
    /// Whether seeds also turn settings of the cluster and habits of its people; on unless the
    /// story says `knobs = false`.
    #[serde(default = "on")]
    pub knobs: bool,
    /// Whether seeds may also raise the number of people, to 60 and seldom to 200, who post no more
    /// together than a run of some seconds has room for. One of eight seeds does.
    #[serde(default)]
    pub crowd: bool,
}

const fn on() -> bool {
    true
}

/// Expectations at the end of a run.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Properties that are checked, in order. Of all of them those that
    /// [`is_judged`](crate::oracle::is_judged) and those that the world judges itself; a run
    /// tells which were not.
    pub properties: Vec<Property>,
    /// Time from the last heal until everything must work again.
    pub recovers_within: Duration,
    /// Longest time from the first try of a post to its acknowledgement, also while faults stand; none if
    /// the story expects nothing of it.
    pub waits_at_most: Option<Duration>,
    /// Whether people must get their posts through while one master, one worker and the store
    /// are whole and all other nodes are broken, before everything is healed.
    pub core: bool,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            people: 10,
            posts_per_second: 10.0,
            boards: vec![BoardName::lobby()],
            past: 0,
            pauses_per_minute: 0.0,
            long_posts: 0.0,
            without_stream: 0.0,
            people_per_machine: 1,
            operator_rounds_per_minute: 0.0,
            habits: Habits::default(),
        }
    }
}

/// Error of a story that cannot be used. Nothing was started.
#[derive(Debug, Error)]
pub enum StoryError {
    /// There is no such file, or it cannot be read.
    #[error("{path}: {why}{hint}; stories here: {}", there_are.join(", "))]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        why: io::Error,
        /// Nearest name of a story, as the end of a sentence, or nothing.
        hint: String,
        /// Names of the stories that exist.
        there_are: Vec<String>,
    },
    /// Not TOML, or not the format's keys and types.
    #[error("{at}: {why}{hint}")]
    Malformed {
        /// File, or name of the story, and line.
        at: String,
        /// Error of the parser, with the line's text.
        why: Box<toml::de::Error>,
        /// Nearest valid word, as the end of a sentence, or nothing.
        hint: String,
    },
    /// Well-formed, and makes no sense.
    #[error("{at}: {place}: {why}")]
    Senseless {
        /// File, or name of the story, and line.
        at: String,
        /// Part of the story.
        place: String,
        /// Mistake, and the remedy.
        why: String,
    },
}

impl Story {
    /// Reads a story from its text.
    ///
    /// # Errors
    /// [`StoryError::Malformed`], [`StoryError::Senseless`].
    pub fn parse(name: &str, text: &str) -> Result<Self, StoryError> {
        Self::parse_file(name, name, text)
    }

    /// Reads a story from the text of `file`, which errors name.
    fn parse_file(file: &str, name: &str, text: &str) -> Result<Self, StoryError> {
        let raw: RawStory = toml::from_str(text).map_err(|why| {
            let line = why.span().map_or(1, |span| lines::number(text, span.start));
            let (at, hint) = (format!("{file}:{line}"), nearest::hint(why.message()));
            StoryError::Malformed { at, why: Box::new(why), hint }
        })?;
        let mut story = raw.read(name).map_err(|(place, why)| {
            let line = lines::of_place(text, &place, &why);
            StoryError::Senseless { at: format!("{file}:{line}"), place, why }
        })?;
        story.source = Source { file: file.to_owned(), text: text.to_owned() };
        Ok(story)
    }

    /// Reads a story by its name, such as `calm`, or by the path of its file. The name of a story that a
    /// seed found may be given without its folder.
    ///
    /// # Errors
    /// Any [`StoryError`].
    pub fn load(name: &str) -> Result<Self, StoryError> {
        let path = if name.ends_with(".toml") { PathBuf::from(name) } else { path_of(name) };
        let text = fs::read_to_string(&path).map_err(|why| {
            let there_are = Self::names();
            let near = nearest::nearest(name, there_are.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            StoryError::Unreadable { path: path.clone(), why, hint, there_are }
        })?;
        let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
        // Of a story of the project its place in the tree says more than where the tree lies.
        let is_path = name.ends_with(".toml");
        let file = if is_path { name.to_owned() } else { format!("{name}.toml") };
        Self::parse_file(&file, &stem, &text)
    }

    /// Returns file and line of a word in a part of the story, such as `fault 2` or `expect`; else
    /// those of the part's head.
    #[must_use]
    pub fn line_of(&self, part: &str, word: &str) -> String {
        let Source { file, text } = &self.source;
        format!("{file}:{}", lines::of_place(text, part, word))
    }

    /// Returns the names of all stories of this project, in order; those that a seed found begin
    /// with `found/`.
    #[must_use]
    pub fn names() -> Vec<String> {
        let of_folder = |folder: &'static str| {
            let files = fs::read_dir(stories_dir().join(folder)).into_iter().flatten().flatten();
            let names = files.filter_map(|file| file.file_name().into_string().ok());
            names.filter_map(move |name| Some(format!("{folder}{}", name.strip_suffix(".toml")?)))
        };
        let mut names: Vec<_> = of_folder("").chain(of_folder(FOUND)).collect();
        names.sort();
        names
    }
}

/// Folder of the stories that a seed found, below that of all stories.
const FOUND: &str = "found/";

/// Returns the path of a story of this project.
fn path_of(name: &str) -> PathBuf {
    let path = stories_dir().join(format!("{name}.toml"));
    let found = stories_dir().join(format!("{FOUND}{name}.toml"));
    if !path.exists() && found.exists() { found } else { path }
}

/// Returns the folder of the story files: `stories/` beside this package's manifest, or, for a
/// binary that was moved away from its tree, `scenarios/stories/` in the current directory.
fn stories_dir() -> &'static Path {
    let built_at = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/stories"));
    if built_at.is_dir() { built_at } else { Path::new("scenarios/stories") }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStory {
    about: String,
    duration: String,
    cluster: RawCluster,
    #[serde(default)]
    workload: Workload,
    #[serde(default)]
    fault: Vec<RawFault>,
    swarm: Option<Swarm>,
    #[serde(default)]
    expect: RawExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    masters: usize,
    workers: usize,
    /// Reason for a cluster without workers, in which nobody can write.
    no_workers: Option<String>,
    #[serde(default)]
    upgrade: bool,
    #[serde(default)]
    step_us: u64,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    all: Option<bool>,
    promises: Option<Vec<String>>,
    recovers_within: Option<String>,
    waits_at_most: Option<String>,
    #[serde(default)]
    core: bool,
}

type Senseless = (String, String);

/// Bounds that a single machine's run of a story keeps to.
const NODES_MAX: usize = 256;
const PEOPLE_MAX: usize = 5000;
const STEP_US_MAX: u64 = 1000;
const PAST_MAX: usize = 100_000;
/// Time for which a pause keeps the boards quiet.
const PAUSE: Duration = Duration::from_secs(5);
const RECOVERS_WITHIN: Duration = Duration::from_secs(15);

impl RawStory {
    fn read(self, name: &str) -> Result<Story, Senseless> {
        let at = |place: &str| {
            let place = place.to_owned();
            move |why: String| (place.clone(), why)
        };
        let duration = parse_duration(&self.duration)
            .map_err(|why| why.to_string())
            .and_then(|d| (!d.is_zero()).then_some(d).ok_or_else(|| "is zero".to_owned()))
            .map_err(at("duration"))?;
        let cluster = self.cluster.read().map_err(at("cluster"))?;
        self.workload.check().map_err(at("workload"))?;
        let mut faults = Vec::new();
        for (nth, raw) in self.fault.iter().enumerate() {
            let wrong = at(&format!("fault {}", nth + 1));
            let fault = raw.read().map_err(&wrong)?;
            for target in fault.action.targets() {
                let Workload { people, boards, .. } = &self.workload;
                target.check(&cluster, *people, boards).map_err(&wrong)?;
                if *target == Target::Announcer && matches!(fault.start, Start::At(_)) {
                    return Err(wrong("`announcer` wants `when`, not `at`".to_owned()));
                }
            }
            if let Action::Rollback { by, .. } = fault.action
                && !matches!(fault.start, Start::At(at) if at >= by)
            {
                let why = "wants `at`, at least `by`: the disk has to be kept before";
                return Err(wrong(why.to_owned()));
            }
            reach::check(&fault).map_err(&wrong)?;
            if matches!(fault.start, Start::At(at) if at >= duration) {
                return Err(wrong(format!("`at` is after the story's end, {duration:?}")));
            }
            faults.push(fault);
        }
        if let Some(swarm) = &self.swarm {
            swarm.check().map_err(at("swarm"))?;
        }
        let drawn = self.swarm.iter().flat_map(|swarm| &swarm.kinds).copied();
        let mut kinds = faults.iter().map(|fault| fault.action.kind()).chain(drawn);
        if kinds.any(|kind| kind == Kind::Restore)
            && let Some(nth) = faults.iter().position(sets_the_store_back)
        {
            let why = "rollback: a store that is restored cannot be set back as well: what it was \
                       before belongs to one epoch";
            return Err((format!("fault {}", nth + 1), why.to_owned()));
        }
        let expect = self.expect.read().map_err(at("expect"))?;
        Ok(Story {
            name: name.to_owned(),
            about: self.about,
            duration,
            cluster,
            workload: self.workload,
            faults,
            swarm: self.swarm,
            expect,
            source: Source::default(),
        })
    }
}

/// Returns whether a fault puts an earlier content into the store's place.
fn sets_the_store_back(fault: &Fault) -> bool {
    matches!(fault.action, Action::Rollback { .. }) && reach::may_hit_store(fault)
}

impl RawCluster {
    fn read(self) -> Result<Cluster, String> {
        let Self { masters, workers, no_workers, upgrade, step_us, config } = self;
        if masters == 0 {
            return Err("wants at least one master".to_owned());
        }
        let is_explained = no_workers.as_ref().is_some_and(|why| !why.trim().is_empty());
        if workers == 0 && !is_explained {
            let why = "without workers nobody can write, and the story shows little; say why it \
                       is meant by `no_workers = \"..\"`";
            return Err(why.to_owned());
        }
        if workers > 0 && no_workers.is_some() {
            return Err("`no_workers` is for `workers = 0` alone".to_owned());
        }
        if masters + workers > NODES_MAX {
            return Err(format!("{} nodes: at most {NODES_MAX}", masters + workers));
        }
        config.validate().map_err(|why| format!("config: {why}"))?;
        if upgrade && config.link_version_max != LINK_VERSIONS.1 {
            let newest = LINK_VERSIONS.1;
            return Err(format!(
                "`upgrade` ends with version {newest}: leave link_version_max out"
            ));
        }
        if step_us > STEP_US_MAX {
            return Err(format!("`step_us` is {step_us}: at most {STEP_US_MAX}"));
        }
        Ok(Cluster { masters, workers, upgrade, step_us, config })
    }
}

impl Workload {
    /// Returns how long a post that is due at a time waits for the end of a pause.
    #[must_use]
    pub fn pause_left(&self, at: Duration) -> Duration {
        if self.pauses_per_minute <= 0.0 {
            return Duration::ZERO;
        }
        let period = Duration::from_secs_f64(60.0 / self.pauses_per_minute);
        let into = Duration::from_nanos((at.as_nanos() % period.as_nanos()) as u64);
        if into + PAUSE < period { Duration::ZERO } else { period - into }
    }

    /// Returns the number of the person who names the machine that a person sits at.
    #[must_use]
    pub const fn machine_of(&self, person: usize) -> usize {
        person - person % self.people_per_machine
    }

    /// Returns whether an operator handles dead letters.
    #[must_use]
    pub const fn has_operator(&self) -> bool {
        self.operator_rounds_per_minute > 0.0
    }

    fn check(&self) -> Result<(), String> {
        if self.people > PEOPLE_MAX {
            return Err(format!("{} people: at most {PEOPLE_MAX}", self.people));
        }
        if self.boards.is_empty() {
            return Err("`boards` is empty; leave it out for lobby".to_owned());
        }
        let Habits { duplicate_send, reload, slow_reader, two_tabs, leave, .. } = self.habits;
        let Habits { ask_outcome, hostile_bytes, visit, same_id, .. } = self.habits;
        let Habits { forged_cursor, handover, burst, keep_alive, .. } = self.habits;
        if self.past > PAST_MAX {
            return Err(format!("`past` is {}: at most {PAST_MAX}", self.past));
        }
        if self.people_per_machine == 0 {
            return Err("`people_per_machine` is 0: want at least 1".to_owned());
        }
        if !(0.0..=6.0).contains(&self.pauses_per_minute) {
            let pauses = self.pauses_per_minute;
            return Err(format!("`pauses_per_minute` is {pauses}: want 0 to 6"));
        }
        let shares = [("long_posts", self.long_posts), ("without_stream", self.without_stream)];
        if let Some((name, is)) = shares.iter().find(|(_, is)| !(0.0..=1.0).contains(is)) {
            return Err(format!("`{name}` is {is}: want a share from 0 to 1"));
        }
        let rates = [
            ("posts_per_second", self.posts_per_second),
            ("operator_rounds_per_minute", self.operator_rounds_per_minute),
            ("habits.duplicate_send", duplicate_send),
            ("habits.reload", reload),
            ("habits.slow_reader", slow_reader),
            ("habits.two_tabs", two_tabs),
            ("habits.leave", leave),
            ("habits.ask_outcome", ask_outcome),
            ("habits.hostile_bytes", hostile_bytes),
            ("habits.visit", visit),
            ("habits.same_id", same_id),
            ("habits.forged_cursor", forged_cursor),
            ("habits.handover", handover),
            ("habits.burst", burst),
            ("habits.keep_alive", keep_alive),
        ];
        match rates.iter().find(|(_, rate)| !(0.0..=10_000.0).contains(rate)) {
            Some((key, rate)) => Err(format!("`{key}` is {rate}: want 0 to 10000")),
            None => Ok(()),
        }
    }
}

impl Swarm {
    fn check(&self) -> Result<(), String> {
        if self.kinds.is_empty() {
            return Err("`kinds` is empty".to_owned());
        }
        if !(self.per_minute > 0.0 && self.per_minute <= 1000.0) {
            return Err(format!("`per_minute` is {}: want above 0, at most 1000", self.per_minute));
        }
        if self.crowd && !self.knobs {
            return Err("`crowd` is turned as the knobs are: leave `knobs = false` out".to_owned());
        }
        Ok(())
    }
}

impl RawExpect {
    fn read(self) -> Result<Expect, String> {
        let properties = match (self.all, self.promises) {
            (Some(true) | None, None) => Property::ALL.to_vec(),
            (None, Some(names)) if !names.is_empty() => {
                let mut properties =
                    names.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
                properties.sort_unstable();
                properties.dedup();
                properties
            }
            _ => return Err("want `all = true` or `promises = [\"G1\", ..]`".to_owned()),
        };
        let recovers_within = match self.recovers_within {
            None => RECOVERS_WITHIN,
            Some(text) => {
                parse_duration(&text).map_err(|why| format!("`recovers_within`: {why}"))?
            }
        };
        let waits_at_most = self
            .waits_at_most
            .map(|text| parse_duration(&text).map_err(|why| format!("`waits_at_most`: {why}")));
        let waits_at_most = waits_at_most.transpose()?;
        Ok(Expect { properties, recovers_within, waits_at_most, core: self.core })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "about = \"a test\"\nduration = \"30s\"\n[cluster]\nmasters = 2\nworkers = 3\n";

    fn refusal(rest: &str) -> String {
        Story::parse("test", &format!("{HEAD}{rest}")).expect_err(rest).to_string()
    }

    #[test]
    fn every_story_of_the_project_parses() {
        let names = Story::names();
        for wanted in ["calm", "coordinator-crash", "master-crash", "worker-crash", "worker-pause"]
        {
            assert!(names.iter().any(|name| name == wanted), "{wanted} is not in {names:?}");
        }
        // Too large for every campaign.
        let large = concat!(env!("CARGO_MANIFEST_DIR"), "/large/scale.toml").to_owned();
        for name in names.into_iter().chain([large]) {
            let story = Story::load(&name).unwrap_or_else(|why| panic!("{why}"));
            assert!(!story.about.is_empty(), "{name} says nothing about itself");
        }
    }

    #[test]
    fn story_that_a_seed_found_is_read_by_its_name_with_and_without_its_folder() {
        let names = Story::names();
        let found: Vec<_> = names.iter().filter_map(|name| name.strip_prefix(FOUND)).collect();
        assert!(found.contains(&"idle-clients"), "{found:?}");
        let table = fs::read_to_string(stories_dir().join(FOUND).join("README.md")).unwrap();
        for short in found {
            assert!(!names.iter().any(|name| name == short), "{short} is there twice");
            let text = |name: &str| Story::load(name).unwrap().source.text;
            assert_eq!(text(short), text(&format!("{FOUND}{short}")));
            assert!(text(short).contains("(found by "), "{short} does not say what found it");
            assert!(table.contains(&format!("| `{short}` |")), "{short} is not in the table");
        }
    }

    #[test]
    fn every_kind_of_the_catalogue_is_read() {
        let mut text = HEAD.replace("30s", "60s");
        text.push_str("config = { key_refresh_interval = \"15s\" }\n");
        text.push_str(
            "[workload]\npeople = 20\nposts_per_second = 20.0\nboards = [\"lobby\", \"dev\"]\n",
        );
        text.push_str("[workload.habits]\nleave = 1.5\n");
        for kind in Kind::ALL {
            // Each with the keys that it takes.
            let mut fault = format!("[[fault]]\nat = \"12s\"\nkind = \"{}\"\n", kind.name());
            for key in [kind.keys(), kind.optional_keys()].concat() {
                let value = match key {
                    "target" if *kind == Kind::PersonRestart => "\"person:1\"",
                    "target" if *kind == Kind::Expel => "\"worker:1\"",
                    "target" if *kind == Kind::Restore => "\"store\"",
                    "target" => "\"coordinator(board:lobby)\"",
                    "targets" | "from" => "[\"master:1\", \"worker:0\"]",
                    "to" if *kind == Kind::Stranger => "\"master:*\"",
                    "to" => "\"worker:*\"",
                    "direction" => "\"back\"",
                    "by" | "jitter" => "\"1.5s\"",
                    "factor" => "4.0",
                    "rate" => "0.25",
                    "bytes_per_second" => "1000",
                    // Either this or `rate`.
                    "count" if kind.optional_keys().contains(&"count") => continue,
                    "count" => "12",
                    other => panic!("no example of {other}"),
                };
                fault.push_str(&format!("{key} = {value}\n"));
            }
            if !kind.is_instant() {
                fault.push_str("for = \"9s\"\n");
            }
            text.push_str(&fault);
        }
        text.push_str("[[fault]]\nwhen = \"append_committed\"\nwhen_nth = 3\nkind = \"exit\"\ntarget = \"random\"\n");
        text.push_str("[swarm]\nkinds = [\"pause\", \"lost_ack\"]\nper_minute = 12.0\n");
        text.push_str("[expect]\nall = true\nrecovers_within = \"20s\"\n");
        let story = Story::parse("all", &text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(story.cluster.config.key_refresh_interval, Duration::from_secs(15));
        assert_eq!(story.faults.len(), Kind::ALL.len() + 1);
        for (fault, kind) in story.faults.iter().zip(Kind::ALL) {
            assert_eq!(fault.action.kind(), *kind);
        }
        assert_eq!(story.expect.recovers_within, Duration::from_secs(20));
    }

    #[test]
    fn refusal_says_what_is_wrong_and_what_would_be_right() {
        let fault = |keys: &str| refusal(&format!("[[fault]]\n{keys}"));
        let says = |refusal: String, words: &[&str]| {
            for word in words {
                assert!(refusal.contains(word), "{refusal:?} does not say {word:?}");
            }
        };
        says(refusal("[wrkload]\n"), &["wrkload", "workload"]);
        says(refusal("no_workers = \"a test\"\n"), &["`workers = 0` alone"]);
        let idle = HEAD.replace("workers = 3", "workers = 0");
        let unexplained = Story::parse("test", &idle).expect_err("no reason").to_string();
        says(unexplained, &["cluster", "nobody can write", "no_workers"]);
        let explained = format!("{idle}no_workers = \"what a page says then\"\n");
        assert!(Story::parse("test", &explained).is_ok());
        says(refusal("[workload]\npeeple = 3\n"), &["test:7:", "did you mean `people`?"]);
        let rounds = "[workload]\noperator_rounds_per_minute = -1.0\n";
        says(refusal(rounds), &["`operator_rounds_per_minute` is -1: want 0 to 10000"]);
        says(refusal("config = { lease_ttl = \"fast\" }\n"), &["fast", "10s"]);
        let still = "[swarm]\nkinds = [\"pause\"]\nper_minute = 1.0\ncrowd = true\nknobs = false\n";
        says(refusal(still), &["test:9: swarm: `crowd`", "leave `knobs = false` out"]);
        says(
            refusal("[expect]\npromises = [\"G77\"]\n"),
            &["test:7: expect", "G77", "G0 to G18", "did you mean `G17`?"],
        );
        says(
            fault("at = \"1s\"\nkind = \"crash\"\ntarget = \"wroker:1\"\n"),
            &["test:9: fault 1", "\"wroker:1\" is not a target", "did you mean `worker:1`?"],
        );
        says(
            fault("at = \"1s\"\nkind = \"reset\"\nfrom = \"*\"\nto = [\"store\", \"mastr:*\"]\n"),
            &["test:10: fault 1: reset", "did you mean `master:*`?"],
        );
        says(fault("at = \"1s\"\n"), &["fault 1", "kind"]);
        says(
            fault("at = \"1s\"\nkind = \"crush\"\n"),
            &["test:8:", "crush", "did you mean `crash`?"],
        );
        says(fault("at = \"1s\"\nkind = \"crash\"\n"), &["crash", "`target` is missing"]);
        says(
            fault("at = \"1s\"\nkind = \"partition\"\nfrom = \"*\"\nto = \"*\"\ntarget = \"*\"\n"),
            &["`target` is not one of its keys", "from, to, direction"],
        );
        says(fault("kind = \"crash\"\ntarget = \"store\"\n"), &["`at`", "`when`"]);
        says(
            fault("at = \"1s\"\nkind = \"crash\"\ntarget = \"master:2\"\n"),
            &["test:9: fault 1", "master:2", "there are 2 masters, numbered from 0"],
        );
        says(fault("at = \"3s\"\nkind = \"exit\"\ntarget = \"announcer\"\n"), &["`when`"]);
        let restore = "at = \"9s\"\nkind = \"restore\"\ntarget = \"store\"\n";
        says(fault(&format!("{restore}for = \"2s\"\n")), &["restore: happens at once", "no `for`"]);
        let back = "at = \"5s\"\nkind = \"rollback\"\nby = \"2s\"\ntarget";
        let both = |target| format!("{back} = \"{target}\"\n[[fault]]\n{restore}");
        says(fault(&both("store")), &["fault 1: rollback: a store that is restored"]);
        says(fault(&both("*")), &["fault 1: rollback: a store that is restored"]);
        let drawn = "[swarm]\nkinds = [\"restore\"]\nper_minute = 1.0\n";
        says(fault(&format!("{back} = \"store\"\n{drawn}")), &["a store that is restored"]);
        assert!(Story::parse("test", &format!("{HEAD}[[fault]]\n{}", both("master:0"))).is_ok());
        says(
            fault("at = \"1s\"\nkind = \"person_restart\"\ntarget = \"master:1\"\n"),
            &["person_restart", "master:1 is no person", "person:N"],
        );
        says(
            fault("at = \"1s\"\nkind = \"crash\"\ntarget = \"coordinator(board:loby)\"\n"),
            &["test:9: fault 1", "no such board, but lobby", "did you mean `lobby`?"],
        );
        says(
            fault("at = \"1s\"\nkind = \"exit\"\ntarget = \"assigned(board:dev)\"\n"),
            &["test:9: fault 1: assigned(board:dev): people use no such board"],
        );
        says(fault("at = \"31s\"\nkind = \"crash\"\ntarget = \"*\"\n"), &["after the story's end"]);
        says(fault("when = \"tea\"\nkind = \"crash\"\ntarget = \"*\"\n"), &["append_committed"]);
    }

    #[test]
    fn negative_time_is_refused_where_it_stands() {
        let delay = "[[fault]]\nat = \"1s\"\nkind = \"delay\"\nfrom = \"*\"\nto = \"*\"\n";
        let by = format!("{delay}by = \"-3s\"\n");
        let jitter = format!("{delay}by = \"1s\"\njitter = \"-3s\"\n");
        for (rest, says) in [
            (
                "[[fault]]\nat = \"-3s\"\nkind = \"crash\"\ntarget = \"*\"\n",
                "test:7: fault 1: crash: `at`",
            ),
            (
                "[[fault]]\nat = \"1s\"\nkind = \"crash\"\ntarget = \"*\"\nfor = \"-3s\"\n",
                "test:10: fault 1: crash: `for`",
            ),
            ("[expect]\nrecovers_within = \"-3s\"\n", "test:7: expect: `recovers_within`"),
            ("[expect]\nwaits_at_most = \"-3s\"\n", "test:7: expect: `waits_at_most`"),
            (by.as_str(), "test:11: fault 1: delay: `by`"),
            (jitter.as_str(), "test:12: fault 1: delay: `jitter`"),
        ] {
            let wanted = format!("{says}: \"-3s\" is not a duration such as 250ms, 10s or 5min");
            assert_eq!(refusal(rest), wanted);
        }
        let setting = refusal("config = { lease_ttl = \"-3s\" }\n");
        assert!(setting.contains("\"-3s\" is not a duration"), "{setting}");
        let duration = Story::parse("test", &HEAD.replace("30s", "-30s")).expect_err("negative");
        assert!(duration.to_string().starts_with("test:2: duration: \"-30s\""), "{duration}");
        // A clock may go back, once.
        let clock = |by: &str| {
            let keys = "at = \"1s\"\nkind = \"clock_jump\"\ntarget = \"worker:0\"\n";
            Story::parse("test", &format!("{HEAD}[[fault]]\n{keys}by = \"{by}\"\n"))
        };
        assert!(clock("-3s").is_ok());
        let twice = clock("--3s").expect_err("no duration").to_string();
        assert!(twice.starts_with("test:10: fault 1: clock_jump: `by`"), "{twice}");
    }

    #[test]
    fn unknown_story_is_refused_with_the_names_that_exist() {
        let refused = Story::load("calmm").expect_err("no such story").to_string();
        assert!(refused.contains("did you mean `calm`?"), "{refused}");
        assert!(refused.contains("worker-pause"), "{refused}");
    }
}
