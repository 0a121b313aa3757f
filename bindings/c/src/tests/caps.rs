//! Capabilities have names in the library and bits here.

use std::task::Poll;

use vdpa::core::config::Mac;
use vdpa::core::{
    Announce, Asid, Caps, ClassState, Dma, GroupIndex, GroupSpaces, InFlight, QueueEnable,
    QueueIndex, QueuePause, QueueReset, Suspend, Window,
};
use vdpa::ring::QueueState;
use vdpa::{Error, Result};

use super::{Odd, Oddity};
use crate::device::CAPS;

/// It has every capability, and is never asked to do anything.
struct All;

fn refuse<T>() -> Result<T> {
    Err(Error::Gone)
}

impl GroupSpaces for All {
    fn assign(&self, _: GroupIndex, _: Asid) -> Result<()> {
        refuse()
    }
}

impl QueueReset for All {
    fn begin(&self, _: QueueIndex) -> Result<()> {
        refuse()
    }
    fn poll(&self, _: QueueIndex) -> Result<Poll<()>> {
        refuse()
    }
}

impl QueuePause for All {
    fn begin(&self, _: QueueIndex) -> Result<()> {
        refuse()
    }
    fn poll(&self, _: QueueIndex) -> Result<Poll<QueueState>> {
        refuse()
    }
}

impl QueueEnable for All {
    fn set(&self, _: QueueIndex, _: bool) -> Result<()> {
        refuse()
    }
}

impl Suspend for All {
    fn begin(&self) -> Result<()> {
        refuse()
    }
    fn poll(&self) -> Result<Poll<()>> {
        refuse()
    }
    fn state(&self, _: QueueIndex) -> Result<QueueState> {
        refuse()
    }
    fn resume(&self) -> Result<()> {
        refuse()
    }
}

impl InFlight for All {
    fn track(&self, _: QueueIndex, _: Window) -> Result<()> {
        refuse()
    }
}

impl ClassState for All {
    fn save(&self) -> Result<Vec<u8>> {
        refuse()
    }
    fn restore(&self, _: &[u8]) -> Result<()> {
        refuse()
    }
}

impl Announce for All {
    fn announce(&self, _: Mac) -> Result<()> {
        refuse()
    }
}

/// A name that changed in the library would have a bit vanish without a word.
#[test]
fn every_name_of_a_capability_has_its_bit_but_for_what_c_has_no_calls_for() {
    let (odd, device) = Odd::opened(Oddity::Keeps);
    let of = |dma| {
        Caps {
            dma,
            spaces: Some(&All),
            queue_reset: Some(&All),
            queue_pause: Some(&All),
            queue_enable: Some(&All),
            suspend: Some(&All),
            in_flight: Some(&All),
            class_state: Some(&All),
            announce: Some(&All),
            stats: Some(&*odd),
        }
        .names()
    };
    let mut names = of(Dma::Software { misses: true });
    names.extend(of(Dma::Map(&*odd)));
    for (name, bit) in CAPS {
        assert!(names.contains(&name), "{name} ({bit:#x}) is nobody's name");
    }
    names.retain(|name| CAPS.iter().all(|(named, _)| named != name));
    assert_eq!(names, ["in-flight", "class-state", "announce"].repeat(2));
    let bits = CAPS.iter().fold(0, |bits, (_, bit)| bits | bit);
    assert_eq!(bits, 0x1ff, "each has a bit of its own");
    assert_eq!(device.close(), 0);
}
