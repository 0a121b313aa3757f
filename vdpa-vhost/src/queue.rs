//! One queue: how it is told to the back end, and where it stands.
//!
//! ```text
//!   Stopped ─ start ─▶ Set ─ go ─▶ Live ─ stop ─▶ Stopping ─ answer ─▶ Draining ─ all given back ─▶ Stopped
//!                       └───────────── stop ───────▶
//!   start   SET_VRING_NUM, BASE, ADDR, ERR          nothing is processed: there is no kick yet
//!   go      SET_VRING_ENABLE, CALL, KICK, one kick  with DRIVER_OK, or at once where that is set. Some back ends make a
//!                                                   call as soon as they can, which must not be before
//!   stop    GET_VRING_BASE                          the back end takes nothing more when it answers
//! ```
//!
//! What it has taken it should have given back by then, and some do not: qemu-storage-daemon 10.0 answers while a disk is at
//! work, and writes to memory and to the ring when that is done. So a split queue has stopped only once its used ring has
//! come to where the available ring was taken to, which is seen in memory; a packed ring's answer has both.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use vdpa_core::{Call, QueueConfig, QueueIndex, QueueState};
use vdpa_mem::Window;
use vdpa_ring::{Format, RingMem};
use vdpa_vhost_user::payload::{VringAddr, VringFd, VringFlags, VringState};
use vdpa_vhost_user::{FrontMessage, Reply};

use crate::line::{Line, Ticket};
use crate::watch::{Heard, eventfd, signal};
use crate::{VhostError, base};

type Result<T, E = VhostError> = std::result::Result<T, E>;

/// A queue of the device.
#[derive(Default)]
pub(crate) struct Queue {
    run: Run,
    /// What says that it is broken: made once, since the back end may keep the old one.
    err: Option<OwnedFd>,
}

#[derive(Default)]
enum Run {
    #[default]
    Stopped,
    Set(Setup),
    Live(Setup),
    Stopping(Setup, Ticket),
    /// It takes nothing more, and has not given everything back: see [`Draining`].
    Draining(Setup, Draining),
}

/// Chains that are to come back yet.
struct Draining {
    at: QueueState,
    /// Entries of the available ring that were taken.
    taken: u16,
    by: Instant,
}

/// How long a back end has to give back what it took. What does not come back by then it has dropped.
const DRAIN: Duration = Duration::from_secs(1);

/// How a queue was started.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) config: QueueConfig,
    pub(crate) format: Format,
    pub(crate) kick: Arc<OwnedFd>,
    pub(crate) call: Call,
    /// The first words of a split queue's used ring: its flags and its index.
    pub(crate) used: Option<Window>,
}

/// Where `used.idx` is in those words.
const USED_IDX: u32 = 2;
/// How many bytes those are.
pub(crate) const USED_BYTES: u64 = 4;

impl Setup {
    /// How many entries of the used ring were written so far, where that can be seen.
    fn given_back(&self) -> Option<u16> {
        let used = self.used.as_ref()?;
        Some(RingMem::load_u16(&used.bytes(), USED_IDX))
    }
}

/// Whether a ring can be switched on and off: with protocol features, and then it is off at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Switch {
    /// It can.
    There,
    /// It cannot: it is on.
    Missing,
}

impl Queue {
    /// Tells the back end all of a queue but its kick.
    ///
    /// # Errors
    /// When it refuses something, its size perhaps; when the connection has ended, or does so here.
    pub(crate) fn start(
        &mut self,
        line: &Line,
        heard: &Heard,
        q: QueueIndex,
        setup: Setup,
    ) -> Result<()> {
        let index = u32::from(q.get());
        let number = |num: u32| VringState { index, num };
        let QueueConfig {
            size,
            descriptor,
            driver,
            device,
            state,
            enabled: _,
        } = setup.config;
        let err = self.err(line, heard, q)?;
        // Nobody can ask how large it may be.
        line.ask(&FrontMessage::SetVringNum(number(u32::from(size))))
            .map_err(|e| match e {
                VhostError::Refused { path, .. } => VhostError::QueueSize {
                    path,
                    queue: q.get(),
                    size,
                },
                e => e,
            })?;
        let messages = [
            FrontMessage::SetVringBase(number(base::encode(setup.format, state))),
            FrontMessage::SetVringAddr(VringAddr {
                index,
                flags: VringFlags::empty(),
                descriptor: descriptor.get(),
                used: device.get(),
                available: driver.get(),
                log: 0,
            }),
            FrontMessage::SetVringErr(vring(q, Some(err))),
        ];
        line.all(&messages)?;
        self.run = Run::Set(setup);
        Ok(())
    }

    /// What says that the queue is broken, watched.
    fn err(&mut self, line: &Line, heard: &Heard, q: QueueIndex) -> Result<OwnedFd> {
        let failed = || line.system("make an eventfd");
        let err = match self.err.take() {
            Some(err) => err,
            None => {
                let made = eventfd().map_err(failed())?;
                heard
                    .watch_queue(q, made.as_fd())
                    .map_err(line.system("watch an eventfd"))?;
                made
            }
        };
        let twin = err.try_clone().map_err(failed());
        self.err = Some(err);
        twin
    }

    /// The device is live: the back end may look at the queue, which is done at once, since kicks may have come before.
    pub(crate) fn go(&mut self, line: &Line, q: QueueIndex, switch: Switch) -> Result<()> {
        let setup = match std::mem::take(&mut self.run) {
            Run::Set(setup) => setup,
            other => {
                self.run = other;
                return Ok(());
            }
        };
        let begun = begin(line, q, switch, &setup);
        self.run = match begun {
            Ok(()) => Run::Live(setup),
            Err(_) => Run::Set(setup),
        };
        begun
    }

    /// Switches it on or off; one that is being stopped, for when it goes on.
    pub(crate) fn enable(&mut self, line: &Line, q: QueueIndex, on: bool) -> Result<()> {
        match &mut self.run {
            Run::Stopped => {}
            Run::Set(setup) | Run::Live(setup) => {
                line.ask(&enable(q, on))?;
                setup.config.enabled = on;
            }
            Run::Stopping(setup, _) | Run::Draining(setup, _) => setup.config.enabled = on,
        }
        Ok(())
    }

    /// Sends the request that stops it. One that is being stopped, or is, is left as it is.
    pub(crate) fn stop(&mut self, line: &Line, q: QueueIndex) -> Result<()> {
        let index = u32::from(q.get());
        self.run = match std::mem::take(&mut self.run) {
            Run::Set(setup) | Run::Live(setup) => {
                let get = FrontMessage::GetVringBase(VringState { index, num: 0 });
                match line.send(&get) {
                    Ok(ticket) => Run::Stopping(setup, ticket),
                    Err(e) => {
                        self.run = Run::Live(setup);
                        return Err(e);
                    }
                }
            }
            other => other,
        };
        Ok(())
    }

    /// Whether the queue has stopped, and where. `None`: it was never started, or has stopped before.
    ///
    /// # Errors
    /// When it stands where no queue can, or the back end has dropped chains: it has stopped then all the same.
    pub(crate) fn poll(&mut self, line: &Line, q: QueueIndex) -> Result<Poll<Option<Stopped>>> {
        if let Run::Stopping(setup, ticket) = &self.run {
            let Poll::Ready(reply) = line.poll(ticket)? else {
                return Ok(Poll::Pending);
            };
            let base = match reply {
                Reply::Vring(state) if state.index == u32::from(q.get()) => state.num,
                _ => return Err(line.no_such_answer("VHOST_USER_GET_VRING_BASE")),
            };
            let size = setup.config.size;
            let at = base::decode(setup.format, size, base);
            let Run::Stopping(setup, _) = std::mem::take(&mut self.run) else {
                return Ok(Poll::Ready(None));
            };
            let at = at.ok_or_else(|| VhostError::Position {
                path: line.path().to_owned(),
                queue: q.get(),
                base,
                size,
            })?;
            let taken = match at {
                QueueState::Split { avail, .. } => avail,
                QueueState::Packed { .. } => return Ok(Poll::Ready(Some(Stopped { setup, at }))),
            };
            let now = Instant::now();
            let by = now.checked_add(DRAIN).unwrap_or(now);
            self.run = Run::Draining(setup, Draining { at, taken, by });
        }
        let (back, taken) = match &self.run {
            Run::Draining(setup, draining) => {
                let taken = draining.taken;
                let back = setup.given_back().unwrap_or(taken);
                if back != taken && Instant::now() < draining.by {
                    return Ok(Poll::Pending);
                }
                (back, taken)
            }
            _ => return Ok(Poll::Ready(None)),
        };
        let Run::Draining(setup, Draining { at, .. }) = std::mem::take(&mut self.run) else {
            return Ok(Poll::Ready(None));
        };
        match back == taken {
            true => Ok(Poll::Ready(Some(Stopped { setup, at }))),
            false => Err(VhostError::Dropped {
                path: line.path().to_owned(),
                queue: q.get(),
                taken,
                back,
            }),
        }
    }

    /// Nobody asks any more for what the back end has not given back.
    pub(crate) fn give_up(&mut self) {
        if let Run::Draining(..) = self.run {
            self.run = Run::Stopped;
        }
    }

    /// Takes note of another call.
    pub(crate) fn set_call(&mut self, new: &Call) {
        if let Run::Set(setup)
        | Run::Live(setup)
        | Run::Stopping(setup, _)
        | Run::Draining(setup, _) = &mut self.run
        {
            setup.call = new.clone();
        }
    }

    /// Whether the back end may be at it.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.run, Run::Stopped)
    }

    /// Whether it is processed.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.run, Run::Live(_))
    }
}

/// A queue that the back end has let go of.
pub(crate) struct Stopped {
    /// How it ran.
    pub(crate) setup: Setup,
    /// Where it stands.
    pub(crate) at: QueueState,
}

impl Stopped {
    /// What starts it again where it stood.
    pub(crate) fn again(&self) -> Setup {
        let mut setup = self.setup.clone();
        setup.config.state = Some(self.at);
        setup
    }
}

fn begin(line: &Line, q: QueueIndex, switch: Switch, setup: &Setup) -> Result<()> {
    let kick = twin(line, &setup.kick)?;
    let kick = FrontMessage::SetVringKick(vring(q, Some(kick)));
    let call = call(line, q, &setup.call)?;
    let last = [call, kick];
    match switch {
        Switch::Missing => line.all(&last)?,
        // Before it can be looked at: a queue that is off drops what it would have to take.
        Switch::There => {
            let [call, kick] = last;
            line.all(&[enable(q, setup.config.enabled), call, kick])?;
        }
    }
    signal(&setup.kick);
    Ok(())
}

fn enable(q: QueueIndex, on: bool) -> FrontMessage {
    FrontMessage::SetVringEnable(VringState {
        index: u32::from(q.get()),
        num: u32::from(on),
    })
}

/// The request that sets the call of a queue.
pub(crate) fn call(line: &Line, q: QueueIndex, call: &Call) -> Result<FrontMessage> {
    let fd = match call {
        Call::EventFd(fd) => Some(twin(line, fd)?),
        // Closures are relayed by whoever calls a parent like this one.
        Call::None | Call::Fn(_) => None,
    };
    Ok(FrontMessage::SetVringCall(vring(q, fd)))
}

/// A message of this kind has 8 bits for the queue, and no device here has more queues than that.
fn vring(q: QueueIndex, fd: Option<OwnedFd>) -> VringFd {
    VringFd {
        index: u8::try_from(q.get()).unwrap_or(u8::MAX),
        fd,
    }
}

fn twin(line: &Line, fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(line.system("duplicate an eventfd"))
}
