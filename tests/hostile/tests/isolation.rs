//! A storm of hostile inputs on one queue, by a seed, while a queue of the same device and another device that the same
//! thread serves exchange what is known to be good: every byte of it is looked at, and each goes on in every interval.
//!
//! The storm scribbles over its rings, shows chains of anything, sets its indices at random, rings, maps and unmaps, and
//! makes control calls. It points nowhere that its sibling queue has its memory: that would be its own doing. The second
//! half resets the device too, which its sibling queue does not outlive; the sibling device does.
//!
//! `VDPA_STORM_SEED` repeats one that failed.

use vdpa_core::{Call, Kick};
use vdpa_hostile::background::Sibling;
use vdpa_hostile::raw::{INDIRECT, NEXT, Piece, RawQueue, WRITE};
use vdpa_hostile::soon;
use vdpa_hostile::stage::{BUFFERS, RINGS, ROM, SPARE, Setup, Stage, negotiate, run};
use vdpa_hostile::table::Target;
use vdpa_hostile::watch::{self, Watch};
use vdpa_mem::Deadline;
use vdpa_ring::{Format, Pos, QueueState};

/// Intervals of each half of a storm.
const INTERVALS: usize = 12;
/// Inputs in each.
const INPUTS: usize = 150;

/// Numbers by a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn word(&mut self) -> u16 {
        self.next() as u16
    }
}

#[test]
fn a_storm_on_one_queue_is_no_business_of_its_siblings() {
    watch::count_panics();
    vdpa_mem::survive_shrinking().expect("a handler");
    let seed = std::env::var("VDPA_STORM_SEED").ok();
    let seed = seed.map_or(0x5eed, |seed| seed.parse().expect("a number"));
    for (case, target) in [Target::Tx, Target::Rx, Target::Blk]
        .into_iter()
        .enumerate()
    {
        for format in [Format::Split, Format::Packed] {
            let mut dice = Dice((seed + case as u64 * 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            println!("{target:?} {format}, seed {seed}");
            storm(target, format, &mut dice);
        }
    }
}

fn storm(target: Target, format: Format, dice: &mut Dice) {
    let watch = Watch::begin();
    let mut s = Stage::new(target, format, Setup::PLAIN);
    // All that a chain of the storm may have the device write.
    s.rings.open(0, 64 << 10);
    s.buffers.open(0, 64 << 10);
    s.spare.open(0, 4096);
    let mut lost = 0;
    for half in 0..2 {
        if half == 1 {
            let _over = s.background.leave(Sibling::Queue);
        }
        for interval in 0..INTERVALS {
            let before = [Sibling::Queue, Sibling::Device].map(|which| s.background.done(which));
            for _ in 0..INPUTS {
                input(&mut s, dice);
            }
            lost += usize::from(s.is_lost());
            if half == 1 {
                reset(&mut s);
            }
            let went_on = s.background.progress(2);
            went_on.unwrap_or_else(|why| panic!("interval {interval} of half {half}: {why}"));
            let after = [Sibling::Queue, Sibling::Device].map(|which| s.background.done(which));
            assert!(after[1] >= before[1] + 2);
            assert!(half == 1 || after[0] >= before[0] + 2);
        }
    }
    assert!(lost > 0, "a storm that does no harm");
    s.background.stop();
    s.background.check().expect("good exchanges");
    watch::rest().expect("rest");
    s.check_memory().expect("what nobody may write");
    let mut fresh = s.renew();
    fresh.once().expect("a request after the storm");
    drop(fresh);
    s.close();
    watch.check().expect("the baseline");
}

/// The device again, and its queue.
fn reset(s: &mut Stage) {
    s.device.reset(soon()).expect("a reset");
    negotiate(&s.device, s.features());
    let q = RawQueue::new(s.q.index.get(), s.format, s.setup.size, (&s.rings, 0), None);
    let bell = s
        .device
        .start_queue(q.index, q.config(None), Kick::Taken, Call::None);
    s.q = q;
    // Its areas may not be mapped just now.
    if let Ok(bell) = bell {
        s.q.doorbell = bell;
    }
    run(&s.device);
}

/// Somewhere, but not where others have their memory.
fn address(dice: &mut Dice) -> u64 {
    let base = dice.pick(&[
        BUFFERS,
        BUFFERS,
        BUFFERS,
        RINGS,
        SPARE,
        ROM,
        0,
        u64::MAX - 5000,
    ]);
    base + dice.below(4200)
}

fn piece(dice: &mut Dice) -> Piece {
    let len = dice.pick(&[0, 1, 12, 16, 76, 512, 513, 4096, 1 << 31, u32::MAX]);
    let flags = dice.pick(&[0, 0, WRITE, WRITE, INDIRECT, INDIRECT | NEXT, 0x7c, 0xff7f]);
    let piece = Piece::read(address(dice), len).with(flags & !0x8080);
    match dice.below(8) {
        0 => piece.link(dice.word()),
        1 => piece.goes_on(true),
        _ => piece,
    }
}

/// One hostile input.
fn input(s: &mut Stage, dice: &mut Dice) {
    match dice.below(16) {
        0 | 1 => {
            // Whole words: a byte of an address would make another one that is good.
            let at = 8 * dice.below(64) as usize;
            s.rings.put_u64(at, dice.next());
        }
        2 => s.buffers.put_u64(8 * dice.below(512) as usize, dice.next()),
        3 if s.format == Format::Split => s.q.set_avail_idx(dice.word()),
        4 if s.format == Format::Split => {
            let at = dice.word();
            s.q.set_avail_entry(at, dice.word());
        }
        5 => s.q.set_event(dice.word(), dice.word()),
        3 | 4 | 6..=8 => {
            let pieces: Vec<_> = (0..=dice.below(4)).map(|_| piece(dice)).collect();
            s.q.chain(&pieces);
            s.q.show();
            s.kick();
        }
        9 => {
            let request = s.request_at(0, 2);
            s.q.chain(&request.pieces());
            s.q.show();
            s.kick();
            let _old = s.arrivals();
        }
        10 => (0..dice.below(50)).for_each(|_| s.q.kick()),
        11 => {
            let arena = dice.pick(&[&s.spare, &s.buffers, &s.rings]);
            let _was = s.dma.unmap(arena.range(), soon());
            if dice.below(2) == 0 {
                (0..3).for_each(|_| s.q.kick());
            }
            s.dma.map(vec![arena.mapping()]).expect("a map");
        }
        12 => {
            let _refused = s.dma.map(vec![s.buffers.mapping()]);
            let _refused = s
                .device
                .write_status(dice.pick(&[0x01, 0x07, 0x0f, 0x20, 0x4f, 0x6f]));
            let _refused = s.device.accept(s.features());
            let at = dice.next() as u32;
            let _refused = s.device.read_config(at, &mut [0; 8]);
        }
        13 => {
            let on = dice.below(2) == 0;
            let _done = s.device.enable_queue(s.q.index, on);
            let _done = s.device.replace_call(s.q.index, Call::None);
        }
        14 => {
            if s.device.suspend(soon()).is_ok() {
                s.q.kick();
                s.device.resume().expect("a resume");
            }
        }
        _ => restart(s, dice),
    }
}

/// Stops or resets the queue, and starts it with some state.
fn restart(s: &mut Stage, dice: &mut Dice) {
    let q = s.q.index;
    let by = Deadline::after(vdpa_hostile::SOON);
    match dice.below(2) {
        0 => drop(s.device.stop_queue(q, by)),
        _ => drop(s.device.reset_queue(q, by)),
    }
    let pos = |dice: &mut Dice| Pos {
        index: dice.below(9) as u16,
        wrap: dice.below(2) == 0,
    };
    let wild = match (dice.below(2), s.format) {
        (0, _) => None,
        (_, Format::Split) => Some(QueueState::Split {
            avail: dice.word(),
            used: None,
        }),
        (_, Format::Packed) => Some(QueueState::Packed {
            avail: pos(dice),
            used: pos(dice),
        }),
    };
    for state in [wild, None] {
        let config = s.q.config(state);
        if let Ok(bell) = s.device.start_queue(q, config, Kick::Taken, Call::None) {
            s.q.doorbell = bell;
            return;
        }
    }
}
