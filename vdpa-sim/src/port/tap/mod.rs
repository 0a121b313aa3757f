//! `tap:NAME`: a tap interface of the kernel.
//!
//! ```text
//!   pair 0 ── lane ── queue 0 ┐                         each queue is a file of /dev/net/tun
//!   pair 1 ── lane ── queue 1 ┼── interface NAME ── the kernel's stack, a bridge, ...
//!   pair 2 ── lane ── queue 2 ┘ taken out while the driver uses two pairs: no flow is steered to it
//! ```
//! A packet is read and written as it stands in a [`FrameBatch`](crate::frames::FrameBatch): a virtio-net header of 12
//! bytes, then the frame; one system call each, which is what a tap costs. The kernel is told that all offloads are
//! taken, whatever the driver negotiated: who gives a packet to a driver finishes it for that driver.
//!
//! The interface is looked for in the network namespace of the thread that opens the device. It has a carrier while the
//! driver is ready and the link up. What it was given before that is thrown away: a driver receives nothing from before
//! its time. An interface that is down takes nothing, and one that is removed takes the device's link down for good.

mod error;
mod lane;
mod sys;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::libc;

use super::tally::Tally;
use super::{Lane, Port, Presence};
use crate::frames::HEADER_BYTES;
use crate::shared::lock;

pub use error::TapError;

use lane::{TAP_COUNTERS, TapLane};
use sys::{NAME_BYTES, Queues};

/// What is always taken, and what kernels from 6.2 on have besides.
const OFFLOAD: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const OFFLOAD_UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// How many packets are thrown away at most when a queue is emptied: more than any kernel lets wait in it by default.
const MOST_STALE: usize = 16 << 10;

/// A tap interface, with a queue for each pair.
///
/// One that is there is used as it is, be it persistent or not; one that is made goes with the device. Its address, MTU
/// and state are the owner's to set.
pub struct TapPort {
    tap: Arc<Tap>,
    longest: usize,
}

/// What the lanes of a tap share.
struct Tap {
    name: String,
    presence: Arc<Presence>,
    queues: Box<[Arc<OwnedFd>]>,
    kind: Queues,
    /// The kernel segments datagrams: from Linux 6.2 on.
    datagrams: bool,
    usage: Mutex<Usage>,
    /// What comes is for the driver of the moment.
    open: AtomicBool,
    /// The interface was removed.
    gone: AtomicBool,
    tally: Tally,
}

/// What the kernel was told.
struct Usage {
    /// So many queues, the first ones, are in use.
    attached: usize,
    /// For which life of the device it has a carrier; `None`: it has none.
    epoch: Option<u64>,
}

impl TapPort {
    /// Opens the tap interface `name`, or makes it.
    ///
    /// * `name`: 1 to 15 bytes
    /// * `pairs`, `longest`: the device's queue pairs, and the bytes of its longest frame
    ///
    /// # Errors
    /// [`TapError`]: no such name, no permission, no tun driver, an interface of another kind, with too few queues, or in
    /// use.
    pub fn open(
        name: &str,
        presence: Arc<Presence>,
        pairs: u16,
        longest: usize,
    ) -> Result<Self, TapError> {
        check_name(name)?;
        let (kind, first) = first_queue(name, pairs)?;
        let mut queues = vec![first];
        for _ in 1..pairs {
            let file = control(name)?;
            sys::attach(&file, name, kind).map_err(|e| refused(name, pairs, e))?;
            queues.push(file);
        }
        let mut tap = Tap {
            name: name.to_owned(),
            presence,
            usage: Mutex::new(Usage {
                attached: queues.len(),
                epoch: None,
            }),
            queues: queues
                .into_iter()
                .map(|file| Arc::new(file.into()))
                .collect(),
            kind,
            datagrams: false,
            open: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            tally: Tally::new(TAP_COUNTERS, pairs),
        };
        tap.datagrams = tap.prepare()?;
        Ok(Self {
            tap: Arc::new(tap),
            longest,
        })
    }
}

impl Port for TapPort {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        Box::new(TapLane::new(&self.tap, pair, self.longest))
    }

    fn changed(&self) {
        self.tap.changed();
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        self.tap.tally.read(to);
    }
}

impl Tap {
    /// Says what packets look like, and that nobody is there yet. Answers whether the kernel segments datagrams.
    fn prepare(&self) -> Result<bool, TapError> {
        let fail = |what| move |e: Errno| system(&self.name, what, e.into());
        // Of the interface, not of a queue.
        let Some(first) = self.queues.first() else {
            return Ok(false);
        };
        sys::set_header(first.as_fd(), HEADER_BYTES).map_err(fail("set the size of its header"))?;
        let datagrams = sys::set_offload(first.as_fd(), OFFLOAD | OFFLOAD_UDP).is_ok();
        if !datagrams {
            let offload = sys::set_offload(first.as_fd(), OFFLOAD);
            offload.map_err(fail("switch its offloads on"))?;
        }
        self.use_queues(&mut lock(&self.usage), 1);
        self.set_carrier(false);
        Ok(datagrams)
    }

    /// Follows the device: queues for the pairs in use, a carrier while its driver is ready.
    fn changed(&self) {
        let mut usage = lock(&self.usage);
        if self.gone.load(Ordering::Acquire) {
            // Whoever sets the link up again is told that it is not.
            self.presence.set_carrier(false);
            return;
        }
        // Before `is_there`: a reset meanwhile leaves another one.
        let epoch = self.presence.epoch();
        if !self.presence.is_there() {
            self.open.store(false, Ordering::Release);
            if usage.epoch.take().is_some() {
                self.set_carrier(false);
            }
            return;
        }
        self.use_queues(&mut usage, self.presence.active().into());
        if usage.epoch != Some(epoch) {
            self.open.store(false, Ordering::Release);
            for queue in &self.queues {
                throw_away(queue);
            }
            usage.epoch = Some(epoch);
            self.set_carrier(true);
            // Release pairs with the acquire in `TapLane`: what is read from here on is for this driver.
            self.open.store(true, Ordering::Release);
            self.presence.ring_all();
        }
    }

    /// Has the kernel use the first `wanted` queues, at least one. Taken out from the last one on, and put back from the
    /// first one on, they keep their numbers.
    fn use_queues(&self, usage: &mut Usage, wanted: usize) {
        if self.kind == Queues::Single {
            return;
        }
        let wanted = wanted.clamp(1, self.queues.len().max(1));
        while usage.attached != wanted {
            let on = usage.attached < wanted;
            let place = if on {
                usage.attached
            } else {
                usage.attached.saturating_sub(1)
            };
            let Some(queue) = self.queues.get(place) else {
                return;
            };
            if let Err(e) = sys::set_queue(queue.as_fd(), on) {
                let verb = if on { "put" } else { "take" };
                tracing::warn!("tap:{}: cannot {verb} queue {place}: {e}", self.name);
                return;
            }
            usage.attached = if on { place.saturating_add(1) } else { place };
        }
    }

    fn set_carrier(&self, up: bool) {
        let Some(first) = self.queues.first() else {
            return;
        };
        if let Err(e) = sys::set_carrier(first.as_fd(), up) {
            // Before Linux 5.0: the peer does not see whether the driver is ready, that is all.
            tracing::debug!("tap:{}: the carrier cannot be set: {e}", self.name);
        }
    }

    /// The interface is not there any more.
    #[cold]
    fn lose(&self) {
        if !self.gone.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "tap:{}: the interface was removed: the link is down, and what is sent is discarded; \
                 open the device again to use another one",
                self.name
            );
            self.open.store(false, Ordering::Release);
            self.presence.set_carrier(false);
        }
    }
}

/// What an interface may be called, as the kernel sees it; a `%` would have it choose.
fn check_name(name: &str) -> Result<(), TapError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
    if name.is_empty()
        || name.len() > NAME_BYTES
        || name == "."
        || name == ".."
        || name.contains(bad)
    {
        return Err(TapError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn control(name: &str) -> Result<File, TapError> {
    sys::open().map_err(|source| {
        // The file may be there and the driver not.
        let driver = source.raw_os_error() != Some(libc::ENODEV);
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {}
            _ if driver => return system(name, "open a queue of it", source),
            _ => {}
        }
        TapError::NoControl {
            name: name.to_owned(),
            source,
        }
    })
}

/// The first queue, and whether the interface has several: one that is there is taken as it was made.
fn first_queue(name: &str, pairs: u16) -> Result<(Queues, File), TapError> {
    let file = control(name)?;
    let (wanted, other) = if pairs > 1 {
        (Queues::Multi, Queues::Single)
    } else {
        (Queues::Single, Queues::Multi)
    };
    match sys::attach(&file, name, wanted) {
        Ok(()) => return Ok((wanted, file)),
        // It is there, and of another kind.
        Err(Errno::EINVAL) => {}
        Err(e) => return Err(refused(name, pairs, e)),
    }
    let name = name.to_owned();
    match (sys::attach(&file, &name, other), other) {
        (Ok(()), Queues::Multi) => Ok((other, file)),
        (Ok(()) | Err(Errno::EBUSY), Queues::Single) => Err(TapError::SingleQueue { name, pairs }),
        (Err(Errno::EINVAL), _) => Err(TapError::NoTap { name }),
        (Err(e), _) => Err(refused(&name, pairs, e)),
    }
}

/// What an attempt to have a queue of an interface came to.
fn refused(name: &str, pairs: u16, e: Errno) -> TapError {
    let owned = name.to_owned();
    match e {
        Errno::EPERM | Errno::EACCES => TapError::Permission { name: owned, pairs },
        Errno::EBUSY | Errno::E2BIG => TapError::Busy { name: owned },
        Errno::EINVAL => TapError::NoTap { name: owned },
        e => system(name, "have a queue of it", e.into()),
    }
}

fn system(name: &str, what: &'static str, source: io::Error) -> TapError {
    TapError::System {
        name: name.to_owned(),
        what,
        source,
    }
}

/// Reads and forgets what waits in a queue.
fn throw_away(queue: &OwnedFd) {
    // Packets are cut to what there is room for.
    let mut some = [0; 64];
    for _ in 0..MOST_STALE {
        match nix::unistd::read(queue, &mut some) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
