//! Packets through a network device whose port loops back.

mod interrupt;

use std::thread;
use std::time::{Duration, Instant};

use vdpa::core::config::NetConfig;
use vdpa::core::{LinkState, bits::net, graph};
use vdpa::net::{NetDriver, Setup};
use vdpa::{Deadline, Device};

use super::dice::Dice;
use super::frames::{Frames, Reading, SHORTEST};
use super::history::History;
use super::ledger::{Arrival, Ledger};
use super::maker::Maker;
use super::operation::Operation;
use super::plan::{Configuration, Lengths, Phase, Plan, Stop};
use super::report::Report;
use super::trouble::Trouble;
use super::watch::Watch;
use super::{Examined, PATIENCE, declined, examine as examine_any, says, soon};
use crate::failure::Failure;

/// The most pairs that a soak uses.
const MOST_PAIRS: u16 = 4;
/// Empty looks before the device is asked to call, in a phase that looks by itself first; in others there are none.
const EAGER: u32 = 200;
/// One burst in so many is followed by a pause, in which the device goes to sleep and has to be kicked after it.
const PAUSES: u64 = 128;
/// How long it is.
const PAUSE: Duration = Duration::from_micros(200);
/// How long a look takes where nothing is to come, and only room is missing.
const MOMENT: Duration = Duration::from_millis(1);

/// What can be soaked of a network device.
pub(super) fn examine(maker: &Maker, device: &Device) -> Result<Examined, Failure> {
    let offered = graph::acceptable(device.info().device_type, device.offered());
    let Examined {
        mut choices,
        mut left_out,
    } = examine_any(maker, device);
    let mut bytes = [0; NetConfig::SIZE];
    let have = NetConfig::SIZE.min(device.info().config_size as usize);
    device.read_config(0, &mut bytes[..have])?;
    if offered.contains(net::MQ) && offered.contains(net::CTRL_VQ) {
        let most = NetConfig::from_bytes(&bytes).max_virtqueue_pairs();
        choices.queues = most.clamp(1, MOST_PAIRS);
    }
    choices.mergeable = offered.contains(net::MRG_RXBUF);
    match choices.queues {
        0 | 1 => {
            let why = "the device has one queue pair".to_owned();
            left_out.insert(Operation::Pairs.name(), why);
        }
        _ => choices.operations.push(Operation::Pairs),
    }
    match maker.set_link(&device.info().name, LinkState::Up) {
        Ok(()) => choices.operations.push(Operation::Link),
        Err(error) => {
            left_out.insert(Operation::Link.name(), error.to_string());
        }
    }
    Ok(Examined { choices, left_out })
}

/// Carries the plan out.
pub(super) fn soak(
    maker: &Maker,
    mut device: Device,
    plan: &Plan,
    report: &mut Report<'_>,
    watch: &Watch,
) -> Result<(), Trouble> {
    let mut ledger = Ledger::default();
    for phase in plan.phases() {
        let mut round = Round {
            maker,
            report,
            watch,
            setup: setup(&phase.configuration),
            lengths: phase.configuration.lengths,
            eager: [0, EAGER][(phase.number % 2) as usize],
            dice: plan.dice(&phase),
            ledger: &mut ledger,
            frames: None,
            sent: 0,
            planned: phase.packets,
            active: phase.configuration.queues,
            window: 1,
            most: SHORTEST,
            scratch: Vec::new(),
            wrong: None,
            last: History::default(),
        };
        let went = round.run(device, &phase);
        let place = round.place(&phase);
        report.counted(ledger.counts())?;
        device = went.map_err(|trouble| trouble.at(&place))?;
        report.phase_done();
    }
    device.close(soon()).map_err(|(_, error)| error)?;
    Ok(())
}

fn setup(configuration: &Configuration) -> Setup {
    let mut decline = declined(configuration);
    if !configuration.mergeable {
        decline |= net::MRG_RXBUF;
    }
    Setup {
        ring: configuration.ring,
        pairs: configuration.queues,
        queue_size: configuration.queue_size,
        decline,
        ..Setup::default()
    }
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
    /// Lengths and bursts; nothing of the plan depends on them.
    dice: Dice,
    ledger: &'r mut Ledger,
    frames: Option<Frames>,
    /// Packets of this phase.
    sent: u64,
    /// How many there are to be.
    planned: u64,
    /// Pairs that are sent through.
    active: u16,
    /// Packets of a pair under way at a time: half of what there are buffers for, since the device may still hold as many
    /// that were excused.
    window: usize,
    /// Bytes of the longest frame.
    most: usize,
    scratch: Vec<u8>,
    /// What came that should not have.
    wrong: Option<String>,
    /// The last interruptions, with their numbers.
    last: History,
}

impl Round<'_, '_> {
    fn run(&mut self, device: Device, phase: &Phase) -> Result<Device, Trouble> {
        self.watch.doing(format!("phase {} begins", phase.number));
        let mut driver = NetDriver::start(device, &self.setup)?;
        self.most = driver.ethernet().max_untagged().max(SHORTEST);
        let room = driver.frames_in_flight(self.most);
        self.window = (room / 2).max(1);
        let (destination, dice) = (driver.ethernet().mac, &mut self.dice);
        self.frames = Some(Frames::new(
            destination.unwrap_or(vdpa::core::config::Mac::new([2, 0, 0, 0, 0, 1])),
            self.most,
            || dice.next(),
        ));
        for stop in &phase.stops {
            self.send_until(&mut driver, stop.at)?;
            let number = self.report.tally.interruptions + 1;
            let what = self.describe(stop);
            self.watch.doing(format!("interruption {number}, {what}"));
            self.last.add(number, what);
            driver = self.interrupt(driver, stop)?;
            self.report.interrupted(stop.operation);
            self.report.counted(self.ledger.counts())?;
            self.check()?;
        }
        self.send_until(&mut driver, phase.packets)?;
        self.drain(&mut driver)?;
        if driver.malformed() > 0 {
            let count = driver.malformed();
            return Err(Trouble::new(format!(
                "{count} frames came with a header that cannot be"
            )));
        }
        Ok(driver.stop()?)
    }

    /// Sends and receives until so many packets of the phase were sent. Some of them are then under way.
    fn send_until(&mut self, driver: &mut NetDriver, until: u64) -> Result<(), Trouble> {
        let mut idle = Idle::default();
        while self.sent < until {
            self.watch.beat();
            let sent = self.burst(driver, until)?;
            let came = self.receive(driver)?;
            self.check()?;
            self.report.counted(self.ledger.counts())?;
            self.rest(driver, &mut idle, sent > 0 || came > 0)?;
        }
        Ok(())
    }

    /// Receives until everything that has to come has come.
    fn drain(&mut self, driver: &mut NetDriver) -> Result<(), Trouble> {
        let mut idle = Idle::default();
        while self.ledger.all_under_way() > 0 {
            self.watch.beat();
            let came = self.receive(driver)?;
            self.check()?;
            self.rest(driver, &mut idle, came > 0)?;
        }
        // Some that were excused may come yet; whatever comes twice has to be seen.
        self.receive(driver)?;
        self.check()?;
        self.ledger.close();
        Ok(())
    }

    /// Sends a burst through each pair that is in use, as far as there is room. How many packets that were.
    fn burst(&mut self, driver: &mut NetDriver, until: u64) -> Result<u64, Trouble> {
        let before = self.sent;
        for pair in 0..self.active {
            let room = self.window.saturating_sub(self.ledger.under_way(pair));
            let burst = self.dice.between(1, self.window as u64).min(room as u64);
            for _ in 0..burst.min(until.saturating_sub(self.sent)) {
                let number = self.ledger.next(pair);
                let len = self.length();
                let Some(frames) = &mut self.frames else {
                    break;
                };
                if !driver.push(pair, frames.make(pair, number, len))? {
                    break;
                }
                self.ledger.sent(pair);
                self.sent += 1;
            }
            driver.publish(pair)?;
        }
        if self.dice.below(PAUSES) == 0 {
            thread::sleep(PAUSE);
        }
        Ok(self.sent - before)
    }

    fn length(&mut self) -> usize {
        match self.lengths {
            Lengths::Short => SHORTEST,
            Lengths::Long => self.most,
            // The lower half of the lengths twice as often as the rest.
            Lengths::Mixed => {
                let half = (self.most - SHORTEST) as u64 / 2;
                let most = [half, half * 2][usize::from(self.dice.below(3) == 0)];
                SHORTEST + self.dice.between(0, most) as usize
            }
        }
    }

    /// Takes what has come at all pairs. How many frames of ours that were.
    fn receive(&mut self, driver: &mut NetDriver) -> Result<usize, Trouble> {
        let Self {
            ledger,
            scratch,
            wrong,
            ..
        } = self;
        let mut came = 0;
        for to in 0..driver.pairs() {
            driver.receive(to, |frame| {
                frame.copy_to(scratch);
                let said = match Frames::read(scratch) {
                    Reading::Foreign => return,
                    Reading::Whole { pair, number } => match ledger.came(pair, number, to) {
                        Arrival::Well | Arrival::Late => None,
                        Arrival::Again => {
                            Some(format!("packet {number} of pair {pair} came again"))
                        }
                        Arrival::NeverSent => Some(format!(
                            "packet {number} of pair {pair} came, and was never sent"
                        )),
                    },
                    Reading::Damaged(which) => {
                        ledger.damaged(which);
                        let len = scratch.len();
                        Some(match which {
                            Some((pair, number)) => format!(
                                "packet {number} of pair {pair} came altered, with {len} bytes"
                            ),
                            None => format!("a packet of {len} bytes came altered"),
                        })
                    }
                };
                came += 1;
                if let Some(what) = said.filter(|_| wrong.is_none()) {
                    *wrong = Some(format!("{what}, at receive queue {to}"));
                }
            })?;
        }
        Ok(came)
    }

    /// Ends the phase where something came that should not have.
    fn check(&mut self) -> Result<(), Trouble> {
        self.wrong
            .take()
            .map_or(Ok(()), |what| Err(Trouble::new(what)))
    }

    /// Looks again soon, or has the device call, and knows when to give up.
    fn rest(
        &mut self,
        driver: &mut NetDriver,
        idle: &mut Idle,
        moved: bool,
    ) -> Result<(), Trouble> {
        if moved {
            *idle = Idle::default();
            return Ok(());
        }
        idle.looks += 1;
        if idle.looks < self.eager {
            if idle.looks > self.eager / 4 {
                thread::yield_now();
            }
            return Ok(());
        }
        if self.ledger.all_under_way() == 0 {
            // Only room to send is missing, and no call tells of that.
            driver.wait_any(&[], Deadline::after(MOMENT))?;
            if idle.since.elapsed() > PATIENCE {
                return Err(Trouble::new("there was no room to send for 10 s"));
            }
            return Ok(());
        }
        if driver.wait_any(&[], soon())? {
            return Ok(());
        }
        let late = self.receive(driver)?;
        self.check()?;
        if late > 0 {
            return Err(Trouble::new(format!(
                "the device did not call for 10 s, though {late} packets were there"
            )));
        }
        Err(self.stands_still(driver))
    }

    /// What is under way does not come: it is lost.
    fn stands_still(&mut self, driver: &mut NetDriver) -> Trouble {
        let waited = self.ledger.all_under_way();
        let first = self.ledger.first_under_way();
        let said = says(driver.control().device());
        let kicked = self.kicked(driver);
        self.ledger.close();
        let Some((pair, number)) = first else {
            return Trouble::new("what came altered is all that came");
        };
        let hint = match self.ledger.counts().received {
            0 => " (does its port loop back?)",
            _ => "",
        };
        let others = waited.saturating_sub(1);
        Trouble::new(format!(
            "packet {number} of pair {pair} did not come in 10 s, nor did {others} others{hint}{kicked}; the device {said}"
        ))
    }

    /// Kicks every queue, and says if that helps: then a kick was lost, and no packet.
    fn kicked(&mut self, driver: &mut NetDriver) -> String {
        let mut came = 0;
        for pair in 0..driver.pairs() {
            let kicked = driver.kick(pair);
            thread::sleep(PAUSE * 100);
            if kicked.is_err() {
                break;
            }
            came += self.receive(driver).unwrap_or(0);
        }
        match came {
            0 => String::new(),
            _ => format!(" before every queue was kicked again, when {came} came"),
        }
    }

    /// Where the phase is.
    fn place(&self, phase: &Phase) -> String {
        self.last.place(phase)
    }
}

/// How long nothing moved.
struct Idle {
    looks: u32,
    since: Instant,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            looks: 0,
            since: Instant::now(),
        }
    }
}
