//! Where things stand in a queue's areas: the one copy of sizes, alignments and offsets.
//!
//! ```text
//! split    descriptor  16 bytes a slot: addr u64 | len u32, flags u16, next u16
//!          driver      flags u16 | idx u16 | ring[size] u16 | used_event u16
//!          device      flags u16 | idx u16 | ring[size] { id u32, len u32 } | avail_event u16
//! packed   descriptor  16 bytes a slot: addr u64 | len u32, id u16, flags u16
//!          driver      off_wrap u16 | flags u16
//!          device      off_wrap u16 | flags u16
//! ```

/// The two ring formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `virtio 1.4 §2.7`.
    Split,
    /// `virtio 1.4 §2.8`.
    Packed,
}

impl core::fmt::Display for Format {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Split => "split",
            Self::Packed => "packed",
        })
    }
}

/// The largest queue size of either format.
pub const MAX_SIZE: u16 = 32768;

/// Whether a queue of `size` slots is legal: split a power of two to 32768 (`virtio 1.4 §2.7`),
/// packed 1 to 32768, a power of two or not (`virtio 1.4 §2.8.10.1`).
pub const fn legal_size(format: Format, size: u16) -> bool {
    match format {
        Format::Split => size.is_power_of_two(),
        Format::Packed => size != 0 && size <= MAX_SIZE,
    }
}

/// Size and alignment of one area, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Bytes the area takes.
    pub bytes: u32,
    /// Alignment of its first byte.
    pub align: u32,
}

/// The three areas of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaSizes {
    /// Descriptor area.
    pub descriptor: Area,
    /// Driver area.
    pub driver: Area,
    /// Device area.
    pub device: Area,
}

/// The areas laid out in one span: byte offsets, and the whole size.
///
/// Areas written by different sides are 128 bytes or more apart, so that neither side's stores
/// take a cache line (or its prefetched neighbour) from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Offset of the descriptor area.
    pub descriptor: u32,
    /// Offset of the driver area.
    pub driver: u32,
    /// Offset of the device area.
    pub device: u32,
    /// Bytes of all three.
    pub bytes: u32,
}

/// Sizes and alignments of the areas of a queue (`virtio 1.4 §2.7.1`, `§2.8.11`). `event_idx`
/// adds the event words of the split ring.
pub const fn area_sizes(format: Format, size: u16, event_idx: bool) -> AreaSizes {
    let descriptor = Area {
        bytes: descriptor(size),
        align: 16,
    };
    match format {
        Format::Split => {
            let event = if event_idx { 2 } else { 0 };
            AreaSizes {
                descriptor,
                driver: Area {
                    bytes: avail_entry(size).wrapping_add(event),
                    align: 2,
                },
                device: Area {
                    bytes: used_entry(size).wrapping_add(event),
                    align: 4,
                },
            }
        }
        Format::Packed => {
            let event = Area { bytes: 4, align: 4 };
            AreaSizes {
                descriptor,
                driver: event,
                device: event,
            }
        }
    }
}

impl AreaSizes {
    /// The areas one behind the other in one span of memory aligned to 16 bytes or more.
    pub const fn placed(&self) -> Placement {
        const fn apart(at: u32) -> u32 {
            at.wrapping_add(127) & !127
        }
        let driver = apart(self.descriptor.bytes);
        let device = apart(driver.wrapping_add(self.driver.bytes));
        Placement {
            descriptor: 0,
            driver,
            device,
            bytes: apart(device.wrapping_add(self.device.bytes)),
        }
    }
}

/// Bytes of a descriptor, in the ring or in an indirect table.
pub const DESCRIPTOR_BYTES: u32 = 16;

/// Offset of the address word of descriptor `index`.
#[inline(always)]
pub const fn descriptor(index: u16) -> u32 {
    (index as u32) << 4
}

/// Offset of the meta word (length, flags, next or id) of descriptor `index`.
#[inline(always)]
pub const fn descriptor_meta(index: u16) -> u32 {
    descriptor(index) | 8
}

/// Split: offset of `flags` in the driver and in the device area.
pub const FLAGS: u32 = 0;
/// Split: offset of `idx` in the driver and in the device area.
pub const IDX: u32 = 2;

/// Split: offset of `avail.ring[slot]` in the driver area.
#[inline(always)]
pub const fn avail_entry(slot: u16) -> u32 {
    ((slot as u32) << 1).wrapping_add(4)
}

/// Split: offset of `used.ring[slot].id` in the device area; the length is 4 bytes on.
#[inline(always)]
pub const fn used_entry(slot: u16) -> u32 {
    ((slot as u32) << 3).wrapping_add(4)
}

/// Split: offset of `used_event` in the driver area.
#[inline(always)]
pub const fn used_event(size: u16) -> u32 {
    avail_entry(size)
}

/// Split: offset of `avail_event` in the device area.
#[inline(always)]
pub const fn avail_event(size: u16) -> u32 {
    used_entry(size)
}

/// Packed: offset of the event position in the driver and in the device area.
pub const EVENT_POS: u32 = 0;
/// Packed: offset of the event mode in the driver and in the device area.
pub const EVENT_MODE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_sizes_are_those_of_the_specification() {
        let sizes = area_sizes(Format::Split, 256, true);
        assert_eq!(
            sizes.descriptor,
            Area {
                bytes: 4096,
                align: 16
            }
        );
        assert_eq!(
            sizes.driver,
            Area {
                bytes: 6 + 512,
                align: 2
            }
        );
        assert_eq!(
            sizes.device,
            Area {
                bytes: 6 + 2048,
                align: 4
            }
        );
        assert_eq!(area_sizes(Format::Split, 256, false).driver.bytes, 4 + 512);
    }

    #[test]
    fn packed_size_needs_no_power_of_two_and_split_does() {
        for size in [1, 2, 7, 100, 32768] {
            assert!(legal_size(Format::Packed, size));
        }
        for size in [0, 3, 7, 32767, 32769, 65535] {
            assert!(!legal_size(Format::Split, size));
        }
        assert!(legal_size(Format::Split, 1) && legal_size(Format::Split, 32768));
        assert!(!legal_size(Format::Packed, 0) && !legal_size(Format::Packed, 32769));
    }

    #[test]
    fn placed_areas_are_aligned_and_apart() {
        for (format, size) in [
            (Format::Split, 1),
            (Format::Split, 32768),
            (Format::Packed, 7),
        ] {
            let sizes = area_sizes(format, size, true);
            let at = sizes.placed();
            assert!(at.driver >= sizes.descriptor.bytes && at.driver.is_multiple_of(64));
            assert!(at.device >= at.driver + sizes.driver.bytes && at.device.is_multiple_of(64));
            assert!(at.bytes >= at.device + sizes.device.bytes);
        }
    }

    #[test]
    fn formats_are_named_as_device_strings_name_them() {
        use std::string::ToString;
        assert_eq!(Format::Split.to_string(), "split");
        assert_eq!(Format::Packed.to_string(), "packed");
    }
}
