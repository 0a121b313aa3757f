//! The layer that tells the `tracing` crate what goes on between a device and its users.
//!
//! | level | what is told |
//! |---|---|
//! | WARN | NEEDS_RESET, faults, a device that is broken or gone |
//! | INFO | changes of the configuration; contract calls that fail |
//! | DEBUG | contract calls |
//! | TRACE | calls that are made again and again until something is ready; kicks, calls |
//!
//! The target is `vdpa`. The fields of a contract call are `device`, `call`, `arguments`, `outcome` and `duration_us`; of
//! an event, `device` and `event`; of a kick or a call, `device` and `queue`, with `data` for a kick. `info` and `caps`
//! are not told of: they answer the same always.

mod caps;
mod log;

use std::sync::{Arc, Mutex, OnceLock};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use vdpa_core::{
    Call, CallCell, Caps, DeviceInfo, DeviceSpec, Doorbell, Event, EventSink, Features, Host, Key,
    Kick, Layer, MgmtDevice, QueueConfig, QueueIndex, QueueLimits, Relayed, Result, Status,
    VdpaDevice, Wrap,
};

use crate::line::{self, Relays, lock};
use log::Log;

/// A device of which everything is told.
pub struct Trace {
    below: Arc<dyn VdpaDevice>,
    log: Arc<Log>,
    host: OnceLock<Host>,
    /// What had to be relayed, by queue.
    relays: Mutex<Vec<Relays>>,
}

impl Trace {
    /// Tells of `below`.
    ///
    /// * `most`: nothing beyond this level is told. Kicks and calls are led through the layer only if somebody listens
    ///   at TRACE when their queue is started
    pub fn new(below: Arc<dyn VdpaDevice>, most: LevelFilter) -> Self {
        let info = below.info();
        Self {
            log: Arc::new(Log::new(&info.name, most)),
            host: OnceLock::new(),
            relays: Mutex::new((0..info.queues).map(|_| Relays::default()).collect()),
            below,
        }
    }

    /// What was relayed for `q` until now, to be dropped.
    fn take_relays(&self, q: QueueIndex) -> Relays {
        self.with_relays(q, std::mem::take)
    }

    fn with_relays<T: Default>(&self, q: QueueIndex, with: impl FnOnce(&mut Relays) -> T) -> T {
        let mut relays = lock(&self.relays);
        relays
            .get_mut(usize::from(q.get()))
            .map(with)
            .unwrap_or_default()
    }

    /// The call, told of, as the device below can make it.
    fn told(&self, q: QueueIndex, call: Call) -> Result<(Call, Option<Relayed>)> {
        let Some(host) = self.host.get().filter(|_| self.log.is_on(Level::TRACE)) else {
            return Ok((call, None));
        };
        if matches!(call, Call::None) {
            return Ok((call, None));
        }
        let log = Arc::clone(&self.log);
        // A cell, for a closure that panics: it is to be called once.
        let cell = CallCell::new(call);
        let told = Call::from_fn(move || {
            log.called(q.get());
            cell.raise();
        });
        line::fit(self.below.info(), host, told)
    }
}

fn done((): &()) -> String {
    "done".to_owned()
}

fn debug<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:?}")
}

/// Events, told of on their way.
struct Sink {
    log: Arc<Log>,
    to: Arc<dyn EventSink>,
}

impl EventSink for Sink {
    fn raise(&self, event: Event) {
        self.log.event(&event);
        self.to.raise(event);
    }
}

impl VdpaDevice for Trace {
    fn info(&self) -> &DeviceInfo {
        self.below.info()
    }

    fn attach(&self, host: Host) -> Result<()> {
        let _again = self.host.set(host.clone());
        let host = Host {
            events: Arc::new(Sink {
                log: Arc::clone(&self.log),
                to: host.events,
            }),
            ..host
        };
        let make = || self.below.attach(host);
        self.log
            .call(Level::DEBUG, "attach", format_args!(""), done, make)
    }

    fn caps(&self) -> Caps<'_> {
        caps::around(self)
    }

    fn offered(&self) -> Features {
        let offered = self.below.offered();
        let names = offered.display(self.info().device_type);
        self.log
            .said(Level::TRACE, "offered", format_args!("{names}"));
        offered
    }

    fn accept(&self, f: Features) -> Result<()> {
        let names = f.display(self.info().device_type);
        self.log.call(
            Level::DEBUG,
            "accept",
            format_args!("{names}"),
            done,
            || self.below.accept(f),
        )
    }

    fn status(&self) -> Result<Status> {
        self.log.call(
            Level::TRACE,
            "status",
            format_args!(""),
            Status::to_string,
            || self.below.status(),
        )
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "add_status",
            format_args!("{bits}"),
            done,
            || self.below.add_status(bits),
        )
    }

    fn begin_reset(&self) -> Result<()> {
        let begun = self
            .log
            .call(Level::DEBUG, "begin_reset", format_args!(""), done, || {
                self.below.begin_reset()
            });
        if begun.is_ok() {
            let over: Vec<_> = lock(&self.relays).iter_mut().map(std::mem::take).collect();
            drop(over);
        }
        begun
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        self.log.call(
            Level::TRACE,
            "config_generation",
            format_args!(""),
            debug,
            || self.below.config_generation(),
        )
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        let len = to.len();
        self.log.call(
            Level::DEBUG,
            "read_config",
            format_args!("{len} bytes at {at}"),
            done,
            || self.below.read_config(at, to),
        )
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "write_config",
            format_args!("{from:02x?} at {at}"),
            done,
            || self.below.write_config(at, from),
        )
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.log.call(
            Level::DEBUG,
            "queue_limits",
            format_args!("queue {q}"),
            debug,
            || self.below.queue_limits(q),
        )
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        // Those of an earlier run of the queue.
        drop(self.take_relays(q));
        self.log.call(
            Level::DEBUG,
            "start_queue",
            format_args!("queue {q}, {c:?}, kick {kick:?}, call {call:?}"),
            debug,
            || {
                let (call, called) = self.told(q, call.clone())?;
                let before = self.log.is_on(Level::TRACE).then(|| {
                    let log = Arc::clone(&self.log);
                    move |to: Doorbell| {
                        Doorbell::from_fn(move |data| {
                            log.kick(q.get(), data);
                            to.ring(data);
                        })
                    }
                });
                let Some(host) = self.host.get() else {
                    return self.below.start_queue(q, c, kick.clone(), call);
                };
                let started = line::start(&*self.below, host, (q, c), kick.clone(), call, before);
                let (doorbell, kicked) = started?;
                let new = Relays {
                    kick: kicked,
                    call: called,
                };
                self.with_relays(q, |relays| *relays = new);
                Ok(doorbell)
            },
        )
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "replace_call",
            format_args!("queue {q}, call {call:?}"),
            done,
            || {
                let (call, new) = self.told(q, call.clone())?;
                self.below.replace_call(q, call)?;
                let old = self.with_relays(q, |relays| std::mem::replace(&mut relays.call, new));
                drop(old);
                Ok(())
            },
        )
    }
}

/// Wraps the devices of a device string in [`Trace`].
///
/// By `trace=LEVEL`; without it, when somebody listens to the target `vdpa` at DEBUG while the device is opened.
#[derive(Clone, Copy, Default, Debug)]
pub struct TraceLayer;

const KEYS: &[Key] = &[Key {
    name: "trace",
    values: "off, error, warn, info, debug, trace",
    about: "the most that is traced; default what is heard",
}];

impl Layer for TraceLayer {
    fn name(&self) -> &str {
        "trace"
    }

    fn keys(&self) -> &[Key] {
        KEYS
    }

    fn wrap(&self, spec: &mut DeviceSpec, _: &dyn MgmtDevice) -> Result<Option<Wrap>> {
        let levels = [
            ("off", LevelFilter::OFF),
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ];
        let asked = spec.value("trace");
        let asked = asked.map(|value| value.one_of(&levels)).transpose()?;
        *spec = spec.clone().without(&["trace"]);
        let most = match asked {
            None if log::is_heard(Level::DEBUG) => LevelFilter::TRACE,
            None => LevelFilter::OFF,
            Some(most) => most,
        };
        Ok((most != LevelFilter::OFF)
            .then(|| -> Wrap { Box::new(move |device| Arc::new(Trace::new(device, most))) }))
    }
}
