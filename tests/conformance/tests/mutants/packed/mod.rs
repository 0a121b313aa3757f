//! Wrong about packed rings.

mod wrong;

use crate::Mutant;
use crate::bend::bent;
use crate::dying::{Hushes, Spills, StaysBroken, Wordless};
use crate::shadow::shadow;
use wrong::*;

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "begins with a wrap counter of 0",
        caught_by: 93,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, BeginsWithZero),
    },
    Mutant {
        name: "does not flip its wrap counter",
        caught_by: 93,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, NeverFlips),
    },
    Mutant {
        name: "sends two frames in the wrong order",
        caught_by: 94,
        spec: "sim:net",
        wrap: |inner| shadow(inner, SwapsPairs::default()),
    },
    Mutant {
        name: "passes over what is not available",
        caught_by: 94,
        spec: "sim:rng",
        wrap: |inner| bent(inner, PassesOver::default()),
    },
    Mutant {
        name: "leaves a slot out between used descriptors",
        caught_by: 95,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, LeavesGaps),
    },
    Mutant {
        name: "names the first chain for every one",
        caught_by: 95,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, NamesTheFirst),
    },
    Mutant {
        name: "takes used descriptors for available ones",
        caught_by: 96,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, TakesUsed),
    },
    Mutant {
        name: "uses an empty ring's first slot when it is kicked",
        caught_by: 96,
        spec: "sim:blk",
        wrap: |inner| bent(inner, UsesNothing::default()),
    },
    Mutant {
        name: "sets the length behind USED",
        caught_by: 97,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, LenAfterUsed),
    },
    Mutant {
        name: "writes over the used descriptor before the last",
        caught_by: 97,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, Rewrites::default()),
    },
    Mutant {
        name: "clears readable buffers once they are used",
        caught_by: 98,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, ClearsReadable::default()),
    },
    Mutant {
        name: "counts tables that it has read, in them",
        caught_by: 98,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, CountsInTables),
    },
    Mutant {
        name: "fills a list's buffers from the last one on",
        caught_by: 99,
        spec: "sim:net",
        wrap: |inner| shadow(inner, FillsBackwards),
    },
    Mutant {
        name: "reads a list's buffers from the last one on",
        caught_by: 99,
        spec: "sim:net",
        wrap: |inner| shadow(inner, ReadsBackwards),
    },
    Mutant {
        name: "marks a list's second descriptor used too",
        caught_by: 100,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, MarksTheSecond::default()),
    },
    Mutant {
        name: "gives a list back by its first descriptor's id",
        caught_by: 100,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, FirstId::default()),
    },
    Mutant {
        name: "marks a packet's first buffer used first",
        caught_by: 101,
        spec: "sim:net",
        wrap: |inner| shadow(inner, FirstBufferFirst::default()),
    },
    Mutant {
        name: "calls with events disabled",
        caught_by: 102,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, Mode { of: 1, taken: 0 }),
    },
    Mutant {
        name: "takes events at a descriptor for disabled ones",
        caught_by: 102,
        spec: "sim:blk",
        wrap: |inner| shadow(inner, Mode { of: 2, taken: 1 }),
    },
    Mutant {
        name: "takes events at a descriptor for enabled ones",
        caught_by: 102,
        spec: "sim:net",
        wrap: |inner| shadow(inner, Mode { of: 2, taken: 0 }),
    },
    Mutant {
        name: "takes enabled events for disabled ones",
        caught_by: 102,
        spec: "sim:net",
        wrap: |inner| shadow(inner, Mode { of: 0, taken: 1 }),
    },
    Mutant {
        name: "takes an event's wrap counter the wrong way round",
        caught_by: 102,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, WrongLap),
    },
    Mutant {
        name: "dies silently of a list that goes round the ring",
        caught_by: 103,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("more than")),
    },
    Mutant {
        name: "writes where nobody asked it after a list that goes round the ring",
        caught_by: 103,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Spills::default()),
    },
    Mutant {
        name: "dies silently of a list of which half is available",
        caught_by: 104,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Hushes::about("is not available")),
    },
    Mutant {
        name: "heeds reserved flags in a table",
        caught_by: 105,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, HeedsReserved),
    },
    Mutant {
        name: "dies silently of a packed table in a table",
        caught_by: 105,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Hushes::about("of its table is indirect")),
    },
    Mutant {
        name: "dies silently of a table in a list",
        caught_by: 106,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Hushes::about("indirect inside a list")),
    },
    Mutant {
        name: "gives no reason for NEEDS_RESET after a table with a list behind it",
        caught_by: 106,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Wordless("is indirect and goes on")),
    },
    Mutant {
        name: "is of no use any more after a descriptor that changed",
        caught_by: 107,
        spec: "sim:blk",
        wrap: |inner| bent(inner, StaysBroken::default()),
    },
    Mutant {
        name: "asks for silence and goes to sleep, packed",
        caught_by: 108,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, SleepsDisabled),
    },
    Mutant {
        name: "refuses sizes that are no power of two",
        caught_by: 109,
        spec: "sim:rng",
        wrap: |inner| bent(inner, PowersOfTwo),
    },
    Mutant {
        name: "rounds an odd size up",
        caught_by: 109,
        spec: "sim:blk",
        wrap: |inner| bent(inner, RoundsUp),
    },
    Mutant {
        name: "counts the laps of a ring of seven by eight",
        caught_by: 109,
        spec: "sim:rng",
        wrap: |inner| shadow(inner, EightLaps::default()),
    },
];
