//! Wrong about network cards.
//!
//! What is twisted: packets that are received, packets that are sent, commands and their answers; and what is bent of the
//! control side.

mod answers;
mod control;
mod filters;
mod received;
mod sent;
mod steering;

use std::collections::BTreeMap;
use std::sync::Mutex;

use vdpa_conformance::{Ids, Selection};

use crate::Mutant;
use crate::shadow::{Chain, Memory, Twist};

/// One pair of queues.
const CARD: &str = "sim:net";
/// Three of them.
const PAIRS: &str = "sim:net,queue_pairs=3";

const LISTS: [&[Mutant]; 6] = [
    control::MUTANTS,
    received::MUTANTS,
    sent::MUTANTS,
    filters::MUTANTS,
    steering::MUTANTS,
    answers::MUTANTS,
];
const COUNT: usize = count();

const fn count() -> usize {
    let (mut all, mut list) = (0, 0);
    while list < LISTS.len() {
        all += LISTS[list].len();
        list += 1;
    }
    all
}

pub const MUTANTS: &[Mutant] = &joined();

const fn joined() -> [Mutant; COUNT] {
    const NOBODY: Mutant = Mutant {
        name: "",
        caught_by: 0,
        spec: "",
        wrap: |inner| inner,
    };
    let mut all = [NOBODY; COUNT];
    let (mut at, mut list) = (0, 0);
    while list < LISTS.len() {
        let mut from = 0;
        while from < LISTS[list].len() {
            let Mutant {
                name,
                caught_by,
                spec,
                wrap,
            } = LISTS[list][from];
            all[at] = Mutant {
                name,
                caught_by,
                spec,
                wrap,
            };
            at += 1;
            from += 1;
        }
        list += 1;
    }
    all
}

const fn mutant(
    caught_by: u16,
    name: &'static str,
    spec: &'static str,
    wrap: crate::Wrap,
) -> Mutant {
    Mutant {
        name,
        caught_by,
        spec,
        wrap,
    }
}

/// Where frames of the suite have the address that they come from: behind a header and the address that they go to.
const FROM: std::ops::Range<usize> = 18..24;
const OURS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// Changes what is in each buffer that a packet begins in, and its length.
struct Received(fn(&mut Vec<u8>, &mut u32));

impl Twist for Received {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        let begins = bytes.get(FROM) == Some(&OURS[..]) || bytes.get(26..32) == Some(&OURS[..]);
        if chain.readable.is_empty() && begins {
            (self.0)(bytes, len);
        }
    }
}

/// Changes what is in each packet that is sent.
struct Sent(fn(&mut Vec<u8>));

impl Twist for Sent {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        if chain.writable.is_empty() && readable.len() >= 12 {
            (self.0)(readable);
        }
    }
}

/// Changes each command before it is carried out, and its answer after that, of which it knows the command as it was.
struct Command {
    before: fn(&mut Vec<u8>),
    after: fn(&[u8], &mut Vec<u8>),
    under_way: Mutex<BTreeMap<u64, Vec<u8>>>,
}

fn command(before: fn(&mut Vec<u8>), after: fn(&[u8], &mut Vec<u8>)) -> Command {
    Command {
        before,
        after,
        under_way: Mutex::default(),
    }
}

/// One that changes what is carried out.
fn heard(before: fn(&mut Vec<u8>)) -> Command {
    command(before, |_, _| {})
}

/// One that changes what is answered.
fn answered(after: fn(&[u8], &mut Vec<u8>)) -> Command {
    command(|_| {}, after)
}

/// Makes a command one that is carried out where GUEST_ANNOUNCE was negotiated, and changes nothing.
fn ignore(said: &mut Vec<u8>) {
    *said = vec![3, 0];
}

/// Sets the last byte of an answer.
fn ack(bytes: &mut [u8], ack: u8) {
    if let Some(last) = bytes.last_mut() {
        *last = ack;
    }
}

fn is_command(chain: &Chain) -> bool {
    // Of the statements about commands, some have nothing to read, or nothing to write.
    !chain.writable.is_empty()
        && (!chain.readable.is_empty() || chain.writable.iter().all(|s| s.len < 12))
}

impl Twist for Command {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        if is_command(chain) {
            self.under_way
                .lock()
                .unwrap()
                .insert(chain.number, readable.clone());
            (self.before)(readable);
        }
    }
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        if !is_command(chain) {
            return;
        }
        let command = self.under_way.lock().unwrap().remove(&chain.number);
        let had = bytes.len();
        (self.after)(&command.unwrap_or_default(), bytes);
        bytes.resize(had, 0);
        *len = had as u32;
    }
}

/// The wrappers alone break no card with several pairs.
#[test]
fn the_wrappers_alone_break_no_pairs() {
    let ids: Ids = "146-185".parse().unwrap();
    for wrap in [
        (|inner| crate::shadow::shadow(inner, crate::shadow::Plain)) as crate::Wrap,
        |inner| crate::shadow::shadow(inner, heard(|_| {})),
        |inner| crate::bend::bent(inner, crate::bend::Straight),
    ] {
        let report = crate::judge("three pairs", PAIRS, wrap, &Selection::only(ids.clone()));
        assert_eq!(report.failed(), 0, "{report}");
    }
}
