//! Place for the login that a worker gets from its master, shared with the connections of its store.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::login::StoreLogin;

/// Place for a login, which is empty until a master has given one. Clones share it.
///
/// 1. A login that the store refused is wanted again, and is still tried: the refusal may pass.
#[derive(Clone, Default)]
pub struct LoginSlot(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    login: Option<StoreLogin>,
    is_refused: bool,
}

impl fmt::Debug for LoginSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginSlot")
    }
}

impl LoginSlot {
    /// Returns the login, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<StoreLogin> {
        self.with(|state| state.login.clone())
    }

    /// Uses this login from now on.
    pub fn set(&self, login: StoreLogin) {
        self.with(|state| *state = State { login: Some(login), is_refused: false });
    }

    /// Returns whether a master should give a login: there is none, or the store refused it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.with(|state| state.login.is_none() || state.is_refused)
    }

    /// Records that the store took this login. One that was replaced meanwhile says nothing.
    pub fn on_taken(&self, login: &StoreLogin) {
        self.with(|state| state.is_refused &= state.login.as_ref() != Some(login));
    }

    /// Records that the store refused this login. One that was replaced meanwhile says nothing.
    pub fn on_refused(&self, login: &StoreLogin) {
        self.with(|state| state.is_refused |= state.login.as_ref() == Some(login));
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ids::NodeId,
        login::{StorePassword, StoreUser},
    };

    fn login(n: u8) -> StoreLogin {
        let user = StoreUser::of_node(&[1; 16], NodeId([2; 16]));
        StoreLogin { user, password: StorePassword::new([n; 32]) }
    }

    #[test]
    fn login_is_wanted_while_there_is_none_and_after_it_was_refused() {
        let slot = LoginSlot::default();
        assert!(slot.is_wanted() && slot.get().is_none());
        slot.set(login(1));
        assert!(!slot.is_wanted());
        slot.on_refused(&login(1));
        assert!(slot.is_wanted());
        assert_eq!(slot.get(), Some(login(1)), "the refusal may pass");
        slot.on_taken(&login(1));
        assert!(!slot.is_wanted());
        slot.on_refused(&login(1));
        slot.set(login(2));
        slot.on_refused(&login(1));
        assert!(!slot.is_wanted(), "an older one was refused");
    }
}
