//! Configuration space: bytes, which of them a driver can change, and lists of capabilities.

use vdpa_pci::Width;

/// Bytes of configuration space, with its extended part.
pub const CONFIG_BYTES: u16 = 4096;

/// Where the extended capabilities begin.
const EXTENDED: u16 = 0x100;
/// Where capabilities are put from.
const FIRST: u16 = 0x40;

/// The offset of the register that points to the first capability.
const POINTER: u16 = 0x34;
/// The status register, and its bit that says that there are capabilities.
const STATUS: u16 = 0x06;
const HAS_CAPABILITIES: u8 = 1 << 4;

/// Configuration space of a function, as a driver reads and writes it.
///
/// What a write is followed by is not here: see [`Extension`](super::Extension) and the function itself.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Bits that a driver writes.
    writable: Vec<u8>,
    /// Where the next capability goes, and which byte has to point to it.
    next: (u16, u16),
    /// The same of the extended ones. The pointer is the capability before it; 0: it is the first.
    next_extended: (u16, u16),
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigSpace {
    /// A space in which everything reads 0 and nothing can be written.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; CONFIG_BYTES.into()],
            writable: vec![0; CONFIG_BYTES.into()],
            next: (FIRST, POINTER),
            next_extended: (EXTENDED, 0),
        }
    }

    /// Reads a register; 0 outside.
    pub fn read(&self, at: u16, width: Width) -> u32 {
        let place = usize::from(at);
        let bytes = place
            .checked_add(width.bytes().into())
            .and_then(|end| self.bytes.get(place..end));
        little_endian(bytes.unwrap_or_default())
    }

    /// Writes a register, as a driver does: what is read-only stays.
    pub fn write(&mut self, at: u16, width: Width, value: u32) {
        let places = usize::from(at)..;
        let bytes = value.to_le_bytes().into_iter().take(width.bytes().into());
        for (place, byte) in places.zip(bytes) {
            if let (Some(own), Some(mask)) = (self.bytes.get_mut(place), self.writable.get(place)) {
                *own = (*own & !mask) | (byte & mask);
            }
        }
    }

    /// Sets bytes, as the device does.
    pub fn set(&mut self, at: u16, bytes: &[u8]) {
        put(&mut self.bytes, at, bytes);
    }

    /// Says which bits a driver can write.
    pub fn set_writable(&mut self, at: u16, mask: &[u8]) {
        put(&mut self.writable, at, mask);
    }

    /// Adds a capability to the end of the list. `None`: there is no room for it.
    ///
    /// * `id`: what it is, as PCI numbers them
    /// * `body`: what follows the id and the pointer to the next one
    /// * `writable`: the bits of `body` that a driver can write; what it does not cover is read-only
    ///
    /// Returns its offset.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u16> {
        let (at, pointer) = self.next;
        let len = u16::try_from(body.len()).ok()?.checked_add(2)?;
        let end = at.checked_add(len)?.checked_next_multiple_of(4)?;
        if end > EXTENDED {
            return None;
        }
        self.set(at, &[id, 0]);
        self.set(at.saturating_add(2), body);
        self.set_writable(at.saturating_add(2), writable);
        self.set(pointer, &[u8::try_from(at).ok()?]);
        let status = self.read(STATUS, Width::U8).to_le_bytes();
        let [low, ..] = status;
        self.set(STATUS, &[low | HAS_CAPABILITIES]);
        self.next = (end, at.saturating_add(1));
        Some(at)
    }

    /// Adds an extended capability to the end of the list. `None`: there is no room for it.
    ///
    /// * `id`: what it is, as PCI Express numbers them: 0x10 is SR-IOV
    /// * `version`: 1 to 15
    /// * `body`: what follows the header of 4 bytes
    /// * `writable`: the bits of `body` that a driver can write; what it does not cover is read-only
    ///
    /// Returns its offset.
    pub fn add_extended(
        &mut self,
        id: u16,
        version: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Option<u16> {
        let (at, before) = self.next_extended;
        let len = u16::try_from(body.len()).ok()?.checked_add(4)?;
        let end = at.checked_add(len)?.checked_next_multiple_of(4)?;
        if end > CONFIG_BYTES {
            return None;
        }
        let header = u32::from(id) | u32::from(version & 0xf) << 16;
        self.set(at, &header.to_le_bytes());
        self.set(at.saturating_add(4), body);
        self.set_writable(at.saturating_add(4), writable);
        if before != 0 {
            let header = self.read(before, Width::U32) | u32::from(at) << 20;
            self.set(before, &header.to_le_bytes());
        }
        self.next_extended = (end, at);
        Some(at)
    }
}

/// The number that up to four bytes are.
pub(crate) fn little_endian(bytes: &[u8]) -> u32 {
    let mut value = [0; 4];
    for (to, from) in value.iter_mut().zip(bytes) {
        *to = *from;
    }
    u32::from_le_bytes(value)
}

fn put(to: &mut [u8], at: u16, bytes: &[u8]) {
    for (to, from) in to.iter_mut().skip(at.into()).zip(bytes) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_linked_in_the_order_they_are_added() {
        let mut space = ConfigSpace::new();
        assert_eq!(space.read(POINTER, Width::U8), 0);
        let first = space.add_capability(0x09, &[3, 4, 5], &[]).unwrap();
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]).unwrap();
        assert_eq!((first, second), (0x40, 0x48), "aligned to 4");
        assert_eq!(space.read(POINTER, Width::U8), 0x40);
        assert_eq!(space.read(first, Width::U32), 0x0403_4809);
        assert_eq!(space.read(second, Width::U16), 0x0011, "the last one");
        assert_eq!(space.read(STATUS, Width::U16), 0x10);
        space.write(second, Width::U32, 0xffff_ffff);
        assert_eq!(space.read(second, Width::U32), 0xc000_0011);
        assert_eq!(space.add_capability(0x09, &[0; 0xd0], &[]), None, "no room");
    }

    #[test]
    fn extended_capabilities_are_linked_and_end_with_the_space() {
        let mut space = ConfigSpace::new();
        assert_eq!(space.read(EXTENDED, Width::U32), 0, "an empty list");
        assert_eq!(space.add_extended(0x10, 1, &[0; 60], &[]), Some(0x100));
        assert_eq!(space.add_extended(0x0b, 2, &[0; 4], &[]), Some(0x140));
        assert_eq!(space.read(0x100, Width::U32), 0x1401_0010);
        assert_eq!(space.read(0x140, Width::U32), 0x0002_000b);
        assert_eq!(space.add_extended(1, 1, &[0; 4000], &[]), None);
    }

    #[test]
    fn accesses_at_and_past_the_end_do_nothing() {
        let mut space = ConfigSpace::new();
        for at in [4093, 4096, u16::MAX] {
            space.write(at, Width::U32, 1);
            assert_eq!(space.read(at, Width::U32), 0);
        }
    }
}
