//! Places for calls that run at once. Callers get free ones in turn, however many calls each has waiting.
//!
//! ```text
//! wanted ──a place is free──────────────────────────────► held ──dropped──► the next caller's first call, or free
//!    └────► waits behind the other calls of its caller ──► held
//! ```
//!
//! A place that comes free is handed to one call, and no other is woken.
//!
//! Neighbours: [`super::call`] and [`super::chain`] run under one. Never: gives a place to more calls than one.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::rc::Rc;

use tokio::sync::oneshot;

/// The calls of one caller that wait, first come first.
type Queue = BTreeMap<u64, oneshot::Sender<Place>>;

/// All places.
#[derive(Debug, Clone)]
pub(super) struct Turns(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Who waits, in the order of their turns. Nobody waits while a place is free.
    callers: VecDeque<(Rc<str>, Queue)>,
    arrivals: u64,
}

/// A place, as long as it lives.
#[derive(Debug)]
pub(super) struct Place(Turns);

/// A call that waits, which leaves its queue when it is dropped.
struct Waiting<'t> {
    turns: &'t Turns,
    caller: &'t str,
    number: u64,
}

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        Self(Rc::new(RefCell::new(State { free: places, callers: VecDeque::new(), arrivals: 0 })))
    }

    /// A place for a call of this caller, when it has its turn.
    pub(super) async fn place(&self, caller: &Rc<str>) -> Place {
        let (number, turn) = {
            let mut state = self.0.borrow_mut();
            if state.free > 0 {
                state.free -= 1;
                return Place(self.clone());
            }
            state.wait(caller)
        };
        let _waiting = Waiting { turns: self, caller, number };
        match turn.await {
            Ok(place) => place,
            // Its queue is there as long as it waits.
            Err(_dropped) => pending().await,
        }
    }
}

impl State {
    fn wait(&mut self, caller: &Rc<str>) -> (u64, oneshot::Receiver<Place>) {
        self.arrivals += 1;
        let (call, turn) = oneshot::channel();
        match self.callers.iter_mut().find(|(known, _)| known == caller) {
            Some((_, queue)) => drop(queue.insert(self.arrivals, call)),
            None => self.callers.push_back((Rc::clone(caller), Queue::from([(self.arrivals, call)]))),
        }
        (self.arrivals, turn)
    }

    /// The call whose turn it is; its caller's next one has to wait for those of all others.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let (caller, mut queue) = self.callers.pop_front()?;
        let next = queue.pop_first().map(|(_, call)| call);
        if !queue.is_empty() {
            self.callers.push_back((caller, queue));
        }
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.0.borrow_mut();
            let next = state.next();
            state.free += usize::from(next.is_none());
            next
        };
        // One that has just been given up drops the place, which passes it on.
        drop(next.map(|call| call.send(Self(self.0.clone()))));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.0.borrow_mut();
        let at = state
            .callers
            .iter()
            .position(|(known, queue)| **known == *self.caller && queue.contains_key(&self.number));
        if let Some(at) = at
            && let Some((_, queue)) = state.callers.get_mut(at)
        {
            queue.remove(&self.number);
            if queue.is_empty() {
                state.callers.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type Call = Pin<Box<dyn Future<Output = Place>>>;

    fn call(turns: &Turns, caller: &str) -> Call {
        let (turns, caller) = (turns.clone(), Rc::from(caller));
        Box::pin(async move { turns.place(&caller).await })
    }

    fn poll(call: &mut Call, woken: &Arc<Woken>) -> Poll<Place> {
        let waker = Arc::clone(woken).into();
        call.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn first(turns: &Turns) -> Place {
        let Poll::Ready(place) = poll(&mut call(turns, "first"), &Arc::default()) else {
            panic!("no place is free")
        };
        place
    }

    /// In which order these callers get the place that somebody has.
    fn order(turns: &Turns, callers: &[&'static str]) -> Vec<&'static str> {
        let woken = Arc::new(Woken::default());
        let mut place = Some(first(turns));
        let mut waiting: Vec<_> = callers.iter().map(|caller| (*caller, call(turns, caller))).collect();
        assert!(waiting.iter_mut().all(|(_, call)| poll(call, &woken).is_pending()));
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let before = woken.0.load(Ordering::Relaxed);
            drop(place.take());
            assert_eq!(woken.0.load(Ordering::Relaxed), before + 1, "one place wakes one call");
            let mut got = |call: &mut Call| match poll(call, &woken) {
                Poll::Ready(got) => {
                    place = Some(got);
                    true
                }
                Poll::Pending => false,
            };
            let at = waiting.iter_mut().position(|(_, call)| got(call)).unwrap();
            order.push(waiting.remove(at).0);
        }
        order
    }

    #[test]
    fn who_has_many_calls_waiting_has_a_turn_like_any_other() {
        let turns = Turns::new(1);
        assert_eq!(order(&turns, &["a", "a", "a", "b", "c", "b"]), ["a", "b", "c", "a", "b", "a"]);
        assert_eq!(order(&turns, &["a", "a", "b"]), ["a", "b", "a"]);
        assert_eq!(turns.0.borrow().free, 1);
    }

    #[test]
    fn calls_that_are_given_up_leave_nothing_and_keep_no_place() {
        let turns = Turns::new(1);
        let woken = Arc::new(Woken::default());
        let place = first(&turns);
        let [mut gone, mut given, mut last] = ["a", "b", "c"].map(|caller| call(&turns, caller));
        for call in [&mut gone, &mut given, &mut last] {
            assert!(poll(call, &woken).is_pending());
        }
        drop(gone);
        assert_eq!(turns.0.borrow().callers.len(), 2);
        // It is dropped with the place that it was just given.
        drop(place);
        drop(given);
        let Poll::Ready(place) = poll(&mut last, &woken) else { panic!("the place is lost") };
        assert!(turns.0.borrow().callers.is_empty());
        drop(place);
        assert_eq!(turns.0.borrow().free, 1);
    }
}
