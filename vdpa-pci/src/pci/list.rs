//! The capability lists, walked without trust.

use std::fmt;

use vdpa_core::Result;

use super::{CONFIG_LEN, Header};
use crate::access::{PciAccess, Width};

/// An entry of the capability list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Where it begins, in bytes: a multiple of 4, from 0x40 on.
    pub at: u16,
    /// What it is, see [`id`](super::id).
    pub id: u8,
    /// The two bytes after id and next: for a vendor-specific one its length and its type.
    pub body: [u8; 2],
}

impl Capability {
    /// How many bytes there are at most: to the end of the 256 bytes that the list is in.
    pub const fn room(&self) -> u16 {
        CONFIG_LEN.saturating_sub(self.at)
    }
}

/// An entry of the extended capability list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtendedCapability {
    /// Where it begins, in bytes: a multiple of 4, from 0x100 on.
    pub at: u16,
    /// What it is, see [`id`](super::id).
    pub id: u16,
    /// Its version.
    pub version: u8,
}

/// Where a list ends before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// An entry leads back to one that was visited.
    Loop {
        /// Which one, in bytes from the start of configuration space.
        to: u16,
    },
    /// A pointer leads out of where capabilities are.
    Outside {
        /// Where to.
        to: u16,
    },
    /// Nobody answers at an entry: it reads as all ones.
    AllOnes {
        /// Where it should be.
        at: u16,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop { to } => write!(f, "the list leads back to {to:#x}"),
            Self::Outside { to } => {
                write!(f, "a pointer leads to {to:#x}, where no capability can be")
            }
            Self::AllOnes { at } => write!(f, "the entry at {at:#x} reads as all ones"),
        }
    }
}

/// What was found on a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk<T> {
    /// The entries, in the order of the list.
    pub found: Vec<T>,
    /// What is wrong with the list, if something is: the entries before it stay.
    pub fault: Option<Fault>,
}

impl<T> Default for Walk<T> {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            fault: None,
        }
    }
}

/// Walks the capability list: at most 48 entries, each visited once.
///
/// # Errors
/// When the access fails. A list that is not as it should be is no error, but a [`Fault`].
///
/// # Spec
/// PCI Local Bus 3.0 §6.7; `linux/pci_regs.h`, PCI_CAPABILITY_LIST.
pub fn capabilities(access: &dyn PciAccess, header: &Header) -> Result<Walk<Capability>> {
    let mut walk = Walk::default();
    // One bit for each place where an entry can begin.
    let mut visited = 0_u64;
    // The two low bits are reserved, and no part of the pointer.
    let mut next = header.capabilities & !3;
    while next != 0 {
        let at = u16::from(next);
        if at < 0x40 {
            walk.fault = Some(Fault::Outside { to: at });
            break;
        }
        let place = 1 << (next >> 2);
        if visited & place != 0 {
            walk.fault = Some(Fault::Loop { to: at });
            break;
        }
        visited |= place;
        let entry = access.read_config(at, Width::U32)?;
        if entry == Width::U32.all_ones() {
            walk.fault = Some(Fault::AllOnes { at });
            break;
        }
        let [id, link, first, second] = entry.to_le_bytes();
        walk.found.push(Capability {
            at,
            id,
            body: [first, second],
        });
        next = link & !3;
    }
    Ok(walk)
}

/// Walks the extended capability list, where there is extended configuration space: each entry is visited once.
///
/// # Errors
/// As for [`capabilities`].
///
/// # Spec
/// PCI Express Base §7.6.3; `linux/pci_regs.h`, PCI_EXT_CAP_ID.
pub fn extended_capabilities(access: &dyn PciAccess) -> Result<Walk<ExtendedCapability>> {
    let mut walk = Walk::default();
    let end = access.config_len();
    if end < CONFIG_LEN + 4 {
        return Ok(walk);
    }
    let mut visited = [0_u64; 16];
    let mut at = CONFIG_LEN;
    loop {
        let place = visited.get_mut(usize::from(at >> 8));
        let bit = 1_u64 << (at >> 2 & 63);
        match place {
            Some(word) if at >= CONFIG_LEN && at <= end - 4 => {
                if *word & bit != 0 {
                    walk.fault = Some(Fault::Loop { to: at });
                    break;
                }
                *word |= bit;
            }
            _ => {
                walk.fault = Some(Fault::Outside { to: at });
                break;
            }
        }
        let entry = access.read_config(at, Width::U32)?;
        match entry {
            // A first entry of 0 says that there is none.
            0 => break,
            0xffff_ffff => {
                // A function without extended capabilities reads so too.
                if at != CONFIG_LEN {
                    walk.fault = Some(Fault::AllOnes { at });
                }
                break;
            }
            _ => {}
        }
        let [low, high] = super::header::halves(entry);
        walk.found.push(ExtendedCapability {
            at,
            id: low,
            version: u8::try_from(high & 0xf).unwrap_or(0),
        });
        match high >> 4 & !3 {
            0 => break,
            next => at = next,
        }
    }
    Ok(walk)
}
