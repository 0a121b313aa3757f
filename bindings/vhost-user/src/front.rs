//! The front end's half: requests go, answers come.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::channel::DEFAULT_WAIT;
use crate::payload::{Config, ConfigSpan, Inflight, VringState};
use crate::reply::{Answer, Reply};
use crate::{Connection, Error, FrontMessage, Header, ProtocolFeatures};

/// A back end, as a front end sees it.
#[derive(Debug)]
pub struct Front {
    connection: Connection,
    reply_ack: bool,
    wait: Duration,
}

/// A request that was sent, and what is to come back.
#[derive(Debug)]
#[must_use = "an answer that nobody takes is taken for that to the next request"]
pub struct Pending {
    /// `None` if nothing comes back.
    answer: Option<Answer>,
}

impl Pending {
    /// Whether the back end answers.
    pub fn is_awaited(&self) -> bool {
        self.answer.is_some()
    }
}

impl Front {
    /// Over a connection that a back end took, or made.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            reply_ack: false,
            wait: DEFAULT_WAIT,
        }
    }

    /// How long [`ask`](Self::ask) and what is made of it wait for an answer.
    pub fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, to set its patience.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Whether every request is acknowledged, from the request behind `SET_PROTOCOL_FEATURES` with `REPLY_ACK` on.
    pub fn is_acknowledged(&self) -> bool {
        self.reply_ack
    }

    /// Sends a request, and waits for its answer where it has one, or is acknowledged.
    ///
    /// A back end that waits for an answer over its own channel meanwhile has to be given that by another thread, or in
    /// [`begin`](Self::begin) and [`poll_finish`](Self::poll_finish).
    ///
    /// # Errors
    /// [`Error::Refused`] if the back end did not do it; [`Error::TimedOut`] if it did not answer; as
    /// [`Connection::send`] and [`Connection::receive`].
    pub fn ask(&mut self, message: &FrontMessage) -> Result<Reply, Error> {
        let pending = self.begin(message)?;
        let deadline = Instant::now().checked_add(self.wait);
        self.finish(&pending, deadline)
    }

    /// Sends a request. What comes back has to be taken before the next one is sent.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn begin(&mut self, message: &FrontMessage) -> Result<Pending, Error> {
        let answer = message.answer();
        let acknowledged = self.reply_ack && !answer.always();
        let out = message.encode();
        let header = Header::request(out.request, acknowledged, out.size());
        self.connection.send(header, &out)?;
        // Set behind it: whether the very message that negotiates acknowledgements has one, back ends do not agree on.
        if let FrontMessage::SetProtocolFeatures(features) = message {
            self.reply_ack = features.contains(ProtocolFeatures::REPLY_ACK);
        }
        Ok(Pending {
            answer: (acknowledged || answer.always()).then_some(answer),
        })
    }

    /// Takes the answer, if it is there or there is none. It never waits.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn poll_finish(&mut self, pending: &Pending) -> Result<Option<Reply>, Error> {
        let Some(answer) = pending.answer else {
            return Ok(Some(Reply::Done));
        };
        match self.connection.poll_receive()? {
            Some(frame) => answer.decode(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the answer, until `deadline` if there is one.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn finish(&mut self, pending: &Pending, deadline: Option<Instant>) -> Result<Reply, Error> {
        match pending.answer {
            None => Ok(Reply::Done),
            Some(answer) => answer.decode(self.connection.receive(deadline)?),
        }
    }

    /// Asks for a number.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`Error::NoSuchAnswer`] if this is no request for a number.
    pub fn value(&mut self, message: &FrontMessage) -> Result<u64, Error> {
        match self.ask(message)? {
            Reply::Value(value) => Ok(value),
            _ => Err(no_such_answer(message, "number")),
        }
    }

    /// Stops a queue and asks where it stands (`VHOST_USER_GET_VRING_BASE`).
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`Error::Value`] if the answer is about another queue.
    pub fn vring_base(&mut self, index: u32) -> Result<u32, Error> {
        let message = FrontMessage::GetVringBase(VringState { index, num: 0 });
        match self.ask(&message)? {
            Reply::Vring(state) if state.index == index => Ok(state.num),
            Reply::Vring(state) => Err(Error::Value {
                name: message.request().name(),
                field: "index",
                value: state.index.into(),
                legal: "the queue that was asked for",
            }),
            _ => Err(no_such_answer(&message, "state of a queue")),
        }
    }

    /// Reads `size` bytes of the configuration space (`VHOST_USER_GET_CONFIG`).
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::Refused`] if the back end has no such bytes, [`Error::Value`] if it sent others.
    pub fn config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>, Error> {
        let message = FrontMessage::GetConfig(ConfigSpan {
            offset,
            size,
            flags: 0,
        });
        let wrong = |field, value: u64| Error::Value {
            name: message.request().name(),
            field,
            value,
            legal: "what was asked for",
        };
        match self.ask(&message)? {
            Reply::Config(Config {
                offset: got, bytes, ..
            }) => {
                if got != offset {
                    return Err(wrong("offset", got.into()));
                }
                match u32::try_from(bytes.len()) {
                    Ok(len) if len == size => Ok(bytes),
                    _ => Err(wrong(
                        "size",
                        u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                    )),
                }
            }
            _ => Err(no_such_answer(&message, "configuration space")),
        }
    }

    /// Asks for a record of requests in flight (`VHOST_USER_GET_INFLIGHT_FD`): what it is, and its file.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::Refused`] if the back end made none.
    pub fn inflight(
        &mut self,
        num_queues: u16,
        queue_size: u16,
    ) -> Result<(Inflight, OwnedFd), Error> {
        let message = FrontMessage::GetInflightFd(Inflight {
            mmap_size: 0,
            mmap_offset: 0,
            num_queues,
            queue_size,
        });
        match self.ask(&message)? {
            Reply::Inflight(inflight, Some(fd)) if inflight.mmap_size > 0 => Ok((inflight, fd)),
            Reply::Inflight(..) => Err(Error::Refused {
                name: message.request().name(),
                value: 0,
            }),
            _ => Err(no_such_answer(&message, "record of requests in flight")),
        }
    }
}

impl AsFd for Front {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn no_such_answer(message: &FrontMessage, reply: &'static str) -> Error {
    Error::NoSuchAnswer {
        name: message.request().name(),
        reply,
    }
}
