//! Wrong about commands of notifications and statistics, and about those that are none.

use super::{CARD, ack, answered, command, heard, ignore, mutant};
use crate::Mutant;
use crate::shadow::shadow;

pub const MUTANTS: &[Mutant] = &[
    mutant(181, "lets parameters of any queue be set", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [6, 2] {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(181, "tells parameters of any queue", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [6, 3] {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(
        181,
        "knows queues by the last eight bits of their number",
        CARD,
        |inner| {
            shadow(
                inner,
                heard(|said| {
                    if said[0] == 6 && said[1] > 1 && said[2..4] == [0xff, 0xff] {
                        said[2..4].fill(0);
                    }
                }),
            )
        },
    ),
    mutant(181, "begins with parameters", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [6, 3] && bytes[4] == 0 {
                    bytes[4] = 50
                }
            }),
        )
    }),
    mutant(
        181,
        "has packets and microseconds the other way round",
        CARD,
        |inner| {
            shadow(
                inner,
                answered(|said, bytes| {
                    if said[..2] == [6, 3] {
                        bytes[..8].rotate_left(4)
                    }
                }),
            )
        },
    ),
    mutant(
        181,
        "has TX_SET and RX_SET the other way round",
        CARD,
        |inner| {
            shadow(
                inner,
                heard(|said| {
                    if said[0] == 6 && said[1] < 2 {
                        said[1] ^= 1
                    }
                }),
            )
        },
    ),
    mutant(181, "lets VQ_SET stand when all are set", CARD, |inner| {
        shadow(
            inner,
            command(
                |said| {
                    if said[..2] == [6, 1] {
                        ignore(said);
                    }
                },
                |said, bytes| {
                    if said[..2] == [6, 1] {
                        ack(bytes, 0);
                    }
                },
            ),
        )
    }),
    mutant(
        181,
        "refuses a reserved word that is not zero",
        CARD,
        |inner| {
            shadow(
                inner,
                answered(|said, bytes| {
                    if said[0] == 6 && said[1] > 1 && said[4..6] != [0, 0] {
                        ack(bytes, 1);
                    }
                }),
            )
        },
    ),
    mutant(182, "refuses STATS_QUERY", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..] == [8, 0] {
                    bytes[0] = 1
                }
            }),
        )
    }),
    mutant(182, "counts a reply without its header", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [8, 1] && bytes[0] == 0 {
                    bytes[7] -= 8
                }
            }),
        )
    }),
    mutant(182, "names no queue in a reply", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [8, 1] && bytes[0] == 0 {
                    bytes[3] = 0
                }
            }),
        )
    }),
    mutant(
        182,
        "has the wrong type in a reply of the control queue",
        CARD,
        |inner| {
            shadow(
                inner,
                answered(|said, bytes| {
                    if said[..2] == [8, 1] && bytes[0] == 0 && bytes[1] == 32 {
                        bytes[1] = 0;
                    }
                }),
            )
        },
    ),
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
        shadow(
            inner,
            heard(|said| {
                if said[..2] == [8, 1] {
                    said.truncate(18)
                }
            }),
        )
    }),
    mutant(
        182,
        "leaves out types that it does not know",
        CARD,
        |inner| {
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
        },
    ),
    mutant(182, "says OK to what it does not know", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said[..2] == [8, 1] {
                    bytes[0] = 0
                }
            }),
        )
    }),
    mutant(185, "says OK to an unknown class", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said.first() > Some(&8) {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(185, "says OK to an unknown command", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said.get(1) == Some(&99) {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(185, "says OK to nothing", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said.is_empty() {
                    ack(bytes, 0)
                }
            }),
        )
    }),
    mutant(185, "says nothing of a class alone", CARD, |inner| {
        shadow(
            inner,
            answered(|said, bytes| {
                if said.len() == 1 {
                    ack(bytes, 0xc5)
                }
            }),
        )
    }),
    mutant(185, "carries PROMISC out without its data", CARD, |inner| {
        shadow(
            inner,
            heard(|said| {
                if said[..] == [0, 0] {
                    said.push(1)
                }
            }),
        )
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
        shadow(
            inner,
            heard(|said| {
                if said.len() == 7 && said[..2] == [1, 1] {
                    said.push(9)
                }
            }),
        )
    }),
    mutant(
        185,
        "says nothing of what was not negotiated",
        CARD,
        |inner| {
            shadow(
                inner,
                answered(|said, bytes| {
                    if said[..] == [5, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
                        ack(bytes, 0xc5)
                    }
                }),
            )
        },
    ),
    mutant(
        185,
        "gives back with ERR whatever comes after an error",
        CARD,
        |inner| {
            shadow(
                inner,
                answered(|said, bytes| {
                    if said[..] == [0, 0, 1] {
                        ack(bytes, 1)
                    }
                }),
            )
        },
    ),
];
