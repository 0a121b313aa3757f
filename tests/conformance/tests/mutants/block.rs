//! Wrong about block devices.

mod ask;
mod cache;
mod space;

use std::sync::atomic::AtomicU32;

use vdpa_core::Features;
use vdpa_core::bits::block;

use crate::bend::bent;
use crate::{Mutant, Wrap};
use ask::{
    DISCARD, FLUSH, GET_ID, IN, IOERR, OK, OUT, UNSUPP, WRITE_ZEROES, answers, asks, loses, status,
};
use cache::caches;
use space::{HostManaged, IgnoresWrites, Offers, Shows, Sticks, Tells};

/// A disk of 2048 sectors.
const SMALL: &str = "sim:blk,size=1M";
const DISK: &str = "sim:blk";
/// A disk whose blocks are 8 sectors.
const BLOCKS: &str = "sim:blk,blk_size=4096";

const fn mutant(caught_by: u16, spec: &'static str, name: &'static str, wrap: Wrap) -> Mutant {
    Mutant {
        name,
        caught_by,
        spec,
        wrap,
    }
}

pub const MUTANTS: &[Mutant] = &[
    mutant(186, DISK, "CONFIG_WCE is offered without FLUSH", |inner| {
        let less = block::FLUSH.mask();
        let more = Features::NONE;
        bent(inner, Offers { more, less })
    }),
    mutant(
        187,
        DISK,
        "a disk begins with writeback 1 without FLUSH",
        |inner| bent(inner, Shows(&[(32, 1)])),
    ),
    mutant(187, DISK, "writeback outlasts a reset", |inner| {
        bent(inner, Sticks::also_at(32))
    }),
    mutant(188, DISK, "unused0 is not zero", |inner| {
        bent(inner, Shows(&[(33, 1)]))
    }),
    mutant(188, DISK, "the last byte of unused1 is not zero", |inner| {
        bent(inner, Shows(&[(59, 0x80)]))
    }),
    mutant(
        188,
        DISK,
        "unused2 of a disk with zones is not zero",
        |inner| bent(bent(inner, HostManaged::new(true)), Shows(&[(95, 1)])),
    ),
    mutant(188, DISK, "writeback is two bytes wide", |inner| {
        bent(inner, Sticks::also_at(33))
    }),
    mutant(189, DISK, "a read-only disk can be written to", |inner| {
        bent(inner, space::offers(block::RO.mask()))
    }),
    mutant(
        189,
        DISK,
        "a read-only disk refuses writes and does them",
        space::read_only_by_word,
    ),
    mutant(
        189,
        DISK,
        "a disk is read-only only for who accepts RO",
        space::read_only_as_accepted,
    ),
    mutant(
        189,
        "sim:blk,ro=on",
        "writes to a read-only disk are unsupported",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == OUT {
                    status(bytes, IOERR, UNSUPP);
                }
            })
        },
    ),
    mutant(190, DISK, "unknown flags are ignored", |inner| {
        asks(inner, |ask| {
            if ask.is_about_extents() {
                ask.each_extent(|_, _, _, flags| *flags &= 1);
            }
        })
    }),
    mutant(190, DISK, "the highest flag is ignored", |inner| {
        asks(inner, |ask| {
            if ask.is_about_extents() {
                ask.each_extent(|_, _, _, flags| *flags &= !(1 << 31));
            }
        })
    }),
    mutant(
        190,
        DISK,
        "unknown flags of write-zeroes are ignored",
        |inner| {
            asks(inner, |ask| {
                if ask.kind == WRITE_ZEROES {
                    ask.each_extent(|_, _, _, flags| *flags &= 1);
                }
            })
        },
    ),
    mutant(
        190,
        DISK,
        "only the first segment's flags are looked at",
        |inner| {
            asks(inner, |ask| {
                if ask.is_about_extents() {
                    ask.each_extent(|at, _, _, flags| *flags &= if at == 0 { u32::MAX } else { 1 });
                }
            })
        },
    ),
    mutant(190, DISK, "unknown flags are errors", |inner| {
        answers(inner, |ask, bytes| {
            if ask.is_about_extents() {
                status(bytes, UNSUPP, IOERR);
            }
        })
    }),
    mutant(191, DISK, "a discard may unmap", |inner| {
        asks(inner, |ask| {
            if ask.kind == DISCARD {
                ask.each_extent(|_, _, _, flags| *flags &= !1);
            }
        })
    }),
    mutant(191, DISK, "a discard's second segment may unmap", |inner| {
        asks(inner, |ask| {
            if ask.kind == DISCARD {
                ask.each_extent(|at, _, _, flags| *flags &= !u32::from(at == 1));
            }
        })
    }),
    mutant(191, DISK, "a discard that unmaps is an error", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == DISCARD {
                status(bytes, UNSUPP, IOERR);
            }
        })
    }),
    mutant(191, DISK, "all discards are unsupported", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == DISCARD {
                status(bytes, OK, UNSUPP);
            }
        })
    }),
    mutant(
        192,
        DISK,
        "write-zeroes with unmap is a discard that keeps the data",
        |inner| {
            asks(inner, |ask| {
                if ask.kind == WRITE_ZEROES && ask.extents().iter().any(|(_, _, flags)| *flags == 1)
                {
                    (ask.kind, ask.data) = (OUT, Vec::new());
                }
            })
        },
    ),
    mutant(
        192,
        DISK,
        "write-zeroes does the first segment only",
        |inner| {
            asks(inner, |ask| {
                if ask.kind == WRITE_ZEROES {
                    ask.data.truncate(16);
                }
            })
        },
    ),
    mutant(192, DISK, "write-zeroes does a sector too many", |inner| {
        asks(inner, |ask| {
            if ask.kind == WRITE_ZEROES {
                ask.each_extent(|_, _, sectors, _| *sectors = sectors.saturating_add(1));
            }
        })
    }),
    mutant(192, DISK, "write-zeroes forgets the last sector", |inner| {
        asks(inner, |ask| {
            if ask.kind == WRITE_ZEROES {
                ask.each_extent(|_, _, sectors, _| *sectors = sectors.saturating_sub(1));
            }
        })
    }),
    mutant(
        193,
        DISK,
        "a flush leaves everything in a volatile cache",
        |inner| caches(inner, |_, mode| mode.writeback),
    ),
    mutant(
        193,
        "sim:blk,queues=2",
        "a flush leaves what another queue wrote",
        |inner| caches(inner, |ask, mode| mode.writeback && ask.queue == 1),
    ),
    mutant(193, DISK, "a flush fails", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == FLUSH {
                status(bytes, OK, IOERR);
            }
        })
    }),
    mutant(193, DISK, "FLUSH is offered and unsupported", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == FLUSH {
                status(bytes, OK, UNSUPP);
            }
        })
    }),
    mutant(
        194,
        DISK,
        "writes are cached for a driver that cannot flush",
        |inner| {
            caches(inner, |_, mode| {
                let can = Features::of(&[block::FLUSH, block::CONFIG_WCE]);
                !mode.features.intersects(can)
            })
        },
    ),
    mutant(
        194,
        DISK,
        "writes are cached though writeback is 0",
        |inner| {
            caches(inner, |_, mode| {
                mode.features.contains(block::CONFIG_WCE) && !mode.writeback
            })
        },
    ),
    mutant(194, DISK, "writeback cannot be set to 0", |inner| {
        bent(inner, IgnoresWrites)
    }),
    mutant(195, DISK, "zones are reported without ZONED", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == 16 {
                bytes.fill(0);
            }
        })
    }),
    mutant(
        195,
        DISK,
        "an append to a zone is done without ZONED",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == 15 {
                    status(bytes, UNSUPP, OK);
                }
            })
        },
    ),
    mutant(
        195,
        DISK,
        "a reset of a zone is an error without ZONED",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == 24 {
                    status(bytes, UNSUPP, IOERR);
                }
            })
        },
    ),
    mutant(195, DISK, "all zones are reset without ZONED", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == 26 {
                status(bytes, UNSUPP, OK);
            }
        })
    }),
    mutant(
        196,
        DISK,
        "a host-managed disk goes without ZONED",
        |inner| bent(inner, HostManaged::new(false)),
    ),
    mutant(197, DISK, "nobody is told of a changed capacity", |inner| {
        let left = AtomicU32::new(0);
        bent(inner, Tells { left })
    }),
    mutant(
        197,
        DISK,
        "only the first change of the capacity is told",
        |inner| {
            let left = AtomicU32::new(1);
            bent(inner, Tells { left })
        },
    ),
    mutant(
        197,
        SMALL,
        "the capacity that is read never changes",
        |inner| bent(inner, Shows(&[(0, 0), (1, 8)])),
    ),
    mutant(
        198,
        DISK,
        "what is beyond the end reads as zeroes",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == IN && bytes.last() == Some(&IOERR) {
                    bytes.fill(0);
                }
            })
        },
    ),
    mutant(198, DISK, "a refused read fills its buffer", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == IN && bytes.last() == Some(&IOERR) {
                bytes[0] = 0;
            }
        })
    }),
    mutant(
        198,
        DISK,
        "the length of a write is rounded down to sectors",
        |inner| {
            asks(inner, |ask| {
                if ask.kind == OUT {
                    ask.data.truncate(ask.data.len() / 512 * 512);
                }
            })
        },
    ),
    mutant(198, DISK, "a place in bytes wraps", |inner| {
        asks(inner, |ask| ask.sector &= u64::MAX >> 9)
    }),
    mutant(198, DISK, "the end in bytes wraps", |inner| {
        asks(inner, |ask| {
            if ask.kind == OUT && ask.sector.checked_mul(512).is_some() && ask.end().is_none() {
                ask.sector = 0;
                ask.data.drain(..512);
            }
        })
    }),
    mutant(198, DISK, "a sector has 32 bits", |inner| {
        asks(inner, |ask| ask.sector &= u64::from(u32::MAX))
    }),
    mutant(
        198,
        SMALL,
        "a write over the end is cut off there",
        |inner| {
            asks(inner, |ask| {
                if ask.kind == OUT && ask.sector < 2048 {
                    ask.data.truncate((2048 - ask.sector as usize) * 512);
                }
            })
        },
    ),
    mutant(198, SMALL, "a write from the end on is taken", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == OUT && ask.sector == 2048 {
                status(bytes, IOERR, OK);
            }
        })
    }),
    mutant(
        198,
        DISK,
        "a write beyond the end is unsupported",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == OUT {
                    status(bytes, IOERR, UNSUPP);
                }
            })
        },
    ),
    mutant(
        198,
        SMALL,
        "a write beyond the end goes to the beginning, and fails",
        |inner| {
            let behind = asks(inner, |ask| {
                if ask.kind == OUT && ask.sector >= 2048 {
                    ask.sector = 0;
                }
            });
            answers(behind, |ask, bytes| {
                if ask.kind == OUT && ask.sector >= 2048 {
                    status(bytes, OK, IOERR);
                }
            })
        },
    ),
    mutant(
        198,
        DISK,
        "a write-zeroes beyond the end succeeds",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == WRITE_ZEROES {
                    status(bytes, IOERR, OK);
                }
            })
        },
    ),
    mutant(199, DISK, "a read of no whole sector succeeds", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == IN && ask.len() % 512 != 0 {
                status(bytes, IOERR, OK);
            }
        })
    }),
    mutant(
        199,
        DISK,
        "a write of no whole sector never comes back",
        |inner| loses(inner, |ask| ask.kind == OUT && ask.len() % 512 != 0),
    ),
    mutant(
        199,
        DISK,
        "the status of an identity is always the byte behind 20",
        |inner| {
            answers(inner, |ask, bytes| {
                let last = bytes.len() - 1;
                if ask.kind == GET_ID && last > 20 {
                    bytes.swap(20, last);
                    bytes[last] = 0xc5;
                }
            })
        },
    ),
    mutant(
        199,
        DISK,
        "an identity without room has no status",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == GET_ID && bytes.len() <= 20 {
                    *bytes.last_mut().unwrap() = 0xc5;
                }
            })
        },
    ),
    mutant(
        199,
        DISK,
        "an identity is padded with something else",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == GET_ID && bytes.len() > 20 {
                    bytes[19] = b' ';
                }
            })
        },
    ),
    mutant(
        199,
        DISK,
        "the identity depends on the room for it",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.kind == GET_ID && bytes.len() > 21 {
                    bytes[0] ^= 1;
                }
            })
        },
    ),
    mutant(
        200,
        DISK,
        "a request has one segment less than it may",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.is_about_extents() && ask.extents().len() >= 32 {
                    status(bytes, OK, IOERR);
                }
            })
        },
    ),
    mutant(200, DISK, "too many segments never come back", |inner| {
        loses(inner, |ask| ask.kind == DISCARD && ask.extents().len() > 32)
    }),
    mutant(200, DISK, "part of a segment has no status", |inner| {
        answers(inner, |ask, bytes| {
            if ask.is_about_extents() && ask.data.len() % 16 != 0 {
                *bytes.last_mut().unwrap() = 0xc5;
            }
        })
    }),
    mutant(201, BLOCKS, "a discard's length is in blocks", |inner| {
        asks(inner, |ask| {
            if ask.kind == DISCARD {
                // What it gives up is seen to be gone.
                ask.kind = WRITE_ZEROES;
                ask.each_extent(|_, _, sectors, _| *sectors = sectors.saturating_mul(8));
            }
        })
    }),
    mutant(201, BLOCKS, "a discard's place is in blocks", |inner| {
        asks(inner, |ask| {
            if ask.kind == DISCARD {
                ask.each_extent(|_, sector, _, _| *sector = sector.saturating_mul(8));
            }
        })
    }),
    mutant(201, DISK, "the limit of discards is in bytes", |inner| {
        answers(inner, |ask, bytes| {
            let long = |(_, sectors, _): &(u64, u32, u32)| sectors * 512 > 1 << 22;
            if ask.kind == DISCARD && ask.extents().iter().any(long) {
                status(bytes, OK, IOERR);
            }
        })
    }),
    mutant(202, DISK, "an unknown type is an error", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind > 14 {
                status(bytes, UNSUPP, IOERR);
            }
        })
    }),
    mutant(202, DISK, "an unknown type succeeds", |inner| {
        answers(inner, |ask, bytes| {
            if ask.kind == 9 {
                status(bytes, UNSUPP, OK);
            }
        })
    }),
    mutant(202, DISK, "a type has 8 bits", |inner| {
        asks(inner, |ask| ask.kind &= 0xff)
    }),
    mutant(202, DISK, "the status comes first", |inner| {
        answers(inner, |_, bytes| {
            let last = bytes.len() - 1;
            bytes.swap(0, last);
        })
    }),
    mutant(
        202,
        DISK,
        "the status is the first byte of the last descriptor",
        |inner| {
            answers(inner, |ask, bytes| {
                let len = *ask.writable.last().unwrap() as usize;
                let (first, last) = (bytes.len() - len, bytes.len() - 1);
                bytes.swap(first, last);
            })
        },
    ),
    mutant(
        202,
        DISK,
        "a header in two descriptors is an error",
        |inner| {
            answers(inner, |ask, bytes| {
                if ask.readable[0] < 16 {
                    *bytes.last_mut().unwrap() = IOERR;
                }
            })
        },
    ),
];

/// A host-managed disk can be judged, and one that is right is found to be.
#[test]
fn a_host_managed_disk_that_insists_on_zones_passes() {
    let wrap: Wrap = |inner| bent(inner, HostManaged::new(true));
    let selection = vdpa_conformance::Selection::only("186-202".parse().unwrap());
    let report = crate::judge("host-managed", DISK, wrap, &selection);
    let rows: Vec<_> = report.rows.iter().map(|row| row.to_string()).collect();
    assert_eq!(report.failed(), 0, "{rows:#?}");
    let zones = report.rows.iter().find(|row| row.statement.id == 196);
    assert_eq!(zones.unwrap().outcome.word(), "passed", "{rows:#?}");
}
