//! One fault: when, for how long, what, and whom.
//!
//! In a story file a fault is a flat table whose `kind` says which other keys it takes.
//! `RawFault` is that table; [`Fault`] is what it means. Reading refuses a key that its kind
//! does not take, and a kind whose key is missing, and says which keys would be right.

use std::{fmt, time::Duration};

use chatchat::{config::parse_duration, model::event::FaultPoint};
use serde::{Deserialize, Serialize};

use crate::target::Target;

mod write;

pub(crate) use write::duration;

/// Start of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// This long after the run's start.
    At(Duration),
    /// At the `nth` announcement of this fault point, counted from 1, over all nodes.
    When {
        /// Fault point.
        point: FaultPoint,
        /// Number of the announcement.
        nth: u32,
    },
}

/// Direction of a link, seen from `from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// Bytes that `from` sends.
    Forward,
    /// Bytes that `to` sends.
    Back,
}

/// The links between two sets of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// One side.
    pub from: Vec<Target>,
    /// The other side.
    pub to: Vec<Target>,
    /// Direction that is hit.
    pub direction: Direction,
}

/// Frequency of an effect while its fault lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dose {
    /// To each with this probability.
    Rate(f64),
    /// To so many, then no more.
    Count(u32),
}

/// A step of a clock, ahead or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Milliseconds; negative is back.
    pub ms: i64,
}

/// Effect of a fault. A restart, heal or resume undoes it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the keys of the story file")]
pub enum Action {
    /// Power loss: peers hear nothing, unsynced bytes are lost or torn. Undone by a restart.
    Crash { target: Target },
    /// The process dies, its kernel resets its connections, written bytes stay.
    Exit { target: Target },
    /// Stopped, also longer than a lease.
    Pause { target: Target },
    /// Every step takes `factor` times as long.
    Slow { target: Target, factor: f64 },
    /// Crash, and the disk is empty afterwards.
    Wipe { target: Target },
    /// Bytes stay in flight; connections stall, then break as TCP's do.
    Partition { links: Links },
    /// Everything takes longer.
    Delay { links: Links, by: Duration, jitter: Duration },
    /// A narrow pipe.
    Bandwidth { links: Links, bytes_per_second: u64 },
    /// Shows as retransmission delay.
    Loss { links: Links, rate: f64 },
    /// Every connection is reset, once.
    Reset { links: Links },
    /// Every connection vanishes at `to` only.
    HalfOpen { links: Links },
    /// SYNs are lost.
    ConnectHang { links: Links, rate: f64 },
    /// Bytes are flipped.
    Corrupt { links: Links, rate: f64 },
    /// Recorded bytes of the same line take the place of later ones.
    Inject { links: Links, rate: f64 },
    /// Cut one by one, healed in another order.
    Swizzle { targets: Vec<Target> },
    /// Unsynced writes are torn at its next crash.
    Torn { target: Target, rate: f64 },
    /// Reads give flipped bits.
    BitRot { target: Target, rate: f64 },
    /// A sync takes longer.
    SyncSlow { target: Target, by: Duration },
    /// A sync fails.
    SyncError { target: Target, rate: f64 },
    /// Writes fail for want of space.
    DiskFull { target: Target },
    /// The wall clock stands off.
    ClockOffset { target: Target, by: Step },
    /// Both clocks run at `1 + rate`.
    ClockDrift { target: Target, rate: f64 },
    /// The wall clock jumps, once; the monotonic clock only ahead.
    ClockJump { target: Target, by: Step },
    /// A write of the store commits and its answer never comes.
    LostAck { dose: Dose },
    /// A write of the store fails cleanly.
    StoreError { dose: Dose },
    /// A transaction of the store is undone for others before its commit, and is repeated within the
    /// store's time-out.
    StoreConflict { dose: Dose },
    /// No more than `count` statements run at the store at once, and each takes `by` longer.
    StorePool { count: u32, by: Duration },
    /// The store's primary ends in the middle of commits, and a standby takes its place within `for`:
    /// it has all that anybody was told of, and some of the rest.
    StorePromote,
    /// No more than so many sockets: connects and accepts fail beyond.
    FdLimit { target: Target, count: u32 },
    /// SIGTERM: the process says goodbye and ends. Undone by a start.
    Stop { target: Target },
    /// Each in turn is stopped and started again, within `for`.
    Restart { targets: Vec<Target> },
    /// A second process with the same identity and a copy of the disk runs elsewhere.
    Clone { target: Target },
    /// Power loss, after which the disk is as it was so long before.
    Rollback { target: Target, by: Duration },
    /// The store's content is backed up and restored at the same moment: nothing is lost, a new epoch
    /// begins, and each master that runs is superseded, so that its supervisor starts it again. Join
    /// tokens are void from then on.
    Restore { target: Target },
    /// Somebody who belongs to nothing speaks to link ports and front ends.
    Stranger { to: Vec<Target> },
    /// A person's page goes away, and comes back with its session, its outbox and its cursor.
    PersonRestart { target: Target },
    /// An operator expels a worker, whose machine goes on trying: as itself, then with a new identity
    /// and the old join token. Undone by a new machine in its place, which has a token of its own.
    Expel { target: Target },
}

/// A fault of a story or plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Start of the fault.
    pub start: Start,
    /// After this it is undone; `None`: never.
    pub lasts: Option<Duration>,
    /// Effect of the fault.
    pub action: Action,
}

/// Returns the label of a fault's random draws: what it is, its start and its action as they are
/// written, and never its number, so that leaving another out changes nothing. Faults that are alike
/// are counted, so that each draws for itself.
pub(crate) fn label(faults: &[Fault], nth: usize) -> String {
    let Fault { start, action, .. } = &faults[nth];
    let alike = faults[..nth].iter().filter(|it| it.start == *start && it.action == *action);
    format!("{start} {action} {}", alike.count())
}

macro_rules! kinds {
    ($($name:ident $text:literal [$($key:literal)*] [$($optional:literal)*],)*) => {
        /// Kind of a fault: the catalogue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[expect(missing_docs, reason = "each is the variant of its name of Action")]
        pub enum Kind {
            $($name,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As stories write it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Returns the keys that the kind needs, besides `at` or `when`.
            #[must_use]
            pub const fn keys(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($key),*],)*
                }
            }

            /// Returns the keys that the kind may have besides those.
            #[must_use]
            pub const fn optional_keys(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($optional),*],)*
                }
            }
        }

        impl Action {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$name { .. } => Kind::$name,)*
                }
            }
        }
    };
}

kinds! {
    Crash "crash" ["target"] [],
    Exit "exit" ["target"] [],
    Pause "pause" ["target"] [],
    Slow "slow" ["target" "factor"] [],
    Wipe "wipe" ["target"] [],
    Partition "partition" ["from" "to"] ["direction"],
    Delay "delay" ["from" "to" "by"] ["direction" "jitter"],
    Bandwidth "bandwidth" ["from" "to" "bytes_per_second"] ["direction"],
    Loss "loss" ["from" "to" "rate"] ["direction"],
    Reset "reset" ["from" "to"] [],
    HalfOpen "half_open" ["from" "to"] [],
    ConnectHang "connect_hang" ["from" "to"] ["rate"],
    Corrupt "corrupt" ["from" "to" "rate"] [],
    Inject "inject" ["from" "to" "rate"] [],
    Swizzle "swizzle" ["targets"] [],
    Torn "torn" ["target"] ["rate"],
    BitRot "bit_rot" ["target" "rate"] [],
    SyncSlow "sync_slow" ["target" "by"] [],
    SyncError "sync_error" ["target"] ["rate"],
    DiskFull "disk_full" ["target"] [],
    ClockOffset "clock_offset" ["target" "by"] [],
    ClockDrift "clock_drift" ["target" "rate"] [],
    ClockJump "clock_jump" ["target" "by"] [],
    LostAck "lost_ack" [] ["rate" "count"],
    StoreError "store_error" [] ["rate" "count"],
    StoreConflict "store_conflict" [] ["rate" "count"],
    StorePool "store_pool" ["count"] ["by"],
    StorePromote "store_promote" [] [],
    FdLimit "fd_limit" ["target" "count"] [],
    Stop "stop" ["target"] [],
    Restart "restart" ["targets"] [],
    Clone "clone" ["target"] [],
    Rollback "rollback" ["target" "by"] [],
    Restore "restore" ["target"] [],
    Stranger "stranger" ["to"] [],
    PersonRestart "person_restart" ["target"] [],
    Expel "expel" ["target"] [],
}

impl Kind {
    /// Returns whether it happens at one point in time and has nothing to undo: `for` is
    /// refused.
    #[must_use]
    pub const fn is_instant(self) -> bool {
        matches!(self, Self::Reset | Self::HalfOpen | Self::ClockJump | Self::Restore)
    }
}

/// One name or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// `"master:1"`.
    One(String),
    /// `["master:1", "worker:*"]`.
    Many(Vec<String>),
}

/// Fault as its table in a story file, before it is checked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFault {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<FaultPoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    when_nth: Option<u32>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    lasts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
}

impl RawFault {
    /// Checks the table and returns the fault.
    ///
    /// # Errors
    ///
    /// A sentence that says which key is wrong, missing or not taken.
    pub(crate) fn read(&self) -> Result<Fault, String> {
        let kind = self.kind.ok_or("`kind` is missing")?;
        self.check_keys(kind).map_err(|why| format!("{}: {why}", kind.name()))?;
        let fault = (|| {
            Ok(Fault { start: self.start()?, lasts: self.lasts(kind)?, action: self.action(kind)? })
        })();
        fault.map_err(|why: String| format!("{}: {why}", kind.name()))
    }

    /// Every key that the table has must be one that its kind takes, and the other way round.
    fn check_keys(&self, kind: Kind) -> Result<(), String> {
        let given = [
            ("target", self.target.is_some()),
            ("targets", self.targets.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("direction", self.direction.is_some()),
            ("by", self.by.is_some()),
            ("jitter", self.jitter.is_some()),
            ("factor", self.factor.is_some()),
            ("rate", self.rate.is_some()),
            ("count", self.count.is_some()),
            ("bytes_per_second", self.bytes_per_second.is_some()),
        ];
        for (key, is_given) in given {
            if is_given && !kind.keys().contains(&key) && !kind.optional_keys().contains(&key) {
                let takes = [kind.keys(), kind.optional_keys()].concat();
                return Err(format!("`{key}` is not one of its keys ({})", takes.join(", ")));
            }
            if !is_given && kind.keys().contains(&key) {
                return Err(format!("`{key}` is missing"));
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<Start, String> {
        match (&self.at, self.when, self.when_nth) {
            (Some(at), None, None) => Ok(Start::At(span("at", at)?)),
            (None, Some(_), Some(0)) => Err("`when_nth` counts from 1".to_owned()),
            (None, Some(point), nth) => Ok(Start::When { point, nth: nth.unwrap_or(1) }),
            _ => Err("want `at`, or `when` with or without `when_nth`, and not both".to_owned()),
        }
    }

    fn lasts(&self, kind: Kind) -> Result<Option<Duration>, String> {
        match &self.lasts {
            None => Ok(None),
            Some(_) if kind.is_instant() => Err("happens at once and takes no `for`".to_owned()),
            Some(text) => match span("for", text)? {
                Duration::ZERO => Err("`for` is zero".to_owned()),
                lasts => Ok(Some(lasts)),
            },
        }
    }

    fn action(&self, kind: Kind) -> Result<Action, String> {
        let target = || self.target.as_deref().unwrap_or_default().parse::<Target>();
        let links = || {
            Ok::<_, String>(Links {
                from: targets("from", self.from.as_ref())?,
                to: targets("to", self.to.as_ref())?,
                direction: self.direction.unwrap_or_default(),
            })
        };
        let by = || span("by", self.by.as_deref().unwrap_or_default());
        let step = || step(self.by.as_deref().unwrap_or_default());
        // What happens to all unless the story says to how many.
        let rate = || match self.rate.unwrap_or(1.0) {
            rate if (0.0..=1.0).contains(&rate) => Ok(rate),
            rate => Err(format!("`rate` is {rate}: want 0 to 1")),
        };
        Ok(match kind {
            Kind::Crash => Action::Crash { target: target()? },
            Kind::Exit => Action::Exit { target: target()? },
            Kind::Pause => Action::Pause { target: target()? },
            Kind::Slow => Action::Slow {
                target: target()?,
                factor: match self.factor {
                    Some(factor) if factor.is_finite() && factor >= 1.0 => factor,
                    _ => return Err("`factor` must be 1 or more".to_owned()),
                },
            },
            Kind::Wipe => Action::Wipe { target: target()? },
            Kind::Partition => Action::Partition { links: links()? },
            Kind::Delay => Action::Delay {
                links: links()?,
                by: by()?,
                jitter: self.jitter.as_ref().map_or(Ok(Duration::ZERO), |j| span("jitter", j))?,
            },
            Kind::Bandwidth => Action::Bandwidth {
                links: links()?,
                bytes_per_second: self
                    .bytes_per_second
                    .filter(|rate| *rate > 0)
                    .ok_or("`bytes_per_second` is zero: that is a partition")?,
            },
            Kind::Loss => Action::Loss { links: links()?, rate: rate()? },
            Kind::Reset => Action::Reset { links: links()? },
            Kind::HalfOpen => Action::HalfOpen { links: links()? },
            Kind::ConnectHang => Action::ConnectHang { links: links()?, rate: rate()? },
            Kind::Corrupt => Action::Corrupt { links: links()?, rate: rate()? },
            Kind::Inject => Action::Inject { links: links()?, rate: rate()? },
            Kind::Swizzle => {
                Action::Swizzle { targets: targets("targets", self.targets.as_ref())? }
            }
            Kind::Torn => Action::Torn { target: target()?, rate: rate()? },
            Kind::BitRot => Action::BitRot { target: target()?, rate: rate()? },
            Kind::SyncSlow => Action::SyncSlow { target: target()?, by: by()? },
            Kind::SyncError => Action::SyncError { target: target()?, rate: rate()? },
            Kind::DiskFull => Action::DiskFull { target: target()? },
            Kind::ClockOffset => Action::ClockOffset { target: target()?, by: step()? },
            Kind::ClockDrift => Action::ClockDrift {
                target: target()?,
                rate: match self.rate {
                    Some(rate) if rate.abs() < 1.0 => rate,
                    _ => return Err("`rate` must be above -1 and below 1".to_owned()),
                },
            },
            Kind::ClockJump => Action::ClockJump { target: target()?, by: step()? },
            Kind::LostAck => Action::LostAck { dose: self.dose(rate)? },
            Kind::StoreError => Action::StoreError { dose: self.dose(rate)? },
            Kind::StoreConflict => Action::StoreConflict { dose: self.dose(rate)? },
            Kind::StorePool => Action::StorePool {
                count: self.count.unwrap_or(0),
                by: self.by.as_deref().map_or(Ok(Duration::ZERO), |by| span("by", by))?,
            },
            Kind::StorePromote => Action::StorePromote,
            Kind::FdLimit => Action::FdLimit { target: target()?, count: self.count.unwrap_or(0) },
            Kind::Stop => Action::Stop { target: target()? },
            Kind::Restart => {
                Action::Restart { targets: targets("targets", self.targets.as_ref())? }
            }
            Kind::Clone => Action::Clone { target: target()? },
            Kind::Rollback => Action::Rollback { target: target()?, by: by()? },
            Kind::Restore => Action::Restore { target: target()? },
            Kind::Stranger => Action::Stranger { to: targets("to", self.to.as_ref())? },
            Kind::PersonRestart => Action::PersonRestart { target: target()? },
            Kind::Expel => Action::Expel { target: target()? },
        })
    }

    fn dose(&self, rate: impl Fn() -> Result<f64, String>) -> Result<Dose, String> {
        match (self.rate, self.count) {
            (Some(_), None) => Ok(Dose::Rate(rate()?)),
            (None, Some(count)) if count > 0 => Ok(Dose::Count(count)),
            _ => Err("want `rate` or a `count` above 0, and not both".to_owned()),
        }
    }
}

impl Action {
    /// Everyone it names, `from` and `to` alike.
    #[must_use]
    pub fn targets(&self) -> Vec<&Target> {
        match self {
            Self::Crash { target }
            | Self::Exit { target }
            | Self::Pause { target }
            | Self::Slow { target, .. }
            | Self::Wipe { target }
            | Self::Torn { target, .. }
            | Self::BitRot { target, .. }
            | Self::SyncSlow { target, .. }
            | Self::SyncError { target, .. }
            | Self::DiskFull { target }
            | Self::ClockOffset { target, .. }
            | Self::ClockDrift { target, .. }
            | Self::ClockJump { target, .. }
            | Self::FdLimit { target, .. }
            | Self::Stop { target }
            | Self::Clone { target }
            | Self::Rollback { target, .. }
            | Self::Restore { target }
            | Self::PersonRestart { target }
            | Self::Expel { target } => vec![target],
            Self::Swizzle { targets }
            | Self::Restart { targets }
            | Self::Stranger { to: targets } => targets.iter().collect(),
            Self::LostAck { .. }
            | Self::StoreError { .. }
            | Self::StoreConflict { .. }
            | Self::StorePool { .. }
            | Self::StorePromote => Vec::new(),
            Self::Partition { links }
            | Self::Delay { links, .. }
            | Self::Bandwidth { links, .. }
            | Self::Loss { links, .. }
            | Self::Reset { links }
            | Self::HalfOpen { links }
            | Self::ConnectHang { links, .. }
            | Self::Corrupt { links, .. }
            | Self::Inject { links, .. } => links.from.iter().chain(&links.to).collect(),
        }
    }

    /// Returns the lines that it hits, if it hits lines and no machines.
    #[must_use]
    pub const fn links(&self) -> Option<&Links> {
        match self {
            Self::Partition { links }
            | Self::Delay { links, .. }
            | Self::Bandwidth { links, .. }
            | Self::Loss { links, .. }
            | Self::Reset { links }
            | Self::HalfOpen { links }
            | Self::ConnectHang { links, .. }
            | Self::Corrupt { links, .. }
            | Self::Inject { links, .. } => Some(links),
            _ => None,
        }
    }

    /// Returns the same action with `change` applied to every target, in the order of
    /// [`Action::targets`].
    #[must_use]
    pub fn with_targets(mut self, mut change: impl FnMut(&Target) -> Target) -> Self {
        match &mut self {
            Self::Crash { target }
            | Self::Exit { target }
            | Self::Pause { target }
            | Self::Slow { target, .. }
            | Self::Wipe { target }
            | Self::Torn { target, .. }
            | Self::BitRot { target, .. }
            | Self::SyncSlow { target, .. }
            | Self::SyncError { target, .. }
            | Self::DiskFull { target }
            | Self::ClockOffset { target, .. }
            | Self::ClockDrift { target, .. }
            | Self::ClockJump { target, .. }
            | Self::FdLimit { target, .. }
            | Self::Stop { target }
            | Self::Clone { target }
            | Self::Rollback { target, .. }
            | Self::Restore { target }
            | Self::PersonRestart { target }
            | Self::Expel { target } => *target = change(target),
            Self::Swizzle { targets }
            | Self::Restart { targets }
            | Self::Stranger { to: targets } => {
                targets.iter_mut().for_each(|t| *t = change(t));
            }
            Self::LostAck { .. }
            | Self::StoreError { .. }
            | Self::StoreConflict { .. }
            | Self::StorePool { .. }
            | Self::StorePromote => {}
            Self::Partition { links }
            | Self::Delay { links, .. }
            | Self::Bandwidth { links, .. }
            | Self::Loss { links, .. }
            | Self::Reset { links }
            | Self::HalfOpen { links }
            | Self::ConnectHang { links, .. }
            | Self::Corrupt { links, .. }
            | Self::Inject { links, .. } => {
                links.from.iter_mut().chain(&mut links.to).for_each(|t| *t = change(t));
            }
        }
        self
    }
}

fn span(key: &str, text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|why| format!("`{key}`: {why}"))
}

fn step(text: &str) -> Result<Step, String> {
    let (back, size) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let ms = i64::try_from(span("by", size)?.as_millis()).map_err(|_| "`by` is too far")?;
    Ok(Step { ms: if back { -ms } else { ms } })
}

fn targets(key: &str, names: Option<&OneOrMany>) -> Result<Vec<Target>, String> {
    let names = match names {
        Some(OneOrMany::One(name)) => std::slice::from_ref(name),
        Some(OneOrMany::Many(names)) => names,
        None => &[],
    };
    if names.is_empty() {
        return Err(format!("`{key}` names nobody"));
    }
    names.iter().map(|name| name.parse()).collect()
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => write!(f, "at {at:?}"),
            Self::When { point, nth } => write!(f, "at {point:?} number {nth}"),
        }
    }
}

impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::Both => "<->",
            Direction::Forward => "->",
            Direction::Back => "<-",
        };
        let join =
            |side: &[Target]| side.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        write!(f, "{} {arrow} {}", join(&self.from), join(&self.to))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())?;
        match self {
            Self::Crash { target }
            | Self::Exit { target }
            | Self::Pause { target }
            | Self::Wipe { target }
            | Self::DiskFull { target }
            | Self::Stop { target }
            | Self::Clone { target }
            | Self::Restore { target }
            | Self::PersonRestart { target }
            | Self::Expel { target } => write!(f, " {target}"),
            Self::FdLimit { target, count } => write!(f, " {target} at {count}"),
            Self::Slow { target, factor } => write!(f, " {target} by {factor}"),
            Self::Torn { target, rate }
            | Self::BitRot { target, rate }
            | Self::SyncError { target, rate }
            | Self::ClockDrift { target, rate } => write!(f, " {target} at {rate}"),
            Self::SyncSlow { target, by } | Self::Rollback { target, by } => {
                write!(f, " {target} by {by:?}")
            }
            Self::ClockOffset { target, by } | Self::ClockJump { target, by } => {
                write!(f, " {target} by {}ms", by.ms)
            }
            Self::Partition { links } | Self::Reset { links } | Self::HalfOpen { links } => {
                write!(f, " {links}")
            }
            Self::Delay { links, by, jitter } => write!(f, " {links} by {by:?} ± {jitter:?}"),
            Self::Bandwidth { links, bytes_per_second } => {
                write!(f, " {links} to {bytes_per_second} B/s")
            }
            Self::Loss { links, rate }
            | Self::ConnectHang { links, rate }
            | Self::Corrupt { links, rate }
            | Self::Inject { links, rate } => write!(f, " {links} at {rate}"),
            Self::Swizzle { targets }
            | Self::Restart { targets }
            | Self::Stranger { to: targets } => {
                for target in targets {
                    write!(f, " {target}")?;
                }
                Ok(())
            }
            Self::LostAck { dose } | Self::StoreError { dose } | Self::StoreConflict { dose } => {
                match dose {
                    Dose::Rate(rate) => write!(f, " at {rate}"),
                    Dose::Count(count) => write!(f, " {count} times"),
                }
            }
            Self::StorePool { count, by } => write!(f, " at {count} by {by:?}"),
            Self::StorePromote => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.start, self.action)?;
        match self.lasts {
            Some(lasts) => write!(f, " for {lasts:?}"),
            None => Ok(()),
        }
    }
}
