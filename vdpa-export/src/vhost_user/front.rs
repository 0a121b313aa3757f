//! One front end, from the first message to the last.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use vdpa_core::{Event, Events};
use vdpa_mem::Access;
use vdpa_vhost_user::{Back, Connection, ProtocolFeatures, Reply, payload};

use super::error::MemoryError;
use super::memory::Memory;
use super::owed::{Channel, Owed};
use super::transfer::Transfer;
use super::{CutOff, Notice, Options, ServerError, Stop, wait};
use crate::serve::Served;

/// How often a queue is looked at that nobody kicks.
const LOOK: Duration = Duration::from_millis(1);

/// How many messages are taken before anything else is looked at.
const AT_ONCE: usize = 64;

/// A front end that is connected.
pub(super) struct FrontEnd<'s> {
    pub(super) back: Back,
    pub(super) served: &'s mut Served,
    pub(super) options: &'s Options,
    pub(super) memory: Memory,
    /// For requests of ours.
    pub(super) channel: Option<Channel>,
    /// A state that is on its way.
    pub(super) transfer: Transfer,
    /// How many queues ran after the last message, and how many of them were on.
    running: u16,
    enabled: u16,
    /// It was told that the device is live, and not yet that it is so no more.
    told: bool,
}

/// Why it is not served any more.
#[derive(Debug)]
pub(super) enum Left {
    /// It closed the connection.
    Disconnected,
    /// It did what is not done.
    CutOff(CutOff),
    /// The server is to end.
    Stop,
    /// The parent wants the device back.
    RemoveRequested,
}

impl<'s> FrontEnd<'s> {
    pub(super) fn new(stream: UnixStream, served: &'s mut Served, options: &'s Options) -> Self {
        Self {
            back: Back::new(Connection::new(stream)),
            served,
            options,
            memory: Memory::default(),
            channel: None,
            transfer: Transfer::default(),
            running: 0,
            enabled: 0,
            told: false,
        }
    }

    /// Serves it until it leaves, or has to.
    ///
    /// # Errors
    /// When the device is lost, or the system cannot wait.
    pub(super) fn serve(&mut self, stop: &Stop, events: &Events) -> Result<Left, ServerError> {
        let mut stats = self.options.stats.map(|every| (every, Instant::now()));
        let mut look: Option<Instant> = None;
        loop {
            let due = stats.and_then(|(every, last)| last.checked_add(every));
            let until = wait::earlier(self.back.connection().due(), due);
            let until = wait::earlier(until, look);
            if let Err(why) = self.channel.as_mut().map_or(Ok(()), Channel::pay) {
                return Ok(Left::CutOff(why));
            }
            let ready = PollFlags::POLLIN;
            let [stopped, held_up, event, message, moved, _room] = wait::any(
                [
                    Some((stop.as_fd(), ready)),
                    Some((self.served.alarm(), ready)),
                    Some((events.as_fd(), ready)),
                    Some((self.back.as_fd(), ready)),
                    self.transfer.waits_for(),
                    self.channel.as_ref().and_then(Channel::waits_for),
                ],
                until,
            )?;
            if stopped {
                return Ok(Left::Stop);
            }
            if held_up && let Some((queue, event)) = self.served.held_up() {
                return Ok(Left::CutOff(CutOff::HeldUp { queue, event }));
            }
            if event && let Some(left) = self.hear(events)? {
                return Ok(left);
            }
            if moved {
                self.transfer.go_on();
            }
            if (message || self.back.connection().due().is_some())
                && let Some(left) = self.receive()?
            {
                return Ok(left);
            }
            let now = Instant::now();
            if let (Some(due), Some((_, last))) = (due, &mut stats)
                && now >= due
            {
                *last = now;
                self.count()?;
            }
            let polled = self.served.kick_polled();
            look = now.checked_add(LOOK).filter(|_| polled);
        }
    }

    /// Takes messages as long as there are any, but for a flood: others want to be heard too.
    fn receive(&mut self) -> Result<Option<Left>, ServerError> {
        for _ in 0..AT_ONCE {
            let received = match self.back.poll_receive() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(None),
                Err(e) if e.is_end() => return Ok(Some(Left::Disconnected)),
                Err(e) => return Ok(Some(Left::CutOff(e.into()))),
            };
            let name = received.message.request().form().name;
            tracing::debug!(request = name, "front end");
            let done = self.take(received.message).and_then(|reply| {
                self.advance(name)?;
                Ok(reply)
            });
            let (reply, why) = match done {
                Ok(reply) => (reply, None),
                // Who hears of it can ask for something else.
                Err(why) if received.ticket.is_awaited() && why.leaves_all_as_it_was() => {
                    tracing::debug!("refused: {why}");
                    (Reply::Failed, None)
                }
                Err(why) => (Reply::Failed, Some(why)),
            };
            let answered = self.back.answer(received.ticket, &reply);
            match (why, answered) {
                (Some(why), _) => return Ok(Some(Left::CutOff(why))),
                (None, Err(vdpa_vhost_user::Error::Closed { .. })) => {
                    return Ok(Some(Left::Disconnected));
                }
                (None, Err(e)) => return Ok(Some(Left::CutOff(e.into()))),
                (None, Ok(())) => {}
            }
        }
        Ok(None)
    }

    /// Starts what is complete by now, and tells if that changes anything.
    fn advance(&mut self, request: &'static str) -> Result<(), CutOff> {
        let memory = &self.memory;
        let started = self
            .served
            .advance(&|at| memory.place(at))
            .map_err(|source| CutOff::Request { request, source })?;
        if self.channel.is_some() {
            for (at, want) in self.served.take_misses() {
                self.ask_for(at.get(), want)?;
            }
        }
        let (running, enabled) = (self.served.running(), self.served.enabled());
        // Live without a queue, or with more of them: those that are off have no effects yet.
        if enabled > self.enabled || (started && running == 0) {
            self.told = true;
            self.options.tell(&Notice::Running {
                features: self.served.chosen(),
                queues: enabled,
            });
        } else if running == 0 && self.running > 0 && std::mem::take(&mut self.told) {
            self.options.tell(&Notice::Stopped);
        }
        (self.running, self.enabled) = (running, enabled);
        Ok(())
    }

    /// What the device reported.
    fn hear(&mut self, events: &Events) -> Result<Option<Left>, ServerError> {
        while let Some(event) = events.try_next() {
            let told = match &event {
                // Without translation nobody will map it: the driver is at fault.
                Event::Miss { at, want, .. } if self.memory.is_translated() => {
                    self.ask_for(at.get(), *want)
                }
                _ => {
                    self.options.tell(&Notice::Device { event: &event });
                    if let Some(at) = self.memory.lost() {
                        let (request, source) = ("memory", MemoryError::Cut { at });
                        return Ok(Some(Left::CutOff(CutOff::Memory { request, source })));
                    }
                    match &event {
                        Event::Config => self.tell_of_config(),
                        Event::NeedsReset { queue, .. } if events.needs_reset() => {
                            self.served.raise_error(*queue);
                            Ok(())
                        }
                        Event::RemoveRequested => return Ok(Some(Left::RemoveRequested)),
                        Event::Broken { why } => {
                            let why = why.clone();
                            return Ok(Some(Left::CutOff(CutOff::Broken { why })));
                        }
                        Event::Gone => return Err(vdpa_core::Error::Gone.into()),
                        _ => Ok(()),
                    }
                }
            };
            if let Err(why) = told {
                return Ok(Some(Left::CutOff(why)));
            }
        }
        Ok(None)
    }

    /// The device waits for an address: asks the front end for it.
    fn ask_for(&mut self, iova: u64, want: Access) -> Result<(), CutOff> {
        let access = match want {
            Access::DeviceReads => payload::Access::READ,
            Access::DeviceWrites => payload::Access::WRITE,
            Access::Both => payload::Access::READ | payload::Access::WRITE,
        };
        self.owe(Owed::Miss { iova, access })
    }

    fn tell_of_config(&mut self) -> Result<(), CutOff> {
        let negotiated = self.back.protocol_features();
        match negotiated.contains(ProtocolFeatures::CONFIG) {
            true => self.owe(Owed::Config),
            false => Ok(()),
        }
    }

    /// Over the channel, if the front end gave one.
    fn owe(&mut self, what: Owed) -> Result<(), CutOff> {
        match &mut self.channel {
            None => Ok(()),
            Some(channel) => channel.owe(what),
        }
    }

    pub(super) fn set_channel(&mut self, fd: std::os::fd::OwnedFd) {
        let acknowledged = self
            .back
            .protocol_features()
            .contains(ProtocolFeatures::REPLY_ACK);
        self.channel = Some(Channel::new(fd, acknowledged));
    }

    fn count(&mut self) -> Result<(), ServerError> {
        let mut counters = Vec::new();
        let device = self.served.device();
        if self.served.can().count {
            device.stats(&mut |name, value| counters.push((name.to_owned(), value)))?;
        }
        self.options.tell(&Notice::Stats {
            counters: &counters,
        });
        Ok(())
    }
}
