//! How a guest is interrupted: by a closure of the VMM's, by eventfds that nobody stands in between, or both.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vdpa_core::Call;

use super::{Signal, VmmError};

/// What an interrupt is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum InterruptKind {
    /// The configuration, or the status byte: it needs a reset.
    Config,
    /// This queue has used buffers.
    Queue(u16),
}

impl fmt::Display for InterruptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("the configuration"),
            Self::Queue(queue) => write!(f, "queue {queue}"),
        }
    }
}

type Raise = dyn Fn(InterruptKind) -> io::Result<()> + Send + Sync;

/// The interrupts of an active device. Clones are the same.
///
/// An eventfd (an irqfd of KVM's) is written by the device itself, with no code of the VMM's in between: with MSI-X each
/// queue has one. The closure is raised for what has none: virtio-mmio has one interrupt for all, and a register that says
/// what for, which somebody has to set first.
#[derive(Clone)]
pub struct Interrupts {
    raise: Option<Arc<Raise>>,
    signals: BTreeMap<InterruptKind, Signal>,
    failed: Arc<AtomicU64>,
}

impl Interrupts {
    /// All by `raise`, which runs on a thread of the device's. It must be short; it must not wait for what the VMM holds
    /// while it calls the device (a lock around it, say), since a reset waits for a closure that runs; and it must not
    /// call the device.
    ///
    /// An interrupt that it cannot raise is counted: see [`failed`](Self::failed).
    pub fn from_fn(
        raise: impl Fn(InterruptKind) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            raise: Some(Arc::new(raise)),
            ..Self::none()
        }
    }

    /// None yet: each is given [by an eventfd](Self::with_eventfd).
    pub fn none() -> Self {
        Self {
            raise: None,
            signals: BTreeMap::new(),
            failed: Arc::default(),
        }
    }

    /// By an eventfd for the configuration, and one for each queue from queue 0 on.
    pub fn from_eventfds(
        config: impl Into<Signal>,
        queues: impl IntoIterator<Item = impl Into<Signal>>,
    ) -> Self {
        let all = Self::none().with_eventfd(InterruptKind::Config, config);
        queues.into_iter().zip(0..).fold(all, |all, (signal, at)| {
            all.with_eventfd(InterruptKind::Queue(at), signal)
        })
    }

    /// With an eventfd for `kind`, in place of the closure.
    #[must_use]
    pub fn with_eventfd(mut self, kind: InterruptKind, signal: impl Into<Signal>) -> Self {
        self.signals.insert(kind, signal.into());
        self
    }

    /// How often the closure failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether there are eventfds for what is there, and for nothing else; the closure does for the rest.
    pub(super) fn check(&self, queues: &[u16]) -> Result<(), VmmError> {
        let is_there = |kind: &InterruptKind| match kind {
            InterruptKind::Config => true,
            InterruptKind::Queue(queue) => queues.contains(queue),
        };
        if let Some(kind) = self.signals.keys().find(|kind| !is_there(kind)) {
            return Err(VmmError::InterruptOfNothing {
                kind: *kind,
                queues: queues.len(),
            });
        }
        queues.iter().try_for_each(|queue| self.check_queue(*queue))
    }

    /// Whether `queue` has an interrupt.
    pub(super) fn check_queue(&self, queue: u16) -> Result<(), VmmError> {
        let has = self.signals.contains_key(&InterruptKind::Queue(queue));
        match has || self.raise.is_some() {
            true => Ok(()),
            false => Err(VmmError::NoInterrupt { queue }),
        }
    }

    /// The call of the contract that raises `kind`.
    pub(super) fn call(&self, kind: InterruptKind) -> Call {
        match (self.signals.get(&kind), &self.raise) {
            (Some(signal), _) => Call::EventFd(signal.shared()),
            (None, Some(raise)) => {
                let (raise, failed) = (Arc::clone(raise), Arc::clone(&self.failed));
                Call::from_fn(move || {
                    if raise(kind).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            }
            (None, None) => Call::None,
        }
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts")
            .field("closure", &self.raise.is_some())
            .field("eventfds", &self.signals)
            .finish_non_exhaustive()
    }
}
