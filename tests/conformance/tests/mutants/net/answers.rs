//! Wrong about commands: what is carried out of them, and what is answered.

use std::sync::Mutex;

use super::{CARD, PAIRS, answered, command, heard, mutant};
use crate::Mutant;
use crate::shadow::{Chain, Memory, Twist, shadow};

const TABLE_SET: [u8; 2] = [1, 0];
/// One that changes nothing.
const NOTHING: [u8; 2] = [3, 0];

/// Makes a command one that is carried out and changes nothing.
fn ignore(said: &mut Vec<u8>) {
    *said = NOTHING.to_vec();
}

fn ack(bytes: &mut [u8], ack: u8) {
    if let Some(last) = bytes.last_mut() {
        *last = ack;
    }
}

pub const MUTANTS: &[Mutant] = &[
    mutant(169, "refuses PROMISC", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [0, 0] { ack(bytes, 1) }))
    }),
    mutant(169, "refuses to turn ALLMULTI off", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..] == [0, 1, 0] { ack(bytes, 1) }))
    }),
    mutant(169, "ignores PROMISC", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [0, 0] { said[2] = 0 }))
    }),
    mutant(169, "ignores ALLMULTI", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [0, 1] { said[2] = 0 }))
    }),
    mutant(170, "ignores ALLUNI", CARD, |inner| {
        shadow(inner, heard(|said| if said[..] == [0, 2, 1] { ignore(said) }))
    }),
    mutant(170, "takes NOMULTI for NOBCAST", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [0, 3] { said[1] = 5 }))
    }),
    mutant(170, "takes NOUNI for NOMULTI", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [0, 4] { said[1] = 3 }))
    }),
    mutant(170, "takes NOBCAST for NOUNI", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [0, 5] { said[1] = 4 }))
    }),
    mutant(170, "refuses the extra modes", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| if said[0] == 0 && said[1] > 1 { ack(bytes, 1) }),
        )
    }),
    mutant(170, "never turns NOUNI off", CARD, |inner| {
        shadow(inner, heard(|said| if said[..] == [0, 4, 0] { ignore(said) }))
    }),
    mutant(171, "keeps its table over a reset", CARD, |inner| {
        shadow(inner, Remembers::new([0, 1, 0], false))
    }),
    mutant(172, "ignores MAC_TABLE_SET", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == TABLE_SET { ignore(said) }))
    }),
    mutant(172, "sets a table when the next one comes", CARD, |inner| {
        shadow(inner, Late::default())
    }),
    mutant(172, "forgets the multicast half of a table", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == TABLE_SET {
                    let end = 6 + 6 * usize::from(said[2]);
                    said.truncate(end);
                    said.extend([0; 4]);
                }
            }),
        )
    }),
    mutant(172, "adds to its table, and takes nothing out", CARD, |inner| {
        shadow(inner, Adds::default())
    }),
    mutant(175, "takes nothing into its VLAN table", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [2, 0] { said[1] = 1 }))
    }),
    mutant(175, "refuses VLANs above 255", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| if said[0] == 2 && said[3] != 0 { ack(bytes, 1) }),
        )
    }),
    mutant(175, "reads VLANs with their bytes the other way round", CARD, |inner| {
        shadow(inner, heard(|said| if said[0] == 2 { said[2..4].reverse() }))
    }),
    mutant(175, "keeps the last eight bits of a VLAN", CARD, |inner| {
        shadow(inner, heard(|said| if said[0] == 2 { said[3] = 0 }))
    }),
    mutant(176, "refuses ANNOUNCE_ACK", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[0] == 3 { ack(bytes, 1) }))
    }),
    mutant(176, "says that it took ANNOUNCE_ACK, and did not", CARD, |inner| {
        shadow(
            inner,
            command(
                |said| if said[0] == 3 { *said = vec![0, 1, 0] },
                |said, bytes| if said[0] == 3 { ack(bytes, 0) },
            ),
        )
    }),
    mutant(180, "refuses RSS_CONFIG", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [4, 1] { ack(bytes, 1) }))
    }),
    mutant(180, "refuses HASH_CONFIG", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [4, 2] { ack(bytes, 1) }))
    }),
    mutant(180, "steers everything to the first pair", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [4, 1] {
                    let entries = usize::from(said[6]) + 1;
                    said[10..10 + 2 * entries].fill(0);
                }
            }),
        )
    }),
    mutant(180, "steers what is not hashed to the first pair", PAIRS, |inner| {
        shadow(inner, heard(|said| if said[..2] == [4, 1] { said[8..10].fill(0) }))
    }),
    mutant(180, "hashes with another key", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [4, 1] {
                    let last = said.len() - 20;
                    said[last] ^= 1;
                }
            }),
        )
    }),
    mutant(180, "hashes ports whatever is enabled", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[0] == 4 && said[1] > 0 && said[2] & 1 != 0 {
                    said[2] |= 2;
                }
            }),
        )
    }),
    mutant(181, "lets parameters of any queue be set", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [6, 2] { ack(bytes, 0) }))
    }),
    mutant(181, "tells parameters of any queue", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [6, 3] { ack(bytes, 0) }))
    }),
    mutant(181, "knows queues by the last eight bits of their number", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[0] == 6 && said[1] > 1 && said[2..4] == [0xff, 0xff] {
                    said[2..4].fill(0);
                }
            }),
        )
    }),
    mutant(181, "begins with parameters", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| if said[..2] == [6, 3] && bytes[4] == 0 { bytes[4] = 50 }),
        )
    }),
    mutant(181, "has packets and microseconds the other way round", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| if said[..2] == [6, 3] { bytes[..8].rotate_left(4) }),
        )
    }),
    mutant(181, "has TX_SET and RX_SET the other way round", CARD, |inner| {
        shadow(inner, heard(|said| if said[0] == 6 && said[1] < 2 { said[1] ^= 1 }))
    }),
    mutant(181, "lets VQ_SET stand when all are set", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [6, 1] { ignore(said) }))
    }),
    mutant(181, "refuses a reserved word that is not zero", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[0] == 6 && said[1] > 1 && said[4..6] != [0, 0] {
                    ack(bytes, 1);
                }
            }),
        )
    }),
    mutant(182, "refuses STATS_QUERY", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..] == [8, 0] { bytes[0] = 1 }))
    }),
    mutant(182, "counts a reply without its header", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| if said[..2] == [8, 1] && bytes[0] == 0 { bytes[7] -= 8 }),
        )
    }),
    mutant(182, "names no queue in a reply", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| if said[..2] == [8, 1] && bytes[0] == 0 { bytes[3] = 0 }),
        )
    }),
    mutant(182, "has the wrong type in a reply of the control queue", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [8, 1] && bytes[0] == 0 && bytes[1] == 32 {
                    bytes[1] = 0;
                }
            }),
        )
    }),
    mutant(182, "zeroes all of the room for a reply", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [8, 1] {
                    let len = bytes.len();
                    bytes[len - 4..].fill(0);
                }
            }),
        )
    }),
    mutant(182, "looks at the first entry alone", CARD, |inner| {
        shadow(inner, heard(|said| if said[..2] == [8, 1] { said.truncate(18) }))
    }),
    mutant(182, "leaves out types that it does not know", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [8, 1] {
                    for entry in said[2..].chunks_mut(16) {
                        entry[13..16].fill(0);
                    }
                }
            }),
        )
    }),
    mutant(182, "says OK to what it does not know", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [8, 1] { bytes[0] = 0 }))
    }),
    mutant(183, "takes no pairs for one", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| if said[..] == [4, 0, 0, 0] { said[2] = 1 }),
        )
    }),
    mutant(183, "takes too many pairs for all", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| if said[..2] == [4, 0] && (said[2] > 3 || said[3] > 0) { said[2..4].copy_from_slice(&[3, 0]) }),
        )
    }),
    mutant(183, "forgets to refuse 0x8001 pairs", PAIRS, |inner| {
        shadow(inner, answered(|said, bytes| if said[..] == [4, 0, 1, 0x80] { ack(bytes, 0) }))
    }),
    mutant(184, "takes a table of 3 entries", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [4, 1] && said[6] == 2 { ack(bytes, 0) }))
    }),
    mutant(184, "takes a table of 6 entries", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..2] == [4, 1] && said[6] == 5 { ack(bytes, 0) }))
    }),
    mutant(184, "takes a queue that is not there for the first one", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [4, 1] && said[6] == 1 && said[12] > 2 {
                    said[12] = 0;
                }
            }),
        )
    }),
    mutant(184, "does not look at the unclassified queue", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| if said[..2] == [4, 1] && said[8] > 2 { said[8] = 0 }),
        )
    }),
    mutant(184, "takes a table that is too long", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [4, 1] && said[6..8] != [127, 0] && said.len() > 400 {
                    ack(bytes, 0);
                }
            }),
        )
    }),
    mutant(184, "refuses a table, and takes it all the same", PAIRS, |inner| {
        shadow(
            inner,
            command(
                |said| {
                    if said[..2] == [4, 1] && said[6] == 2 {
                        said[6] = 1;
                        said.drain(14..16);
                    }
                },
                |said, bytes| if said[..2] == [4, 1] && said[6] == 2 { ack(bytes, 1) },
            ),
        )
    }),
    mutant(185, "says OK to an unknown class", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said.first() > Some(&8) { ack(bytes, 0) }))
    }),
    mutant(185, "says OK to an unknown command", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said.get(1) == Some(&99) { ack(bytes, 0) }))
    }),
    mutant(185, "says OK to nothing", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said.is_empty() { ack(bytes, 0) }))
    }),
    mutant(185, "says nothing of a class alone", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said.len() == 1 { ack(bytes, 0xc5) }))
    }),
    mutant(185, "carries PROMISC out without its data", CARD, |inner| {
        shadow(inner, heard(|said| if said[..] == [0, 0] { said.push(1) }))
    }),
    mutant(185, "takes as many addresses as there are", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said.len() > 6 && said[..6] == [1, 0, 0xff, 0xff, 0xff, 0xff] {
                    *said = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                }
            }),
        )
    }),
    mutant(185, "takes an address of five bytes", CARD, |inner| {
        shadow(inner, heard(|said| if said.len() == 7 && said[..2] == [1, 1] { said.push(9) }))
    }),
    mutant(185, "carries out what was not negotiated", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..] == [2, 0, 1, 0] { ack(bytes, 0) }))
    }),
    mutant(185, "gives back with ERR whatever comes after an error", CARD, |inner| {
        shadow(inner, answered(|said, bytes| if said[..] == [0, 0, 1] { ack(bytes, 1) }))
    }),
];

/// Remembers the last table, and sets it again when this command comes.
struct Remembers {
    when: [u8; 3],
    table: Mutex<Vec<u8>>,
}

impl Remembers {
    fn new(when: [u8; 3], _: bool) -> Self {
        Self {
            when,
            table: Mutex::default(),
        }
    }
}

fn is_command(chain: &Chain) -> bool {
    !chain.writable.is_empty() && !chain.readable.is_empty()
}

impl Twist for Remembers {
    fn taken(&self, chain: &Chain, said: &mut Vec<u8>, _: &Memory<'_>) {
        let mut table = self.table.lock().unwrap();
        if is_command(chain) && said[..2] == TABLE_SET {
            table.clone_from(said);
        } else if is_command(chain) && said[..] == self.when && !table.is_empty() {
            said.clone_from(&table);
        }
    }
}

/// Sets the table before the last one.
#[derive(Default)]
struct Late(Mutex<Vec<u8>>);

impl Twist for Late {
    fn taken(&self, chain: &Chain, said: &mut Vec<u8>, _: &Memory<'_>) {
        if is_command(chain) && said[..2] == TABLE_SET {
            let last = std::mem::replace(&mut *self.0.lock().unwrap(), said.clone());
            *said = match last.is_empty() {
                true => [&TABLE_SET[..], &[0; 8]].concat(),
                false => last,
            };
        }
    }
}

/// Has the unicast addresses of all tables so far.
#[derive(Default)]
struct Adds(Mutex<Vec<u8>>);

impl Twist for Adds {
    fn taken(&self, chain: &Chain, said: &mut Vec<u8>, _: &Memory<'_>) {
        if is_command(chain) && said[..2] == TABLE_SET {
            let end = 6 + 6 * usize::from(said[2]);
            let mut all = self.0.lock().unwrap();
            if all.len() < 600 {
                all.extend(&said[6..end]);
            }
            let count = (all.len() / 6) as u32;
            *said = [&TABLE_SET[..], &count.to_le_bytes(), &all, &said[end..]].concat();
        }
    }
}
