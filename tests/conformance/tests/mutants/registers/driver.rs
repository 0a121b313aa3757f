//! Drivers that access a function wrongly.

use std::sync::Arc;

use vdpa_conformance::registers::{Between, Through};
use vdpa_core::{Doorbell, Error, Result};
use vdpa_pci::{PciAccess, Width};

use super::{BELLS_BAR, Bells, Common, Side, Wrong, at, reads_well, writes_well};

/// Switches on more vectors than it was asked for.
struct Greedy;

impl Between for Greedy {
    fn enable_vectors(&self, to: &dyn PciAccess, count: u16) -> Result<()> {
        to.enable_vectors(if count == 0 { 0 } else { count + 1 })
    }
}

/// Fails at a capability that it does not know.
struct Narrow;

impl Between for Narrow {
    fn read_config(&self, to: &dyn PciAccess, place: u16, width: Width) -> Result<u32> {
        let mut cap = to.read_config(0x34, Width::U8)? as u16;
        for _ in 0..48 {
            if cap < 0x40 {
                break;
            }
            let vendor = to.read_config(cap, Width::U8)? == 9;
            let kind = to.read_config(cap & 0xfc | 3, Width::U8)?;
            if vendor && kind > 9 {
                let device = to.name().to_owned();
                let what = "such a capability";
                return Err(Error::Unsupported { device, what });
            }
            cap = to.read_config(cap & 0xfc | 1, Width::U8)? as u16 & 0xfc;
        }
        to.read_config(place, width)
    }
}

fn bells(
    to: Arc<dyn PciAccess>,
    make: fn(&dyn PciAccess, u64, Width, u16) -> Result<Doorbell>,
) -> Arc<dyn PciAccess> {
    Through::around(to, Arc::new(Bells(make)))
}

macro_rules! wrong {
    ($($id:literal $spec:literal $name:literal $wrap:expr;)+) => {
        pub const WRONG: &[Wrong] = &[$(Wrong {
            name: $name,
            caught_by: $id,
            spec: $spec,
            side: Side::Driver,
            wrap: $wrap,
        }),+];
    };
}

wrong! {
    36 "sim:blk,as=pci" "reads a size of 16 bits as 32" |to| Common::around(
        to,
        |_, place, get, width| match place {
            at::QUEUE_SIZE => Ok(get(Width::U32)? & 0xffff),
            _ => get(width),
        },
        writes_well,
    );
    42 "sim:rng,as=pci" "writes an address once more when the queue is enabled" |to| Common::around(
        to,
        reads_well,
        |m, place, put, width, value| {
            if place == at::DESC {
                m.keep(value);
            }
            put(place, width, value)?;
            match place {
                at::QUEUE_ENABLE => put(at::DESC, Width::U32, m.kept()),
                _ => Ok(()),
            }
        },
    );
    43 "sim:blk,as=pci" "writes 0 to queue_enable before a reset" |to| Common::around(
        to,
        reads_well,
        |_, place, put, width, value| {
            if place == at::STATUS && value == 0 {
                put(at::QUEUE_ENABLE, Width::U16, 0)?;
            }
            put(place, width, value)
        },
    );
    44 "sim:net,as=pci" "writes how many queues it wants" |to| Common::around(
        to,
        reads_well,
        |_, place, put, width, value| {
            if place == at::QUEUE_SELECT {
                put(at::NUM_QUEUES, Width::U16, 2)?;
            }
            put(place, width, value)
        },
    );
    56 "sim:rng,as=pci" "takes the reset of a queue for done" |to| Common::around(
        to,
        |_, place, get, width| match place {
            at::QUEUE_RESET => Ok(0),
            _ => get(width),
        },
        writes_well,
    );
    121 "sim:rng,as=pci" "fails at a capability that it does not know" |to| Through::around(to, Arc::new(Narrow));
    126 "sim:blk,as=pci" "takes a vector for mapped once it has written it" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::QUEUE_VECTOR | at::CONFIG_VECTOR => Ok(m.kept()),
            _ => get(width),
        },
        |m, place, put, width, value| {
            if matches!(place, at::QUEUE_VECTOR | at::CONFIG_VECTOR) {
                m.keep(value);
            }
            put(place, width, value)
        },
    );
    127 "sim:blk,as=pci" "switches on one vector more than there are" |to| Through::around(to, Arc::new(Greedy));
    128 "sim:net,as=pci" "does not listen to changes of the configuration" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::CONFIG_VECTOR => Ok(m.kept()),
            _ => get(width),
        },
        |m, place, put, width, value| match place {
            at::CONFIG_VECTOR => {
                m.keep(value);
                Ok(())
            }
            _ => put(place, width, value),
        },
    );
    129 "sim:rng,as=pci" "kicks with 32 bits" |to| bells(to, |to, place, _, name| {
        to.doorbell(BELLS_BAR, place, Width::U32, name)
    });
    130 "sim:rng,as=pci" "kicks with the queue's number in any case" |to| bells(to, |to, place, width, name| {
        to.doorbell(BELLS_BAR, place, width, name & 0xff)
    });
    131 "sim:blk,as=pci" "kicks with where it will be" |to| bells(to, |to, place, width, name| {
        let bell = to.doorbell(BELLS_BAR, place, width, name)?;
        Ok(Doorbell::from_fn(move |data| bell.ring(data.wrapping_add(1 << 16))))
    });
}
