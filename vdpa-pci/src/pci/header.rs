//! The header of a function's configuration space.

use vdpa_core::Result;

use crate::access::{BARS, PciAccess, Width};

/// What stands in a BAR's register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// The register reads 0: there is no BAR, or it was given no address.
    None,
    /// I/O ports.
    Io,
    /// Memory.
    Memory,
    /// The upper half of the 64-bit memory BAR before it.
    Upper,
}

/// The header of a function, as far as it tells who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code, 24 bits: class, subclass, programming interface.
    pub class: u32,
    /// Header type without the multi-function bit: 0 for a function that is no bridge.
    pub kind: u8,
    /// Whether its device has more functions.
    pub multi_function: bool,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// What is in the BARs' registers.
    pub bars: [Bar; BARS as usize],
    /// Whether memory decoding is on.
    pub memory_on: bool,
    /// Whether it may reach memory by itself.
    pub bus_master: bool,
    /// The interrupt pin, 1 to 4 for A to D; 0: it has no interrupt line.
    pub interrupt_pin: u8,
    /// Where the capability list begins, 0 where there is none.
    pub capabilities: u8,
}

impl Header {
    /// Reads the header. A function that is not there reads as all ones: see [`is_absent`](Self::is_absent).
    ///
    /// # Errors
    /// When the access fails.
    pub fn read(access: &dyn PciAccess) -> Result<Self> {
        let dword = |at| access.read_config(at, Width::U32);
        let [vendor, device] = halves(dword(0x00)?);
        let [command, status] = halves(dword(0x04)?);
        let revision_class = dword(0x08)?;
        let [_, _, kind, _] = dword(0x0c)?.to_le_bytes();
        let mut bars = [Bar::None; BARS as usize];
        let mut upper = false;
        for (bar, at) in bars.iter_mut().zip((0x10..).step_by(4)) {
            let register = dword(at)?;
            *bar = match register {
                _ if upper => Bar::Upper,
                0 => Bar::None,
                io if io & 1 != 0 => Bar::Io,
                _ => Bar::Memory,
            };
            // Bits 2 and 1 of a memory BAR are 2 for one of 64 bits, whose upper half may be any number.
            upper = *bar == Bar::Memory && register >> 1 & 3 == 2;
        }
        let [subsystem_vendor, subsystem] = halves(dword(0x2c)?);
        // Bit 4 of the status register says that there is a list at all.
        let capabilities = match status & 1 << 4 {
            0 => 0,
            _ => dword(0x34)?.to_le_bytes()[0],
        };
        let [_, interrupt_pin, ..] = dword(0x3c)?.to_le_bytes();
        Ok(Self {
            vendor,
            device,
            revision: revision_class.to_le_bytes()[0],
            class: revision_class >> 8,
            kind: kind & 0x7f,
            multi_function: kind & 0x80 != 0,
            subsystem_vendor,
            subsystem,
            bars,
            memory_on: command & 1 << 1 != 0,
            bus_master: command & 1 << 2 != 0,
            interrupt_pin,
            capabilities,
        })
    }

    /// Whether nobody answered: no function has this vendor id.
    pub const fn is_absent(&self) -> bool {
        self.vendor == 0xffff
    }
}

/// The 16-bit halves of a register, the low one first.
pub(super) fn halves(register: u32) -> [u16; 2] {
    let [a, b, c, d] = register.to_le_bytes();
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}
