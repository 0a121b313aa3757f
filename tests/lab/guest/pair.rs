//! Two network cards whose ports are on one hub: what one sends the other receives.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use vdpa::core::config::Mac;
use vdpa::core::{Event, Events};
use vdpa::net::{NetDriver, NetError, Ring, Setup};
use vdpa::{Deadline, Device};

use crate::{Done, told};

/// Frames on their way in one direction. A hub stores none: what finds no buffer is lost.
pub(crate) const WINDOW: usize = 16;
/// How long a frame may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A card that sends numbered frames, and one that has to receive them in that order.
pub(crate) struct Way {
    pub(crate) next: u64,
    awaited: VecDeque<u64>,
}

/// Sends `frames` frames each way, and looks at every byte that arrives.
pub(crate) fn exchange(
    [mut left, mut right]: [NetDriver; 2],
    frames: u64,
) -> Result<Value, NetError> {
    let (mut there, mut back) = (Way::new(), Way::new());
    while there.next < frames {
        there.carry(&mut left, &mut right)?;
        back.carry(&mut right, &mut left)?;
    }
    let packed = left.features().contains(vdpa::core::bits::RING_PACKED);
    left.stop()?;
    right.stop()?;
    Ok(json!({ "there": there.next, "back": back.next, "packed": packed }))
}

/// The same until somebody asks for the first card, or it is gone. It is let go of then, the other one works on, and the
/// first one can't be opened again.
pub(crate) fn until_taken_out(name: &str, other: &str, ring: Ring) -> Done {
    let [mut left, mut right] = start(name, other, ring)?;
    let events = left.control().events()?;
    let (mut there, mut back) = (Way::new(), Way::new());
    let end = loop {
        let carried = there
            .carry(&mut left, &mut right)
            .and_then(|()| back.carry(&mut right, &mut left));
        if there.next == 8 * WINDOW as u64 {
            println!("@tell traffic");
        }
        match (seen(&events), carried) {
            (Some(event), _) => break event,
            (None, Err(error)) => break told(&error),
            (None, Ok(())) => {}
        }
    };
    let stopped = left.stop().map(drop).map_err(|error| told(&error));
    let address = name.trim_start_matches("vfio:");
    let by = Deadline::after(PATIENCE);
    while Path::new("/sys/bus/pci/devices").join(address).exists() {
        if by.expired() {
            return Err(format!("{name} was asked for and let go of, and is still there").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let again = vdpa::open(name).map(drop).map_err(|error| told(&error));
    right.stop()?;
    println!(
        "{}",
        json!({ "frames": there.next, "end": end, "stopped": stopped.err(), "again": again.err() })
    );
    Ok(())
}

pub(crate) fn start(left: &str, right: &str, ring: Ring) -> Result<[NetDriver; 2], NetError> {
    let registry = vdpa::registry();
    let setup = Setup {
        ring,
        ..Setup::default()
    };
    let open = |name: &str| -> Result<Device, NetError> { Ok(registry.open(name)?) };
    Ok([
        NetDriver::start(open(left)?, &setup)?,
        NetDriver::start(open(right)?, &setup)?,
    ])
}

/// An event that says that the device goes.
pub(crate) fn seen(events: &Events) -> Option<String> {
    while let Some(event) = events.try_next() {
        if matches!(
            event,
            Event::RemoveRequested | Event::Gone | Event::Broken { .. }
        ) {
            return Some(format!("{event:?}"));
        }
    }
    None
}

impl Way {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            awaited: VecDeque::new(),
        }
    }

    /// A window of frames from one card to the other.
    pub(crate) fn carry(
        &mut self,
        from: &mut NetDriver,
        to: &mut NetDriver,
    ) -> Result<(), NetError> {
        let ends = [address(to), address(from)];
        self.send(from, ends)?;
        self.arrive(to, ends)
    }

    /// A window of frames from a card to itself.
    pub(crate) fn come_back(&mut self, card: &mut NetDriver) -> Result<(), NetError> {
        let ends = [address(card); 2];
        self.send(card, ends)?;
        self.arrive(card, ends)
    }

    /// One frame after the other until one is there. The hub may be full of what nobody has taken, and lose the first ones.
    pub(crate) fn until_one_arrives(
        mut self,
        from: &mut NetDriver,
        to: &mut NetDriver,
    ) -> Result<u64, NetError> {
        let ends = [address(to), address(from)];
        let [destination, source] = ends;
        let by = Deadline::after(PATIENCE);
        while !by.expired() {
            let sent = from.send(0, [frame(destination, source, self.next)])? as u64;
            self.awaited.extend(self.next..self.next + sent);
            self.next += sent;
            let mut arrived = false;
            to.receive(0, |frame_| {
                let mut bytes = Vec::new();
                frame_.copy_to(&mut bytes);
                let is_it = |&number: &u64| frame(destination, source, number) == bytes;
                arrived |= self.awaited.iter().any(is_it);
            })?;
            if arrived {
                return Ok(self.next);
            }
        }
        let waited = PATIENCE.as_secs();
        let source = std::io::Error::other(format!(
            "none of {} frames has arrived within {waited} s",
            self.next
        ));
        Err(NetError::Wait { source })
    }

    fn send(
        &mut self,
        from: &mut NetDriver,
        [destination, source]: [[u8; 6]; 2],
    ) -> Result<(), NetError> {
        let frames: Vec<Vec<u8>> = (self.next..)
            .take(WINDOW)
            .map(|number| frame(destination, source, number))
            .collect();
        let sent = from.send(0, &frames)? as u64;
        self.awaited.extend(self.next..self.next + sent);
        self.next += sent;
        Ok(())
    }

    /// Takes what was sent, in its order.
    fn arrive(
        &mut self,
        to: &mut NetDriver,
        [destination, source]: [[u8; 6]; 2],
    ) -> Result<(), NetError> {
        let by = Deadline::after(PATIENCE);
        while !self.awaited.is_empty() {
            let mut wrong = None;
            to.receive(0, |frame_| {
                let mut bytes = Vec::new();
                frame_.copy_to(&mut bytes);
                // Whatever else is on the hub is of another type.
                if bytes.get(12..14) != Some(&TYPE) {
                    return;
                }
                let expected = self.awaited.pop_front();
                if expected.map(|number| frame(destination, source, number)) != Some(bytes) {
                    wrong = expected;
                }
            })?;
            assert!(wrong.is_none(), "frame {wrong:?} is lost or altered");
            if !self.awaited.is_empty() && !to.wait(0, by)? {
                let waited = PATIENCE.as_secs();
                let source = std::io::Error::other(format!(
                    "{} frames have not arrived within {waited} s",
                    self.awaited.len()
                ));
                return Err(NetError::Wait { source });
            }
        }
        Ok(())
    }
}

fn address(card: &NetDriver) -> [u8; 6] {
    card.ethernet().mac.map_or([0x02; 6], Mac::octets)
}

/// For experiments, IEEE 802.
const TYPE: [u8; 2] = [0x88, 0xb5];

/// Every length in its turn.
fn frame(to: [u8; 6], from: [u8; 6], number: u64) -> Vec<u8> {
    let mut frame = [&to[..], &from, &TYPE, &number.to_be_bytes()].concat();
    let len = 60 + number as usize * 37 % 1455;
    frame.extend((frame.len()..len).map(|at| (at as u64 ^ number) as u8));
    frame
}
