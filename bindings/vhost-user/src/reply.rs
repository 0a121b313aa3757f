//! What comes back: replies, acknowledgements, nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::form::{Form, PayloadForm};
use crate::payload::{Config, Cursor, Inflight, Layout, Log, VringState};
use crate::{Error, Frame, Outgoing};

const NO_FD: u64 = 1 << 8;

/// An answer to a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reply {
    /// It was done. This is sent where an acknowledgement was asked for, and is a 0 then.
    Done,
    /// It was not done. This is sent where an acknowledgement was asked for, or where the reply has a way to say so; it is
    /// a number other than 0 then.
    Failed,
    /// The number that was asked for: features, how many queues, the status.
    Value(u64),
    /// Where a queue stands (`GET_VRING_BASE`).
    Vring(VringState),
    /// Bytes of the configuration space (`GET_CONFIG`).
    Config(Config),
    /// A record of requests in flight (`GET_INFLIGHT_FD`), and its file unless it has no bytes.
    Inflight(Inflight, Option<OwnedFd>),
    /// A descriptor, or that there is none: another channel for a device's state (`SET_DEVICE_STATE_FD`), a shared object
    /// (`GET_SHARED_OBJECT`, `SHARED_OBJECT_LOOKUP`), where pages are missing (`POSTCOPY_ADVISE`).
    Fd(Option<OwnedFd>),
    /// What this crate does not take apart.
    Bytes(Vec<u8>),
}

impl Reply {
    /// Which it is, for who reads an error.
    fn kind(&self) -> &'static str {
        match self {
            Self::Done => "acknowledgement",
            Self::Failed => "refusal",
            Self::Value(_) => "number",
            Self::Vring(_) => "state of a queue",
            Self::Config(_) => "configuration space",
            Self::Inflight(..) => "record of requests in flight",
            Self::Fd(_) => "descriptor",
            Self::Bytes(_) => "row of bytes",
        }
    }
}

/// What has to be sent back to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    /// What the reply carries, or `None` where there is at most an acknowledgement.
    reply: Option<PayloadForm>,
    most_fds: usize,
    /// What the reply to a log repeats: one front end reads it as the description that it sent, all others look at the
    /// header alone.
    log: Option<Log>,
}

impl Answer {
    pub(crate) fn of(form: &Form) -> Self {
        Self {
            name: form.name,
            number: form.number,
            reply: form.reply,
            most_fds: form.reply_fds,
            log: None,
        }
    }

    pub(crate) fn log(form: &Form, log: Log) -> Self {
        Self {
            reply: Some(PayloadForm::Log),
            log: Some(log),
            ..Self::of(form)
        }
    }

    /// Whether there is a reply whatever was negotiated.
    pub(crate) fn always(&self) -> bool {
        self.reply.is_some()
    }

    /// As it is sent.
    fn encode<'a>(&self, reply: &'a Reply) -> Result<Outgoing<'a>, Error> {
        let send = |payload: Vec<u8>, fd: Option<BorrowedFd<'a>>| {
            Ok(Outgoing {
                request: self.number,
                payload,
                fds: fd.into_iter().collect(),
            })
        };
        match (self.reply, reply) {
            (None, Reply::Done) => send(0u64.payload(), None),
            (None, Reply::Failed) => send(1u64.payload(), None),
            (Some(PayloadForm::Log), Reply::Done) => {
                send(self.log.map_or_else(Vec::new, |log| log.payload()), None)
            }
            (Some(PayloadForm::U64), Reply::Value(value)) => send(value.payload(), None),
            (Some(PayloadForm::U64), Reply::Fd(fd)) if self.most_fds > 0 => {
                let flag = if fd.is_some() { 0 } else { NO_FD };
                send(flag.payload(), fd.as_ref().map(AsFd::as_fd))
            }
            (Some(PayloadForm::U64), Reply::Done) => send(0u64.payload(), None),
            (Some(PayloadForm::U64), Reply::Failed) if self.most_fds > 0 => {
                send((NO_FD | 1).payload(), None)
            }
            (Some(PayloadForm::U64), Reply::Failed) => send(1u64.payload(), None),
            (Some(PayloadForm::VringState), Reply::Vring(state)) => send(state.payload(), None),
            (Some(PayloadForm::Config), Reply::Config(config)) => send(config.payload(), None),
            (Some(PayloadForm::Config | PayloadForm::Nothing), Reply::Failed) => {
                send(Vec::new(), None)
            }
            (Some(PayloadForm::Inflight), Reply::Inflight(inflight, fd)) => {
                send(inflight.payload(), fd.as_ref().map(AsFd::as_fd))
            }
            (Some(PayloadForm::Nothing | PayloadForm::Opaque), Reply::Fd(fd))
                if self.most_fds > 0 =>
            {
                send(Vec::new(), fd.as_ref().map(AsFd::as_fd))
            }
            (Some(PayloadForm::Opaque), Reply::Bytes(bytes)) => send(bytes.clone(), None),
            (_, other) => Err(Error::NoSuchAnswer {
                name: self.name,
                reply: other.kind(),
            }),
        }
    }

    /// Takes a reply apart that was due.
    pub(crate) fn decode(&self, frame: Frame) -> Result<Reply, Error> {
        let Frame {
            header,
            payload,
            mut fds,
        } = frame;
        if header.request != self.number {
            return Err(Error::WrongReply {
                name: self.name,
                got: header.request,
            });
        }
        header.expect(true)?;
        if fds.len() > self.most_fds {
            return Err(Error::Fds {
                name: self.name,
                have: fds.len(),
                least: 0,
                most: self.most_fds,
            });
        }
        let fd = fds.pop();
        let form = self.reply.unwrap_or(PayloadForm::U64);
        let refused = Error::Refused {
            name: self.name,
            value: 0,
        };
        match form {
            PayloadForm::Config if payload.is_empty() => return Err(refused),
            // No payload, a number and the description are all in use.
            PayloadForm::Log if payload.is_empty() || form.takes(payload.len()) => {
                return Ok(Reply::Done);
            }
            _ if form.takes(payload.len()) => {}
            _ => {
                return Err(Error::Payload {
                    name: self.name,
                    have: payload.len(),
                    want: form.lengths(),
                });
            }
        }
        let mut from = Cursor::new(self.name, form.lengths(), &payload);
        match (self.reply, form) {
            (None, _) => match from.u64()? {
                0 => Ok(Reply::Done),
                value => Err(Error::Refused {
                    name: self.name,
                    value,
                }),
            },
            (_, PayloadForm::U64) if self.most_fds > 0 => self.with_fd(from.u64()?, fd),
            (_, PayloadForm::U64) => Ok(Reply::Value(from.u64()?)),
            (_, PayloadForm::VringState) => VringState::read(&mut from).map(Reply::Vring),
            (_, PayloadForm::Config) => match Config::read(&mut from)? {
                config if config.bytes.is_empty() => Err(refused),
                config => Ok(Reply::Config(config)),
            },
            (_, PayloadForm::Inflight) => Ok(Reply::Inflight(Inflight::read(&mut from)?, fd)),
            (_, PayloadForm::Opaque) if self.most_fds == 0 => Ok(Reply::Bytes(payload)),
            _ => Ok(Reply::Fd(fd)),
        }
    }

    /// A number that says whether it was done and whether a descriptor comes with it, of which both have to be true.
    fn with_fd(&self, value: u64, fd: Option<OwnedFd>) -> Result<Reply, Error> {
        if value & !NO_FD != 0 {
            return Err(Error::Refused {
                name: self.name,
                value,
            });
        }
        Ok(Reply::Fd(fd))
    }
}

/// The right to answer one request, and what it asks for. Dropped without an answer, the peer waits in vain.
#[derive(Debug)]
#[must_use = "the peer may be waiting for an answer"]
pub struct Ticket {
    pub(crate) answer: Answer,
    /// Whether an acknowledgement was asked for, and is negotiated.
    pub(crate) acknowledged: bool,
}

impl Ticket {
    /// The request, as the specification calls it.
    pub fn name(&self) -> &'static str {
        self.answer.name
    }

    /// Whether the peer waits for something.
    pub fn is_awaited(&self) -> bool {
        self.answer.always() || self.acknowledged
    }

    /// Whether the reply can only be what was asked for: there is no way to say no, but to close the connection.
    pub fn cannot_refuse(&self) -> bool {
        self.answer.always() && self.answer.encode(&Reply::Failed).is_err()
    }

    /// As it is sent; `None` if nothing is.
    pub(crate) fn encode<'a>(&self, reply: &'a Reply) -> Result<Option<Outgoing<'a>>, Error> {
        match (self.is_awaited(), reply) {
            (false, Reply::Done | Reply::Failed) => Ok(None),
            _ => self.answer.encode(reply).map(Some),
        }
    }
}
