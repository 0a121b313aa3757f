//! VIRTIO_NET_CTRL_STATS: statistics for the driver, virtio 1.4 §5.1.9.5.11.
//!
//! ```text
//!   QUERY   result:  types supported u64
//!   GET     data:    queue u16 | 0 u16 * 3 | types u64                                     one or more times
//!           result:  type u8 | 0 u8 | queue u16 | 0 u16 | size u16 | counters u64          for each type of each entry
//! ```

use vdpa_core::{FeatureBit, Features, bits::net};

use super::super::NetShared;
use super::commands;
use crate::stats::Counters;

/// Bytes of an entry of the data of GET.
const ENTRY: usize = 16;

/// Bytes in front of the counters of a reply.
const HEADER: usize = 8;

/// A counter: the sum of these counters of the queue, less the sum of those.
type Field = (&'static [&'static str], &'static [&'static str]);

/// A type of statistics.
struct Kind {
    /// Its bit, and what its replies are marked with.
    bit: u8,
    side: Side,
    /// One of these has to be negotiated, if there are any.
    needs: &'static [FeatureBit],
    fields: &'static [Field],
}

/// Which queues a type is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Control,
    Receive,
    Transmit,
}

/// What is never counted: nothing is coalesced, and no speed is kept to.
const NEVER: Field = (&[], &[]);

/// The packets that a driver described wrongly.
const MALFORMED: &[&str] = &[
    "dropped.tx_short",
    "dropped.tx_fault",
    "dropped.tx_bad_",
    "dropped.tx_gso_",
];

const KINDS: &[Kind] = &[
    Kind {
        bit: 32,
        side: Side::Control,
        needs: &[],
        // They are not sums: see `reply`.
        fields: &[NEVER, NEVER],
    },
    Kind {
        bit: 0,
        side: Side::Receive,
        needs: &[],
        fields: &[
            (&["kicks"], &[]),
            (&["packets"], &[]),
            (&["bytes"], &[]),
            (&["calls"], &[]),
            (&["dropped."], &[]),
            (&["dropped.rx_buffer_too_small"], &[]),
        ],
    },
    Kind {
        bit: 1,
        side: Side::Receive,
        needs: &[net::GUEST_CSUM],
        fields: &[
            (&["valid"], &[]),
            (&["partial"], &[]),
            (&["packets"], &["valid", "partial"]),
            NEVER,
        ],
    },
    Kind {
        bit: 2,
        side: Side::Receive,
        needs: &[net::GUEST_TSO4, net::GUEST_TSO6],
        fields: &[(&["gso"], &[]), (&["gso_bytes"], &[]), NEVER, NEVER],
    },
    Kind {
        bit: 3,
        side: Side::Receive,
        needs: &[],
        fields: &[NEVER, NEVER],
    },
    Kind {
        bit: 16,
        side: Side::Transmit,
        needs: &[],
        fields: &[
            (&["kicks"], &[]),
            (&["packets"], &[]),
            (&["bytes"], &[]),
            (&["calls"], &[]),
            (&["dropped."], &[]),
            (MALFORMED, &[]),
        ],
    },
    Kind {
        bit: 17,
        side: Side::Transmit,
        needs: &[net::CSUM],
        fields: &[(&["packets"], &["partial"]), (&["partial"], &[])],
    },
    Kind {
        bit: 18,
        side: Side::Transmit,
        needs: &[net::HOST_TSO4, net::HOST_TSO6, net::HOST_USO],
        // They go to the port as they are: who receives them segments them, if that has to be.
        fields: &[
            (&["gso"], &[]),
            (&["gso_bytes"], &[]),
            NEVER,
            NEVER,
            (&["gso"], &[]),
            (&["gso_bytes"], &[]),
        ],
    },
    Kind {
        bit: 19,
        side: Side::Transmit,
        needs: &[],
        fields: &[NEVER, NEVER],
    },
];

impl Kind {
    fn mask(&self) -> u64 {
        1_u64.checked_shl(self.bit.into()).unwrap_or(0)
    }

    fn is_in(&self, features: Features) -> bool {
        self.needs.is_empty() || features.intersects(Features::of(self.needs))
    }
}

/// Carries a command out. Answers with its result, of which as much is needed as there is room for.
pub(super) fn carry_out(shared: &NetShared, what: u8, data: &[u8], room: u64) -> Option<Vec<u8>> {
    if !shared.settled.features().contains(net::DEVICE_STATS) {
        return None;
    }
    match what {
        0 if data.is_empty() => {
            let offered = shared.settings.features;
            let all = KINDS.iter().filter(|kind| kind.is_in(offered));
            let all = all.fold(0, |all, kind| all | kind.mask());
            Some(all.to_le_bytes().to_vec())
        }
        1 => get(shared, data, room),
        _ => None,
    }
}

fn get(shared: &NetShared, data: &[u8], room: u64) -> Option<Vec<u8>> {
    let (entries, rest) = data.as_chunks::<ENTRY>();
    if entries.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut result = Vec::new();
    // One that is wrong fails all of them, wherever it is: virtio 1.4 §5.1.9.5.11.12.
    for entry in entries {
        let [a, b, _, _, _, _, _, _, types @ ..] = *entry;
        let queue = u16::from_le_bytes([a, b]);
        let mut types = u64::from_le_bytes(types);
        let (side, counters) = queue_of(shared, queue)?;
        for kind in KINDS.iter().filter(|kind| kind.side == side) {
            if types & kind.mask() == 0 {
                continue;
            }
            if !kind.is_in(shared.settled.features()) {
                return None;
            }
            types &= !kind.mask();
            // Beyond the room nothing is written, so nothing need be there.
            if (result.len() as u64) < room {
                reply(kind, queue, counters, &mut result);
            }
        }
        if types != 0 {
            return None;
        }
    }
    Some(result)
}

/// What a queue is, and its counters; `None` for one that there is not.
fn queue_of(shared: &NetShared, queue: u16) -> Option<(Side, &Counters)> {
    let data = shared.pairs(shared.settled.features()).saturating_mul(2);
    if queue == data {
        return Some((Side::Control, &shared.control));
    }
    let pair = shared.counters.get(usize::from(queue >> 1));
    let pair = pair.filter(|_| queue < data)?;
    Some(if queue & 1 == 0 {
        (Side::Receive, &pair.receive)
    } else {
        (Side::Transmit, &pair.transmit)
    })
}

fn reply(kind: &Kind, queue: u16, counters: &Counters, to: &mut Vec<u8>) {
    let size = kind.fields.len().saturating_mul(8).saturating_add(HEADER);
    to.extend([kind.bit, 0]);
    // The largest has 6 counters.
    let words = [queue, 0, size as u16];
    to.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    if kind.side == Side::Control {
        to.extend(
            commands(counters)
                .iter()
                .flat_map(|count| count.to_le_bytes()),
        );
        return;
    }
    for (plus, minus) in kind.fields {
        let count = counters.sum(plus).wrapping_sub(counters.sum(minus));
        to.extend(count.to_le_bytes());
    }
}
