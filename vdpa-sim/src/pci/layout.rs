//! Where vendors put what a virtio function consists of.

use crate::pci::region::{Part, Structure::*};

/// What a function says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A device of virtio 1.0 or later.
    Modern,
    /// One that drivers from before virtio 1.0 can use too, through an I/O BAR that nothing here answers.
    Transitional,
    /// One that only drivers from before virtio 1.0 can use: it has no virtio capability.
    Legacy,
}

/// Which queue is where in the notification structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// `queue_notify_off` is the queue's number.
    Ascending,
    /// The last queue is first: a driver that takes the number for the offset rings another queue.
    Reversed,
}

/// How the parts of a function are laid out, and which it has. Each is one of [`ALL`](Self::ALL), perhaps with something
/// changed.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// What a device string calls it.
    pub name: &'static str,
    /// What the function says that it is.
    pub identity: Identity,
    /// The parts in the order they lie in, each in its BAR.
    pub(crate) parts: &'static [Part],
    /// `notify_off_multiplier`: 0, or an even power of two.
    pub multiplier: u32,
    /// Which queue is where.
    pub order: Order,
    /// Entries of the MSI-X table; `None`: one for each queue, and one for the configuration. 0: no MSI-X.
    pub vectors: Option<u16>,
    /// Whether it has an interrupt line.
    pub line: bool,
    /// Whether its BARs can be reached. Where they cannot, its registers can through the PCI_CFG capability.
    pub reachable: bool,
    /// Whether there are capabilities in between that a driver has to pass over, and one that is longer than it has to be.
    pub clutter: bool,
    /// The BARs that are 64-bit ones, as a bit each.
    pub(crate) wide: u8,
}

/// Where an MSI-X table ends.
pub const MAX_VECTORS: u16 = 2048;

/// The largest multiplier: a page for each queue.
pub const MAX_MULTIPLIER: u32 = 4096;

const fn part(what: crate::pci::region::Structure, bar: u8, align: u32) -> Part {
    Part { what, bar, align }
}

const QEMU: &[Part] = &[
    part(Table, 1, 0x1000),
    part(Pending, 1, 0x800),
    part(Common, 4, 0x1000),
    part(Isr, 4, 0x1000),
    part(Device, 4, 0x1000),
    part(Notify, 4, 0x1000),
];

const ONE_BAR: &[Part] = &[
    part(Common, 0, 4),
    part(Isr, 0, 4),
    part(Device, 0, 4),
    part(Table, 0, 0x1000),
    part(Pending, 0, 8),
    part(Notify, 0, 0x1000),
];

const SHARED_MEMORY: &[Part] = &[
    part(Table, 1, 0x1000),
    part(Pending, 1, 0x800),
    part(Common, 4, 0x1000),
    part(Isr, 4, 0x1000),
    part(Device, 4, 0x1000),
    part(Notify, 4, 0x1000),
    part(Shared(0), 4, 0x1000),
    part(Shared(7), 2, 0x1000),
];

const SPLIT: &[Part] = &[
    part(Common, 0, 4),
    part(Isr, 1, 4),
    part(Device, 2, 4),
    part(Notify, 3, 4),
    part(Table, 4, 8),
    part(Pending, 5, 8),
];

const BASE: Layout = Layout {
    name: "qemu",
    identity: Identity::Modern,
    parts: QEMU,
    multiplier: 4,
    order: Order::Ascending,
    vectors: None,
    line: true,
    reachable: true,
    clutter: false,
    wide: 1 << 4,
};

impl Layout {
    /// As QEMU lays a function out: MSI-X in BAR 1; common configuration, ISR, device configuration and notifications in
    /// a page each of BAR 4, 4 bytes a doorbell.
    pub const QEMU: Self = BASE;

    /// Every one that a device string can name, with what is special about it.
    pub const ALL: &[(Self, &str)] = &[
        (BASE, "MSI-X in BAR 1, everything else in BAR 4"),
        (
            Self {
                name: "one-bar",
                parts: ONE_BAR,
                wide: 1,
                line: false,
                ..BASE
            },
            "everything in BAR 0",
        ),
        (
            Self {
                name: "split",
                parts: SPLIT,
                order: Order::Reversed,
                clutter: true,
                wide: 0,
                ..BASE
            },
            "a BAR for each structure, doorbells in reverse, capabilities to pass over",
        ),
        (
            Self {
                name: "multiplier-0",
                multiplier: 0,
                ..BASE
            },
            "one doorbell for all queues",
        ),
        (
            Self {
                name: "multiplier-2",
                multiplier: 2,
                ..BASE
            },
            "doorbells of 16 bits, so no NOTIFICATION_DATA",
        ),
        (
            Self {
                name: "multiplier-4096",
                multiplier: MAX_MULTIPLIER,
                order: Order::Reversed,
                ..BASE
            },
            "a page for each doorbell, in reverse",
        ),
        (
            Self {
                name: "vectors-1",
                vectors: Some(1),
                ..BASE
            },
            "an MSI-X table of 1",
        ),
        (
            Self {
                name: "vectors-2",
                vectors: Some(2),
                ..BASE
            },
            "an MSI-X table of 2",
        ),
        (
            Self {
                name: "vectors-2048",
                vectors: Some(MAX_VECTORS),
                ..BASE
            },
            "an MSI-X table of 2048",
        ),
        (
            Self {
                name: "intx",
                vectors: Some(0),
                ..BASE
            },
            "no MSI-X, an interrupt line",
        ),
        (
            Self {
                name: "window",
                reachable: false,
                ..BASE
            },
            "no BAR that can be reached, only the PCI_CFG capability",
        ),
        (
            Self {
                name: "shared-memory",
                parts: SHARED_MEMORY,
                wide: 1 << 4 | 1 << 2,
                ..BASE
            },
            "two regions of shared memory, which no class here puts anything into",
        ),
        (
            Self {
                name: "transitional",
                identity: Identity::Transitional,
                ..BASE
            },
            "the ids of before virtio 1.0, and its I/O BAR",
        ),
        (
            Self {
                name: "legacy",
                identity: Identity::Legacy,
                parts: &[],
                ..BASE
            },
            "no virtio capability: refused",
        ),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .map(|(layout, _)| *layout)
            .find(|layout| layout.name == name)
    }

    /// Whether an interrupt can come at all.
    pub(crate) fn has_msix(&self, vectors: u16) -> bool {
        vectors != 0 && self.parts.iter().any(|part| part.what == Table)
    }
}
