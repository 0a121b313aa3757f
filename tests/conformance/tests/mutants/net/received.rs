//! Wrong about packets that are received: how they are in buffers, and what their headers say.

use std::sync::Mutex;

use vdpa_core::{Features, Result, VdpaDevice, bits::net};
use vdpa_ring::Used;

use super::{CARD, OURS, PAIRS, Received, mutant};
use crate::Mutant;
use crate::bend::{Bend, bent};
use crate::shadow::{Chain, Memory, Twist, shadow};

const NEEDS_CSUM: u8 = 1;

pub const MUTANTS: &[Mutant] = &[
    mutant(151, "has num_buffers 0 without merging", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[10] = 0))
    }),
    mutant(151, "has num_buffers 2 without merging", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[10] = 2))
    }),
    mutant(
        151,
        "counts descriptors, not chains, in num_buffers",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, len| bytes[10] = len.div_ceil(400) as u8),
            )
        },
    ),
    mutant(
        152,
        "says that a packet is always in one buffer",
        CARD,
        |inner| shadow(inner, Received(|bytes, _| bytes[10] = 1)),
    ),
    mutant(
        152,
        "has num_buffers with its bytes the other way round",
        CARD,
        |inner| shadow(inner, Received(|bytes, _| bytes[10..12].reverse())),
    ),
    mutant(152, "counts one buffer too many", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[10] += 1))
    }),
    mutant(
        153,
        "leaves the last byte of a full buffer out",
        CARD,
        |inner| shadow(inner, Shorter(|len| len - 1)),
    ),
    mutant(
        153,
        "aligns what it puts into a buffer to 64 bytes",
        CARD,
        |inner| shadow(inner, Shorter(|len| len / 64 * 64)),
    ),
    mutant(
        154,
        "gives the last buffer of a packet back later",
        CARD,
        |inner| shadow(inner, KeepsOne::default()),
    ),
    mutant(154, "gives buffers back one by one", CARD, |inner| {
        shadow(inner, OneByOne::default())
    }),
    mutant(
        155,
        "tells the length of the first descriptor alone",
        CARD,
        |inner| shadow(inner, FirstAlone { told: true }),
    ),
    mutant(155, "writes to the first descriptor alone", CARD, |inner| {
        shadow(inner, FirstAlone { told: false })
    }),
    mutant(
        156,
        "sets DATA_VALID for a driver that knows no flags",
        CARD,
        |inner| shadow(inner, Received(|bytes, _| bytes[0] |= 2)),
    ),
    mutant(156, "passes on unknown flags", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[0] |= 0x40))
    }),
    mutant(
        156,
        "leaves checksums to a driver that does not do them",
        CARD,
        |inner| bent(inner, Accepts(&[net::GUEST_CSUM])),
    ),
    mutant(156, "leaves a checksum out", CARD, |inner| {
        shadow(
            inner,
            Received(|bytes, _| {
                // That of UDP over IPv4.
                if bytes[24..26] == [8, 0] && bytes[35] == 17 {
                    bytes[52] ^= 1;
                }
            }),
        )
    }),
    mutant(
        157,
        "has TCPv4 left to be segmented without GUEST_TSO4",
        CARD,
        |inner| bent(inner, Accepts(&[net::GUEST_TSO4])),
    ),
    mutant(
        157,
        "has TCPv6 left to be segmented without GUEST_TSO6",
        CARD,
        |inner| bent(inner, Accepts(&[net::GUEST_TSO6])),
    ),
    mutant(
        157,
        "has UDP left to be segmented with neither bit",
        CARD,
        |inner| bent(inner, Accepts(&[net::GUEST_USO4, net::GUEST_USO6])),
    ),
    mutant(
        157,
        "has UDP over IPv6 left to be segmented with neither bit",
        CARD,
        |inner| bent(inner, Accepts(&[net::GUEST_USO6])),
    ),
    mutant(
        157,
        "says that what it passes on is in a tunnel",
        CARD,
        |inner| shadow(inner, Received(|bytes, _| bytes[1] |= 0x20)),
    ),
    mutant(
        158,
        "has a gso_type where none was negotiated",
        CARD,
        |inner| shadow(inner, Received(|bytes, _| bytes[1] = 3)),
    ),
    mutant(158, "sets ECN alone", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[1] |= 0x80))
    }),
    mutant(159, "has segmentation without NEEDS_CSUM", CARD, |inner| {
        shadow(
            inner,
            Received(|bytes, _| {
                if bytes[1] != 0 {
                    bytes[0] = 0;
                }
            }),
        )
    }),
    mutant(159, "has segmentation without a size", CARD, |inner| {
        shadow(
            inner,
            Received(|bytes, _| {
                if bytes[1] != 0 {
                    bytes[4..6].fill(0);
                }
            }),
        )
    }),
    mutant(
        160,
        "counts csum_start without the Ethernet header",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[0] & NEEDS_CSUM != 0 {
                        bytes[6] -= 14;
                    }
                }),
            )
        },
    ),
    mutant(
        160,
        "has the checksum of TCP where UDP has it",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[0] & NEEDS_CSUM != 0 && bytes[8] == 16 {
                        bytes[8] = 6;
                    }
                }),
            )
        },
    ),
    mutant(
        160,
        "has no pseudo header in the checksum left undone",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[0] & NEEDS_CSUM != 0 {
                        let at = 12 + usize::from(bytes[6]) + usize::from(bytes[8]);
                        bytes[at..at + 2].fill(0);
                    }
                }),
            )
        },
    ),
    mutant(
        160,
        "says that whole checksums are left undone",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[24..26] == [8, 0] && bytes[0] == 0 {
                        bytes[0] = NEEDS_CSUM;
                        bytes[6] = 34;
                        bytes[8] = 16;
                    }
                }),
            )
        },
    ),
    mutant(161, "sets DATA_VALID without a look", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[0] |= 2))
    }),
    mutant(
        161,
        "sets DATA_VALID for UDP without a look",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[24..26] == [8, 0] && bytes[35] == 17 {
                        bytes[0] |= 2;
                    }
                }),
            )
        },
    ),
    mutant(162, "sets RSC_INFO on every packet", CARD, |inner| {
        shadow(inner, Received(|bytes, _| bytes[0] |= 4))
    }),
    mutant(162, "sets RSC_INFO on large packets", CARD, |inner| {
        shadow(
            inner,
            Received(|bytes, _| {
                if bytes[1] != 0 {
                    bytes[0] |= 4;
                }
            }),
        )
    }),
    mutant(174, "takes the tag out of a frame", CARD, |inner| {
        shadow(
            inner,
            Received(|bytes, len| {
                if bytes[24..26] == [0x81, 0] {
                    bytes.drain(24..28);
                    bytes.extend([0xc5; 4]);
                    *len -= 4;
                }
            }),
        )
    }),
    mutant(174, "takes priority out of a tag", CARD, |inner| {
        shadow(
            inner,
            Received(|bytes, _| {
                if bytes[24..26] == [0x81, 0] {
                    bytes[26] &= 0x0f;
                }
            }),
        )
    }),
    mutant(
        180,
        "reports a hash with its bytes the other way round",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[26..32] == OURS {
                        bytes[12..16].reverse();
                    }
                }),
            )
        },
    ),
    mutant(
        180,
        "reports a bit of the type, not its number",
        CARD,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[26..32] == OURS && bytes[16] > 0 {
                        bytes[16] = 1 << (bytes[16] - 1);
                    }
                }),
            )
        },
    ),
    mutant(
        180,
        "reports a hash of what is not hashed",
        PAIRS,
        |inner| {
            shadow(
                inner,
                Received(|bytes, _| {
                    if bytes[26..32] == OURS && bytes[16] == 0 {
                        bytes[16] = 1;
                    }
                }),
            )
        },
    ),
];

/// Negotiates more than the driver did.
struct Accepts(&'static [vdpa_core::FeatureBit]);

impl Bend for Accepts {
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        // What the device behind does has the fields of what the driver knows.
        let more = match f.contains(net::CSUM) {
            true => Features::of(self.0),
            false => Features::NONE,
        };
        inner.accept(f | more)
    }
}

/// Uses fewer bytes of a buffer that is full.
struct Shorter(fn(u32) -> u32);

impl Twist for Shorter {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        if chain.readable.is_empty() && *len as usize == bytes.len() {
            *len = (self.0)(*len);
        }
    }
}

/// Keeps the last buffer that is to be given back until others are.
#[derive(Default)]
struct KeepsOne(Mutex<Option<Used>>);

impl Twist for KeepsOne {
    fn used(&self, queue: u16, used: &mut Vec<Used>) {
        if queue != 0 {
            return;
        }
        let mut kept = self.0.lock().unwrap();
        if let Some(kept) = kept.take() {
            used.insert(0, kept);
        }
        if used.len() > 1 {
            *kept = used.pop();
        }
    }
}

/// Gives one buffer back at a time, the others with those that come later.
#[derive(Default)]
struct OneByOne(Mutex<std::collections::VecDeque<Used>>);

impl Twist for OneByOne {
    fn used(&self, queue: u16, used: &mut Vec<Used>) {
        if queue == 0 {
            let mut kept = self.0.lock().unwrap();
            kept.extend(used.drain(..));
            used.extend(kept.pop_front());
        }
    }
}

/// Knows a chain's first descriptor alone: when it tells the length, or when it writes.
struct FirstAlone {
    told: bool,
}

impl Twist for FirstAlone {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        let first = chain.writable.first().map_or(0, |segment| segment.len);
        if chain.readable.is_empty() && *len > first {
            match self.told {
                true => *len = first,
                false => bytes[first as usize..].fill(0xc5),
            }
        }
    }
}
