//! How many packets a second go from one driver to another, and how long one takes; every packet verified.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use vdpa::core::config::Mac;
use vdpa::net::{NetDriver, NetError};

use crate::packets::Stamped;

/// The queue pair used.
const PAIR: u16 = 0;
/// How long nothing may come back before what is under way is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Empty looks before other threads are let in: there may be more of them than processors.
const EAGER: u32 = 64;
/// At most this many packets have their latency taken.
pub(crate) const SAMPLES: usize = 100_000;

/// What to send.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Bytes of a frame, at least 60.
    pub(crate) size: usize,
    /// Packets given to the device at a time, at least 1.
    pub(crate) batch: usize,
    /// For how long.
    pub(crate) time: Duration,
}

/// What was counted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Throughput {
    /// From the first packet sent to the last one received.
    pub(crate) seconds: f64,
    /// Packets sent.
    pub(crate) packets: u64,
    /// Packets received with the right number, length and order.
    pub(crate) verified: u64,
}

impl Throughput {
    /// Verified packets per second.
    pub(crate) fn pps(&self) -> f64 {
        if self.seconds > 0.0 {
            self.verified as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Whether every packet sent was verified.
    pub(crate) fn is_whole(&self) -> bool {
        self.verified == self.packets && self.packets > 0
    }
}

/// Sends frames through `drivers[from]` as fast as they are taken at `drivers[to]`, and verifies each. `look` is told
/// now and then how long it has been going on and how many were verified.
///
/// # Errors
/// When a device breaks.
pub(crate) fn throughput(
    drivers: &mut [NetDriver],
    (from, to): (usize, usize),
    load: Load,
    mut look: impl FnMut(Duration, u64),
) -> Result<Throughput, NetError> {
    /// Rounds between looks at the clock.
    const ROUNDS: u32 = 64;

    let mut stamped = Stamped::new(load.size, destination(&drivers[to]));
    let window = drivers[to].frames_in_flight(load.size) as u64;
    let batch = load.batch as u64;
    let (mut packets, mut arrived, mut verified) = (0_u64, 0_u64, 0_u64);
    let began = Instant::now();
    let mut sending = true;
    let mut round = 0_u32;
    let mut idle = Idle::new();
    while sending || arrived < packets {
        let mut sent = 0;
        while sending && sent < batch && packets - arrived < window {
            if !drivers[from].push(PAIR, stamped.numbered(packets))? {
                break;
            }
            packets += 1;
            sent += 1;
        }
        drivers[from].publish(PAIR)?;
        // The number awaited goes on with each arrival: one lost or swapped packet fails all that follow.
        let came = drivers[to].receive(PAIR, |frame| {
            verified += u64::from(stamped.is_numbered(frame, arrived));
            arrived += 1;
        })?;
        if idle.is_too_long(came > 0) {
            break;
        }
        round = round.wrapping_add(1);
        if round.is_multiple_of(ROUNDS) {
            let passed = began.elapsed();
            sending = passed < load.time;
            look(passed, verified);
        }
    }
    Ok(Throughput {
        seconds: began.elapsed().as_secs_f64(),
        packets,
        verified,
    })
}

/// Nanoseconds from giving a packet to the device to having it back, one packet at a time; sorted. Fewer than asked
/// for, and `false`, if one was lost or wrong.
///
/// # Errors
/// When a device breaks.
pub(crate) fn latency(
    drivers: &mut [NetDriver],
    (from, to): (usize, usize),
    size: usize,
    time: Duration,
) -> Result<(Vec<u64>, bool), NetError> {
    let mut stamped = Stamped::new(size, destination(&drivers[to]));
    let mut samples = Vec::with_capacity(SAMPLES);
    let began = Instant::now();
    let mut well = true;
    while well && samples.len() < SAMPLES && began.elapsed() < time {
        let number = samples.len() as u64;
        let mut idle = Idle::new();
        let sent = Instant::now();
        well = drivers[from].push(PAIR, stamped.numbered(number))?;
        drivers[from].publish(PAIR)?;
        let mut came = 0;
        while well && came == 0 {
            came = drivers[to].receive(PAIR, |frame| {
                well &= stamped.is_numbered(frame, number);
            })?;
            well &= !idle.is_too_long(came > 0);
        }
        samples.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    samples.sort_unstable();
    Ok((samples, well))
}

/// The smallest sample that at least `share` of the sorted `samples` do not exceed; 0 of none.
pub(crate) fn percentile(samples: &[u64], share: f64) -> u64 {
    let rank = (samples.len() as f64 * share).ceil() as usize;
    let last = samples.len().saturating_sub(1);
    samples
        .get(rank.saturating_sub(1).min(last))
        .copied()
        .unwrap_or(0)
}

/// Where to send frames so that this driver's device takes them for its own.
fn destination(driver: &NetDriver) -> Mac {
    driver.ethernet().mac.unwrap_or(Mac::BROADCAST)
}

/// Looks that found nothing.
pub(crate) struct Idle {
    looks: u32,
    since: Option<Instant>,
}

impl Idle {
    pub(crate) fn new() -> Self {
        Self {
            looks: 0,
            since: None,
        }
    }

    /// One more look, which found something or not. Whether nothing comes any more.
    pub(crate) fn is_too_long(&mut self, came: bool) -> bool {
        if came {
            *self = Self::new();
            return false;
        }
        self.looks = self.looks.saturating_add(1);
        if self.looks < EAGER {
            hint::spin_loop();
            return false;
        }
        thread::yield_now();
        self.since.get_or_insert_with(Instant::now).elapsed() > PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<u64> = (1..=1000).collect();
        assert_eq!(percentile(&samples, 0.5), 500);
        assert_eq!(percentile(&samples, 0.99), 990);
        assert_eq!(percentile(&samples, 0.999), 999);
        assert_eq!(percentile(&[7], 0.999), 7);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn nothing_verified_is_not_whole() {
        assert!(!Throughput::default().is_whole());
        assert_eq!(Throughput::default().pps(), 0.0);
    }
}
