//! Waits of one host for its monotonic clock.

use std::task::Waker;

use dst_env::time::Mono;

/// Place of a wait, used again by later waits.
#[derive(Debug, Default)]
struct Place {
    /// Number of waits that were here before.
    before: u32,
    at: Mono,
    /// Task that waits; none once it was woken, and in an empty place.
    waker: Option<Waker>,
}

/// Name of a wait. No two waits of a host have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    place: u32,
    before: u32,
}

/// Waits of one host.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Timers {
    fn place(&mut self, id: TimerId) -> Option<&mut Place> {
        self.places.get_mut(id.place as usize).filter(|place| place.before == id.before)
    }

    /// Adds a wait.
    pub(crate) fn add(&mut self, at: Mono, waker: &Waker) -> TimerId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 waits at once")
        });
        let place = &mut self.places[index as usize];
        (place.at, place.waker) = (at, Some(waker.clone()));
        TimerId { place: index, before: place.before }
    }

    /// Lets a wait wake this task from now on.
    pub(crate) fn set_waker(&mut self, id: TimerId, new: &Waker) {
        if let Some(place) = self.place(id)
            && place.waker.as_ref().is_none_or(|waker| !waker.will_wake(new))
        {
            place.waker = Some(new.clone());
        }
    }

    /// Returns until when a wait goes on; `None` once its task was woken or has given it up.
    pub(crate) fn until(&self, id: TimerId) -> Option<Mono> {
        let place = self.places.get(id.place as usize)?;
        (place.before == id.before && place.waker.is_some()).then_some(place.at)
    }

    /// Returns the task of a wait that is over.
    pub(crate) fn fire(&mut self, id: TimerId) -> Option<Waker> {
        self.place(id)?.waker.take()
    }

    /// Forgets a wait.
    pub(crate) fn remove(&mut self, id: TimerId) {
        if let Some(place) = self.place(id) {
            place.empty();
            self.free.push(id.place);
        }
    }

    /// Forgets all waits.
    pub(crate) fn clear(&mut self) {
        self.places.iter_mut().for_each(Place::empty);
        self.free = (0..).take(self.places.len()).collect();
    }

    /// Returns the waits that go on, and until when.
    pub(crate) fn all(&self) -> impl Iterator<Item = (TimerId, Mono)> {
        let waiting = (0..).zip(&self.places).filter(|(_, place)| place.waker.is_some());
        waiting.map(|(at, place)| (TimerId { place: at, before: place.before }, place.at))
    }
}

impl Place {
    fn empty(&mut self) {
        *self = Self { before: self.before.wrapping_add(1), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_wait_that_is_over_means_no_later_one() {
        let (mut timers, at) = (Timers::default(), Mono::from_ns(5));
        let first = timers.add(at, Waker::noop());
        assert_eq!(timers.until(first), Some(at));
        assert!(timers.fire(first).is_some() && timers.fire(first).is_none());
        assert_eq!(timers.until(first), None, "its task was woken");
        timers.remove(first);
        let second = timers.add(Mono::from_ns(7), Waker::noop());
        timers.remove(first);
        assert!(timers.fire(first).is_none());
        assert_eq!(timers.all().collect::<Vec<_>>(), [(second, Mono::from_ns(7))]);
        timers.clear();
        assert_eq!((timers.until(second), timers.all().count()), (None, 0));
        let third = timers.add(at, Waker::noop());
        timers.remove(second);
        assert_eq!(timers.until(third), Some(at));
    }
}
