//! A queue of a device that is elsewhere.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use vdpa_core::{Features, bits};
use vdpa_mem::{Bytes, Iova, Window};
use vdpa_ring::{
    Areas, Completion, DriverMem, DriverRing, Placement, RingFeatures, Segment, area_sizes,
};

use super::{RECORDS, format};
use crate::rig::BASE;

/// A queue, from the driver's side.
pub struct Line {
    ring: DriverRing,
    pub size: u16,
    at: u64,
    placed: Placement,
    window: Window,
    pub kick: EventFd,
    call: EventFd,
    /// Where the buffers are, by number; which are free; which a chain has.
    buffers: Vec<u64>,
    pub free: VecDeque<usize>,
    of: Vec<usize>,
}

impl Line {
    pub fn new(
        window: &Window,
        features: Features,
        size: u16,
        next: &mut u64,
        events: &[EventFd],
    ) -> Self {
        let mut ring = RingFeatures::empty();
        ring.set(RingFeatures::EVENT_IDX, features.contains(bits::EVENT_IDX));
        ring.set(RingFeatures::IN_ORDER, features.contains(bits::IN_ORDER));
        let format = format(features);
        let placed = area_sizes(format, size, true).placed();
        let mut take = |bytes: u64| {
            let at = *next;
            *next += bytes.next_multiple_of(4096);
            assert!(*next <= RECORDS);
            at
        };
        let at = take(placed.bytes.into());
        let own = |event: &EventFd| {
            let fd = event.as_fd().try_clone_to_owned().unwrap();
            // SAFETY: it is an eventfd, a copy of one.
            unsafe { EventFd::from_owned_fd(fd) }
        };
        Self {
            ring: DriverRing::new(format, size, ring, None).unwrap(),
            size,
            at,
            placed,
            window: window.clone(),
            kick: own(&events[0]),
            call: own(&events[1]),
            buffers: (0..size).map(|_| take(2048)).collect(),
            free: (0..usize::from(size)).collect(),
            of: vec![0; usize::from(size)],
        }
    }

    pub fn config(&self) -> Vec<u8> {
        let p = &self.placed;
        let areas = [p.descriptor, p.driver, p.device];
        let areas = areas.map(|at| (BASE + self.at + u64::from(at)).to_le_bytes());
        [&self.size.to_le_bytes()[..], &areas.concat()].concat()
    }

    pub fn mem<'a>(window: &'a Window, at: u64, p: &Placement) -> DriverMem<Bytes<'a>> {
        let area = |from: u32, to: u32| {
            let at = at as usize + from as usize;
            window.bytes().slice(at, (to - from) as usize).unwrap()
        };
        DriverMem::new(Areas {
            descriptor: area(p.descriptor, p.driver),
            driver: area(p.driver, p.device),
            device: area(p.device, p.bytes),
        })
    }

    /// Adds a buffer; `false` if there is none.
    pub fn add(&mut self, readable: Option<&[u8]>, len: u32) -> bool {
        let Some(buffer) = self.free.pop_front() else {
            return false;
        };
        let at = self.buffers[buffer];
        let addr = Iova::new(BASE + at);
        let mem = Self::mem(&self.window, self.at, &self.placed);
        let added = match readable {
            Some(bytes) => {
                self.window.bytes().write(at as usize, bytes);
                let len = bytes.len() as u32;
                self.ring.add(&mem, &[Segment { addr, len }], &[])
            }
            None => self.ring.add(&mem, &[], &[Segment { addr, len }]),
        };
        match added {
            Ok(id) => self.of[usize::from(id)] = buffer,
            Err(_) => {
                self.free.push_front(buffer);
                return false;
            }
        }
        true
    }

    pub fn publish(&mut self) {
        let mem = Self::mem(&self.window, self.at, &self.placed);
        if self.ring.publish(&mem) {
            self.kick.write(1).unwrap();
        }
    }

    /// What came back, with the bytes written. An id that is not in flight is an error of the ring's: nothing comes
    /// back twice.
    pub fn used(&mut self) -> Vec<Vec<u8>> {
        let mem = Self::mem(&self.window, self.at, &self.placed);
        let mut out = [Completion::default(); 64];
        let taken = self.ring.take_used(&mem, &mut out).unwrap();
        out[..taken]
            .iter()
            .map(|done| {
                let buffer = self.of[usize::from(done.id)];
                self.free.push_back(buffer);
                let mut bytes = vec![0; done.len as usize];
                self.window
                    .bytes()
                    .read(self.buffers[buffer] as usize, &mut bytes);
                bytes
            })
            .collect()
    }

    /// Waits for a call. `false`: none came, though there was something.
    pub fn wait(&mut self, within: Duration) -> bool {
        let mem = Self::mem(&self.window, self.at, &self.placed);
        let mut there = self.ring.arm(&mem);
        if !there {
            let mut fds = [PollFd::new(self.call.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(within).unwrap();
            there = poll(&mut fds, timeout).unwrap() == 1;
            if there {
                self.call.read().unwrap();
            }
        }
        self.ring.disarm(&mem);
        there
    }
}
