//! Where a message begins: number, flags, length.
//!
//! ```text
//!     0          4        8       12
//!     ├ request ─┼ flags ─┼ size ─┼─ payload: size bytes ─
//!                  bits 0-1 version (1) · 2 reply · 3 need_reply
//! ```

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::Error;

/// How many bytes a header has.
pub const HEADER_LEN: usize = 12;

/// How many bytes of payload a message may announce. No message has more; what is not known is read up to here, so that
/// it can be told by its number.
pub const MAX_PAYLOAD: usize = 4096;

/// How many descriptors a message may bring: those of a full memory table.
pub const MAX_FDS: usize = 8;

const VERSION_MASK: u32 = 0x3;
const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// A header.
///
/// # Spec
/// vhost-user, "Message Specification", "Header".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The number of the request, of a reply that of what it answers.
    pub request: u32,
    /// All flags, the version included.
    pub flags: u32,
    /// How many bytes the payload has.
    pub size: u32,
}

impl Header {
    /// That of a request.
    pub fn request(request: u32, need_reply: bool, size: u32) -> Self {
        let flags = if need_reply {
            VERSION | NEED_REPLY
        } else {
            VERSION
        };
        Self {
            request,
            flags,
            size,
        }
    }

    /// That of a reply.
    pub fn reply(request: u32, size: u32) -> Self {
        Self {
            request,
            flags: VERSION | REPLY,
            size,
        }
    }

    /// Whether it begins a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// Whether the sender waits for an acknowledgement, where `REPLY_ACK` is negotiated.
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// As it goes over the socket.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields = [self.request, self.flags, self.size];
        for (to, field) in bytes.chunks_exact_mut(4).zip(fields) {
            to.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    /// From what came over the socket.
    ///
    /// # Errors
    /// [`Error::Version`] and [`Error::Oversize`]: what follows cannot be relied on, or is not worth waiting for.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        let mut fields = bytes
            .chunks_exact(4)
            .map(|four| four.try_into().map_or(0, u32::from_ne_bytes));
        let mut next = || fields.next().unwrap_or(0);
        let header = Self {
            request: next(),
            flags: next(),
            size: next(),
        };
        let version = header.flags & VERSION_MASK;
        if version != VERSION {
            return Err(Error::Version {
                request: header.request,
                version,
            });
        }
        if usize::try_from(header.size).map_or(true, |size| size > MAX_PAYLOAD) {
            return Err(Error::Oversize {
                request: header.request,
                size: header.size,
                most: MAX_PAYLOAD,
            });
        }
        Ok(header)
    }

    /// Makes sure that this begins a request (`reply` is false) or a reply, and has no flag that is not defined.
    pub(crate) fn expect(&self, reply: bool) -> Result<(), Error> {
        let what = if self.flags & !(VERSION_MASK | REPLY | NEED_REPLY) != 0 {
            "are not defined"
        } else if self.is_reply() && !reply {
            "make it a reply, where a request has to come"
        } else if !self.is_reply() && reply {
            "make it a request, where a reply was due"
        } else {
            return Ok(());
        };
        Err(Error::Flags {
            request: self.request,
            flags: self.flags,
            what,
        })
    }
}

/// A message that was received: not yet taken apart.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its payload, as long as the header says.
    pub payload: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// A message that is to be sent, with descriptors of whoever sends it.
#[derive(Debug)]
pub struct Outgoing<'fd> {
    /// The number of the request, of a reply that of what it answers.
    pub request: u32,
    /// Its payload.
    pub payload: Vec<u8>,
    /// What goes with it.
    pub fds: Vec<BorrowedFd<'fd>>,
}

impl Outgoing<'_> {
    /// How many bytes its payload has.
    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX)
    }
}
