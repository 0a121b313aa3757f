//! How many reads a second a disk serves, and how long one takes; every block verified.
//!
//! Reads alone: a disk that is measured is left as it was. What is in it is read once, before the clock runs, and each
//! block read later is compared with that. A disk in memory is new, and is filled first.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use vdpa::DeviceSpec;
use vdpa::blk::{BlkDriver, BlkError, Request};
use vdpa::core::Control;
use vdpa::core::config::block::SECTOR;

use crate::failure::Failure;
use crate::measure::{Idle, Load, SAMPLES, Throughput};

/// The queue used.
const QUEUE: u16 = 0;
/// The most bytes of the disk that are read.
const AREA: u64 = 16 << 20;
/// Bytes of a read where none are asked for.
pub(crate) const DEFAULT_SIZE: u32 = 4096;

/// A disk that is measured.
pub(crate) struct Disk {
    driver: BlkDriver,
    /// What is in its first blocks.
    known: Vec<u8>,
    size: usize,
    /// For the next block.
    random: u64,
    back: Vec<u8>,
}

impl Disk {
    /// Learns what is in the disk that `spec` names, to read it in blocks of `size` bytes.
    pub(crate) fn new(mut driver: BlkDriver, spec: &str, size: u32) -> Result<Self, Failure> {
        let sectors = u64::from(size) / SECTOR;
        if !u64::from(size).is_multiple_of(SECTOR)
            || size as usize > driver.transfer()
            || sectors > driver.capacity()
        {
            return Err(Failure::input(anyhow!(
                "blocks of {size} bytes cannot be read: use a --size that is a multiple of {SECTOR}, up to {} and to the \
                 {} bytes of the disk",
                driver.transfer(),
                driver.capacity().saturating_mul(SECTOR)
            )));
        }
        let bytes = driver.capacity().saturating_mul(SECTOR).min(AREA);
        let blocks = bytes / u64::from(size);
        // Below `AREA`.
        let mut known = vec![0; (blocks * u64::from(size)) as usize];
        if is_new(spec) {
            let mut random = 1;
            for word in known.chunks_mut(8) {
                word.copy_from_slice(&next(&mut random).to_le_bytes()[..word.len()]);
            }
            driver.write(0, &known).map_err(Failure::ran)?;
        } else {
            driver.read(0, &mut known).map_err(Failure::ran)?;
        }
        Ok(Self {
            driver,
            known,
            size: size as usize,
            random: 1,
            back: vec![0; size as usize],
        })
    }

    /// Puts a read of any block into the queue. `false`: there is no room.
    fn submit(&mut self) -> Result<bool, BlkError> {
        let blocks = (self.known.len() / self.size) as u64;
        let block = next(&mut self.random) % blocks;
        let request = Request::Read {
            sector: block * (self.size as u64 / SECTOR),
            len: self.size,
        };
        self.driver.submit(QUEUE, block, request)
    }

    /// Takes what is done: how many reads, and how many of them were right.
    fn complete(&mut self) -> Result<(u64, u64), BlkError> {
        let Self {
            driver,
            known,
            size,
            back,
            ..
        } = self;
        let mut verified = 0;
        let came = driver.complete(QUEUE, |done| {
            let at = done.tag() as usize * *size;
            let whole = done.read(back) == *size;
            verified += u64::from(whole && known.get(at..at + *size) == Some(&back[..]));
        })?;
        Ok((came as u64, verified))
    }

    /// Reads as fast as the disk serves. `look` is told now and then how long it has been going on and how many reads
    /// were verified.
    pub(crate) fn throughput(
        &mut self,
        load: Load,
        mut look: impl FnMut(Duration, u64),
    ) -> Result<Throughput, BlkError> {
        /// Rounds between looks at the clock.
        const ROUNDS: u32 = 64;

        let (mut sent, mut arrived, mut verified) = (0_u64, 0_u64, 0_u64);
        let began = Instant::now();
        let (mut sending, mut round) = (true, 0_u32);
        let mut idle = Idle::new();
        while sending || arrived < sent {
            let room = (load.batch as u64).saturating_sub(sent - arrived);
            for _ in 0..if sending { room } else { 0 } {
                if !self.submit()? {
                    break;
                }
                sent += 1;
            }
            self.driver.publish(QUEUE)?;
            let (came, right) = self.complete()?;
            arrived += came;
            verified += right;
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
            packets: sent,
            verified,
        })
    }

    /// Nanoseconds of a read, one at a time; sorted. Fewer, and `false`, if one was lost or wrong.
    pub(crate) fn latency(&mut self, time: Duration) -> Result<(Vec<u64>, bool), BlkError> {
        let mut samples = Vec::with_capacity(SAMPLES);
        let began = Instant::now();
        let mut well = true;
        while well && samples.len() < SAMPLES && began.elapsed() < time {
            let mut idle = Idle::new();
            let sent = Instant::now();
            well = self.submit()?;
            self.driver.publish(QUEUE)?;
            let mut came = 0;
            while well && came == 0 {
                let (done, right) = self.complete()?;
                came = done;
                well = done == right && !idle.is_too_long(came > 0);
            }
            samples.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        samples.sort_unstable();
        Ok((samples, well))
    }

    /// The device.
    pub(crate) fn control(&self) -> &Control {
        self.driver.control()
    }

    /// Lets go of the device.
    pub(crate) fn stop(self) -> Result<(), BlkError> {
        self.driver.stop().map(drop)
    }
}

/// Whether the disk is in memory, and nobody's yet.
fn is_new(spec: &str) -> bool {
    let Ok(spec) = DeviceSpec::parse(spec) else {
        return false;
    };
    let mut keys = spec.keys();
    spec.parent() == "sim" && ["file", "ro"].iter().all(|key| keys.value(key).is_none())
}

/// A xorshift generator.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_in_memory_is_written() {
        assert!(is_new("sim:blk,size=1M"));
        assert!(!is_new("sim:blk,file=/some/image"));
        assert!(!is_new("sim:blk,ro=on"));
        assert!(!is_new("other:blk"));
    }
}
