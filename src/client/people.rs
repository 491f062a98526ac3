//! Active people as a stream tells them: a window, then changes.

use std::collections::BTreeMap;

use crate::{
    api::{PresenceEvent, User},
    model::ids::UserId,
};

/// The most people that are kept.
const PEOPLE_MAX: usize = 100_000;

/// People whom one stream told of. Above 200 it knows the first ones, its own and who came since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeopleList {
    /// `None` until a list with a version came.
    version: Option<u64>,
    total: u64,
    users: BTreeMap<UserId, User>,
}

impl PeopleList {
    /// Takes in an event. Returns `false`, and changes nothing, when a version before it is missing.
    #[must_use]
    pub fn apply(&mut self, event: &PresenceEvent) -> bool {
        match event {
            PresenceEvent::List { users } => self.replace(None, users.len() as u64, users),
            PresenceEvent::Window { version, total, users } => {
                self.replace(Some(*version), *total, users);
            }
            PresenceEvent::Change { version, since, total, came, left } => {
                if self.version != Some(*since) {
                    return false;
                }
                (self.version, self.total) = (Some(*version), *total);
                for id in left {
                    self.users.remove(id);
                }
                self.add(came);
            }
        }
        true
    }

    fn replace(&mut self, version: Option<u64>, total: u64, users: &[User]) {
        (self.version, self.total) = (version, total);
        self.users.clear();
        self.add(users);
    }

    fn add(&mut self, users: &[User]) {
        let room = PEOPLE_MAX.saturating_sub(self.users.len());
        self.users.extend(users.iter().take(room).map(|user| (user.id, user.clone())));
    }

    /// Returns how many people are active in the whole system.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Returns the people that it knows, in the order of their ids.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> User {
        let (id, name) = (UserId([n; 16]), "Ann".parse().expect("a name"));
        User { id, name, look: None, since: 1, last_seen: 2 }
    }

    fn change(since: u64, came: &[u8], left: &[u8]) -> PresenceEvent {
        let left = left.iter().map(|n| UserId([*n; 16])).collect();
        let came = came.iter().map(|n| user(*n)).collect();
        PresenceEvent::Change { version: since + 1, since, total: 9, came, left }
    }

    fn ids(list: &PeopleList) -> Vec<u8> {
        list.users().map(|user| user.id.0[0]).collect()
    }

    #[test]
    fn change_is_applied_to_the_version_that_it_names_and_to_no_other() {
        let mut list = PeopleList::default();
        assert!(!list.apply(&change(0, &[1], &[])), "there is no list yet");
        let users = vec![user(1), user(2)];
        assert!(list.apply(&PresenceEvent::Window { version: 4, total: 2, users }));
        assert!(list.apply(&change(4, &[3, 1], &[2, 7])), "7 was never heard of");
        assert_eq!((ids(&list), list.total()), (vec![1, 3], 9));
        let before = list.clone();
        assert!(!list.apply(&change(6, &[8], &[])), "5 to 6 is missing");
        assert!(!list.apply(&change(4, &[8], &[])), "it was applied before");
        assert_eq!(list, before);
        assert!(list.apply(&PresenceEvent::List { users: vec![user(5)] }));
        assert_eq!((ids(&list), list.total()), (vec![5], 1));
    }

    #[test]
    fn list_window_and_change_are_told_apart_by_their_fields() {
        let read = |text: &str| serde_json::from_str::<PresenceEvent>(text).expect("an event");
        let list = read(r#"{"users":[]}"#);
        assert!(matches!(list, PresenceEvent::List { .. }));
        let window = read(r#"{"version":1,"total":0,"users":[]}"#);
        assert!(matches!(window, PresenceEvent::Window { .. }));
        let text = r#"{"version":2,"since":1,"total":0,"came":[],"left":[],"later":1}"#;
        assert!(matches!(read(text), PresenceEvent::Change { .. }));
    }
}
