//! The connection to a back end: requests, in the order they are made, and their answers, in the same order.
//!
//! ```text
//!   send ─▶ Ticket ─┬─ poll     never waits                  begin and poll of the contract
//!                   └─ finish   waits, until the deadline    what the contract has done when it returns
//! ```
//!
//! Answers come in the order of the requests, whoever asks first: each that comes while another is waited for is kept for
//! its ticket. A back end that does not answer in time, or not to what it was asked, is given up: which answer comes next
//! can no longer be told. The socket is shut down then, and every request from there on fails.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use vdpa_core::{Event, EventSink};
use vdpa_vhost_user::{Connection, Error, Front, FrontMessage, Pending, Reply};

use crate::VhostError;

type Result<T, E = VhostError> = std::result::Result<T, E>;

/// The connection. Requests of several threads take turns.
pub(crate) struct Line {
    path: PathBuf,
    timeout: Duration,
    /// The same socket, for what is done while an answer is waited for.
    socket: UnixStream,
    sink: OnceLock<Arc<dyn EventSink>>,
    /// How the connection ended, once it has.
    loss: OnceLock<Loss>,
    state: Mutex<State>,
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// It was closed: the device is not there any more.
    Closed,
    /// It was given up, with the back end perhaps still there.
    GivenUp {
        /// What the back end did.
        why: String,
    },
}

impl Loss {
    /// What the owner of the device is told.
    fn event(&self) -> Event {
        match self {
            Self::Closed => Event::Gone,
            Self::GivenUp { why } => Event::Broken { why: why.clone() },
        }
    }
}

struct State {
    front: Front,
    /// What was sent and is not answered.
    owed: VecDeque<Owed>,
    /// Answers that came before their ticket was asked.
    came: BTreeMap<u64, Result<Reply>>,
    next: u64,
}

struct Owed {
    number: u64,
    request: &'static str,
    pending: Pending,
    by: Instant,
}

/// The right to one answer.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Line {
    /// * `timeout`: how long an answer may take
    ///
    /// # Errors
    /// When the system has no second descriptor for the socket.
    pub(crate) fn new(path: &Path, socket: UnixStream, timeout: Duration) -> Result<Self> {
        let twin = socket.try_clone().map_err(|source| VhostError::System {
            path: path.to_owned(),
            what: "duplicate its socket",
            source,
        })?;
        let mut connection = Connection::new(socket);
        connection.set_patience(timeout);
        Ok(Self {
            path: path.to_owned(),
            timeout,
            socket: twin,
            sink: OnceLock::new(),
            loss: OnceLock::new(),
            state: Mutex::new(State {
                front: Front::new(connection),
                owed: VecDeque::new(),
                came: BTreeMap::new(),
                next: 0,
            }),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, to be asked whether the other side has closed it.
    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Where the end of the connection is told of.
    pub(crate) fn report_to(&self, sink: Arc<dyn EventSink>) {
        if self.sink.set(sink).is_ok()
            && let (Some(loss), Some(sink)) = (self.loss(), self.sink.get())
        {
            // Before there was anybody to tell.
            sink.raise(loss.event());
        }
    }

    /// How the connection ended, if it has.
    pub(crate) fn loss(&self) -> Option<&Loss> {
        self.loss.get()
    }

    /// # Errors
    /// When the connection has ended.
    pub(crate) fn check(&self) -> Result<()> {
        match self.loss() {
            None => Ok(()),
            Some(_) => Err(self.gone()),
        }
    }

    /// Ends the connection, and tells why, unless it has ended before.
    pub(crate) fn lose(&self, loss: Loss) {
        let event = loss.event();
        if self.loss.set(loss).is_err() {
            return;
        }
        // Whoever waits for an answer is woken. A socket that is not connected any more is as good.
        let _unconnected = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(sink) = self.sink.get() {
            sink.raise(event);
        }
    }

    /// Whether each request is acknowledged.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.state().front.is_acknowledged()
    }

    /// Sends a request. It waits only for a back end that does not read, and for the deadline of its answers at most.
    ///
    /// # Errors
    /// When the connection has ended, or does so here.
    pub(crate) fn send(&self, message: &FrontMessage) -> Result<Ticket> {
        self.check()?;
        let mut state = self.state();
        let sent = state.send(message, self.timeout);
        drop(state);
        sent.map(Ticket)
            .map_err(|e| self.failed(request(message), e))
    }

    /// The answer, if it has come. Never waits. An answer is given once.
    ///
    /// # Errors
    /// [`VhostError::Refused`]; when the connection has ended, or does so here: the deadline has passed.
    pub(crate) fn poll(&self, ticket: &Ticket) -> Result<Poll<Reply>> {
        let mut state = self.state();
        loop {
            if let Some(reply) = state.came.remove(&ticket.0) {
                return reply.map(Poll::Ready);
            }
            self.check()?;
            let Some(owed) = state.owed.front() else {
                // It was given before.
                return Ok(Poll::Pending);
            };
            let (request, late) = (owed.request, Instant::now() >= owed.by);
            match state.take(&self.path, None) {
                Ok(true) => {}
                Ok(false) if late => {
                    drop(state);
                    return Err(self.failed(request, Error::TimedOut));
                }
                Ok(false) => return Ok(Poll::Pending),
                Err(e) => {
                    drop(state);
                    return Err(self.failed(request, e));
                }
            }
        }
    }

    /// The answer. Waits for it until its deadline.
    ///
    /// # Errors
    /// As for [`poll`](Self::poll).
    pub(crate) fn finish(&self, ticket: &Ticket) -> Result<Reply> {
        let mut state = self.state();
        loop {
            if let Some(reply) = state.came.remove(&ticket.0) {
                return reply;
            }
            self.check()?;
            let Some(owed) = state.owed.front() else {
                return Ok(Reply::Done);
            };
            let (request, by) = (owed.request, owed.by);
            if let Err(e) = state.take(&self.path, Some(by)) {
                drop(state);
                return Err(self.failed(request, e));
            }
        }
    }

    /// Sends a request and waits for its answer, where it has one or is acknowledged.
    ///
    /// # Errors
    /// As for [`send`](Self::send) and [`finish`](Self::finish).
    pub(crate) fn ask(&self, message: &FrontMessage) -> Result<Reply> {
        let ticket = self.send(message)?;
        self.finish(&ticket)
    }

    /// Asks for a number.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub(crate) fn value(&self, message: &FrontMessage) -> Result<u64> {
        match self.ask(message)? {
            Reply::Value(value) => Ok(value),
            _ => Err(self.no_such_answer(request(message))),
        }
    }

    /// Makes all of these requests, one after the other, and waits once. The first that was refused is told of; what came
    /// after it was asked for all the same.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub(crate) fn all(&self, messages: &[FrontMessage]) -> Result<()> {
        let tickets: Result<Vec<_>> = messages.iter().map(|message| self.send(message)).collect();
        let mut outcome = Ok(());
        for ticket in tickets? {
            let one = self.finish(&ticket);
            outcome = outcome.and(one.map(drop));
        }
        outcome
    }

    /// On return all that was asked for before has been looked at, acknowledged or not.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub(crate) fn settle(&self) -> Result<()> {
        match self.is_acknowledged() {
            true => Ok(()),
            false => self.value(&FrontMessage::GetFeatures).map(drop),
        }
    }

    /// An answer of a kind that the request does not have. The connection is given up.
    pub(crate) fn no_such_answer(&self, request: &'static str) -> VhostError {
        let reply = "something else";
        self.failed(
            request,
            Error::NoSuchAnswer {
                name: request,
                reply,
            },
        )
    }

    /// Makes an error of a system call.
    pub(crate) fn system(
        &self,
        what: &'static str,
    ) -> impl FnOnce(io::Error) -> VhostError + use<> {
        let path = self.path.clone();
        move |source| VhostError::System { path, what, source }
    }

    /// What went wrong with the connection: it is of no use after that. Not to be called with the state locked.
    fn failed(&self, request: &'static str, error: Error) -> VhostError {
        let path = self.path.clone();
        let ended = matches!(
            error,
            Error::Closed { .. }
                | Error::Io {
                    errno: nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET,
                    ..
                }
        );
        let error = match error {
            _ if ended || self.loss().is_some() => {
                self.lose(Loss::Closed);
                return VhostError::Gone { path };
            }
            Error::TimedOut | Error::Stalled { .. } => VhostError::Silent {
                path,
                request,
                seconds: self.timeout.as_secs(),
            },
            other => VhostError::Answer {
                path,
                request,
                why: other.to_string(),
            },
        };
        tracing::warn!("{error}");
        let why = error.to_string();
        self.lose(Loss::GivenUp { why });
        error
    }

    fn gone(&self) -> VhostError {
        VhostError::Gone {
            path: self.path.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, message: &FrontMessage, timeout: Duration) -> Result<u64, Error> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let pending = self.front.begin(message)?;
        let now = Instant::now();
        self.owed.push_back(Owed {
            number,
            request: request(message),
            pending,
            by: now.checked_add(timeout).unwrap_or(now),
        });
        Ok(number)
    }

    /// Takes the answer that is due next: if it is there, or until then. `false`: it is not there.
    fn take(&mut self, path: &Path, until: Option<Instant>) -> Result<bool, Error> {
        let Some(owed) = self.owed.front() else {
            return Ok(false);
        };
        let reply = match until {
            Some(_) => self.front.finish(&owed.pending, until).map(Some),
            None => self.front.poll_finish(&owed.pending),
        };
        let reply = match reply {
            Ok(None) => return Ok(false),
            Ok(Some(reply)) => Ok(reply),
            Err(Error::Refused { name, value }) => Err(VhostError::Refused {
                path: path.to_owned(),
                request: name,
                code: value,
            }),
            Err(e) => return Err(e),
        };
        if let Some(owed) = self.owed.pop_front() {
            self.came.insert(owed.number, reply);
        }
        Ok(true)
    }
}

fn request(message: &FrontMessage) -> &'static str {
    message.request().name()
}
