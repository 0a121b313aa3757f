//! A device, and the front ends that come one after the other.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use vdpa_core::{Device, Error, Event, Events};

use super::door::{self, Door};
use super::error::is_lost;
use super::front::{FrontEnd, Left};
use super::{Listen, Notice, Options, ServerError, Stop, wait};
use crate::serve::Served;

/// How long to wait before a front end is let in for which there was no descriptor, or no memory.
const SCARCE: Duration = Duration::from_millis(100);

/// A device that is to be served.
pub struct Server {
    device: Device,
    options: Options,
}

impl Server {
    /// * `device`: nobody drives it, and its events were not taken
    pub fn new(device: Device, options: Options) -> Self {
        Self { device, options }
    }

    /// Front ends connect to a socket at `path`; see [`Listen::Bind`].
    ///
    /// # Errors
    /// As for [`listen`](Self::listen).
    pub fn bind(self, path: impl Into<PathBuf>) -> Result<Serving, ServerError> {
        self.listen(Listen::bind(path))
    }

    /// The front end listens at `path`; see [`Listen::Connect`].
    ///
    /// # Errors
    /// As for [`listen`](Self::listen).
    pub fn connect(self, path: impl Into<PathBuf>) -> Result<Serving, ServerError> {
        self.listen(Listen::connect(path))
    }

    /// Meets front ends there. A front end may connect from now on, and is served by [`Serving::run`].
    ///
    /// # Errors
    /// When the socket cannot be had: in use, not a socket, no permission, too long. When the events of the device were
    /// taken, or it is lost.
    pub fn listen(self, listen: Listen) -> Result<Serving, ServerError> {
        let Self { device, options } = self;
        let at = listen.to_string();
        let door = Door::open(listen)?;
        // Front ends can cut the files that they give.
        vdpa_mem::survive_shrinking().map_err(Error::from)?;
        let shown = Shown::new(device, &options)?;
        Ok(Serving {
            shown: Some(shown),
            options,
            door,
            at,
            not_before: None,
        })
    }
}

/// A device, and what it reports.
struct Shown {
    served: Served,
    events: Events,
}

impl Shown {
    fn new(device: Device, options: &Options) -> Result<Self, Error> {
        let events = device.events()?;
        let served = Served::new(device, options.hidden, options.patience)?;
        Ok(Self { served, events })
    }
}

/// A device that front ends can come to.
pub struct Serving {
    /// `None` only while another device takes its place.
    shown: Option<Shown>,
    options: Options,
    door: Door,
    /// Where, for people.
    at: String,
    /// When to look for a front end again, where none comes by himself or none can be let in: nor too soon after one that
    /// left at once.
    not_before: Option<Instant>,
}

impl Serving {
    /// Serves one front end after the other, until it is stopped or the device goes. Front ends that misbehave are cut off
    /// and do not end it. The calling thread sleeps while nothing passes the socket. A front end that reads no answers has
    /// it wait for up to five seconds before it is cut off, and a stop is heard that much later.
    ///
    /// # Errors
    /// When the device is lost, does not stop in time after a front end has left, or the system fails. Either way the
    /// device is let go of, and the socket is removed.
    pub fn run(mut self, stop: &Stop) -> Result<Ended, ServerError> {
        self.options.tell(&Notice::Listening { at: &self.at });
        loop {
            let mut shown = match self.shown.take() {
                Some(shown) => shown,
                None => self.reopen()?,
            };
            let after = match self.next(&shown.events, stop)? {
                Next::Ended(by) => After::Ended(by),
                Next::FrontEnd(stream) => self.serve(&mut shown, stream, stop)?,
            };
            match after {
                After::Next => self.shown = Some(shown),
                // There is no next one for whom another device would be made.
                After::Lost if stop.is_set() => {
                    let (by, device) = (EndedBy::Stop, shown.served.into_device());
                    return Ok(Ended { by, device });
                }
                After::Lost => {}
                After::Ended(by) => {
                    let device = shown.served.into_device();
                    return Ok(Ended { by, device });
                }
            }
        }
    }

    /// Another device, in the place of one that is lost.
    fn reopen(&self) -> Result<Shown, ServerError> {
        match &self.options.reopen {
            None => Err(Error::Broken.into()),
            Some(open) => Ok(Shown::new(open()?, &self.options)?),
        }
    }

    /// Waits for a front end.
    fn next(&mut self, events: &Events, stop: &Stop) -> Result<Next, ServerError> {
        let mut told = false;
        loop {
            if self.door.is_closed() {
                return Ok(Next::Ended(EndedBy::FrontEnd));
            }
            let early = self.not_before.filter(|then| Instant::now() < *then);
            let there = match early {
                Some(_) => Ok(None),
                None => self.door.look(),
            };
            let scarce = matches!(&there, Err(why) if door::is_scarcity(why)).then_some(SCARCE);
            let again = scarce.or(self.door.again());
            self.not_before = early.or(again.and_then(|again| Instant::now().checked_add(again)));
            match there {
                Ok(Some(stream)) => return Ok(Next::FrontEnd(stream)),
                Ok(None) => {}
                Err(why) if again.is_some() => {
                    if !told {
                        let (at, why) = (self.at.as_str(), &why);
                        self.options.tell(&Notice::Waiting { at, why });
                        told = true;
                    }
                }
                Err(source) => {
                    let what = "take a connection";
                    return Err(ServerError::System { what, source });
                }
            }
            let ready = PollFlags::POLLIN;
            // Who cannot be let in yet would ring all the time.
            let bell = self.door.bell().filter(|_| self.not_before.is_none());
            let bell = bell.map(|bell| (bell, ready));
            let fixed = |fd| Some((fd, ready));
            let fds = [fixed(stop.as_fd()), fixed(events.as_fd()), bell];
            let [stopped, event, _] = wait::any(fds, self.not_before)?;
            if stopped {
                return Ok(Next::Ended(EndedBy::Stop));
            }
            if event && let Some(by) = self.hear(events)? {
                return Ok(Next::Ended(by));
            }
        }
    }

    /// What the device reports while nobody drives it, and what it wanted of the front end of before.
    fn hear(&self, events: &Events) -> Result<Option<EndedBy>, ServerError> {
        while let Some(event) = events.try_next() {
            if matches!(event, Event::Miss { .. }) {
                continue;
            }
            self.options.tell(&Notice::Device { event: &event });
            match event {
                Event::RemoveRequested => return Ok(Some(EndedBy::RemoveRequested)),
                Event::Broken { .. } => return Err(Error::Broken.into()),
                Event::Gone => return Err(Error::Gone.into()),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The device is gone, which whoever drove it saw first.
    fn lost(&self, events: &Events) -> ServerError {
        // It may say so by now.
        match self.hear(events) {
            Err(why) => why,
            Ok(_) => {
                let event = &Event::Gone;
                self.options.tell(&Notice::Device { event });
                Error::Gone.into()
            }
        }
    }

    /// Serves a front end, and lets go of all that it gave.
    fn serve(
        &self,
        shown: &mut Shown,
        stream: UnixStream,
        stop: &Stop,
    ) -> Result<After, ServerError> {
        let peer = door::peer(&stream);
        self.options.tell(&Notice::Connected { peer });
        let Shown { served, events } = shown;
        let left = FrontEnd::new(stream, served, &self.options).serve(stop, events);
        // Whatever it was: nothing of it stays. What a broken device still holds stays with it.
        let released = served.release();
        let left = left?;
        if let Left::CutOff(why) = &left
            && why.is_of_a_lost_device()
        {
            return Err(self.lost(events));
        }
        match &left {
            Left::CutOff(why) => self.options.tell(&Notice::CutOff { why }),
            _ => self.options.tell(&Notice::Disconnected),
        }
        if served.is_broken() {
            return Ok(match self.options.once {
                true => After::Ended(EndedBy::FrontEnd),
                false => After::Lost,
            });
        }
        match released {
            // A front end holds it up, by memory that does not answer, say. It may come to rest never, or soon.
            Err(Error::Timeout { .. })
                if self.options.reopen.is_some() && !matches!(left, Left::Stop) =>
            {
                return Ok(After::Lost);
            }
            Err(error) if is_lost(&error) => return Err(self.lost(events)),
            released => released?,
        }
        if let Some(by) = self.hear(events)? {
            return Ok(After::Ended(by));
        }
        Ok(match left {
            Left::Stop => After::Ended(EndedBy::Stop),
            Left::RemoveRequested => After::Ended(EndedBy::RemoveRequested),
            Left::Disconnected | Left::CutOff(_) if self.options.once => {
                After::Ended(EndedBy::FrontEnd)
            }
            Left::Disconnected | Left::CutOff(_) => After::Next,
        })
    }
}

/// What comes next.
enum Next {
    FrontEnd(UnixStream),
    Ended(EndedBy),
}

/// What becomes of the server once a front end has left.
enum After {
    /// It serves the next one.
    Next,
    /// The device is broken, or does not come to rest: another one is needed.
    Lost,
    Ended(EndedBy),
}

/// Why a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndedBy {
    /// It was stopped.
    Stop,
    /// The only front end left: of a [stream](Listen::Stream), or [once](Options::once).
    FrontEnd,
    /// The parent asks for the device back: [`Event::RemoveRequested`].
    RemoveRequested,
}

/// A server that ended well.
pub struct Ended {
    /// Why.
    pub by: EndedBy,
    /// The device, reset, with nothing mapped; or one that the last front end broke. Its events were taken.
    pub device: Device,
}
