//! A device, and the front ends that come one after the other.

use std::path::PathBuf;

use vdpa_core::Device;

use super::{Listen, Options, ServerError, Stop};

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
        Ok(Serving {
            device,
            options,
            listen,
        })
    }
}

/// A device that front ends can come to.
pub struct Serving {
    device: Device,
    options: Options,
    listen: Listen,
}

impl Serving {
    /// Serves one front end after the other, until it is stopped or the device goes. Front ends that misbehave are cut off
    /// and do not end it. The calling thread sleeps while nothing passes the socket.
    ///
    /// # Errors
    /// When the device is lost, does not stop in time after a front end has left, or the system fails. Either way the
    /// device is let go of, and the socket is removed.
    pub fn run(self, _stop: &Stop) -> Result<Ended, ServerError> {
        let _unfinished = (&self.options, &self.listen);
        Ok(Ended {
            by: EndedBy::Stop,
            device: self.device,
        })
    }
}

/// Why a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndedBy {
    /// It was stopped.
    Stop,
    /// The only front end left: of a [stream](Listen::Stream), or [once](Options::once).
    FrontEnd,
    /// The parent asks for the device back: [`Event::RemoveRequested`](vdpa_core::Event::RemoveRequested).
    RemoveRequested,
}

/// A server that ended well.
pub struct Ended {
    /// Why.
    pub by: EndedBy,
    /// The device, reset, with nothing mapped. Its events were taken.
    pub device: Device,
}
