//! Plan written as a story file: nothing in it is left to chance but the run itself.

use chatchat::config::Config;
use serde::Serialize;

use super::Plan;
use crate::{
    fault::{RawFault, duration},
    property::Property,
    story::Workload,
};

#[derive(Serialize)]
struct StoryFile<'a> {
    about: &'a str,
    duration: String,
    cluster: ClusterTable,
    workload: &'a Workload,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fault: Vec<RawFault>,
    expect: ExpectTable,
}

#[derive(Serialize)]
struct ClusterTable {
    masters: usize,
    workers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_workers: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    upgrade: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_us: Option<u64>,
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    config: toml::Table,
}

#[derive(Serialize)]
struct ExpectTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promises: Option<Vec<&'static str>>,
    recovers_within: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_at_most: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    core: bool,
}

impl Plan {
    /// Returns the text of a story that expands to this plan with every seed.
    ///
    /// # Panics
    /// Never: a plan is plain data that TOML can hold.
    #[must_use]
    pub fn to_story(&self, about: &str) -> String {
        let is_all = self.expect.properties == Property::ALL;
        let numbers = || self.expect.properties.iter().map(|property| property.number()).collect();
        let (masters, workers) = (self.cluster.masters, self.cluster.workers);
        let file = StoryFile {
            about,
            duration: duration(self.duration),
            cluster: ClusterTable {
                masters,
                workers,
                no_workers: (workers == 0).then_some("so in the story that this one comes from"),
                upgrade: self.cluster.upgrade,
                step_us: Some(self.cluster.step_us).filter(|us| *us > 0),
                config: changed(&self.cluster.config),
            },
            workload: &self.workload,
            fault: self.faults.iter().map(RawFault::from).collect(),
            expect: ExpectTable {
                all: is_all.then_some(true),
                promises: (!is_all).then(numbers),
                recovers_within: duration(self.expect.recovers_within),
                waits_at_most: self.expect.waits_at_most.map(duration),
                core: self.expect.core,
            },
        };
        toml::to_string(&file).expect("a plan is plain data that TOML can hold")
    }
}

/// Returns the settings that are not the default ones.
fn changed(config: &Config) -> toml::Table {
    let table = |config: &Config| toml::Table::try_from(config).unwrap_or_default();
    let (all, usual) = (table(config), table(&Config::default()));
    all.into_iter().filter(|(key, value)| usual.get(key) != Some(value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{fault::Kind, story::Story};

    fn swarm(seed: u64) -> Plan {
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| format!("{:?}", kind.name())).collect();
        let text = format!(
            r#"
            about = "a test"
            duration = "90s"
            [cluster]
            masters = 2
            workers = 3
            config = {{ key_refresh_interval = "15s" }}
            [workload]
            people = 7
            boards = ["lobby", "dev"]
            [workload.habits]
            leave = 1.5
            [[fault]]
            when = "append_committed"
            when_nth = 3
            kind = "crash"
            target = "random"
            [[fault]]
            at = "41ms"
            kind = "partition"
            from = ["master:1", "store"]
            to = "worker:*"
            direction = "back"
            for = "1.25s"
            [swarm]
            kinds = [{}]
            per_minute = 60.0
            crowd = true
            [expect]
            promises = ["G1", "G2"]
            recovers_within = "20s"
            waits_at_most = "4s"
            "#,
            kinds.join(", ")
        );
        Plan::expand(&Story::parse("test", &text).unwrap_or_else(|why| panic!("{why}")), seed)
    }

    proptest! {
        #[test]
        fn plan_that_is_written_as_a_story_expands_to_itself_with_every_seed(
            seed in 0..500_u64,
            other in 0..500_u64,
        ) {
            let plan = swarm(seed);
            let text = plan.to_story("the same, written down");
            let story = Story::parse("test", &text);
            let story = story.map_err(|why| TestCaseError::fail(format!("{why}\n{text}")))?;
            let again = Plan::expand(&story, other);
            prop_assert_eq!(&again.faults, &plan.faults);
            prop_assert_eq!(again.duration, plan.duration);
            prop_assert_eq!(format!("{:?}", again.cluster), format!("{:?}", plan.cluster));
            prop_assert_eq!(format!("{:?}", again.workload), format!("{:?}", plan.workload));
            prop_assert_eq!(format!("{:?}", again.expect), format!("{:?}", plan.expect));
        }
    }
}
