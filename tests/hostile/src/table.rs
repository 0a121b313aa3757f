//! Every row, once: its number, its section, its name, and where it runs.
//!
//! `docs/hostile-inputs.md` has the same rows, and a test compares the two. [`suite`](crate::suite) makes the cases.

mod page;
mod rows;

use std::fmt;

use vdpa_ring::Format;

pub use page::{count, sections};
pub use rows::ROWS;

/// A group of rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Section {
    /// Chains.
    A,
    /// Addresses.
    B,
    /// Indirect tables.
    C,
    /// Indices of the split ring.
    D,
    /// The packed ring.
    E,
    /// Values that change at every fetch.
    F,
    /// Set-up and state.
    G,
    /// Network.
    H,
    /// Block.
    I,
    /// Rates.
    J,
    /// A hostile device.
    K,
    /// DMA and the operating system.
    L,
    /// Peers of vhost-user and VDUSE.
    M,
    /// Memory and threads.
    N,
}

impl Section {
    /// What its rows are about.
    pub const fn title(self) -> &'static str {
        match self {
            Self::A => "Chains",
            Self::B => "Addresses",
            Self::C => "Indirect tables",
            Self::D => "Indices of the split ring",
            Self::E => "The packed ring",
            Self::F => "Values that change at every fetch",
            Self::G => "Set-up and state",
            Self::H => "Network",
            Self::I => "Block",
            Self::J => "Rates",
            Self::K => "A hostile device",
            Self::L => "DMA and the operating system",
            Self::M => "Peers of vhost-user and VDUSE",
            Self::N => "Memory and threads",
        }
    }
}

/// The queue under attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Target {
    /// A network device's transmit queue.
    Tx,
    /// A network device's receive queue.
    Rx,
    /// A network device's control queue.
    Ctrl,
    /// A disk's request queue.
    Blk,
}

impl Target {
    /// Its word in the name of a case.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tx => "net_tx",
            Self::Rx => "net_rx",
            Self::Ctrl => "net_ctrl",
            Self::Blk => "blk",
        }
    }

    /// Whether the device is a network device.
    pub const fn is_net(self) -> bool {
        !matches!(self, Self::Blk)
    }
}

/// Every target.
pub const ALL: &[Target] = &[Target::Tx, Target::Rx, Target::Ctrl, Target::Blk];
/// One of each class, for what does not depend on the queue.
pub const CLASSES: &[Target] = &[Target::Tx, Target::Blk];
/// Those whose chains have a part that the device reads.
pub const READ: &[Target] = &[Target::Tx, Target::Ctrl, Target::Blk];
/// Those whose chains have a part that the device writes.
pub const WRITTEN: &[Target] = &[Target::Rx, Target::Ctrl, Target::Blk];

/// The ring formats that a row has a meaning for.
pub type Formats = &'static [Format];
/// Both.
pub const BOTH: Formats = &[Format::Split, Format::Packed];
/// The split ring alone.
pub const SPLIT: Formats = &[Format::Split];
/// The packed ring alone.
pub const PACKED: Formats = &[Format::Packed];

/// Where a row runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Runs {
    /// Against the device half of a ring, over watched memory.
    pub ring: Formats,
    /// Against the driver half of a ring, or a session: the device is the hostile one.
    pub driver: Formats,
    /// Against a whole simulated device, under the oracle.
    pub device: Formats,
    /// Over a socket, against a whole simulated device that is served to another process.
    pub served: Formats,
    /// Which queues of it; over a socket, which classes.
    pub targets: &'static [Target],
}

/// Where a row runs, or why it does not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It runs here.
    Here(Runs),
    /// It comes with what it needs.
    Later {
        /// What that is.
        why: &'static str,
    },
}

/// A row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its number, which never changes.
    pub number: u16,
    /// Its section.
    pub section: Section,
    /// What is done.
    pub name: &'static str,
    /// Whether that is legal, and has to succeed.
    pub legal: bool,
    /// Where it runs.
    pub place: Place,
}

impl Row {
    const fn runs(self) -> Runs {
        match self.place {
            Place::Here(runs) => runs,
            Place::Later { .. } => panic!("a row that comes later runs nowhere"),
        }
    }

    const fn ring(self, ring: Formats) -> Self {
        let place = Place::Here(Runs {
            ring,
            ..self.runs()
        });
        Self { place, ..self }
    }

    const fn driver(self, driver: Formats) -> Self {
        let place = Place::Here(Runs {
            driver,
            ..self.runs()
        });
        Self { place, ..self }
    }

    const fn device(self, device: Formats, targets: &'static [Target]) -> Self {
        let place = Place::Here(Runs {
            device,
            targets,
            ..self.runs()
        });
        Self { place, ..self }
    }

    const fn served(self, served: Formats, targets: &'static [Target]) -> Self {
        let place = Place::Here(Runs {
            served,
            targets,
            ..self.runs()
        });
        Self { place, ..self }
    }

    const fn legal(self) -> Self {
        Self {
            legal: true,
            ..self
        }
    }

    /// How many cases it is.
    pub fn cases(&self) -> usize {
        match self.place {
            Place::Later { .. } => 0,
            Place::Here(runs) => {
                let each = runs.device.len() + runs.served.len();
                runs.ring.len() + runs.driver.len() + each * runs.targets.len()
            }
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} ({})", self.number, self.name)
    }
}

/// The row with this number.
pub fn row(number: u16) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.number == number)
}

const fn here(number: u16, section: Section, name: &'static str) -> Row {
    let runs = Runs {
        ring: &[],
        driver: &[],
        device: &[],
        served: &[],
        targets: &[],
    };
    Row {
        number,
        section,
        name,
        legal: false,
        place: Place::Here(runs),
    }
}

const fn later(number: u16, section: Section, name: &'static str, why: &'static str) -> Row {
    Row {
        number,
        section,
        name,
        legal: false,
        place: Place::Later { why },
    }
}
