//! The memory a ring stands in: cells of exactly one width per location, and fences.

use core::sync::atomic::{Ordering, fence};

use vdpa_mem::{Bytes, Fault, Iova};

use crate::layout;

/// One area of a ring, shared with the peer: relaxed cells and the fences between them.
///
/// `at` is a byte offset into the area, a multiple of the cell's width. Values are in the host's
/// byte order; the cells themselves are little-endian (`virtio 1.4 §1.4`).
///
/// # For implementors
/// Loads and stores are relaxed atomics. The area was checked at set-up to hold what
/// [`area_sizes`](crate::area_sizes) says; an offset outside it must not touch memory (load 0,
/// drop the store). The peer may change any cell at any time.
pub trait RingMem {
    /// Loads the two bytes at `at`.
    fn load_u16(&self, at: u32) -> u16;
    /// Stores the two bytes at `at`.
    fn store_u16(&self, at: u32, value: u16);
    /// Loads the four bytes at `at`.
    fn load_u32(&self, at: u32) -> u32;
    /// Stores the four bytes at `at`.
    fn store_u32(&self, at: u32, value: u32);
    /// Loads the eight bytes at `at`.
    fn load_u64(&self, at: u32) -> u64;
    /// Stores the eight bytes at `at`.
    fn store_u64(&self, at: u32, value: u64);
    /// Loads the address word of the descriptor at `at`, which is a multiple of 16.
    #[inline(always)]
    fn load_address(&self, at: u32) -> u64 {
        self.load_u64(at)
    }
    /// Stores the address word of the descriptor at `at`.
    #[inline(always)]
    fn store_address(&self, at: u32, value: u64) {
        self.store_u64(at, value);
    }
    /// Loads the meta word (all but the address) of the descriptor at `at`.
    #[inline(always)]
    fn load_meta(&self, at: u32) -> u64 {
        self.load_u64(at | 8)
    }
    /// Stores the meta word of the descriptor at `at`.
    #[inline(always)]
    fn store_meta(&self, at: u32, value: u64) {
        self.store_u64(at | 8, value);
    }
    /// Loads the two words of the descriptor at `at`: two cells, each loaded once.
    #[inline(always)]
    fn load_descriptor(&self, at: u32) -> [u64; 2] {
        [self.load_u64(at), self.load_u64(at | 8)]
    }
    /// Stores the two words of the descriptor at `at`: two cells.
    #[inline(always)]
    fn store_descriptor(&self, at: u32, [addr, meta]: [u64; 2]) {
        self.store_u64(at, addr);
        self.store_u64(at | 8, meta);
    }
    /// Loads the two halves of the used entry at `at`, id and length: two cells, each loaded once.
    #[inline(always)]
    fn load_used(&self, at: u32) -> [u32; 2] {
        [self.load_u32(at), self.load_u32(at.wrapping_add(4))]
    }
    /// Stores the two halves of the used entry at `at`: two cells.
    #[inline(always)]
    fn store_used(&self, at: u32, [id, len]: [u32; 2]) {
        self.store_u32(at, id);
        self.store_u32(at.wrapping_add(4), len);
    }
    /// A hint of a split ring's driver area: the `descriptors` that its `count` available entries from `at` on name will be
    /// loaded soon. Nothing has to come of it, and nothing does of a reference's. The entries are not trusted.
    ///
    /// * `mask`: the ring's size less 1; the entries go on at the ring's begin
    #[inline(always)]
    fn look_ahead(&self, descriptors: &Self, at: u16, count: u16, mask: u16)
    where
        Self: Sized,
    {
        let _ = (descriptors, at, count, mask);
    }
    /// No later access moves before an earlier load.
    fn acquire(&self);
    /// No earlier access moves after a later store.
    fn release(&self);
    /// No access moves across, a later load before an earlier store included.
    fn full(&self);
}

impl RingMem for Bytes<'_> {
    #[inline(always)]
    fn load_u16(&self, at: u32) -> u16 {
        Bytes::load_u16(self, at)
    }
    #[inline(always)]
    fn store_u16(&self, at: u32, value: u16) {
        Bytes::store_u16(self, at, value);
    }
    #[inline(always)]
    fn load_u32(&self, at: u32) -> u32 {
        Bytes::load_u32(self, at)
    }
    #[inline(always)]
    fn store_u32(&self, at: u32, value: u32) {
        Bytes::store_u32(self, at, value);
    }
    #[inline(always)]
    fn load_u64(&self, at: u32) -> u64 {
        Bytes::load_u64(self, at)
    }
    #[inline(always)]
    fn store_u64(&self, at: u32, value: u64) {
        Bytes::store_u64(self, at, value);
    }
    #[inline(always)]
    fn load_address(&self, at: u32) -> u64 {
        self.load_u64_of_pair(at, false)
    }
    #[inline(always)]
    fn store_address(&self, at: u32, value: u64) {
        self.store_u64_of_pair(at, false, value);
    }
    #[inline(always)]
    fn load_meta(&self, at: u32) -> u64 {
        self.load_u64_of_pair(at, true)
    }
    #[inline(always)]
    fn store_meta(&self, at: u32, value: u64) {
        self.store_u64_of_pair(at, true, value);
    }
    #[inline(always)]
    fn load_descriptor(&self, at: u32) -> [u64; 2] {
        self.load_u64_pair(at)
    }
    #[inline(always)]
    fn store_descriptor(&self, at: u32, words: [u64; 2]) {
        self.store_u64_pair(at, words);
    }
    #[inline(always)]
    fn load_used(&self, at: u32) -> [u32; 2] {
        self.load_u32_pair(at)
    }
    #[inline(always)]
    fn store_used(&self, at: u32, entry: [u32; 2]) {
        self.store_u32_pair(at, entry);
    }
    #[inline(never)]
    fn look_ahead(&self, descriptors: &Self, at: u16, count: u16, mask: u16) {
        for by in 0..count {
            let entry = layout::avail_entry(at.wrapping_add(by) & mask);
            let head = Bytes::load_u16(self, entry) & mask;
            let place = layout::descriptor(head) as usize;
            if let Some(descriptor) = descriptors.slice(place, 16) {
                descriptor.prefetch();
            }
        }
    }
    #[inline(always)]
    fn acquire(&self) {
        fence(Ordering::Acquire);
    }
    #[inline(always)]
    fn release(&self) {
        fence(Ordering::Release);
    }
    #[inline(always)]
    fn full(&self) {
        fence(Ordering::SeqCst);
    }
}

impl<M: RingMem + ?Sized> RingMem for &M {
    #[inline(always)]
    fn load_u16(&self, at: u32) -> u16 {
        (**self).load_u16(at)
    }
    #[inline(always)]
    fn store_u16(&self, at: u32, value: u16) {
        (**self).store_u16(at, value);
    }
    #[inline(always)]
    fn load_u32(&self, at: u32) -> u32 {
        (**self).load_u32(at)
    }
    #[inline(always)]
    fn store_u32(&self, at: u32, value: u32) {
        (**self).store_u32(at, value);
    }
    #[inline(always)]
    fn load_u64(&self, at: u32) -> u64 {
        (**self).load_u64(at)
    }
    #[inline(always)]
    fn store_u64(&self, at: u32, value: u64) {
        (**self).store_u64(at, value);
    }
    #[inline(always)]
    fn load_address(&self, at: u32) -> u64 {
        (**self).load_address(at)
    }
    #[inline(always)]
    fn store_address(&self, at: u32, value: u64) {
        (**self).store_address(at, value);
    }
    #[inline(always)]
    fn load_meta(&self, at: u32) -> u64 {
        (**self).load_meta(at)
    }
    #[inline(always)]
    fn store_meta(&self, at: u32, value: u64) {
        (**self).store_meta(at, value);
    }
    #[inline(always)]
    fn load_descriptor(&self, at: u32) -> [u64; 2] {
        (**self).load_descriptor(at)
    }
    #[inline(always)]
    fn store_descriptor(&self, at: u32, words: [u64; 2]) {
        (**self).store_descriptor(at, words);
    }
    #[inline(always)]
    fn load_used(&self, at: u32) -> [u32; 2] {
        (**self).load_used(at)
    }
    #[inline(always)]
    fn store_used(&self, at: u32, entry: [u32; 2]) {
        (**self).store_used(at, entry);
    }
    #[inline(always)]
    fn acquire(&self) {
        (**self).acquire();
    }
    #[inline(always)]
    fn release(&self) {
        (**self).release();
    }
    #[inline(always)]
    fn full(&self) {
        (**self).full();
    }
}

/// The three areas of a queue (`virtio 1.4 §2.6`), sized as [`area_sizes`](crate::area_sizes) says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Areas<M> {
    /// Descriptor table (split) or descriptor ring (packed).
    pub descriptor: M,
    /// Written by the driver: available ring (split) or driver event suppression (packed).
    pub driver: M,
    /// Written by the device: used ring (split) or device event suppression (packed).
    pub device: M,
}

/// What a device half reaches: its areas, and the indirect tables the driver points to.
pub trait DeviceMem {
    /// The cells of an area.
    type Ring: RingMem;

    /// The queue's areas.
    fn areas(&self) -> &Areas<Self::Ring>;

    /// Copies an indirect table of `to.len()` entries, 16 bytes each, from `at`. Each entry is
    /// two little-endian words given in the host's order. The bytes are read once; a torn entry
    /// is possible and harmless, since only the copy is checked and used.
    ///
    /// # Errors
    /// [`Fault::Miss`] parks the chain until it is taken again; [`Fault::Denied`] (and whatever
    /// will not come right by itself) makes it malformed.
    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault>;
}

impl<D: DeviceMem + ?Sized> DeviceMem for &D {
    type Ring = D::Ring;
    #[inline(always)]
    fn areas(&self) -> &Areas<Self::Ring> {
        (**self).areas()
    }
    #[inline(always)]
    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        (**self).table(at, to)
    }
}

/// Memory for indirect tables of a driver half: one slot of `entries` per ring slot.
#[derive(Clone, Copy, Debug)]
pub struct Tables<M> {
    /// At least `size * entries * 16` bytes, 16-byte aligned.
    pub memory: M,
    /// Where the device finds the first byte of `memory`.
    pub base: Iova,
    /// Entries a slot has; a longer chain is made of ring descriptors instead.
    pub entries: u16,
}

/// What a driver half reaches: its areas, and memory for indirect tables where it has any.
#[derive(Clone, Copy, Debug)]
pub struct DriverMem<M> {
    /// The queue's areas.
    pub areas: Areas<M>,
    /// Used when INDIRECT_DESC is negotiated and a chain has more than one segment.
    pub tables: Option<Tables<M>>,
}

impl<M> DriverMem<M> {
    /// Driver memory without indirect tables.
    pub const fn new(areas: Areas<M>) -> Self {
        Self {
            areas,
            tables: None,
        }
    }
}

impl<M> Tables<M> {
    /// Byte offset and device address of the table of ring slot `slot`, if a chain of `segments`
    /// fits into one.
    #[inline]
    pub(crate) fn slot(&self, slot: u16, segments: u16) -> Option<(u32, Iova)> {
        if segments > self.entries {
            return None;
        }
        let stride = u64::from(self.entries) << 4;
        let offset = u64::from(slot).checked_mul(stride)?;
        let end = offset.checked_add(stride)?;
        u32::try_from(end).ok()?;
        Some((u32::try_from(offset).ok()?, self.base.checked_add(offset)?))
    }
}

#[cfg(test)]
mod tests {
    use vdpa_mem::Region;

    use super::*;

    /// Stores by one way, and loads by the other.
    fn through(to: &impl RingMem, from: &impl RingMem) {
        to.store_u16(0, 0x0201);
        to.store_u16(2, 0x0403);
        assert_eq!((from.load_u16(0), from.load_u32(0)), (0x0201, 0x0403_0201));
        to.store_u32(4, 0x0807_0605);
        assert_eq!(from.load_u64(0), 0x0807_0605_0403_0201);
        to.store_u64(8, 42);
        assert_eq!(from.load_descriptor(0), [0x0807_0605_0403_0201, 42]);
        to.store_address(16, 1);
        to.store_meta(16, 2);
        assert_eq!((from.load_address(16), from.load_meta(16)), (1, 2));
        assert_eq!(from.load_descriptor(16), [1, 2]);
        to.store_descriptor(32, [3, 4]);
        assert_eq!((from.load_address(32), from.load_meta(32)), (3, 4));
        to.store_used(48, [5, 6]);
        assert_eq!(from.load_used(48), [5, 6]);
        assert_eq!((from.load_u32(48), from.load_u32(52)), (5, 6));
        to.release();
        to.full();
        from.acquire();
    }

    #[test]
    fn reference_to_cells_reaches_the_cells_themselves() {
        for turn in 0..2 {
            let region = Region::anonymous(64).unwrap();
            let cells = region.bytes();
            match turn {
                0 => through(&&cells, &cells),
                _ => through(&cells, &&cells),
            }
        }
    }

    /// Cells of single words alone, as a model checker has them: the rest is made of those.
    struct Words<'a>(Bytes<'a>);

    impl RingMem for Words<'_> {
        fn load_u16(&self, at: u32) -> u16 {
            self.0.load_u16(at)
        }
        fn store_u16(&self, at: u32, value: u16) {
            self.0.store_u16(at, value);
        }
        fn load_u32(&self, at: u32) -> u32 {
            self.0.load_u32(at)
        }
        fn store_u32(&self, at: u32, value: u32) {
            self.0.store_u32(at, value);
        }
        fn load_u64(&self, at: u32) -> u64 {
            self.0.load_u64(at)
        }
        fn store_u64(&self, at: u32, value: u64) {
            self.0.store_u64(at, value);
        }
        fn acquire(&self) {}
        fn release(&self) {}
        fn full(&self) {}
    }

    #[test]
    fn descriptors_made_of_single_words_are_where_pairs_have_them() {
        for turn in 0..2 {
            let region = Region::anonymous(64).unwrap();
            let (cells, words) = (region.bytes(), Words(region.bytes()));
            match turn {
                0 => through(&words, &cells),
                _ => through(&cells, &words),
            }
        }
    }

    #[test]
    fn table_beyond_what_an_offset_or_an_address_counts_is_none() {
        let tables = |entries, base| Tables {
            memory: (),
            base: Iova::new(base),
            entries,
        };
        assert_eq!(tables(4, 0x1000).slot(3, 4), Some((192, Iova::new(0x10c0))));
        assert_eq!(tables(4, 0x1000).slot(0, 5), None, "longer than a slot");
        assert_eq!(tables(u16::MAX, 0).slot(u16::MAX, 2), None, "past 4 GiB");
        assert_eq!(tables(4, u64::MAX - 63).slot(1, 2), None, "past 2^64");
    }
}
