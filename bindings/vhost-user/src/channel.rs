//! The back-end channel: requests of the back end, over the socket that came with `SET_BACKEND_REQ_FD`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::reply::{Answer, Reply, Ticket};
use crate::{BackMessage, Connection, Error, Frame, Header};

/// How long an answer may take, if nobody says otherwise.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The back end's end of it: requests go.
#[derive(Debug)]
pub struct ToFront {
    connection: Connection,
    reply_ack: bool,
    wait: Duration,
}

impl ToFront {
    /// Over what a front end gave; `reply_ack` if that was negotiated.
    ///
    /// Whether it is a socket shows when the first request is sent.
    pub fn new(fd: OwnedFd, reply_ack: bool) -> Self {
        Self {
            connection: Connection::new(UnixStream::from(fd)),
            reply_ack,
            wait: DEFAULT_WAIT,
        }
    }

    /// How long [`ask`](Self::ask) waits for an answer.
    pub fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// The connection, to set its patience.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a request and waits for nothing, even if the front end does it only later.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn tell(&mut self, message: &BackMessage) -> Result<(), Error> {
        let out = message.encode();
        let header = Header::request(out.request, false, out.size());
        self.connection.send(header, &out)
    }

    /// Sends a request and waits until the front end has done it, where acknowledgements are negotiated.
    ///
    /// The front end may need an answer on the other connection first: whoever waits here in the thread that answers there
    /// waits for itself.
    ///
    /// # Errors
    /// [`Error::Refused`] if the front end did not do it; as [`Connection::send`] and [`Connection::receive`].
    pub fn ask(&mut self, message: &BackMessage) -> Result<Reply, Error> {
        let answer = Answer::of(&message.request().form());
        if !self.reply_ack && !answer.always() {
            return self.tell(message).map(|()| Reply::Done);
        }
        let out = message.encode();
        let header = Header::request(out.request, self.reply_ack, out.size());
        self.connection.send(header, &out)?;
        let frame = self
            .connection
            .receive(Instant::now().checked_add(self.wait))?;
        answer.decode(frame)
    }
}

impl AsFd for ToFront {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// The front end's end of it: requests come, answers go.
#[derive(Debug)]
pub struct FromBack {
    connection: Connection,
    reply_ack: bool,
}

/// A request of the back end that came, and the right to answer it.
#[derive(Debug)]
pub struct Told {
    /// What is asked for.
    pub message: BackMessage,
    /// To be answered with [`FromBack::answer`], whether or not something is sent then.
    pub ticket: Ticket,
}

impl FromBack {
    /// A channel, and what the back end is given of it by `SET_BACKEND_REQ_FD`; `reply_ack` if that was negotiated.
    ///
    /// # Errors
    /// [`Error::Io`] if there are no more sockets.
    pub fn pair(reply_ack: bool) -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) = UnixStream::pair().map_err(|source| Error::Io {
            call: "socketpair",
            errno: nix::errno::Errno::from_raw(source.raw_os_error().unwrap_or(0)),
        })?;
        let channel = Self {
            connection: Connection::new(ours),
            reply_ack,
        };
        Ok((channel, theirs.into()))
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The next request, if it is there. It never waits.
    ///
    /// # Errors
    /// As [`Connection::poll_receive`] and [`BackMessage::decode`].
    pub fn poll_receive(&mut self) -> Result<Option<Told>, Error> {
        match self.connection.poll_receive()? {
            Some(frame) => self.told(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the next request, until `deadline` if there is one.
    ///
    /// # Errors
    /// As [`Connection::receive`] and [`BackMessage::decode`].
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Told, Error> {
        let frame = self.connection.receive(deadline)?;
        self.told(frame)
    }

    fn told(&self, frame: Frame) -> Result<Told, Error> {
        let needs_reply = frame.header.needs_reply();
        let message = BackMessage::decode(frame)?;
        let ticket = Ticket {
            answer: Answer::of(&message.request().form()),
            acknowledged: needs_reply && self.reply_ack,
        };
        Ok(Told { message, ticket })
    }

    /// Answers a request, as [`Back::answer`](crate::Back::answer) does.
    ///
    /// # Errors
    /// [`Error::NoSuchAnswer`] if this request has another answer, with nothing sent; as [`Connection::send`].
    pub fn answer(&mut self, ticket: Ticket, reply: &Reply) -> Result<(), Error> {
        self.connection.answer(ticket, reply)
    }
}

impl AsFd for FromBack {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
