//! What a back end says unasked: that it leaves, that a queue is broken, that its configuration changed.
//!
//! One thread a device sleeps on all of it. It holds nothing of the device but what it reports to. A back end that asks for
//! acknowledgements on its channel and reads none has it wait, once, for the five seconds that a message may take: the
//! device ends that much later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vdpa_core::{Event, EventSink, QueueIndex};
use vdpa_vhost_user::{BackMessage, FromBack, Reply};

use crate::line::{Line, Loss};

/// Tokens above those of queues.
const STOP: u64 = 1 << 32;
const SOCKET: u64 = STOP + 1;
const CHANNEL: u64 = STOP + 2;

/// How many messages are taken before anything else is looked at.
const AT_ONCE: usize = 64;

/// What the thread and the device have in common.
pub(crate) struct Heard {
    line: Arc<Line>,
    sink: OnceLock<Arc<dyn EventSink>>,
    epoll: Epoll,
    stop: EventFd,
    /// How often the back end said that the configuration changed.
    config_changes: AtomicU32,
    /// Whether the status byte may have changed since it was asked for.
    stale: AtomicBool,
    /// Whether a queue broke since the last reset.
    needs_reset: AtomicBool,
}

/// The thread, until dropped.
pub(crate) struct Watch {
    heard: Arc<Heard>,
    thread: Option<JoinHandle<()>>,
}

impl Heard {
    pub(crate) fn new(line: Arc<Line>) -> io::Result<Arc<Self>> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        // What comes over it are answers, and for who asked: only its end is looked for.
        epoll.add(
            line.socket(),
            EpollEvent::new(EpollFlags::EPOLLRDHUP, SOCKET),
        )?;
        Ok(Arc::new(Self {
            line,
            sink: OnceLock::new(),
            epoll,
            stop,
            config_changes: AtomicU32::new(0),
            stale: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
        }))
    }

    /// How often the back end said that the configuration changed.
    pub(crate) fn config_changes(&self) -> u32 {
        self.config_changes.load(Ordering::Acquire)
    }

    /// Whether the status has to be asked for again; not twice for one change.
    pub(crate) fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(crate) fn forget_needs_reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }

    /// The device says that it needs a reset.
    pub(crate) fn lost(&self, queue: Option<QueueIndex>, why: String) {
        self.needs_reset.store(true, Ordering::Release);
        self.raise(Event::NeedsReset { queue, why });
    }

    /// Watches what says that queue `q` is broken.
    ///
    /// # Errors
    /// When the system cannot.
    pub(crate) fn watch_queue(&self, q: QueueIndex, err: BorrowedFd<'_>) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, u64::from(q.get()));
        Ok(self.epoll.add(err, event)?)
    }

    fn raise(&self, event: Event) {
        if let Some(sink) = self.sink.get() {
            sink.raise(event);
        }
    }

    fn queue_broke(&self, token: u64) {
        let Ok(number) = u16::try_from(token) else {
            return;
        };
        let queue = QueueIndex::new(number);
        self.lost(
            Some(queue),
            format!("its back end says that queue {queue} is broken"),
        );
    }

    fn told(&self, message: &BackMessage) -> Reply {
        match message {
            BackMessage::ConfigChange => {
                let _before = self.config_changes.fetch_add(1, Ordering::AcqRel);
                self.stale.store(true, Ordering::Release);
                self.raise(Event::Config);
                Reply::Done
            }
            // Nothing else was agreed on.
            other => {
                tracing::debug!("refused to the back end: {}", other.request().name());
                Reply::Failed
            }
        }
    }

    /// Takes what is there, but for a flood: whoever lets go of the device waits for this thread. `false`: there will be
    /// nothing more.
    fn listen(&self, channel: &mut FromBack) -> bool {
        for _ in 0..AT_ONCE {
            let told = match channel.poll_receive() {
                Ok(None) => return true,
                Ok(Some(told)) => told,
                Err(e) if e.in_step() => {
                    tracing::debug!("a message of the back end is passed over: {e}");
                    continue;
                }
                Err(e) => {
                    tracing::debug!("the back end's channel has ended: {e}");
                    return false;
                }
            };
            let reply = self.told(&told.message);
            if let Err(e) = channel.answer(told.ticket, &reply) {
                tracing::debug!("the back end's channel has ended: {e}");
                return false;
            }
        }
        true
    }

    fn run(&self, mut channel: Option<FromBack>) {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(e) => {
                    tracing::warn!("cannot watch the back end: {e}");
                    return;
                }
            };
            for event in events.iter().take(count) {
                match event.data() {
                    STOP => return,
                    SOCKET => {
                        self.line.lose(Loss::Closed);
                        // It stays as it is, and would be told of for ever.
                        let _gone = self.epoll.delete(self.line.socket());
                    }
                    CHANNEL => {
                        if !channel.as_mut().is_some_and(|channel| self.listen(channel)) {
                            // Dropped, it is watched no more.
                            channel = None;
                        }
                    }
                    queue => self.queue_broke(queue),
                }
            }
        }
    }
}

impl Watch {
    /// Starts the thread.
    ///
    /// * `channel`: what the back end says things over, if there is one
    ///
    /// # Errors
    /// When the system has no thread, or cannot watch.
    pub(crate) fn start(
        heard: Arc<Heard>,
        sink: Arc<dyn EventSink>,
        channel: Option<FromBack>,
    ) -> io::Result<Self> {
        let _twice = heard.sink.set(sink);
        if let Some(channel) = &channel {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL);
            heard.epoll.add(channel, event)?;
        }
        let thread = std::thread::Builder::new()
            .name("vdpa-vhost-user".to_owned())
            .spawn({
                let heard = Arc::clone(&heard);
                move || heard.run(channel)
            })?;
        Ok(Self {
            heard,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A counter that is full says it as well.
        let _full = self.heard.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// An eventfd, at 0, that never blocks.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(EventFd::from_flags(flags)?.into())
}

/// Adds 1 to an eventfd. One that is full says what it has to say.
pub(crate) fn signal(event: &OwnedFd) {
    let _full = nix::unistd::write(event.as_fd(), &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Duration;

    use vdpa_vhost_user::{BackRequest, Header};

    use super::*;

    #[test]
    fn a_back_end_that_never_stops_talking_does_not_keep_the_thread_to_itself() {
        let (socket, _back) = UnixStream::pair().unwrap();
        let line = Line::new(Path::new("a"), socket, Duration::from_secs(1)).unwrap();
        let heard = Heard::new(Arc::new(line)).unwrap();
        let (mut channel, theirs) = FromBack::pair(false).unwrap();
        let number = BackRequest::ConfigChangeMsg.form().number;
        let message = Header::request(number, false, 0).encode();
        let mut theirs = UnixStream::from(theirs);
        theirs.write_all(&message.repeat(AT_ONCE * 3 / 2)).unwrap();
        assert!(heard.listen(&mut channel));
        assert_eq!(heard.config_changes() as usize, AT_ONCE);
        // The rest is there as before.
        assert!(heard.listen(&mut channel));
        assert_eq!(heard.config_changes() as usize, AT_ONCE * 3 / 2);
        drop(theirs);
        assert!(!heard.listen(&mut channel));
    }
}
