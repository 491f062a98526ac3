//! Faults written as the tables that story files hold.

use std::time::Duration;

use super::{Action, Direction, Dose, Fault, Links, OneOrMany, RawFault, Start, Step};
use crate::target::Target;

impl From<&Fault> for RawFault {
    fn from(fault: &Fault) -> Self {
        let mut table = Self {
            kind: Some(fault.action.kind()),
            lasts: fault.lasts.map(duration),
            ..Self::default()
        };
        match fault.start {
            Start::At(at) => table.at = Some(duration(at)),
            Start::When { point, nth } => {
                table.when = Some(point);
                table.when_nth = (nth != 1).then_some(nth);
            }
        }
        table.fill(&fault.action);
        table
    }
}

impl RawFault {
    fn fill(&mut self, action: &Action) {
        match action {
            Action::Crash { target }
            | Action::Exit { target }
            | Action::Pause { target }
            | Action::Wipe { target }
            | Action::DiskFull { target }
            | Action::Stop { target }
            | Action::Clone { target }
            | Action::Restore { target }
            | Action::PersonRestart { target }
            | Action::Expel { target } => self.aim(target),
            Action::FdLimit { target, count } => {
                self.aim(target);
                self.count = Some(*count);
            }
            Action::Slow { target, factor } => {
                self.aim(target);
                self.factor = Some(*factor);
            }
            Action::Torn { target, rate }
            | Action::BitRot { target, rate }
            | Action::SyncError { target, rate }
            | Action::ClockDrift { target, rate } => {
                self.aim(target);
                self.rate = Some(*rate);
            }
            Action::SyncSlow { target, by } | Action::Rollback { target, by } => {
                self.aim(target);
                self.by = Some(duration(*by));
            }
            Action::ClockOffset { target, by } | Action::ClockJump { target, by } => {
                self.aim(target);
                self.by = Some(step(*by));
            }
            Action::Partition { links } | Action::Reset { links } | Action::HalfOpen { links } => {
                self.join(links);
            }
            Action::Delay { links, by, jitter } => {
                self.join(links);
                self.by = Some(duration(*by));
                self.jitter = (!jitter.is_zero()).then(|| duration(*jitter));
            }
            Action::Bandwidth { links, bytes_per_second } => {
                self.join(links);
                self.bytes_per_second = Some(*bytes_per_second);
            }
            Action::Loss { links, rate }
            | Action::ConnectHang { links, rate }
            | Action::Corrupt { links, rate }
            | Action::Inject { links, rate } => {
                self.join(links);
                self.rate = Some(*rate);
            }
            Action::Swizzle { targets } | Action::Restart { targets } => {
                self.targets = Some(names(targets));
            }
            Action::Stranger { to } => self.to = Some(names(to)),
            Action::LostAck { dose }
            | Action::StoreError { dose }
            | Action::StoreConflict { dose } => match dose {
                Dose::Rate(rate) => self.rate = Some(*rate),
                Dose::Count(count) => self.count = Some(*count),
            },
            Action::StorePool { count, by } => {
                self.count = Some(*count);
                self.by = (!by.is_zero()).then(|| duration(*by));
            }
            Action::StorePromote => {}
        }
    }

    fn aim(&mut self, target: &Target) {
        self.target = Some(target.to_string());
    }

    fn join(&mut self, links: &Links) {
        self.from = Some(names(&links.from));
        self.to = Some(names(&links.to));
        self.direction = (links.direction != Direction::Both).then_some(links.direction);
    }
}

fn names(targets: &[Target]) -> OneOrMany {
    match targets {
        [one] => OneOrMany::One(one.to_string()),
        many => OneOrMany::Many(many.iter().map(ToString::to_string).collect()),
    }
}

/// Returns a duration as stories write it, exact to the nanosecond.
pub(crate) fn duration(time: Duration) -> String {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    if seconds == 0 && nanos % 1_000_000 == 0 && nanos > 0 {
        return format!("{}ms", nanos / 1_000_000);
    }
    let text = format!("{seconds}.{nanos:09}");
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn step(step: Step) -> String {
    let sign = if step.ms < 0 { "-" } else { "" };
    format!("{sign}{}ms", step.ms.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use chatchat::config::parse_duration;

    use super::*;

    #[test]
    fn duration_reads_back_to_the_nanosecond() {
        for (nanos, text) in [
            (0, "0s"),
            (250_000_000, "250ms"),
            (12_000_000_000, "12s"),
            (1_500_000_000, "1.5s"),
            (41_000_000_001, "41.000000001s"),
            (123_456_789, "0.123456789s"),
        ] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(duration(time), text);
            assert_eq!(parse_duration(text), Ok(time), "{text}");
        }
    }
}
