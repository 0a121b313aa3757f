//! Our driver behind a socket, and frames from one to another of which each is looked at.

use std::path::Path;
use std::time::Duration;

use vdpa::Deadline;
use vdpa::net::{NetDriver, Ring, Setup};

use crate::harness::PATIENCE;

/// Frames that are under way at a time: fewer than any queue between has room for, since a switch drops what it has no
/// room for.
const WINDOW: usize = 100;
/// Windows in each direction.
const WINDOWS: usize = 20;

/// A station at a bridge, or at one end of a cable.
pub(crate) struct Station {
    address: u8,
    driver: NetDriver,
}

impl Station {
    /// Drives what is behind a socket.
    #[track_caller]
    pub(crate) fn new(address: u8, path: &Path, ring: Ring, server: bool) -> Self {
        let server = if server { "on,timeout=100" } else { "off" };
        let spec = format!("vhost-user:{},type=net,server={server}", path.display());
        let device = vdpa::open(&spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
        let setup = Setup {
            ring,
            ..Setup::default()
        };
        Self {
            address,
            driver: NetDriver::start(device, &setup).unwrap(),
        }
    }

    /// The frame of this number to another station, of a length that depends on it.
    fn frame(&self, to: &Self, number: u32) -> Vec<u8> {
        let address = |last| [0x52, 0x54, 0, 0, 0x0b, last];
        let mut bytes = [
            &address(to.address)[..],
            &address(self.address),
            &[0x88, 0xb5],
        ]
        .concat();
        bytes.extend(number.to_be_bytes());
        let len = 60 + (number as usize * 97) % 1455;
        bytes.extend(
            (bytes.len()..len).map(|at| (at as u32).wrapping_mul(number | 1).to_le_bytes()[1]),
        );
        bytes
    }

    #[track_caller]
    fn send(&mut self, frames: &[Vec<u8>]) {
        let by = Deadline::after(PATIENCE);
        let mut sent = 0;
        while sent < frames.len() {
            sent += self.driver.send(0, &frames[sent..]).unwrap();
            assert!(
                !by.expired(),
                "{sent} of {} frames could be sent",
                frames.len()
            );
        }
    }

    /// What has arrived from this station after at most this time.
    fn receive(&mut self, from: u8, within: Duration) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        if self.driver.wait(0, Deadline::after(within)).unwrap() {
            let mut each = Vec::new();
            let receive = self.driver.receive(0, |frame| {
                frame.copy_to(&mut each);
                got.push(each.clone());
            });
            receive.unwrap();
        }
        // Not what the bridge's own interface says to all.
        got.retain(|frame| frame.get(6..12) == Some(&[0x52, 0x54, 0, 0, 0x0b, from]));
        got
    }
}

/// Each learns of the other, and then all that one sends arrives at the other, in its order, and nothing else.
#[track_caller]
pub(crate) fn talk(one: &mut Station, other: &mut Station) {
    meet(one, other);
    meet(other, one);
    // What was asked for more than once may still be under way: it ends before the last window's first frame.
    for window in 0..WINDOWS {
        pass(one, other, window);
        pass(other, one, window);
    }
}

/// The number of frames that only ask whether the way is open.
const HELLO: u32 = 0;

/// One sends until it is heard: ports of a bridge come up one after the other.
#[track_caller]
fn meet(one: &mut Station, other: &mut Station) {
    let by = Deadline::after(PATIENCE);
    let hello = one.frame(other, HELLO);
    loop {
        one.send(std::slice::from_ref(&hello));
        if other
            .receive(one.address, Duration::from_millis(100))
            .contains(&hello)
        {
            return;
        }
        assert!(
            !by.expired(),
            "{} is not heard by {}",
            one.address,
            other.address
        );
    }
}

#[track_caller]
fn pass(one: &mut Station, other: &mut Station, window: usize) {
    let by = Deadline::after(PATIENCE);
    let first = 1 + (window * WINDOW) as u32;
    let sent: Vec<_> = (first..)
        .take(WINDOW)
        .map(|number| one.frame(other, number))
        .collect();
    one.send(&sent);
    let hello = one.frame(other, HELLO);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let came = other.receive(one.address, Duration::from_secs(1));
        got.extend(came.into_iter().filter(|frame| *frame != hello));
        assert!(
            !by.expired(),
            "{} of {} frames arrived",
            got.len(),
            sent.len()
        );
    }
    for (at, (got, sent)) in got.iter().zip(&sent).enumerate() {
        assert!(
            got == sent,
            "frame {at} from {} is another: {got:x?}, not {sent:x?}",
            one.address
        );
    }
    assert_eq!(got.len(), sent.len());
}
