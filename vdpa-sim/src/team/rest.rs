//! How queues stop, and how a device is suspended and reset: nothing more is taken, and it is over once nothing is in
//! flight.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::{Asid, QueueIndex};

use super::Team;
use super::command::{Seat, Stop};
use super::joint::Joint;
use super::post::Post;
use crate::class::{QueueChange, Station, Stations};
use crate::kicks::Kicks;

/// What all units of a team come to rest for: it is over once nothing of theirs is in flight.
pub(super) enum Rest {
    Suspend(Arc<Joint>),
    Reset(Arc<Joint>),
}

impl Team {
    /// What is in flight ends, and then this is over.
    pub(super) fn come_to_rest(&mut self, rest: Rest) {
        self.rest = Some(rest);
        self.heat();
    }

    /// Begins to take a queue away. What is in flight ends first.
    pub(super) fn stop(&mut self, at: Seat, how: Stop) {
        let Some(post) = self.posts.get_mut(at.unit) else {
            return;
        };
        let (Some(station), Some(stop), Some(kick)) = (
            post.queues.get_mut(at.place),
            post.stops.get_mut(at.place),
            post.kicks.get_mut(at.place),
        ) else {
            return;
        };
        unwatch(&self.kicks, kick.take());
        match how {
            Stop::Pause => drain(station),
            // What ends is given back to nobody.
            Stop::Reset => *station = Station::Stopped,
        }
        *stop = Some((at, how));
        post.heat();
        self.stopping = true;
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.posts.iter().all(Post::is_idle)
    }

    /// Ends the stops, and the suspend or reset, of which nothing is in flight any more. Answers whether one did.
    pub(super) fn settle(&mut self) -> bool {
        let stopped = self.stopping && self.settle_stops();
        let Some(rest) = self.rest.take() else {
            return stopped;
        };
        if !self.is_idle() {
            self.rest = Some(rest);
            return stopped;
        }
        match rest {
            Rest::Suspend(all) => {
                self.suspend();
                all.done();
            }
            Rest::Reset(all) => {
                self.reset();
                if all.done() {
                    self.core.finish_reset();
                }
            }
        }
        true
    }

    fn settle_stops(&mut self) -> bool {
        let mut ended = false;
        self.stopping = false;
        for post in &mut self.posts {
            let Post {
                unit,
                queues,
                stops,
                ..
            } = post;
            for ((place, stop), station) in stops.iter_mut().enumerate().zip(queues) {
                let Some((at, how)) = *stop else { continue };
                if unit.in_flight(place) != 0 {
                    self.stopping = true;
                    continue;
                }
                *stop = None;
                ended = true;
                let state = match std::mem::take(station) {
                    Station::Running(queue) | Station::Draining(queue) => {
                        // One that was lost or reset before does not go on: nothing waits for it.
                        if how == Stop::Pause {
                            *station = Station::Paused;
                        }
                        Some(queue.state())
                    }
                    Station::Paused => {
                        *station = Station::Paused;
                        None
                    }
                    Station::Stopped => None,
                };
                let change = match how {
                    Stop::Pause => QueueChange::Paused,
                    Stop::Reset => QueueChange::Reset,
                };
                // There are as many as 16 bits count.
                let queue = QueueIndex::new(at.queue as u16);
                self.core.class.queue_changed(queue, change);
                self.core.stopped(at.queue, state);
            }
        }
        ended
    }

    /// Nothing is in flight: the queues stay where they are.
    fn suspend(&mut self) {
        self.suspended = true;
        for post in &mut self.posts {
            post.unit.suspended();
            for (station, number) in post.queues.iter_mut().zip(post.numbers) {
                *station = match std::mem::take(station) {
                    // Where it was to stop, that is over: nothing of it was in flight either.
                    Station::Draining(queue) => {
                        self.core.suspended(number, queue.state());
                        Station::Running(queue)
                    }
                    other => other,
                };
            }
        }
    }

    /// A reset begins: no queue is there any more.
    pub(super) fn take_queues(&mut self) {
        self.live = false;
        self.suspended = false;
        self.stopping = false;
        for post in &mut self.posts {
            post.queues = Stations::default();
            post.stops = [None, None];
            for kick in &mut post.kicks {
                unwatch(&self.kicks, kick.take());
            }
        }
    }

    /// Nothing is in flight: the rest of the reset.
    fn reset(&mut self) {
        for post in &mut self.posts {
            post.unit.reset();
            post.hot = false;
            post.quiet = None;
            post.due = None;
            if post.asid != Asid::new(0) {
                post.asid = Asid::new(0);
                post.reader = self.home.reader();
            }
        }
    }
}

/// Takes nothing more from a queue. A call that is held back is made: nobody would make it later.
pub(super) fn drain(station: &mut Station) {
    *station = match std::mem::take(station) {
        Station::Running(mut queue) => {
            queue.call();
            Station::Draining(queue)
        }
        other => other,
    };
}

/// Takes an eventfd out.
fn unwatch(kicks: &Kicks, kick: Option<Arc<OwnedFd>>) {
    if let Some(kick) = kick {
        kicks.unwatch(&kick);
    }
}
