//! JSON contract between a master's front end and the programs of people: requests, answers,
//! problems and the events of a stream.
//!
//! The front end writes these types and the client reads them, so each is defined once. Times are
//! milliseconds of the store's clock since the Unix epoch. A reader ignores fields that it does
//! not know, so that an older client works with a newer master.

mod boards;
mod cluster;
mod dead_letters;
mod join;
mod posts;
mod problem;
mod sessions;
mod stream;

pub use self::{
    boards::{Board, BoardList, ReadMark, boards_of},
    cluster::{
        Cluster, ClusterState, Draining, FailedNode, JoinInvitation, JoinTokenList, JoinTokenState,
        KeyState, LeaseOwner, MasterState, Node, NodeFailure, NodeState, QueueState, Readiness,
        StoreAbsence, StoreReach, User, UserList,
    },
    dead_letters::{DeadLetter, DeadLetterList, UnsentPost},
    join::{JoinTerms, TermsError},
    posts::{PostList, PostState, WritePost},
    problem::{Problem, ProblemType},
    sessions::{OpenSession, RedeemTicket, SessionOpened, SessionRestored, TicketIssued},
    stream::{
        ByeEvent, HelloEvent, MastersEvent, PendingEvent, PresenceEvent, ResetEvent, StateEvent,
        StreamEvent,
    },
};
