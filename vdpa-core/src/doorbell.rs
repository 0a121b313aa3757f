//! Doorbells: how the driver kicks a queue, without a lock and, but for what a layer put in between, without a virtual
//! call.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::{Bell, fd};

/// The handle to kick one queue with. Clones ring the same queue; each keeps what it rings alive. After the queue or
/// the device is gone it does nothing.
#[derive(Clone, Default)]
pub struct Doorbell(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    None,
    Bell(Arc<Bell>),
    EventFd(Arc<OwnedFd>),
    Fn(Arc<dyn Fn(u32) + Send + Sync>),
}

impl Doorbell {
    /// A doorbell that rings nothing: for devices that poll.
    pub const NONE: Doorbell = Doorbell(Kind::None);

    /// A doorbell that runs `closure` with what it is rung with: for layers, which put it before the doorbell of the
    /// device that they wrap. It runs on the driver's thread; it must be short, and must neither wait nor panic.
    pub fn from_fn(closure: impl Fn(u32) + Send + Sync + 'static) -> Self {
        Self(Kind::Fn(Arc::new(closure)))
    }

    /// Kicks the queue.
    ///
    /// * `data`: the queue index, or the notification data where NOTIFICATION_DATA is negotiated. Bells and eventfds
    ///   belong to one queue and carry none.
    ///
    /// # Spec
    /// virtio 1.4 §2.9.
    #[inline]
    pub fn ring(&self, data: u32) {
        match &self.0 {
            Kind::None => {}
            Kind::Bell(bell) => bell.ring(),
            Kind::EventFd(event) => fd::signal(event.as_fd()),
            Kind::Fn(closure) => closure(data),
        }
    }

    /// The page of the doorbell's own that a guest can be given, if it has one. Bells and eventfds have none, and there is
    /// no other kind yet: it is `None` for every doorbell so far.
    pub fn page(&self) -> Option<Page<'_>> {
        match &self.0 {
            Kind::None | Kind::Bell(_) | Kind::EventFd(_) | Kind::Fn(_) => None,
        }
    }

    /// The eventfd that kicks the queue when written, if that is what the doorbell is: for ioeventfd, VDUSE and vhost.
    /// For the others [`Relay::kick`](crate::Relay::kick) makes one.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::None | Kind::Bell(_) | Kind::Fn(_) => None,
            Kind::EventFd(event) => Some(event.as_fd()),
        }
    }
}

impl From<Arc<Bell>> for Doorbell {
    fn from(bell: Arc<Bell>) -> Self {
        Self(Kind::Bell(bell))
    }
}

impl From<Arc<OwnedFd>> for Doorbell {
    /// The eventfd has to be non-blocking, or a full counter stops whoever rings.
    fn from(event: Arc<OwnedFd>) -> Self {
        Self(Kind::EventFd(event))
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::None => f.write_str("Doorbell(none)"),
            Kind::Bell(_) => f.write_str("Doorbell(bell)"),
            Kind::EventFd(event) => write!(f, "Doorbell(eventfd {})", fd::number(event.as_fd())),
            Kind::Fn(_) => f.write_str("Doorbell(closure)"),
        }
    }
}

/// A page that holds one doorbell and nothing else.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Page<'a> {
    /// The file to map.
    pub file: BorrowedFd<'a>,
    /// Where the page begins, in bytes.
    pub offset: u64,
    /// Where in the page the doorbell is, in bytes.
    pub at: u32,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_closure_is_run_with_what_it_is_rung_with_and_has_no_file() {
        let rung = Arc::new(AtomicU32::new(0));
        let doorbell = Doorbell::from_fn({
            let rung = rung.clone();
            move |data| {
                rung.fetch_add(data, Ordering::Relaxed);
            }
        });
        doorbell.clone().ring(3);
        doorbell.ring(4);
        assert_eq!(rung.load(Ordering::Relaxed), 7);
        assert!(doorbell.event_fd().is_none() && doorbell.page().is_none());
        assert_eq!(format!("{doorbell:?}"), "Doorbell(closure)");
    }
}
