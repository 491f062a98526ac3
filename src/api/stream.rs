//! Events of a stream. Each travels as a name and one line of JSON.

use serde::{Deserialize, Serialize};

use crate::{
    api::User,
    model::{
        ids::{Cursor, Post, PostId, UserId},
        stream::{ByeReason, Consistency, HeldState, MasterInfo, ResetReason},
    },
};

/// First event of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloEvent {
    /// The master that serves the stream.
    pub node: MasterInfo,
    /// All masters, this one too.
    pub masters: Vec<MasterInfo>,
    /// Place from which each followed board is delivered; boards left out are not followed.
    #[serde(with = "cursor_text")]
    pub cursor: Cursor,
    /// Time between two beats, in milliseconds; a reader moves on after two missed ones.
    pub beat_ms: u64,
}

/// The active people of the whole system, or what changed of them. Told apart by their fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PresenceEvent {
    /// Difference between two versions, at most one a second.
    Change {
        /// Version after it.
        version: u64,
        /// Version before it. A reader that has another one needs the list again.
        since: u64,
        /// Number of active people after it.
        total: u64,
        /// People to add, or to put in the place of those with their ids.
        came: Vec<User>,
        /// People to remove; some may be unheard of.
        left: Vec<UserId>,
    },
    /// Beginning of the list, first and to a reader that fell behind.
    Window {
        /// Version.
        version: u64,
        /// Number of active people.
        total: u64,
        /// At most the first 200 of them, and the reader's own person.
        users: Vec<User>,
    },
    /// The whole list, first and whenever it changes; only with `presence=lists`.
    List {
        /// Active people, ordered by name, then id.
        users: Vec<User>,
    },
}

/// A post of the reader's own person waits for the store on workers' disks, or does no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingEvent {
    /// The post's id.
    pub id: PostId,
    /// Its state.
    pub state: HeldState,
}

/// Whether the master reaches the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEvent {
    /// Strong if it does.
    pub consistency: Consistency,
}

/// The list of masters, sent whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MastersEvent {
    /// All masters.
    pub masters: Vec<MasterInfo>,
}

/// There is a gap: the reader drops its list and reads the board again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetEvent {
    /// The reason.
    pub reason: ResetReason,
}

/// Last event of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByeEvent {
    /// The reason.
    pub reason: ByeReason,
    /// Masters to go to; empty if the reader may come back to this one.
    pub to: Vec<MasterInfo>,
    /// Time after which the reader may try again, in milliseconds.
    pub retry_ms: u64,
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StreamEvent {
    /// First event.
    Hello(HelloEvent),
    /// A post; ascending within its board, without a gap.
    Post(Post),
    /// A post that waits for the store, or waited for it.
    Pending(PendingEvent),
    /// The active people.
    Presence(PresenceEvent),
    /// Whether the master reaches the store.
    State(StateEvent),
    /// The masters.
    Masters(MastersEvent),
    /// There is a gap.
    Reset(ResetEvent),
    /// A sign of life.
    Beat,
    /// Last event.
    Bye(ByeEvent),
    /// An event of a later version.
    Other {
        /// Its name.
        name: String,
    },
}

impl StreamEvent {
    /// Returns the event's name on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Hello(_) => "hello",
            Self::Post(_) => "post",
            Self::Pending(_) => "pending",
            Self::Presence(_) => "presence",
            Self::State(_) => "state",
            Self::Masters(_) => "masters",
            Self::Reset(_) => "reset",
            Self::Beat => "beat",
            Self::Bye(_) => "bye",
            Self::Other { name } => name,
        }
    }

    /// Returns the event's data: one line of JSON.
    #[must_use]
    pub fn data(&self) -> String {
        let text = match self {
            Self::Hello(event) => serde_json::to_string(event),
            Self::Post(event) => serde_json::to_string(event),
            Self::Pending(event) => serde_json::to_string(event),
            Self::Presence(event) => serde_json::to_string(event),
            Self::State(event) => serde_json::to_string(event),
            Self::Masters(event) => serde_json::to_string(event),
            Self::Reset(event) => serde_json::to_string(event),
            Self::Bye(event) => serde_json::to_string(event),
            Self::Beat | Self::Other { .. } => Ok("{}".to_owned()),
        };
        text.expect("keys are strings and no value refuses to be written")
    }

    /// Reads an event from its name and data. An unknown name is [`StreamEvent::Other`].
    ///
    /// # Errors
    /// The data is not that of an event of this name.
    pub fn read(name: &str, data: &str) -> serde_json::Result<Self> {
        Ok(match name {
            "hello" => Self::Hello(serde_json::from_str(data)?),
            "post" => Self::Post(serde_json::from_str(data)?),
            "pending" => Self::Pending(serde_json::from_str(data)?),
            "presence" => Self::Presence(serde_json::from_str(data)?),
            "state" => Self::State(serde_json::from_str(data)?),
            "masters" => Self::Masters(serde_json::from_str(data)?),
            "reset" => Self::Reset(serde_json::from_str(data)?),
            "beat" => Self::Beat,
            "bye" => Self::Bye(serde_json::from_str(data)?),
            name => Self::Other { name: name.to_owned() },
        })
    }
}

/// Serde form of a cursor: its text.
mod cursor_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::ids::Cursor;

    pub(super) fn serialize<S: Serializer>(cursor: &Cursor, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(cursor)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Cursor, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_read_back_from_its_name_and_data() {
        let master = MasterInfo {
            id: crate::model::ids::NodeId([1; 16]),
            name: "m0".to_owned(),
            http: "http://m0".to_owned(),
        };
        let hello = HelloEvent {
            node: master.clone(),
            masters: vec![master.clone()],
            cursor: "7;lobby:3".parse().expect("a cursor"),
            beat_ms: 4000,
        };
        let bye = ByeEvent { reason: ByeReason::LoggedOut, to: vec![master], retry_ms: 0 };
        for event in [
            StreamEvent::Hello(hello),
            StreamEvent::Pending(PendingEvent {
                id: PostId([7; 16]),
                state: HeldState::DeadLetter,
            }),
            StreamEvent::State(StateEvent { consistency: Consistency::Weak }),
            StreamEvent::Reset(ResetEvent { reason: ResetReason::Ahead }),
            StreamEvent::Beat,
            StreamEvent::Bye(bye),
            StreamEvent::Other { name: "later".to_owned() },
        ] {
            assert_eq!(StreamEvent::read(event.name(), &event.data()).expect("read"), event);
        }
        assert!(StreamEvent::read("reset", "{}").is_err());
    }

    #[test]
    fn unknown_reason_is_read_as_other() {
        let read = |name, data| StreamEvent::read(name, data).expect("read");
        let reset = ResetEvent { reason: ResetReason::Other };
        assert_eq!(read("reset", r#"{"reason":"later"}"#), StreamEvent::Reset(reset));
        let bye = ByeEvent { reason: ByeReason::Other, to: Vec::new(), retry_ms: 1 };
        let data = r#"{"reason":"later","to":[],"retry_ms":1}"#;
        assert_eq!(read("bye", data), StreamEvent::Bye(bye));
    }
}
