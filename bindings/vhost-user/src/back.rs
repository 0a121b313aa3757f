//! The back end's half: requests come, answers go.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::reply::{Reply, Ticket};
use crate::{Connection, Error, Frame, FrontMessage, ProtocolFeatures};

/// A front end, as a back end sees it.
#[derive(Debug)]
pub struct Back {
    connection: Connection,
    features: ProtocolFeatures,
}

/// A request that came, and the right to answer it.
#[derive(Debug)]
pub struct Received {
    /// What is asked for.
    pub message: FrontMessage,
    /// To be answered with [`Back::answer`], whether or not something is sent then.
    pub ticket: Ticket,
}

impl Back {
    /// Over a connection that a front end made, or took.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            features: ProtocolFeatures::empty(),
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, to set its patience.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// What the front end took by `SET_PROTOCOL_FEATURES`, as it came.
    pub fn protocol_features(&self) -> ProtocolFeatures {
        self.features
    }

    /// The next request, if it is there. It never waits.
    ///
    /// # Errors
    /// As [`Connection::poll_receive`] and [`FrontMessage::decode`].
    pub fn poll_receive(&mut self) -> Result<Option<Received>, Error> {
        match self.connection.poll_receive()? {
            Some(frame) => self.received(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the next request, until `deadline` if there is one.
    ///
    /// # Errors
    /// As [`Connection::receive`] and [`FrontMessage::decode`].
    pub fn receive(&mut self, deadline: Option<Instant>) -> Result<Received, Error> {
        let frame = self.connection.receive(deadline)?;
        self.received(frame)
    }

    fn received(&mut self, frame: Frame) -> Result<Received, Error> {
        let needs_reply = frame.header.needs_reply();
        let message = FrontMessage::decode(frame)?;
        if let FrontMessage::SetProtocolFeatures(features) = &message {
            self.features = *features;
        }
        let ticket = Ticket {
            answer: message.answer(),
            acknowledged: needs_reply && self.features.contains(ProtocolFeatures::REPLY_ACK),
        };
        Ok(Received { message, ticket })
    }

    /// Answers a request. [`Reply::Done`] and [`Reply::Failed`] are right for every request that need not be answered, and
    /// are sent only if the front end waits for them.
    ///
    /// # Errors
    /// [`Error::NoSuchAnswer`] if this request has another answer, with nothing sent; as [`Connection::send`].
    pub fn answer(&mut self, ticket: Ticket, reply: &Reply) -> Result<(), Error> {
        self.connection.answer(ticket, reply)
    }
}

impl AsFd for Back {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
