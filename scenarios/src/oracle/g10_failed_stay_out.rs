//! G10 failed stay out: a worker in a master's failed list gets no task from it until it has
//! registered again or the list was swept.

use std::collections::BTreeMap;

use chatchat::model::{event::Event, ids::NodeId};

use super::{EventLine, Evidence, Violation, broken};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut listed: BTreeMap<(&str, NodeId), &EventLine> = BTreeMap::new();
    let mut found = Vec::new();
    for said in evidence.events {
        let master = said.node.as_str();
        match &said.event {
            Event::List { node, .. } => {
                listed.insert((master, *node), said);
            }
            Event::Join { node, .. } => {
                listed.remove(&(master, *node));
            }
            Event::Sweep { .. } | Event::Start { .. } => {
                listed.retain(|(by, _), _| *by != master);
            }
            Event::Assign { worker, .. } => {
                if let Some(since) = listed.get(&(master, *worker)) {
                    let text = format!("{master} gave a task to {worker} from its failed list");
                    found.push(broken(Property::G10, "task", text, [since.clue(), said.clue()]));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{BoardName, Registration, Resource, Token};

    use super::*;
    use crate::oracle::fixtures::{Fixture, node};

    fn assign() -> Event {
        Event::Assign {
            worker: node(1),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token::default(),
            after: None,
            posts: Vec::new(),
            attempt: 1,
        }
    }

    #[test]
    fn task_after_new_registration_or_sweep_is_accepted() {
        let list = Event::List { node: node(1), registration: Registration(1) };
        let (registration, master) = (Registration(2), node(9));
        let join = Event::Join { node: node(1), registration, master };
        let mut made = Fixture::new();
        made.said(1, "master:0", list.clone()).said(2, "master:1", assign());
        made.said(3, "master:0", join).said(4, "master:0", assign());
        made.said(5, "master:0", list.clone());
        made.said(6, "master:0", Event::Sweep { nodes: vec![node(1)] });
        made.said(7, "master:0", assign());
        assert_eq!(made.judge(judge), []);
        made.said(8, "master:0", list).said(9, "master:0", assign());
        assert_eq!(made.rules(judge), ["g10.task"]);
    }
}
