//! A socket that messages go over, whole.
//!
//! ```text
//!            poll_receive                        what is kept between two calls
//!   socket ─▶ header: 12 bytes ─▶ payload: size bytes ─▶ Frame      bytes so far · descriptors · since when
//!             each read takes what is there, and the descriptors with it
//! ```

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::{Error, Frame, HEADER_LEN, Header, MAX_FDS, Outgoing, Reply, Ticket, rights};

/// How long a peer may take for a message, if nobody says otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// A connection: frames in, frames out. It knows of no message what it means.
///
/// It is used by one thread at a time. Whether the socket blocks makes no difference, and is not changed.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    patience: Duration,
    incoming: Incoming,
}

/// The message that is being received.
#[derive(Debug, Default)]
struct Incoming {
    head: [u8; HEADER_LEN],
    payload: Vec<u8>,
    /// How many bytes are there, of header and payload together.
    have: usize,
    header: Option<Header>,
    fds: Vec<OwnedFd>,
    /// How many descriptors came, those included that were too many and are closed.
    fds_seen: usize,
    fds_lost: bool,
    /// When its first byte came.
    since: Option<Instant>,
}

impl Incoming {
    /// Where the next bytes go; empty once all are there.
    fn room(&mut self) -> &mut [u8] {
        let have = self.have;
        let room = match self.header {
            None => self.head.get_mut(have..),
            Some(_) => self.payload.get_mut(have.saturating_sub(HEADER_LEN)..),
        };
        room.unwrap_or_default()
    }

    /// How many bytes it has, as far as that is known.
    fn want(&self) -> usize {
        HEADER_LEN.saturating_add(self.payload.len())
    }

    fn take(&mut self, brought: rights::Brought) {
        self.have = self.have.saturating_add(brought.len);
        self.since.get_or_insert_with(Instant::now);
        self.fds_seen = self.fds_seen.saturating_add(brought.fds.len());
        self.fds_lost |= brought.lost;
        let room = MAX_FDS.saturating_sub(self.fds.len());
        self.fds.extend(brought.fds.into_iter().take(room));
    }
}

impl Connection {
    /// Over a socket that is connected.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            patience: DEFAULT_PATIENCE,
            incoming: Incoming::default(),
        }
    }

    /// How long a message may take from its first byte to its last, either way; what is longer is [`Error::Stalled`].
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The socket, to be asked whether something is there (`POLLIN`) before [`poll_receive`](Self::poll_receive).
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Until when the message that has begun has to be whole; `None` between two messages. Whoever polls the socket
    /// beside others calls [`poll_receive`](Self::poll_receive) at that time too, which says then that the peer stalled.
    pub fn due(&self) -> Option<Instant> {
        self.incoming.since?.checked_add(self.patience)
    }

    /// Takes what is there, and returns a message if that made it whole. It never waits.
    ///
    /// # Errors
    /// [`Error::Closed`] if the peer is gone, [`Error::Stalled`] if it took too long, [`Error::Version`] and
    /// [`Error::Oversize`] by the header, [`Error::TooManyFds`] and [`Error::FdsLost`] once the message is whole. After an
    /// error that is not [`in_step`](Error::in_step) there is nothing more to be had from this connection.
    pub fn poll_receive(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if self.incoming.header.is_none() && self.incoming.have == HEADER_LEN {
                let header = Header::decode(&self.incoming.head)?;
                let size = usize::try_from(header.size).unwrap_or(0);
                self.incoming.payload = vec![0; size];
                self.incoming.header = Some(header);
            }
            if self.incoming.room().is_empty() {
                return self.whole().map(Some);
            }
            match rights::receive(&self.socket, self.incoming.room()) {
                Ok(brought) if brought.len == 0 => return Err(self.closed()),
                Ok(brought) => self.incoming.take(brought),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    return match self.due() {
                        Some(due) if due <= Instant::now() => Err(self.stalled()),
                        _ => Ok(None),
                    };
                }
                Err(Errno::ECONNRESET) => return Err(self.closed()),
                Err(errno) => {
                    return Err(Error::Io {
                        call: "recvmsg",
                        errno,
                    });
                }
            }
        }
    }

    /// Waits for a message, until `deadline` if there is one.
    ///
    /// # Errors
    /// As [`poll_receive`](Self::poll_receive), and [`Error::TimedOut`] if none began by then. One that began has its
    /// patience, whatever the deadline.
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.poll_receive()? {
                return Ok(frame);
            }
            let until = self.due().or(deadline);
            if !wait(&self.socket, PollFlags::POLLIN, until)? && self.incoming.since.is_none() {
                return Err(Error::TimedOut);
            }
        }
    }

    /// Sends the answer that `ticket` asks for, if it asks for one.
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: &Reply) -> Result<(), Error> {
        match ticket.encode(reply)? {
            None => Ok(()),
            Some(out) => self.send(Header::reply(out.request, out.size()), &out),
        }
    }

    /// Sends a message whole, a request or a reply as `header` says.
    ///
    /// # Errors
    /// [`Error::Closed`] if the peer is gone, [`Error::Stalled`] if it does not read.
    pub fn send(&mut self, header: Header, message: &Outgoing<'_>) -> Result<(), Error> {
        let mut bytes = header.encode().to_vec();
        bytes.extend(&message.payload);
        let numbers: Vec<RawFd> = message.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let begun = Instant::now();
        let until = begun.checked_add(self.patience);
        let mut sent = 0usize;
        loop {
            let rest = bytes.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            match self.send_some(rest, if sent == 0 { &numbers } else { &[] }) {
                Ok(more) => sent = sent.saturating_add(more),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !wait(&self.socket, PollFlags::POLLOUT, until)? {
                        return Err(Error::Stalled {
                            have: sent,
                            want: bytes.len(),
                            waited: begun.elapsed(),
                        });
                    }
                }
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {
                    return Err(Error::Closed {
                        have: sent,
                        want: bytes.len(),
                    });
                }
                Err(errno) => {
                    return Err(Error::Io {
                        call: "sendmsg",
                        errno,
                    });
                }
            }
        }
    }

    fn send_some(&self, bytes: &[u8], fds: &[RawFd]) -> Result<usize, Errno> {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [std::io::IoSlice::new(bytes)];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, control, flags, None)
    }

    /// The message that is whole; the next one can begin.
    fn whole(&mut self) -> Result<Frame, Error> {
        let done = std::mem::take(&mut self.incoming);
        let header = done.header.unwrap_or(Header::request(0, false, 0));
        if done.fds_lost {
            return Err(Error::FdsLost {
                request: header.request,
            });
        }
        if done.fds_seen > MAX_FDS {
            return Err(Error::TooManyFds {
                request: header.request,
                have: done.fds_seen,
                most: MAX_FDS,
            });
        }
        Ok(Frame {
            header,
            payload: done.payload,
            fds: done.fds,
        })
    }

    fn closed(&self) -> Error {
        Error::Closed {
            have: self.incoming.have,
            want: self.incoming.want(),
        }
    }

    fn stalled(&self) -> Error {
        Error::Stalled {
            have: self.incoming.have,
            want: self.incoming.want(),
            waited: self
                .incoming
                .since
                .map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until something can be done with a socket; `false` if that was not before `until`.
fn wait(socket: &UnixStream, what: PollFlags, until: Option<Instant>) -> Result<bool, Error> {
    loop {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => match until.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return Ok(false),
                // Rounded up, so that it is not asked a thousand times in the last millisecond.
                Some(left) => {
                    let millis = left.as_millis().saturating_add(1);
                    let most = i32::MAX.unsigned_abs().into();
                    let millis = i32::try_from(millis.min(most)).unwrap_or(i32::MAX);
                    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
                }
            },
        };
        let mut asked = [PollFd::new(socket.as_fd(), what)];
        match poll(&mut asked, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => {
                return Err(Error::Io {
                    call: "poll",
                    errno,
                });
            }
        }
    }
}
