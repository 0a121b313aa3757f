//! Wrong about packets that are sent: what their headers may make a device do.

use std::collections::BTreeSet;
use std::sync::Mutex;

use vdpa_ring::{ChainToken, Used};

use super::{CARD, Sent, mutant};
use crate::Mutant;
use crate::shadow::{Chain, Memory, Twist, shadow};

pub const MUTANTS: &[Mutant] = &[
    mutant(
        163,
        "drops packets with a flag that it does not know",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[0] & 0x80 != 0 {
                        drop_it(packet);
                    }
                }),
            )
        },
    ),
    mutant(
        163,
        "drops what is left undone with a flag that it does not know",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[0] == 0x81 {
                        packet[0] = 0;
                    }
                }),
            )
        },
    ),
    mutant(
        163,
        "takes a flag that it does not know for another",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[0] & 0x10 != 0 {
                        packet[..10].copy_from_slice(&[1, 0, 0, 0, 0, 0, 34, 0, 4, 0]);
                    }
                }),
            )
        },
    ),
    mutant(
        164,
        "completes a checksum wherever csum_start points",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[6..10] == [34, 0, 16, 0] {
                        packet[0] |= 1;
                    }
                }),
            )
        },
    ),
    mutant(
        164,
        "drops packets with csum_start beyond their end",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    let start = u16::from_le_bytes([packet[6], packet[7]]);
                    if usize::from(start) > packet.len() {
                        drop_it(packet);
                    }
                }),
            )
        },
    ),
    mutant(
        165,
        "drops packets with hdr_len beyond their end",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    let len = u16::from_le_bytes([packet[2], packet[3]]);
                    if usize::from(len) > packet.len() {
                        drop_it(packet);
                    }
                }),
            )
        },
    ),
    mutant(165, "drops large packets with hdr_len 0", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet[1] != 0 && packet[2..4] == [0, 0] {
                    drop_it(packet);
                }
            }),
        )
    }),
    mutant(
        165,
        "takes the payload from where hdr_len points",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[2..4] == [13, 0]
                        && let Some(byte) = packet.get_mut(12 + 80)
                    {
                        *byte ^= 0xff;
                    }
                }),
            )
        },
    ),
    mutant(166, "takes both tunnels for none", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet[1] & 0x60 == 0x60 {
                    packet[1] &= !0x60;
                }
            }),
        )
    }),
    mutant(
        166,
        "passes a packet in both tunnels on as it is",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[1] == 0x65 {
                        packet[..10].fill(0);
                        packet.truncate(1200);
                    }
                }),
            )
        },
    ),
    mutant(
        167,
        "passes on what is in a tunnel without NEEDS_CSUM",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[1] & 0x60 != 0 && packet[0] & 1 == 0 {
                        packet[1] = 1;
                        packet[0] = 1;
                    }
                }),
            )
        },
    ),
    mutant(
        167,
        "passes on what is in a tunnel and not to be segmented",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[1] & 0x60 != 0 && packet[1] & 0x1f == 0 {
                        packet[1] = 1;
                        packet[0] = 1;
                    }
                }),
            )
        },
    ),
    mutant(
        167,
        "passes on what is in a tunnel with DATA_VALID",
        CARD,
        |inner| {
            shadow(
                inner,
                Sent(|packet| {
                    if packet[1] & 0x60 != 0 && packet[0] == 3 {
                        packet[1] = 1;
                    }
                }),
            )
        },
    ),
    mutant(
        168,
        "keeps a packet whose num_buffers is not 0",
        CARD,
        |inner| shadow(inner, keeps(|packet| packet[10] != 0)),
    ),
    mutant(168, "keeps a packet with DATA_VALID", CARD, |inner| {
        shadow(inner, keeps(|packet| packet[0] & 2 != 0))
    }),
    mutant(
        168,
        "keeps a packet with a type that was not negotiated",
        CARD,
        |inner| shadow(inner, keeps(|packet| packet[1] & 0x1f == 3)),
    ),
    mutant(149, "pads what it sends", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet.len() == 12 + 14 + 750 {
                    packet.push(0);
                }
            }),
        )
    }),
    mutant(174, "drops frames of the last VLANs", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet[24..26] == [0x81, 0] && packet[26] & 0x0f == 0x0f {
                    packet[12 + 6] ^= 2;
                }
            }),
        )
    }),
    mutant(174, "drops frames with a priority", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet[24..26] == [0x81, 0] && packet[26] & 0xe0 != 0 {
                    packet[12 + 6] ^= 2;
                }
            }),
        )
    }),
    mutant(175, "drops tagged frames, listed or not", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet[24..26] == [0x81, 0] {
                    packet[12 + 6] ^= 2;
                }
            }),
        )
    }),
    mutant(169, "drops frames to groups", CARD, |inner| {
        shadow(
            inner,
            Sent(|packet| {
                if packet[12] == 1 {
                    packet[12 + 6] ^= 2;
                }
            }),
        )
    }),
];

/// Makes a packet one that the device behind drops: it is in both tunnels.
fn drop_it(packet: &mut [u8]) {
    packet[1] = 0x61;
}

/// Never gives the buffer of such a packet back.
struct Keeps {
    which: fn(&[u8]) -> bool,
    kept: Mutex<BTreeSet<u16>>,
}

fn keeps(which: fn(&[u8]) -> bool) -> Keeps {
    Keeps {
        which,
        kept: Mutex::default(),
    }
}

fn name(token: ChainToken) -> u16 {
    token.id()
}

impl Twist for Keeps {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        if chain.writable.is_empty() && readable.len() >= 12 && (self.which)(readable) {
            self.kept.lock().unwrap().insert(name(chain.token));
        }
    }
    fn used(&self, queue: u16, used: &mut Vec<Used>) {
        if queue % 2 == 1 {
            let mut kept = self.kept.lock().unwrap();
            used.retain(|used| !kept.remove(&name(used.token)));
        }
    }
}
