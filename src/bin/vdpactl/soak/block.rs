//! Requests to a disk, of which every sector is known.

mod interrupt;

use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use vdpa::blk::{BlkDriver, Op, Request, Setup};
use vdpa::core::bits::block;
use vdpa::core::config::BlockConfig;
use vdpa::core::graph;
use vdpa::{Device, Features};

use super::dice::Dice;
use super::history::History;
use super::ledger::Counts;
use super::maker::Maker;
use super::plan::{Configuration, Lengths, Phase, Plan, Stop};
use super::report::Report;
use super::sectors::{Content, SECTOR, Sectors, Wrong};
use super::trouble::Trouble;
use super::watch::Watch;
use super::{Examined, declined, examine as examine_any, says, soon};
use crate::failure::Failure;

/// The most queues that a soak uses.
const MOST_QUEUES: u16 = 4;
/// Sectors of a long request, at most.
const LONG: usize = 64;
/// Looks for sectors that no request is about, before a request is put off.
const LOOKS: u32 = 8;
/// Empty looks before the device is asked to call, in a phase that looks by itself first; in others there are none.
const EAGER: u32 = 200;
/// One burst in so many is followed by a pause, in which the device goes to sleep and has to be kicked after it.
const PAUSES: u64 = 128;
/// How long it is.
const PAUSE: Duration = Duration::from_micros(200);

/// What can be soaked of a block device.
pub(super) fn examine(maker: &Maker, device: &Device) -> Result<Examined, Failure> {
    let offered = graph::acceptable(device.info().device_type, device.offered());
    if offered.contains(block::RO) {
        let name = &device.info().name;
        return Err(Failure::input(anyhow!(
            "{name} is read-only, and a soak writes to the disk"
        )));
    }
    let Examined {
        mut choices,
        left_out,
    } = examine_any(maker, device);
    if offered.contains(block::MQ) {
        choices.queues = config(device)?.num_queues().clamp(1, MOST_QUEUES);
    }
    Ok(Examined { choices, left_out })
}

fn config(device: &Device) -> vdpa::Result<BlockConfig> {
    let mut bytes = [0; BlockConfig::SIZE];
    let have = BlockConfig::SIZE.min(device.info().config_size as usize);
    device.read_config(0, &mut bytes[..have])?;
    Ok(BlockConfig::from_bytes(&bytes))
}

/// Carries the plan out.
pub(super) fn soak(
    maker: &Maker,
    mut device: Device,
    plan: &Plan,
    report: &mut Report<'_>,
    watch: &Watch,
) -> Result<(), Trouble> {
    let mut dice = Dice::new(plan.digest().into(), 0);
    let disk = config(&device)?;
    let offered = device.offered();
    let mut unit = 1;
    if offered.contains(block::BLK_SIZE) {
        unit = u64::from(disk.blk_size()) / SECTOR as u64;
    }
    if offered.contains(block::DISCARD) {
        unit = unit.max(disk.discard_sector_alignment().into());
    }
    if disk.capacity() < unit.max(1) {
        return Err(Trouble::new("the disk has no sector"));
    }
    let mut sectors = Sectors::new(disk.capacity(), unit, &mut dice);
    let mut counts = Counts::default();
    let mut version = 0;
    for phase in plan.phases() {
        let mut round = Round {
            maker,
            report,
            watch,
            setup: setup(&phase.configuration),
            lengths: phase.configuration.lengths,
            eager: [0, EAGER][(phase.number % 2) as usize],
            dice: plan.dice(&phase),
            sectors: &mut sectors,
            counts: &mut counts,
            version: &mut version,
            flights: Vec::new(),
            sent: 0,
            planned: phase.packets,
            buffer: Vec::new(),
            wrong: None,
            last: History::default(),
        };
        let went = round.run(device, &phase);
        let place = round.place(&phase);
        report.counted(counts)?;
        device = went.map_err(|trouble| trouble.at(&place))?;
        report.phase_done();
    }
    device.close(soon()).map_err(|(_, error)| error)?;
    Ok(())
}

fn setup(configuration: &Configuration) -> Setup {
    Setup {
        ring: configuration.ring,
        queues: configuration.queues,
        queue_size: configuration.queue_size,
        requests: configuration.queue_size,
        transfer: (LONG * SECTOR) as u32,
        decline: declined(configuration),
    }
}

/// A request under way.
struct Flight {
    queue: u16,
    op: Op,
    places: Range<usize>,
    /// What the places hold when it is done, if it writes.
    makes: Option<Content>,
}

/// One phase, while it goes on.
struct Round<'r, 'o> {
    maker: &'r Maker,
    report: &'r mut Report<'o>,
    watch: &'r Watch,
    setup: Setup,
    lengths: Lengths,
    /// Empty looks before the device is asked to call.
    eager: u32,
    /// Which requests there are; nothing of the plan depends on them.
    dice: Dice,
    sectors: &'r mut Sectors,
    counts: &'r mut Counts,
    /// The one written last.
    version: &'r mut u64,
    /// By tag.
    flights: Vec<Option<Flight>>,
    /// Requests of this phase.
    sent: u64,
    /// How many there are to be.
    planned: u64,
    buffer: Vec<u8>,
    /// What is not as it should be.
    wrong: Option<String>,
    /// The last interruptions, with their numbers.
    last: History,
}

impl Round<'_, '_> {
    fn run(&mut self, device: Device, phase: &Phase) -> Result<Device, Trouble> {
        self.watch.doing(format!("phase {} begins", phase.number));
        let mut driver = BlkDriver::start(device, &self.setup)?;
        for stop in &phase.stops {
            self.send_until(&mut driver, stop.at)?;
            let number = self.report.tally.interruptions + 1;
            let what = self.describe(stop);
            self.watch.doing(format!("interruption {number}, {what}"));
            self.last.add(number, what);
            driver = self.interrupt(driver, stop)?;
            self.report.interrupted(stop.operation);
            self.drain(&mut driver)?;
            self.read_back(&mut driver)?;
        }
        self.send_until(&mut driver, phase.packets)?;
        self.drain(&mut driver)?;
        self.read_back(&mut driver)?;
        Ok(driver.stop()?)
    }

    /// Submits and completes until so many requests of the phase were submitted. Some of them are then under way.
    fn send_until(&mut self, driver: &mut BlkDriver, until: u64) -> Result<(), Trouble> {
        let mut idle = 0;
        while self.sent < until {
            self.watch.beat();
            let sent = self.burst(driver, until)?;
            let came = self.complete(driver)?;
            self.report.counted(*self.counts)?;
            self.rest(driver, &mut idle, sent > 0 || came > 0)?;
        }
        Ok(())
    }

    /// Completes until nothing is under way.
    fn drain(&mut self, driver: &mut BlkDriver) -> Result<(), Trouble> {
        let mut idle = 0;
        while self.flights.iter().any(Option::is_some) {
            self.watch.beat();
            let came = self.complete(driver)?;
            self.rest(driver, &mut idle, came > 0)?;
        }
        Ok(())
    }

    /// Submits some requests to each queue, as far as there is room. How many that were.
    fn burst(&mut self, driver: &mut BlkDriver, until: u64) -> Result<u64, Trouble> {
        let before = self.sent;
        for queue in 0..driver.queues() {
            let most = u64::from(self.setup.requests).min(32);
            let burst = self.dice.between(1, most);
            for _ in 0..burst.min(until.saturating_sub(self.sent)) {
                if !self.submit(driver, queue)? {
                    break;
                }
            }
            driver.publish(queue)?;
        }
        if self.dice.below(PAUSES) == 0 {
            thread::sleep(PAUSE);
        }
        Ok(self.sent - before)
    }

    /// Submits one request. `false`: there is no room, or no sector for it just now.
    fn submit(&mut self, driver: &mut BlkDriver, queue: u16) -> Result<bool, Trouble> {
        let op = self.choose(driver.features());
        let writes = matches!(op, Op::Write | Op::Discard | Op::WriteZeroes);
        let Some(places) = self.places(driver, op, writes) else {
            return Ok(false);
        };
        let (sector, count) = (self.sectors.sector(places.start), places.len());
        self.buffer.clear();
        let mut makes = None;
        let request = match op {
            Op::Write => {
                *self.version += 1;
                makes = Some(Content::Version(*self.version));
                self.sectors.write(&places, *self.version, &mut self.buffer);
                let data = &self.buffer;
                Request::Write { sector, data }
            }
            Op::WriteZeroes => {
                makes = Some(Content::Zeroes);
                Request::WriteZeroes {
                    sector,
                    sectors: count as u32,
                    unmap: self.dice.below(2) == 0,
                }
            }
            Op::Discard => {
                makes = Some(Content::Anything);
                let sectors = count as u32;
                Request::Discard { sector, sectors }
            }
            Op::Flush => Request::Flush,
            _ => {
                let len = count * SECTOR;
                Request::Read { sector, len }
            }
        };
        let free = self.flights.iter().position(Option::is_none);
        let tag = free.unwrap_or(self.flights.len());
        if !driver.submit(queue, tag as u64, request)? {
            return Ok(false);
        }
        if tag == self.flights.len() {
            self.flights.push(None);
        }
        if op != Op::Flush {
            self.sectors.begin(&places, writes);
        }
        self.flights[tag] = Some(Flight {
            queue,
            op,
            places,
            makes,
        });
        self.sent += 1;
        self.counts.sent += 1;
        Ok(true)
    }

    fn choose(&mut self, features: Features) -> Op {
        let op = match self.dice.below(100) {
            0..45 => Op::Write,
            45..85 => Op::Read,
            85..90 => Op::Flush,
            90..95 => Op::WriteZeroes,
            _ => Op::Discard,
        };
        let needs = match op {
            Op::Flush => block::FLUSH,
            Op::WriteZeroes => block::WRITE_ZEROES,
            Op::Discard => block::DISCARD,
            _ => return op,
        };
        if features.contains(needs) {
            op
        } else {
            Op::Write
        }
    }

    /// Some sectors that nobody else is about.
    fn places(&mut self, driver: &BlkDriver, op: Op, writes: bool) -> Option<Range<usize>> {
        let most = match self.lengths {
            Lengths::Short => 1,
            Lengths::Long => LONG,
            Lengths::Mixed => [8, LONG][usize::from(self.dice.below(4) == 0)],
        };
        let limit = match op {
            Op::Discard => driver.config().max_discard_sectors() as usize,
            Op::WriteZeroes => driver.config().max_write_zeroes_sectors() as usize,
            _ => driver.transfer() / SECTOR,
        };
        for _ in 0..LOOKS {
            let places = self.sectors.pick(&mut self.dice, most.min(limit));
            if op == Op::Flush || self.sectors.is_free(&places, writes) {
                return Some(places);
            }
        }
        None
    }

    /// Takes what is done, of all queues. How many requests that were.
    fn complete(&mut self, driver: &mut BlkDriver) -> Result<usize, Trouble> {
        let mut came = 0;
        for queue in 0..driver.queues() {
            came += self.complete_one(driver, queue)?;
        }
        Ok(came)
    }

    fn complete_one(&mut self, driver: &mut BlkDriver, queue: u16) -> Result<usize, Trouble> {
        let Self {
            flights,
            sectors,
            counts,
            buffer,
            wrong,
            ..
        } = self;
        let mut tell = |what: String| {
            wrong.get_or_insert(what);
        };
        let came = driver.complete(queue, |done| {
            let slot = flights.get_mut(done.tag() as usize);
            let Some(flight) = slot.and_then(Option::take) else {
                counts.duplicated += 1;
                return tell(format!("a request of queue {queue} was done again"));
            };
            let Flight {
                op, places, makes, ..
            } = flight;
            if op != Op::Flush {
                sectors.end(&places, makes.is_some());
            }
            if let Err(error) = done.result() {
                counts.lost += 1;
                return tell(format!("a request of queue {queue} failed: {error}"));
            }
            counts.received += 1;
            if let Some(content) = makes {
                return sectors.hold(&places, content);
            }
            if op == Op::Read {
                buffer.resize(places.len() * SECTOR, 0);
                let len = done.read(buffer);
                buffer.truncate(len);
                if let Err(why) = sectors.judge(&places, buffer) {
                    tell(blame(counts, why));
                }
            }
        })?;
        match self.wrong.take() {
            Some(what) => Err(Trouble::new(what)),
            None => Ok(came),
        }
    }

    /// Reads every sector in use. Nothing is under way.
    fn read_back(&mut self, driver: &mut BlkDriver) -> Result<(), Trouble> {
        for places in self.sectors.stripes() {
            self.watch.beat();
            self.buffer.resize(places.len() * SECTOR, 0);
            driver.read(self.sectors.sector(places.start), &mut self.buffer)?;
            if let Err(why) = self.sectors.judge(&places, &self.buffer) {
                let what = blame(self.counts, why);
                return Err(Trouble::new(format!("read back, {what}")));
            }
        }
        Ok(())
    }

    /// Looks again soon, or has the device call, and knows when to give up.
    fn rest(&mut self, driver: &mut BlkDriver, idle: &mut u32, moved: bool) -> Result<(), Trouble> {
        *idle = if moved { 0 } else { *idle + 1 };
        if *idle < self.eager {
            if *idle > self.eager / 4 {
                thread::yield_now();
            }
            return Ok(());
        }
        let Some(flight) = self.flights.iter().flatten().next() else {
            return Ok(());
        };
        let queue = flight.queue;
        if driver.wait(queue, soon())? {
            return Ok(());
        }
        let late = self.complete(driver)?;
        if late > 0 {
            return Err(Trouble::new(format!(
                "the device did not call for 10 s, though {late} requests were done"
            )));
        }
        let waited = self.flights.iter().flatten().count() as u64;
        self.counts.lost += waited;
        let said = says(driver.control().device());
        Err(Trouble::new(format!(
            "{waited} requests were not done in 10 s, the first of them on queue {queue}; the device {said}"
        )))
    }

    /// Where the phase is.
    fn place(&self, phase: &Phase) -> String {
        self.last.place(phase)
    }
}

fn blame(counts: &mut Counts, why: Wrong) -> String {
    match why {
        Wrong::Old(what) => {
            counts.lost += 1;
            what
        }
        Wrong::Altered(what) => {
            counts.altered += 1;
            what
        }
    }
}
