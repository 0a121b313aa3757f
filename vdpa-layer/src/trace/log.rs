//! What is told, and at which level.

use std::fmt;
use std::time::Instant;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use vdpa_core::{Event, Result};

/// The target of everything that is told.
pub(crate) const TARGET: &str = "vdpa";

/// An event at a level that is known only at run time: each level needs a place of its own.
macro_rules! tell {
    ($level:expr, $($field:tt)*) => {
        match $level {
            Level::ERROR => tracing::event!(target: TARGET, Level::ERROR, $($field)*),
            Level::WARN => tracing::event!(target: TARGET, Level::WARN, $($field)*),
            Level::INFO => tracing::event!(target: TARGET, Level::INFO, $($field)*),
            Level::DEBUG => tracing::event!(target: TARGET, Level::DEBUG, $($field)*),
            _ => tracing::event!(target: TARGET, Level::TRACE, $($field)*),
        }
    };
}

/// Whether anybody listens at this level now.
pub(crate) fn is_heard(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
        Level::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
        _ => tracing::enabled!(target: TARGET, Level::TRACE),
    }
}

/// What is told of one device.
pub(crate) struct Log {
    device: String,
    most: LevelFilter,
}

impl Log {
    pub(crate) fn new(device: &str, most: LevelFilter) -> Self {
        Self {
            device: device.to_owned(),
            most,
        }
    }

    /// Whether something at this level is told.
    pub(crate) fn is_on(&self, level: Level) -> bool {
        level <= self.most && is_heard(level)
    }

    /// Makes a contract call and tells how it came out: at `level`, or at INFO when it fails.
    ///
    /// * `show`: the value of a call that does not fail
    pub(crate) fn call<T>(
        &self,
        level: Level,
        call: &'static str,
        arguments: fmt::Arguments<'_>,
        show: impl FnOnce(&T) -> String,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let failing = level.min(Level::INFO);
        if !self.is_on(level) && !self.is_on(failing) {
            return make();
        }
        let begun = Instant::now();
        let made = make();
        let duration_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (level, outcome) = match &made {
            Ok(value) => (level, show(value)),
            Err(e) => (failing, format!("error: {e}")),
        };
        if self.is_on(level) {
            let device = self.device.as_str();
            tell!(level, device, call, %arguments, outcome, duration_us);
        }
        made
    }

    /// Tells of a contract call that cannot fail.
    pub(crate) fn said(&self, level: Level, call: &'static str, outcome: fmt::Arguments<'_>) {
        if self.is_on(level) {
            let device = self.device.as_str();
            tell!(level, device, call, %outcome);
        }
    }

    /// Tells of an event that the device raised.
    pub(crate) fn event(&self, event: &Event) {
        let level = match event {
            Event::Config => Level::INFO,
            Event::Miss { .. } => Level::DEBUG,
            _ => Level::WARN,
        };
        if self.is_on(level) {
            let device = self.device.as_str();
            tell!(level, device, ?event);
        }
    }

    /// Tells of a kick.
    pub(crate) fn kick(&self, queue: u16, data: u32) {
        if self.is_on(Level::TRACE) {
            tell!(
                Level::TRACE,
                device = self.device.as_str(),
                queue,
                data,
                "kick"
            );
        }
    }

    /// Tells of a call.
    pub(crate) fn called(&self, queue: u16) {
        if self.is_on(Level::TRACE) {
            tell!(Level::TRACE, device = self.device.as_str(), queue, "call");
        }
    }
}
