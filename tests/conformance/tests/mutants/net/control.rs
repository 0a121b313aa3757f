//! Wrong about the control side: the configuration space, and which queue is which.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vdpa_core::config::net::NetStatus;
use vdpa_core::config::{Mac, NetConfig};
use vdpa_core::{
    Call, Doorbell, Features, Kick, QueueConfig, QueueIndex, QueueReset, Result, VdpaDevice,
    bits::net,
};

use super::{CARD, PAIRS, mutant};
use crate::Mutant;
use crate::bend::{Bend, bent};

pub const MUTANTS: &[Mutant] = &[
    mutant(146, "has no pairs", CARD, |inner| {
        bent(inner, Shows(|c| c.with_max_virtqueue_pairs(0)))
    }),
    mutant(146, "has 0x8001 pairs", CARD, |inner| {
        bent(inner, Shows(|c| c.with_max_virtqueue_pairs(0x8001)))
    }),
    mutant(147, "has an mtu of 67", CARD, |inner| {
        bent(inner, Shows(|c| c.with_mtu(67)))
    }),
    mutant(147, "has an mtu of 0 though it offers one", CARD, |inner| {
        bent(inner, Shows(|c| c.with_mtu(0)))
    }),
    mutant(147, "has another mtu after each reset", CARD, |inner| {
        bent(inner, Counts::default())
    }),
    mutant(147, "lets its mtu be written", CARD, |inner| {
        bent(inner, Writable::default())
    }),
    mutant(
        148,
        "has a larger mtu than it says",
        "sim:net,mtu=9000",
        |inner| bent(inner, Shows(|c| c.with_mtu(1500))),
    ),
    mutant(
        148,
        "has room for a VLAN tag in its mtu",
        "sim:net,mtu=1504",
        |inner| bent(inner, Shows(|c| c.with_mtu(1500))),
    ),
    mutant(
        149,
        "has a smaller mtu than it says",
        "sim:net,mtu=1400",
        |inner| bent(inner, Shows(|c| c.with_mtu(1500))),
    ),
    mutant(
        149,
        "counts the Ethernet header into its mtu",
        "sim:net,mtu=1486",
        |inner| bent(inner, Shows(|c| c.with_mtu(1500))),
    ),
    mutant(
        149,
        "sends frames that are shorter than the mtu alone",
        "sim:net,mtu=1499",
        |inner| bent(inner, Shows(|c| c.with_mtu(1500))),
    ),
    mutant(150, "has keys of 39 bytes at most", CARD, |inner| {
        bent(inner, Shows(|c| c.with_rss_max_key_size(39)))
    }),
    mutant(150, "has tables of 127 entries at most", CARD, |inner| {
        bent(
            inner,
            Shows(|c| c.with_rss_max_indirection_table_length(127)),
        )
    }),
    mutant(173, "shows the first address for ever", CARD, |inner| {
        bent(
            inner,
            OldMac {
                late: false,
                first: Mutex::default(),
            },
        )
    }),
    mutant(
        173,
        "shows a new address the second time it is read",
        CARD,
        |inner| {
            bent(
                inner,
                OldMac {
                    late: true,
                    first: Mutex::default(),
                },
            )
        },
    ),
    mutant(176, "asks for announcements for ever", CARD, |inner| {
        bent(inner, Announces::default())
    }),
    mutant(
        176,
        "forgets that it was asked when it is read again",
        CARD,
        |inner| bent(inner, AnnouncesLate::default()),
    ),
    mutant(177, "begins with the second pair", PAIRS, |inner| {
        bent(inner, Swaps::new(0, 2, false))
    }),
    mutant(
        177,
        "goes on with the third pair after a reset",
        PAIRS,
        |inner| bent(inner, Swaps::new(0, 4, true)),
    ),
    mutant(178, "uses pairs from the last one on", PAIRS, |inner| {
        bent(inner, Swaps::new(0, 4, false))
    }),
    mutant(178, "uses the third pair for the second", PAIRS, |inner| {
        bent(inner, Swaps::new(2, 4, false))
    }),
    mutant(
        179,
        "stops sending when a receive queue is reset",
        CARD,
        |inner| bent(inner, StopsPairs),
    ),
    mutant(179, "never starts a receive queue again", CARD, |inner| {
        bent(inner, StartsOnce::default())
    }),
    mutant(
        179,
        "stops the other pair's sending when a receive queue is reset",
        PAIRS,
        |inner| bent(inner, StopsOthers),
    ),
];

/// Shows another configuration space.
struct Shows(fn(NetConfig) -> NetConfig);

/// Reads from what `change` makes of the whole configuration space.
fn read(
    inner: &dyn VdpaDevice,
    at: u32,
    to: &mut [u8],
    change: impl FnOnce(NetConfig) -> NetConfig,
) -> Result<()> {
    let mut all = [0; NetConfig::SIZE];
    inner.read_config(0, &mut all)?;
    let all = change(NetConfig::from_bytes(&all)).to_bytes();
    to.copy_from_slice(&all[at as usize..][..to.len()]);
    Ok(())
}

impl Bend for Shows {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        read(inner, at, to, self.0)
    }
}

/// An MTU that is one less after each reset.
#[derive(Default)]
struct Counts(AtomicU32);

impl Bend for Counts {
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        inner.begin_reset()
    }
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        let less = self.0.load(Ordering::Relaxed) as u16;
        read(inner, at, to, |c| c.with_mtu(c.mtu() - less))
    }
}

/// An MTU that is what was written last.
#[derive(Default)]
struct Writable(Mutex<Option<u16>>);

impl Bend for Writable {
    fn write_config(&self, inner: &dyn VdpaDevice, at: u32, from: &[u8]) -> Result<()> {
        if at == 10 && from.len() == 2 {
            *self.0.lock().unwrap() = Some(u16::from_le_bytes([from[0], from[1]]));
        }
        inner.write_config(at, from)
    }
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        let written = *self.0.lock().unwrap();
        read(inner, at, to, |c| c.with_mtu(written.unwrap_or(c.mtu())))
    }
}

/// Shows an address that is no more.
struct OldMac {
    late: bool,
    first: Mutex<Option<Mac>>,
}

impl Bend for OldMac {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        let mut last = self.first.lock().unwrap();
        read(inner, at, to, |c| {
            let shown = last.unwrap_or(c.mac());
            *last = Some(if self.late { c.mac() } else { shown });
            c.with_mac(shown)
        })
    }
}

/// Once it asked, it asks for ever.
#[derive(Default)]
struct Announces(AtomicBool);

impl Bend for Announces {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        read(inner, at, to, |c| {
            let asks = c.status().contains(NetStatus::ANNOUNCE);
            let asked = self.0.fetch_or(asks, Ordering::Relaxed) || asks;
            match asked {
                true => c.with_status(c.status() | NetStatus::ANNOUNCE),
                false => c,
            }
        })
    }
}

/// It stops asking one read too late.
#[derive(Default)]
struct AnnouncesLate(AtomicBool);

impl Bend for AnnouncesLate {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        read(inner, at, to, |c| {
            let asks = c.status().contains(NetStatus::ANNOUNCE);
            let asked = self.0.swap(asks, Ordering::Relaxed) || asks;
            match asked {
                true => c.with_status(c.status() | NetStatus::ANNOUNCE),
                false => c,
            }
        })
    }
}

/// Has two receive queues the other way round: from the beginning, or after a reset.
struct Swaps {
    pair: [u16; 2],
    later: bool,
    resets: AtomicU32,
    many: AtomicBool,
}

impl Swaps {
    fn new(one: u16, other: u16, later: bool) -> Self {
        Self {
            pair: [one, other],
            later,
            resets: AtomicU32::new(0),
            many: AtomicBool::new(false),
        }
    }
}

impl Bend for Swaps {
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        self.many.store(f.contains(net::MQ), Ordering::Relaxed);
        inner.accept(f)
    }
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        self.resets.fetch_add(1, Ordering::Relaxed);
        inner.begin_reset()
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let resets = self.resets.load(Ordering::Relaxed);
        let on = self.many.load(Ordering::Relaxed) && (!self.later || resets > 0);
        let [one, other] = self.pair;
        let q = match q.get() {
            q if on && q == one => QueueIndex::new(other),
            q if on && q == other => QueueIndex::new(one),
            _ => q,
        };
        inner.start_queue(q, c, kick, call)
    }
}

/// Resets the transmit queue of a pair with its receive queue.
struct StopsPairs;

impl Bend for StopsPairs {
    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        if q.get() == 0 {
            inner.begin(QueueIndex::new(1))?;
        }
        inner.begin(q)
    }
}

/// Resets the transmit queue of the last pair with a receive queue.
struct StopsOthers;

impl Bend for StopsOthers {
    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        if q.get() == 0 {
            inner.begin(QueueIndex::new(5))?;
        }
        inner.begin(q)
    }
}

/// Starts the first receive queue once in a life.
#[derive(Default)]
struct StartsOnce(AtomicU32);

impl Bend for StartsOnce {
    fn begin_queue_reset(&self, inner: &dyn QueueReset, q: QueueIndex) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        inner.begin(q)
    }
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        if q.get() == 0 && self.0.load(Ordering::Relaxed) > 0 {
            return Ok(Doorbell::NONE);
        }
        inner.start_queue(q, c, kick, call)
    }
}
