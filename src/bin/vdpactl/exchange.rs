//! Frames of a capture sent by one driver, and looked for at another (or at the same one).

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use vdpa::net::{Ethernet, NetDriver, NetError};
use vdpa_sim::pcap::Frame;

/// How long nothing may come back before what is under way is given up.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same once something was given up: this device loses frames.
const LITTLE_PATIENCE: Duration = Duration::from_millis(20);
/// The queue pair used: with one, a device keeps the order.
const PAIR: u16 = 0;

/// Why a frame is not among those that came back as they were sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Loss {
    /// Longer than the device's MTU allows: not sent.
    OverMtu,
    /// Shorter than an Ethernet header: not sent.
    TooShort,
    /// Sent, and nothing came back.
    NotReturned,
    /// Came back with other bytes.
    Altered,
    /// Came back, and was never sent.
    Unexpected,
}

impl Loss {
    /// The name in objects.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OverMtu => "over_mtu",
            Self::TooShort => "too_short",
            Self::NotReturned => "not_returned",
            Self::Altered => "altered",
            Self::Unexpected => "unexpected",
        }
    }
}

/// What became of the frames.
#[derive(Default)]
pub(crate) struct Exchange {
    /// Frames given to the device.
    pub(crate) sent: u64,
    /// Frames that came back byte for byte.
    pub(crate) received: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// The others.
    pub(crate) lost: BTreeMap<Loss, u64>,
    /// The MTU that frames over the device's one need, if there are some that a device could have.
    pub(crate) mtu_needed: Option<u16>,
    /// What came back, for each frame of the input that something came back for, in the input's order.
    pub(crate) returned: Vec<Returned>,
}

/// One frame that came back.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Returned {
    /// Which frame of the input it is, counted from 0.
    pub(crate) index: usize,
    /// Its bytes, where they are not those of the input.
    pub(crate) altered: Option<Vec<u8>>,
}

impl Exchange {
    /// Whether every frame came back as it was sent.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }

    /// The losses by name.
    pub(crate) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let named = |(loss, count): (&Loss, &u64)| (loss.name(), *count);
        self.lost.iter().map(named).collect()
    }
}

/// Sends `frames` through `drivers[from]` and takes what arrives at `drivers[to]`, until everything came back, or
/// nothing more does.
///
/// # Errors
/// When a device breaks.
pub(crate) fn exchange(
    drivers: &mut [NetDriver],
    from: usize,
    to: usize,
    frames: &[Frame],
) -> Result<Exchange, NetError> {
    let mut book = Book::default();
    let mut clock = Clock::new();
    let mut scratch = Vec::new();
    let mut next = 0;
    while next < frames.len() || book.under_way() {
        let sent = send(drivers, from, to, &frames[next..], next, &mut book, &clock)?;
        next += sent;
        let arrived = drivers[to].receive(PAIR, |frame| {
            frame.copy_to(&mut scratch);
            book.arrived(&scratch, frames);
        })?;
        clock.tick(sent > 0 || arrived > 0);
        if clock.is_out_of_patience() {
            book.give_up();
            clock.give_up();
        }
    }
    Ok(book.close(frames))
}

/// Sends as many of `frames` as have room at both ends; how many were done with.
fn send(
    drivers: &mut [NetDriver],
    from: usize,
    to: usize,
    frames: &[Frame],
    first: usize,
    book: &mut Book,
    clock: &Clock,
) -> Result<usize, NetError> {
    let mut done = 0;
    for frame in frames {
        if let Some(loss) = unfit(&drivers[from], &frame.data) {
            book.lose(loss, 1);
            book.needs(loss, &frame.data);
        } else {
            let room = drivers[to].frames_in_flight(frame.data.len());
            // Once something was lost, the count of what is under way is no guide any more.
            let full = book.awaited_now >= room && !clock.is_lossy();
            if full || !drivers[from].push(PAIR, &frame.data)? {
                break;
            }
            book.sent(first + done);
        }
        done += 1;
    }
    drivers[from].publish(PAIR)?;
    Ok(done)
}

fn unfit(driver: &NetDriver, frame: &[u8]) -> Option<Loss> {
    if frame.len() < Ethernet::HEADER_BYTES {
        return Some(Loss::TooShort);
    }
    (frame.len() > driver.ethernet().max_frame(frame)).then_some(Loss::OverMtu)
}

/// Which frames are awaited, and what came.
#[derive(Default)]
struct Book {
    sent: u64,
    received: u64,
    bytes: u64,
    lost: BTreeMap<Loss, u64>,
    mtu_needed: usize,
    /// Frames sent that nothing came back for, oldest first. They stay when given up: some come late.
    awaited: Vec<usize>,
    /// How many of those are not given up.
    awaited_now: usize,
    returned: Vec<Returned>,
    /// What came and is like nothing that was awaited then.
    strange: Vec<Vec<u8>>,
}

impl Book {
    fn under_way(&self) -> bool {
        self.awaited_now > 0
    }

    fn sent(&mut self, index: usize) {
        self.sent += 1;
        self.awaited.push(index);
        self.awaited_now += 1;
    }

    fn arrived(&mut self, bytes: &[u8], frames: &[Frame]) {
        let same = |index: &usize| frames[*index].data == bytes;
        match self.awaited.iter().position(same) {
            Some(at) => {
                let index = self.awaited.remove(at);
                self.awaited_now = self.awaited_now.saturating_sub(1);
                self.received += 1;
                self.bytes += bytes.len() as u64;
                self.returned.push(Returned {
                    index,
                    altered: None,
                });
            }
            None => {
                self.awaited_now = self.awaited_now.saturating_sub(1);
                self.strange.push(bytes.to_vec());
            }
        }
    }

    fn give_up(&mut self) {
        self.awaited_now = 0;
    }

    fn lose(&mut self, loss: Loss, count: usize) {
        if count > 0 {
            *self.lost.entry(loss).or_default() += count as u64;
        }
    }

    fn needs(&mut self, loss: Loss, frame: &[u8]) {
        if loss == Loss::OverMtu {
            self.mtu_needed = self.mtu_needed.max(Ethernet::payload(frame));
        }
    }

    /// What is strange is taken for what is missing, in order; the rest of either is what it is.
    fn close(mut self, frames: &[Frame]) -> Exchange {
        let altered = self.strange.len().min(self.awaited.len());
        let missing = self.awaited.len() - altered;
        let unexpected = self.strange.len() - altered;
        let pairs = self.awaited.iter().zip(std::mem::take(&mut self.strange));
        self.returned.extend(pairs.map(|(&index, bytes)| Returned {
            index,
            altered: Some(bytes),
        }));
        self.returned.sort_by_key(|returned| returned.index);
        self.lose(Loss::Altered, altered);
        self.lose(Loss::NotReturned, missing);
        self.lose(Loss::Unexpected, unexpected);
        debug_assert!(self.returned.iter().all(|r| r.index < frames.len()));
        Exchange {
            sent: self.sent,
            received: self.received,
            bytes: self.bytes,
            lost: self.lost,
            mtu_needed: u16::try_from(self.mtu_needed).ok().filter(|mtu| *mtu > 0),
            returned: self.returned,
        }
    }
}

/// When something last moved, and how eagerly to look again.
struct Clock {
    moved: Instant,
    idle: u32,
    patience: Duration,
}

impl Clock {
    /// Polls without a pause, then polls with other threads let in between.
    const EAGER: u32 = 64;
    const WAKEFUL: u32 = 20_000;

    fn new() -> Self {
        Self {
            moved: Instant::now(),
            idle: 0,
            patience: PATIENCE,
        }
    }

    fn tick(&mut self, moved: bool) {
        if moved {
            self.idle = 0;
            self.moved = Instant::now();
            return;
        }
        self.idle = self.idle.saturating_add(1);
        match self.idle {
            ..Self::EAGER => std::hint::spin_loop(),
            Self::EAGER..Self::WAKEFUL => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(50)),
        }
    }

    fn is_out_of_patience(&self) -> bool {
        self.idle > Self::EAGER && self.moved.elapsed() > self.patience
    }

    fn is_lossy(&self) -> bool {
        self.patience == LITTLE_PATIENCE
    }

    fn give_up(&mut self) {
        self.patience = LITTLE_PATIENCE;
        self.moved = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[&[u8]]) -> Vec<Frame> {
        let frame = |data: &&[u8]| Frame {
            time: Default::default(),
            data: data.to_vec(),
        };
        bytes.iter().map(frame).collect()
    }

    fn book(count: usize) -> Book {
        let mut book = Book::default();
        (0..count).for_each(|index| book.sent(index));
        book
    }

    #[test]
    fn equal_frames_are_told_apart_by_their_order() {
        let frames = frames(&[b"same", b"same", b"other"]);
        let mut book = book(3);
        for bytes in [&b"same"[..], b"other", b"same"] {
            book.arrived(bytes, &frames);
        }
        let exchange = book.close(&frames);
        assert!(exchange.is_whole());
        let order: Vec<usize> = exchange.returned.iter().map(|r| r.index).collect();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn an_altered_frame_is_found_in_its_place() {
        let frames = frames(&[b"one", b"two", b"three"]);
        let mut book = book(3);
        for bytes in [&b"one"[..], b"twx", b"three"] {
            book.arrived(bytes, &frames);
        }
        let exchange = book.close(&frames);
        assert_eq!(exchange.dropped(), BTreeMap::from([("altered", 1)]));
        assert_eq!(exchange.received, 2);
        assert_eq!(
            exchange.returned[1],
            Returned {
                index: 1,
                altered: Some(b"twx".to_vec())
            }
        );
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_counted() {
        let frames = frames(&[b"one", b"two"]);
        let mut few = book(2);
        few.arrived(b"two", &frames);
        assert_eq!(
            few.close(&frames).dropped(),
            BTreeMap::from([("not_returned", 1)])
        );
        let mut many = book(2);
        for bytes in [&b"one"[..], b"two", b"two"] {
            many.arrived(bytes, &frames);
        }
        assert_eq!(
            many.close(&frames).dropped(),
            BTreeMap::from([("unexpected", 1)])
        );
    }

    #[test]
    fn a_frame_that_was_given_up_may_come_late() {
        let frames = frames(&[b"one"]);
        let mut book = book(1);
        book.give_up();
        assert!(!book.under_way());
        book.arrived(b"one", &frames);
        assert!(book.close(&frames).is_whole());
    }
}
