//! Wrong about commands that say where packets go, and what is announced.

use super::{CARD, PAIRS, ack, answered, command, heard, mutant};
use crate::Mutant;
use crate::shadow::shadow;

pub const MUTANTS: &[Mutant] = &[
    mutant(176, "refuses ANNOUNCE_ACK", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[0] == 3 {
                    ack(bytes, 1)
                }
            }),
        )
    }),
    mutant(
        176,
        "says that it took ANNOUNCE_ACK, and did not",
        CARD,
        |inner| {
            shadow(
                inner,
                command(
                    |said| {
                        if said[0] == 3 {
                            *said = vec![0, 1, 0]
                        }
                    },
                    |said, bytes| {
                        if said[0] == 3 {
                            ack(bytes, 0)
                        }
                    },
                ),
            )
        },
    ),
    mutant(180, "refuses RSS_CONFIG", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [4, 1] {
                    ack(bytes, 1)
                }
            }),
        )
    }),
    mutant(180, "refuses HASH_CONFIG", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [4, 2] {
                    ack(bytes, 1)
                }
            }),
        )
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
    mutant(
        180,
        "steers what is not hashed to the first pair",
        PAIRS,
        |inner| {
            shadow(
                inner,
                heard(|said| {
                    if said[..2] == [4, 1] {
                        said[8..10].fill(0)
                    }
                }),
            )
        },
    ),
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
    mutant(183, "takes no pairs for one", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..] == [4, 0, 0, 0] {
                    said[2] = 1
                }
            }),
        )
    }),
    mutant(183, "takes too many pairs for all", PAIRS, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [4, 0] && (said[2] > 3 || said[3] > 0) {
                    said[2..4].copy_from_slice(&[3, 0])
                }
            }),
        )
    }),
    mutant(183, "forgets to refuse 0x8001 pairs", PAIRS, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..] == [4, 0, 1, 0x80] {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(184, "takes a table of 3 entries", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [4, 1] && said[6] == 2 {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(184, "takes a table of 6 entries", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [4, 1] && said[6] == 5 {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(
        184,
        "takes a queue that is not there for the first one",
        PAIRS,
        |inner| {
            shadow(
                inner,
                heard(|said| {
                    if said[..2] == [4, 1] && said[6] == 1 && said[12] > 2 {
                        said[12] = 0;
                    }
                }),
            )
        },
    ),
    mutant(
        184,
        "does not look at the unclassified queue",
        PAIRS,
        |inner| {
            shadow(
                inner,
                heard(|said| {
                    if said[..2] == [4, 1] && said[8] > 2 {
                        said[8] = 0
                    }
                }),
            )
        },
    ),
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
    mutant(
        184,
        "refuses a table, and takes it all the same",
        PAIRS,
        |inner| {
            shadow(
                inner,
                command(
                    |said| {
                        if said[..2] == [4, 1] && said[6] == 2 {
                            said[6] = 1;
                            said.drain(14..16);
                        }
                    },
                    |said, bytes| {
                        if said[..2] == [4, 1] && said[6] == 2 {
                            ack(bytes, 1)
                        }
                    },
                ),
            )
        },
    ),
];
