//! The configuration space: the back end's, or made here.
//!
//! The back end is always asked for all of it, from 0 on: some do not look at the offset, and one message shows it as it
//! stood at one moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vdpa_core::bits::net;
use vdpa_core::config::{self, Mac, NetConfig};
use vdpa_core::{DeviceType, Features};
use vdpa_vhost_user::payload::{Config as Piece, ConfigSpan, MAX_CONFIG};
use vdpa_vhost_user::{FrontMessage, Reply};

use crate::VhostError;
use crate::line::Line;

type Result<T, E = VhostError> = std::result::Result<T, E>;

/// The configuration space, and how often it changed.
pub(crate) struct Config {
    place: Place,
    seen: Mutex<Seen>,
}

/// What it was when it was last read. Nobody says when it changes but those who care to: it is seen.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    changes: u32,
}

/// Where the configuration is.
enum Place {
    /// With the back end: so many bytes.
    Theirs(u32),
    /// Here, since the back end has none.
    Ours(Vec<u8>),
}

impl Config {
    /// The back end's, as long as its features say, or as it answers to where its type is not known.
    pub(crate) fn theirs(line: &Line, device_type: DeviceType, offered: Features) -> Result<Self> {
        let known = config::length(device_type, offered);
        if !config::fields(device_type).is_empty() {
            return Ok(Self::at(Place::Theirs(known)));
        }
        // The longest that it answers to: some answer to whatever is asked, some to what they have.
        let most = u32::try_from(MAX_CONFIG).unwrap_or(0);
        if ask(line, most).map(Some).or_else(refused)?.is_some() {
            return Ok(Self::at(Place::Theirs(most)));
        }
        let (mut has, mut lacks) = (0, most);
        while lacks.saturating_sub(has) > 1 {
            let middle = has.midpoint(lacks);
            match ask(line, middle).map(Some).or_else(refused)? {
                Some(_) => has = middle,
                None => lacks = middle,
            }
        }
        Ok(Self::at(Place::Theirs(has)))
    }

    /// That of a network device whose back end has none: its address, if it is to have one.
    pub(crate) fn ours(mac: Option<Mac>) -> (Self, Features) {
        match mac {
            None => (Self::at(Place::Ours(Vec::new())), Features::NONE),
            Some(mac) => {
                let bytes = NetConfig::new().with_mac(mac).to_bytes();
                let len = usize::try_from(config::length(DeviceType::Net, net::MAC.mask()));
                let bytes = bytes.iter().copied().take(len.unwrap_or(0));
                (Self::at(Place::Ours(bytes.collect())), net::MAC.mask())
            }
        }
    }

    pub(crate) fn len(&self) -> u32 {
        match &self.place {
            Place::Theirs(len) => *len,
            Place::Ours(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        }
    }

    /// * `at`, `to`: within [`len`](Self::len)
    pub(crate) fn read(&self, line: &Line, at: u32, to: &mut [u8]) -> Result<()> {
        line.check()?;
        if to.is_empty() {
            return Ok(());
        }
        let whole = self.whole(line)?;
        let begin = usize::try_from(at).unwrap_or(usize::MAX);
        let from = whole.get(begin..).and_then(|from| from.get(..to.len()));
        if let Some(from) = from {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    /// A number that changes once a changed value can have been read.
    pub(crate) fn generation(&self, line: &Line) -> Result<u32> {
        line.check()?;
        self.whole(line)?;
        Ok(self.seen().changes)
    }

    fn whole(&self, line: &Line) -> Result<Vec<u8>> {
        let bytes = match &self.place {
            Place::Theirs(0) => Vec::new(),
            Place::Theirs(len) => ask(line, *len)?,
            Place::Ours(bytes) => bytes.clone(),
        };
        let mut seen = self.seen();
        if seen.bytes != bytes {
            seen.changes = seen.changes.wrapping_add(1);
            seen.bytes.clone_from(&bytes);
        }
        Ok(bytes)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            seen: Mutex::default(),
        }
    }

    /// Writes what may be written; the rest is left as it is.
    pub(crate) fn write(
        &self,
        line: &Line,
        device_type: DeviceType,
        at: u32,
        from: &[u8],
    ) -> Result<()> {
        line.check()?;
        if let Place::Ours(_) = self.place {
            return Ok(());
        }
        for field in config::fields(device_type) {
            if field.writable() != config::Writable::ByDriver {
                continue;
            }
            // Field by field: what is read-only is refused by some, and with it the rest of the message.
            let begin = field.offset().checked_sub(at);
            let begin = begin.and_then(|begin| usize::try_from(begin).ok());
            let width = usize::try_from(field.width()).unwrap_or(usize::MAX);
            let bytes = begin.and_then(|begin| from.get(begin..)?.get(..width));
            if let Some(bytes) = bytes {
                let piece = Piece {
                    offset: field.offset(),
                    flags: 0,
                    bytes: bytes.to_vec(),
                };
                line.ask(&FrontMessage::SetConfig(piece))?;
            }
        }
        if config::fields(device_type).is_empty() {
            let bytes = from.to_vec();
            let piece = Piece {
                offset: at,
                flags: 0,
                bytes,
            };
            line.ask(&FrontMessage::SetConfig(piece))?;
        }
        Ok(())
    }
}

/// The first `size` bytes.
fn ask(line: &Line, size: u32) -> Result<Vec<u8>> {
    let message = FrontMessage::GetConfig(ConfigSpan {
        offset: 0,
        size,
        flags: 0,
    });
    let wanted = usize::try_from(size).unwrap_or(usize::MAX);
    let request = message.request().name();
    let answer = line.ask(&message).map_err(|error| match error {
        VhostError::Refused { path, .. } => VhostError::NoConfig {
            path,
            request,
            size,
        },
        other => other,
    })?;
    match answer {
        Reply::Config(Piece { bytes, .. }) if bytes.len() == wanted => Ok(bytes),
        _ => Err(line.no_such_answer(request)),
    }
}

/// A refusal is an answer.
fn refused<T>(error: VhostError) -> Result<Option<T>> {
    match error {
        VhostError::NoConfig { .. } => Ok(None),
        other => Err(other),
    }
}
