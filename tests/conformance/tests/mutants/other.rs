//! Wrong about other device types: a source of entropy, and pretenders. A host of SCSI and a socket are made of simulated
//! devices that say they are one, with as much of it as the statements look at.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_core::{Caps, DeviceInfo, DeviceType, Features, Result, VdpaDevice, bits};
use vdpa_ring::Used;

use crate::bend::{Bend, bent};
use crate::shadow::{Chain, Memory, Plain, Twist, shadow};
use crate::{Mutant, Wrap};

const ENTROPY: &str = "sim:rng";
const NET: &str = "sim:net";

const fn mutant(caught_by: u16, spec: &'static str, name: &'static str, wrap: Wrap) -> Mutant {
    Mutant {
        name,
        caught_by,
        spec,
        wrap,
    }
}

pub const MUTANTS: &[Mutant] = &[
    mutant(203, ENTROPY, "not one byte of entropy", |inner| {
        shadow(inner, Tells(|_, _| 0))
    }),
    mutant(
        203,
        ENTROPY,
        "no entropy for buffers of one byte",
        |inner| shadow(inner, Tells(|room, len| if room == 1 { 0 } else { len })),
    ),
    mutant(
        203,
        ENTROPY,
        "more entropy than there is room for",
        |inner| shadow(inner, Tells(|room, _| room + 1)),
    ),
    mutant(203, ENTROPY, "random bytes are all the same", |inner| {
        shadow(inner, Constant)
    }),
    mutant(
        203,
        ENTROPY,
        "long requests for entropy never come back",
        |inner| shadow(inner, LosesLong(Mutex::default())),
    ),
    mutant(204, ENTROPY, "sizes of SCSI outlast a reset", |inner| {
        bent(inner, Scsi::new(Resets::Nothing, [96, 32]))
    }),
    mutant(204, ENTROPY, "the size of CDBs outlasts a reset", |inner| {
        bent(inner, Scsi::new(Resets::Sense, [96, 32]))
    }),
    mutant(204, ENTROPY, "sense data are 252 bytes at first", |inner| {
        bent(inner, Scsi::new(Resets::Both, [252, 32]))
    }),
    mutant(204, ENTROPY, "CDBs are 16 bytes at first", |inner| {
        bent(inner, Scsi::new(Resets::Both, [96, 16]))
    }),
    mutant(204, ENTROPY, "sizes of SCSI cannot be written", |inner| {
        bent(inner, Scsi::new(Resets::Always, [96, 32]))
    }),
    mutant(
        205,
        NET,
        "a socket sends only while it can receive",
        |inner| bent(shadow(inner, Sends(AtomicU32::new(0))), Socket),
    ),
    mutant(
        205,
        NET,
        "a socket sends one packet while it cannot receive",
        |inner| bent(shadow(inner, Sends(AtomicU32::new(1))), Socket),
    ),
];

struct Tells(fn(u32, u32) -> u32);

impl Twist for Tells {
    fn written(&self, _: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        *len = (self.0)(bytes.len() as u32, *len);
    }
}

struct Constant;

impl Twist for Constant {
    fn written(&self, _: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        bytes[..*len as usize].fill(7);
    }
}

struct LosesLong(Mutex<Vec<vdpa_ring::ChainToken>>);

impl Twist for LosesLong {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, _: &Memory<'_>) {
        if bytes.len() > 1024 {
            self.0.lock().unwrap().push(chain.token);
        }
    }
    fn used(&self, _: u16, used: &mut Vec<Used>) {
        let lost = std::mem::take(&mut *self.0.lock().unwrap());
        used.retain(|one| !lost.contains(&one.token));
    }
}

/// What a reset sets back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resets {
    Nothing,
    Sense,
    Both,
    /// Both, and whenever they are written.
    Always,
}

/// What offers nothing but the transport, as a device that is not what it is made of.
fn transport(inner: &dyn VdpaDevice) -> Features {
    let of_rings = Features::of(&[
        bits::VERSION_1,
        bits::ACCESS_PLATFORM,
        bits::RING_PACKED,
        bits::INDIRECT_DESC,
        bits::EVENT_IDX,
    ]);
    inner.offered() & of_rings
}

/// A host of SCSI, as far as its configuration space goes.
struct Scsi {
    resets: Resets,
    at_first: [u32; 2],
    sizes: Mutex<[u32; 2]>,
}

impl Scsi {
    fn new(resets: Resets, at_first: [u32; 2]) -> Self {
        let sizes = Mutex::new(at_first);
        Self {
            resets,
            at_first,
            sizes,
        }
    }
}

/// Bytes of its configuration space, and where the sizes are in it.
const SCSI_BYTES: u32 = 36;
const SENSE_AT: u32 = 20;

impl Bend for Scsi {
    fn info(&self, inner: DeviceInfo) -> DeviceInfo {
        DeviceInfo {
            device_type: DeviceType::Scsi,
            config_size: SCSI_BYTES,
            ..inner
        }
    }
    fn caps<'a>(&'a self, _: Caps<'a>) -> Caps<'a> {
        Caps::NONE
    }
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        transport(inner)
    }
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        let mut sizes = self.sizes.lock().unwrap();
        match self.resets {
            Resets::Nothing => {}
            Resets::Sense => sizes[0] = self.at_first[0],
            Resets::Both | Resets::Always => *sizes = self.at_first,
        }
        inner.begin_reset()
    }
    fn read_config(&self, _: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        let sizes = self.sizes.lock().unwrap().map(u32::to_le_bytes).concat();
        let mut space = vec![0; SCSI_BYTES as usize];
        space[SENSE_AT as usize..][..8].copy_from_slice(&sizes);
        to.copy_from_slice(&space[at as usize..][..to.len()]);
        Ok(())
    }
    fn write_config(&self, _: &dyn VdpaDevice, at: u32, from: &[u8]) -> Result<()> {
        if let (Some(place), false) = (at.checked_sub(SENSE_AT), self.resets == Resets::Always) {
            let size = u32::from_le_bytes(from.try_into().unwrap());
            self.sizes.lock().unwrap()[place as usize / 4] = size;
        }
        Ok(())
    }
}

/// A socket, as far as its queues 0 and 1 receive and send.
struct Socket;

impl Bend for Socket {
    fn info(&self, inner: DeviceInfo) -> DeviceInfo {
        DeviceInfo {
            device_type: DeviceType::Socket,
            config_size: 8,
            ..inner
        }
    }
    fn caps<'a>(&'a self, _: Caps<'a>) -> Caps<'a> {
        Caps::NONE
    }
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        transport(inner)
    }
    fn read_config(&self, _: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        // Its own address.
        let space = 3_u64.to_le_bytes();
        to.copy_from_slice(&space[at as usize..][..to.len()]);
        Ok(())
    }
}

/// Takes so many packets to send, and no more: nothing is ever received.
struct Sends(AtomicU32);

impl Twist for Sends {
    fn used(&self, queue: u16, used: &mut Vec<Used>) {
        let one_less = |left: u32| left.checked_sub(1);
        used.retain(|_| {
            let left = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            queue != 1 || left.is_ok()
        });
    }
}

/// Statements about types that nothing is made of here: a pretender that is right passes.
#[test]
fn pretenders_that_are_right_pass() {
    let scsi: Wrap = |inner| bent(inner, Scsi::new(Resets::Both, [96, 32]));
    let socket: Wrap = |inner| bent(inner, Socket);
    let behind: Wrap = |inner: Arc<dyn VdpaDevice>| bent(shadow(inner, Plain), Socket);
    for (name, spec, wrap, id) in [
        ("a host of SCSI", ENTROPY, scsi, 204),
        ("a socket", NET, socket, 205),
        ("a socket in a shadow", NET, behind, 205),
    ] {
        let selection = vdpa_conformance::Selection::only(vdpa_conformance::Ids::one(id));
        let report = crate::judge(name, spec, wrap, &selection);
        assert_eq!(report.passed(), 1, "{name}: {:?}", report.rows[0].outcome);
    }
}
