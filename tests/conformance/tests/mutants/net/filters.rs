//! Wrong about commands that say what is received.

use std::sync::Mutex;

use super::{CARD, ack, answered, heard, ignore, mutant};
use crate::Mutant;
use crate::shadow::{Chain, Memory, Twist, shadow};

const TABLE_SET: [u8; 2] = [1, 0];

pub const MUTANTS: &[Mutant] = &[
    mutant(169, "refuses PROMISC", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [0, 0] {
                    ack(bytes, 1)
                }
            }),
        )
    }),
    mutant(169, "refuses to turn ALLMULTI off", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..] == [0, 1, 0] {
                    ack(bytes, 1)
                }
            }),
        )
    }),
    mutant(169, "ignores PROMISC", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [0, 0] {
                    said[2] = 0
                }
            }),
        )
    }),
    mutant(169, "ignores ALLMULTI", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [0, 1] {
                    said[2] = 0
                }
            }),
        )
    }),
    mutant(170, "ignores ALLUNI", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..] == [0, 2, 1] {
                    ignore(said)
                }
            }),
        )
    }),
    mutant(170, "takes NOMULTI for NOBCAST", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [0, 3] {
                    said[1] = 5
                }
            }),
        )
    }),
    mutant(170, "takes NOUNI for NOMULTI", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [0, 4] {
                    said[1] = 3
                }
            }),
        )
    }),
    mutant(170, "takes NOBCAST for NOUNI", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [0, 5] {
                    said[1] = 4
                }
            }),
        )
    }),
    mutant(170, "refuses the extra modes", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[0] == 0 && said[1] > 1 {
                    ack(bytes, 1)
                }
            }),
        )
    }),
    mutant(170, "never turns NOUNI off", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..] == [0, 4, 0] {
                    ignore(said)
                }
            }),
        )
    }),
    mutant(171, "keeps its table over a reset", CARD, |inner| {
        shadow(inner, Remembers::new([0, 1, 0]))
    }),
    mutant(172, "ignores MAC_TABLE_SET", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == TABLE_SET {
                    ignore(said)
                }
            }),
        )
    }),
    mutant(172, "sets a table when the next one comes", CARD, |inner| {
        shadow(inner, Late::default())
    }),
    mutant(
        172,
        "forgets the multicast half of a table",
        CARD,
        |inner| {
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
        },
    ),
    mutant(
        172,
        "adds to its table, and takes nothing out",
        CARD,
        |inner| shadow(inner, Adds::default()),
    ),
    mutant(175, "takes nothing into its VLAN table", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [2, 0] {
                    said[1] = 1
                }
            }),
        )
    }),
    mutant(175, "refuses VLANs above 255", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[0] == 2 && said[3] != 0 {
                    ack(bytes, 1)
                }
            }),
        )
    }),
    mutant(
        175,
        "reads VLANs with their bytes the other way round",
        CARD,
        |inner| {
            shadow(
                inner,
                heard(|said| {
                    if said[0] == 2 {
                        said[2..4].reverse()
                    }
                }),
            )
        },
    ),
    mutant(175, "keeps the last eight bits of a VLAN", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[0] == 2 {
                    said[3] = 0
                }
            }),
        )
    }),
];

/// Remembers the last table, and sets it again when this command comes.
struct Remembers {
    when: [u8; 3],
    table: Mutex<Vec<u8>>,
}

impl Remembers {
    fn new(when: [u8; 3]) -> Self {
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
