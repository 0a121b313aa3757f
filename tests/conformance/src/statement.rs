//! What is asked.

use std::fmt;
use std::sync::LazyLock;

use crate::{Bench, Checked, Variant, chapters};

/// The number of the last statement.
pub(crate) const LAST: u16 = 211;

/// One statement of the specification, or of the contract, and the test that holds a device to it.
pub struct Statement {
    /// Its number, which never changes.
    pub id: u16,
    /// Who is asked, and how strictly.
    pub kind: Kind,
    /// Where virtio 1.4 says so, `2.7.4.1`; for what the contract asks, the word `contract`.
    pub clause: &'static str,
    /// What is asked, in one line.
    pub text: &'static str,
    /// Under which heading it stands.
    pub chapter: Chapter,
    pub(crate) check: Check,
}

/// Who is asked, and how strictly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A rule for devices.
    Device,
    /// A rule for drivers, and for what stands between driver and device: asserted on our own side, or broken on purpose
    /// as bad input.
    Driver,
    /// A SHOULD.
    Should,
    /// A format that is described rather than demanded.
    Format,
}

impl Kind {
    /// The letter that stands for it.
    pub const fn letter(self) -> char {
        match self {
            Self::Device => 'D',
            Self::Driver => 'R',
            Self::Should => 'S',
            Self::Format => 'F',
        }
    }
}

/// How a statement is tried.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    /// Once: it does not depend on the ring.
    Once(fn(&Bench<'_>) -> Checked),
    /// In each ring variant that the device offers and the filter lets through.
    Rings(fn(&Variant) -> bool, fn(&Bench<'_>, Variant) -> Checked),
}

macro_rules! chapters {
    ($($name:ident $title:literal $module:ident),+ $(,)?) => {
        /// The headings, in order.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Chapter {
            $(#[doc = $title] $name,)+
        }

        impl Chapter {
            /// All of them.
            pub const ALL: &[Chapter] = &[$(Chapter::$name),+];

            /// The heading.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Chapter::$name => $title,)+
                }
            }
        }

        fn collect() -> Vec<Statement> {
            let mut all = Vec::new();
            $(all.extend(chapters::$module::STATEMENTS.iter().map(|row| row.of(Chapter::$name)));)+
            all.sort_by_key(|statement| statement.id);
            all
        }
    };
}

chapters! {
    Status "Status and reset" status,
    Features "Features" features,
    Config "Config space" config,
    Queues "Queue set-up" queues,
    QueueReset "Queue reset" queue_reset,
    Suspend "Suspend" suspend,
    Split "Split ring" split,
    Indirect "Indirect descriptors" indirect,
    Suppression "Notification suppression" suppression,
    Packed "Packed ring" packed,
    InOrder "In-order" in_order,
    Pci "PCI structures, doorbell, MSI-X" pci,
    Admin "Administration virtqueue" admin,
    Net "Network device" net,
    Block "Block device" block,
    Other "Other device types" other,
    Vdpa "vDPA itself" vdpa,
}

/// A row of a chapter's table.
pub(crate) struct Entry {
    id: u16,
    kind: Kind,
    clause: &'static str,
    text: &'static str,
    check: Check,
}

macro_rules! entry {
    ($($(#[$doc:meta])* $name:ident $kind:ident),+) => {$(
        $(#[$doc])*
        pub(crate) const fn $name(
            id: u16,
            clause: &'static str,
            text: &'static str,
            check: Check,
        ) -> Entry {
            Entry { id, kind: Kind::$kind, clause, text, check }
        }
    )+};
}

entry! {
    /// A rule for devices.
    device Device,
    /// A rule for drivers.
    driver Driver,
    /// A SHOULD.
    should Should,
    /// A format.
    format Format
}

impl Entry {
    fn of(&self, chapter: Chapter) -> Statement {
        Statement {
            id: self.id,
            kind: self.kind,
            clause: self.clause,
            text: self.text,
            chapter,
            check: self.check,
        }
    }
}

/// Every statement, by number.
pub fn catalogue() -> &'static [Statement] {
    static ALL: LazyLock<Vec<Statement>> = LazyLock::new(collect);
    &ALL
}

impl Statement {
    /// The clause as it is cited: `virtio 1.4 §2.1`.
    pub fn citation(&self) -> String {
        match self.clause.starts_with(|c: char| c.is_ascii_digit()) {
            true => format!("virtio 1.4 §{}", self.clause),
            false => self.clause.to_owned(),
        }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.kind.letter(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_there_once() {
        let ids: Vec<u16> = catalogue().iter().map(|s| s.id).collect();
        assert_eq!(ids, (1..=LAST).collect::<Vec<_>>());
    }
}
