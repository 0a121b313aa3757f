//! Functions that answer wrongly.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa_conformance::registers::{Between, Through};
use vdpa_core::Result;
use vdpa_pci::{PciAccess, Width};

use super::{Common, Side, Wrong, at, of, reads_well, writes_well};

const NO_VECTOR: u32 = 0xffff;

/// Lies in the virtio capability of this kind: a function of the offset in it and of what is there.
struct Capability {
    kind: u32,
    lie: fn(u16, u32) -> u32,
}

impl Between for Capability {
    fn read_config(&self, to: &dyn PciAccess, place: u16, width: Width) -> Result<u32> {
        let value = to.read_config(place, width)?;
        let mut cap = to.read_config(0x34, Width::U8)? as u16;
        while cap != 0 {
            let id = to.read_config(cap, Width::U8)?;
            let kind = to.read_config(cap + 3, Width::U8)?;
            if id == 9 && kind == self.kind && (cap..cap + 24).contains(&place) {
                return Ok((self.lie)(place - cap, value));
            }
            cap = to.read_config(cap + 1, Width::U8)? as u16;
        }
        Ok(value)
    }
}

fn capability(to: Arc<dyn PciAccess>, kind: u32, lie: fn(u16, u32) -> u32) -> Arc<dyn PciAccess> {
    Through::around(to, Arc::new(Capability { kind, lie }))
}

/// Its window takes nothing.
struct DeafWindow;

impl Between for DeafWindow {
    fn write_config(&self, to: &dyn PciAccess, place: u16, width: Width, value: u32) -> Result<()> {
        // What is written there and is no address or length is data.
        let mut cap = to.read_config(0x34, Width::U8)? as u16;
        while cap != 0 {
            let kind = to.read_config(cap + 3, Width::U8)?;
            if to.read_config(cap, Width::U8)? == 9 && kind == 5 && place == cap + 16 {
                return Ok(());
            }
            cap = to.read_config(cap + 1, Width::U8)? as u16;
        }
        to.write_config(place, width, value)
    }
}

/// Its ISR status reads otherwise.
struct Isr(fn(u32) -> u32);

impl Between for Isr {
    fn read(&self, to: &dyn PciAccess, bar: u8, place: u64, width: Width) -> Result<u32> {
        let value = to.read(bar, place, width)?;
        Ok(match (bar, place) {
            (4, 0x1000) => (self.0)(value),
            _ => value,
        })
    }
}

macro_rules! wrong {
    ($($id:literal $spec:literal $name:literal $wrap:expr;)+) => {
        pub const WRONG: &[Wrong] = &[$(Wrong {
            name: $name,
            caught_by: $id,
            spec: $spec,
            side: Side::Device,
            wrap: $wrap,
        }),+];
    };
}

wrong! {
    11 "sim:rng,as=pci" "goes on to show queues as enabled after a reset" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::QUEUE_ENABLE if of(&m.enabled) > 0 => Ok(1),
            _ => get(width),
        },
        writes_well,
    );
    12 "sim:net,as=pci" "keeps the vector of its configuration in a reset" |to| Common::around(
        to,
        |m, place, get, width| match get(width)? {
            NO_VECTOR if place == at::CONFIG_VECTOR && m.kept() != 0 => Ok(m.kept()),
            value => Ok(value),
        },
        |m, place, put, width, value| {
            if place == at::CONFIG_VECTOR {
                m.keep(if value == NO_VECTOR { 0 } else { value });
            }
            put(place, width, value)
        },
    );
    18 "sim:rng,as=pci" "offers SR_IOV, and has no such capability" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::DEVICE_FEATURE if of(&m.select) == 1 => Ok(get(width)? | 1 << 5),
            _ => get(width),
        },
        writes_well,
    );
    37 "sim:rng,as=pci" "forgets the lower half of an address when the upper one is written" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::DESC if m.kept() == 1 => Ok(0),
            _ => get(width),
        },
        |m, place, put, width, value| {
            match place {
                at::DESC => m.keep(0),
                36 => m.keep(1),
                _ => {}
            }
            put(place, width, value)
        },
    );
    38 "sim:blk,as=pci" "has a size for queues beyond its last" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::QUEUE_SIZE if of(&m.queue) > 1000 => Ok(256),
            _ => get(width),
        },
        writes_well,
    );
    39 "sim:rng,as=pci" "shows a size of 100 with split rings" |to| Common::around(
        to,
        |_, place, get, width| match place {
            at::QUEUE_SIZE => Ok(get(width)?.min(100)),
            _ => get(width),
        },
        writes_well,
    );
    45 "sim:rng,as=pci" "shows its first features in every window" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::DEVICE_FEATURE_SELECT => Ok(of(&m.select)),
            _ => get(width),
        },
        |_, place, put, width, value| match place {
            at::DEVICE_FEATURE_SELECT => put(place, width, 0),
            _ => put(place, width, value),
        },
    );
    46 "sim:blk,as=pci" "does not show what was accepted" |to| Common::around(
        to,
        |_, place, get, width| match place {
            at::DRIVER_FEATURE => Ok(0),
            _ => get(width),
        },
        writes_well,
    );
    52 "sim:rng,as=pci" "shows a reset of a queue as 2" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::QUEUE_RESET if m.kept() > 0 => {
                m.keep(m.kept() - 1);
                Ok(2)
            }
            _ => get(width),
        },
        |m, place, put, width, value| {
            if place == at::QUEUE_RESET {
                m.keep(3);
            }
            put(place, width, value)
        },
    );
    53 "sim:rng,as=pci" "shows a queue as enabled once it is reset" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::QUEUE_ENABLE if of(&m.enabled) > 0 => Ok(1),
            _ => get(width),
        },
        writes_well,
    );
    54 "sim:rng,as=pci" "shows a queue that was started again as in reset" |to| Common::around(
        to,
        |m, place, get, width| match place {
            at::QUEUE_RESET if of(&m.enabled) > 1 => Ok(1),
            _ => get(width),
        },
        writes_well,
    );
    112 "sim:rng,as=pci" "has a common configuration that is not aligned" |to| capability(to, 1, |place, value| match place {
        8 => value + 2,
        _ => value,
    });
    113 "sim:rng,as=pci" "has a notify structure at an odd place" |to| capability(to, 2, |place, value| match place {
        8 => value + 1,
        _ => value,
    });
    114 "sim:net,as=pci" "has a multiplier of 3" |to| capability(to, 2, |place, value| match place {
        16 => 3,
        _ => value,
    });
    114 "sim:blk,as=pci" "has a multiplier of 1" |to| capability(to, 2, |place, value| match place {
        16 => 1,
        _ => value,
    });
    115 "sim:net,as=pci" "has a notify structure that is too short for its last queue" |to| capability(to, 2, |place, value| match place {
        12 => 4,
        _ => value,
    });
    116 "sim:net,as=pci" "offers NOTIFICATION_DATA with a multiplier of 2" |to| capability(to, 2, |place, value| match place {
        16 => 2,
        _ => value,
    });
    117 "sim:rng,as=pci" "has an ISR status that is always 0" |to| Through::around(to, Arc::new(Isr(|_| 0)));
    117 "sim:blk,as=pci" "has an ISR status that stays when it is read" |to| Through::around(to, Arc::new(Isr(|_| 1)));
    118 "sim:blk,as=pci" "has no device configuration" |to| capability(to, 4, |place, value| match place {
        3 => 0x2a,
        _ => value,
    });
    119 "sim:rng,as=pci" "has shared memory that is not there" |to| capability(to, 5, |place, value| match place {
        3 => 8,
        12 => 0x1000_0000,
        _ => value,
    });
    119 "sim:rng,as=pci,layout=shared-memory" "has two regions of shared memory with one id" |to| capability(to, 8, |place, value| match place {
        5 => 0,
        _ => value,
    });
    120 "sim:rng,as=pci" "has a window that takes nothing" |to| Through::around(to, Arc::new(DeafWindow));
    122 "sim:net,as=pci" "maps to another vector than it was asked for" |to| Common::around(
        to,
        reads_well,
        |_, place, put, width, value| match place {
            at::QUEUE_VECTOR if value == 1 => put(place, width, 0),
            _ => put(place, width, value),
        },
    );
    123 "sim:blk,as=pci" "does not unmap" |to| Common::around(
        to,
        reads_well,
        |_, place, put, width, value| match place {
            at::QUEUE_VECTOR | at::CONFIG_VECTOR if value == NO_VECTOR => Ok(()),
            _ => put(place, width, value),
        },
    );
    124 "sim:rng,as=pci" "calls vector 0 for a queue without one" |to| Common::around(
        to,
        |_, place, get, width| match get(width)? {
            0 if place == at::QUEUE_VECTOR => Ok(NO_VECTOR),
            value => Ok(value),
        },
        |_, place, put, width, value| match place {
            at::QUEUE_VECTOR if value == NO_VECTOR => put(place, width, 0),
            _ => put(place, width, value),
        },
    );
    125 "sim:net,as=pci" "calls vector 0 for its configuration without one" |to| Common::around(
        to,
        reads_well,
        |m, place, put, width, value| {
            // Whoever unmaps it maps it; and it is mapped before anybody has said anything.
            if place == at::QUEUE_ENABLE {
                m.kept.store(1, Ordering::SeqCst);
                put(at::CONFIG_VECTOR, Width::U16, 0)?;
            }
            put(place, width, value)
        },
    );
    139 "sim:net,as=pf,vfs=1" "has administration queues where others are" |to| Common::around(
        to,
        |_, place, get, width| match place {
            at::ADMIN_INDEX => Ok(0),
            _ => get(width),
        },
        writes_well,
    );
}
