//! The two ends of a ring, in whatever process they are: one sends packets and the other one takes them, for a while.

use std::io;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::child::Peer;
use super::clock::Stretch;
use super::report::Sample;
use super::testpmd::{Forward, Forwarded, Testpmd};

/// Where drivers and devices run.
pub(crate) const DRIVER_CPU: usize = 0;
pub(crate) const DEVICE_CPU: usize = 1;

/// How long traffic runs before it is looked at.
pub(crate) const WARM: Duration = Duration::from_millis(60);

/// How long what is under way may take on a machine that does other things, and how often it is looked for.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    ToHost,
    ToGuest,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ToHost => "guest to host",
            Self::ToGuest => "host to guest",
        }
    }
}

/// In this order: what testpmd's driver sends has nothing behind its headers as long as nothing came before.
pub(crate) const WAYS: [Way; 2] = [Way::ToHost, Way::ToGuest];

/// Bytes of a frame.
pub(crate) const SIZES: [usize; 2] = [64, 1500];

/// An end.
pub(crate) enum End<'a> {
    Child(&'a mut Peer),
    /// A port of it.
    Testpmd(&'a mut Testpmd, usize),
}

/// What an end did since it began, and what it thinks of it.
#[derive(Clone, Copy, Default, Debug)]
struct Done {
    forwarded: Forwarded,
    bad: u64,
    /// How many are missing; 0 of one that does not look.
    missing: u64,
}

impl End<'_> {
    pub(crate) fn pid(&self) -> Pid {
        match self {
            Self::Child(peer) => peer.pid(),
            Self::Testpmd(testpmd, _) => testpmd.pid(),
        }
    }

    fn send(&mut self, len: usize) -> io::Result<()> {
        match self {
            Self::Child(peer) => peer.told(&format!("source {len}")),
            Self::Testpmd(testpmd, port) => testpmd.begin(*port, Forward::Transmit(len)),
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        match self {
            Self::Child(peer) => peer.told("sink"),
            Self::Testpmd(testpmd, port) => testpmd.begin(*port, Forward::Receive),
        }
    }

    /// Until now; of testpmd, since its port was opened.
    fn counts(&mut self) -> io::Result<Forwarded> {
        match self {
            Self::Child(peer) => Ok(counts(peer)?.forwarded),
            Self::Testpmd(testpmd, port) => testpmd.counts(*port),
        }
    }

    fn end(&mut self) -> io::Result<Done> {
        match self {
            Self::Child(peer) => {
                peer.told("idle")?;
                counts(peer)
            }
            Self::Testpmd(testpmd, _) => Ok(Done {
                forwarded: testpmd.end()?,
                ..Done::default()
            }),
        }
    }
}

fn counts(peer: &mut Peer) -> io::Result<Done> {
    let [sent, received, bad, missing] = peer.numbers("counts")?;
    Ok(Done {
        forwarded: Forwarded { received, sent },
        bad,
        missing,
    })
}

/// Packets of `len` bytes go from one end to the other for `slice`. Answers with what was wrong, too.
pub(crate) fn measure<'a>(
    driver: End<'a>,
    device: End<'a>,
    way: Way,
    len: usize,
    slice: Duration,
) -> io::Result<(Sample, Option<String>)> {
    let device_pid = device.pid();
    let (mut sender, mut receiver) = match way {
        Way::ToHost => (driver, device),
        Way::ToGuest => (device, driver),
    };
    let base = match receiver {
        End::Child(_) => 0,
        End::Testpmd(..) => receiver.counts()?.received,
    };
    receiver.receive()?;
    sender.send(len)?;
    std::thread::sleep(WARM);
    // At the driver, whichever it is: of all peers the same one says how many there were.
    let mut count = || match way {
        Way::ToHost => sender.counts().map(|counts| counts.sent),
        Way::ToGuest => receiver.counts().map(|counts| counts.received),
    };
    let before = count()?;
    let stretch = Stretch::begin(device_pid);
    std::thread::sleep(slice);
    let after = count()?;
    let (seconds, cpu) = stretch.end();
    // Whoever sends ends, and the other one takes what is left.
    let sent = sender.end()?;
    let by = Instant::now() + PATIENCE;
    while receiver.counts()?.received.saturating_sub(base) < sent.forwarded.sent
        && Instant::now() < by
    {
        std::thread::sleep(LOOK);
    }
    let received = receiver.end()?;
    let sample = Sample {
        count: after.saturating_sub(before),
        seconds,
        cpu,
    };
    Ok((sample, wrong(sent, received)))
}

/// What is wrong with what went over.
fn wrong(sent: Done, received: Done) -> Option<String> {
    if received.bad != 0 {
        return Some(format!("{} packets altered", received.bad));
    }
    let (sent, came) = (sent.forwarded.sent, received.forwarded.received);
    if sent != came || sent == 0 {
        return Some(format!("{sent} packets sent, {came} received"));
    }
    // testpmd takes the count back for those that it has no room for.
    (received.missing != 0).then(|| format!("{} packets missing in the order", received.missing))
}
