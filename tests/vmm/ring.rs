//! A split ring laid out by hand, as a driver's, and the source of entropy that it is for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa::vmm::GuestQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::until;

/// `VIRTQ_DESC_F_NEXT` and `VIRTQ_DESC_F_WRITE`, virtio 1.4 §2.7.5.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A piece of a chain: address, bytes, and whether the device writes them.
pub(crate) type Piece = (u64, u32, bool);

/// A ring, its areas a page apart.
pub(crate) struct Ring {
    memory: Arc<GuestMemoryMmap>,
    first: u64,
    size: u16,
    /// Chains offered so far.
    offered: u16,
    /// Descriptors in use; a test uses each once.
    descriptors: u16,
}

impl Ring {
    /// A fresh one, in memory that is set to zero.
    pub(crate) fn new(memory: &Arc<GuestMemoryMmap>, first: u64, size: u16) -> Self {
        let zeros = [0; 0x3000];
        memory.write_slice(&zeros, GuestAddress(first)).unwrap();
        Self {
            memory: Arc::clone(memory),
            first,
            size,
            offered: 0,
            descriptors: 0,
        }
    }

    pub(crate) fn areas(&self) -> [u64; 3] {
        [0, 0x1000, 0x2000].map(|area| self.first + area)
    }

    pub(crate) fn queue(&self, index: u16) -> GuestQueue {
        GuestQueue::new(index, self.size, self.areas())
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory
            .write_obj(value, GuestAddress(self.first + at))
            .unwrap();
    }

    /// Makes a chain available.
    pub(crate) fn offer(&mut self, pieces: &[Piece]) {
        let head = self.descriptors;
        for (piece, left) in pieces.iter().zip((0..pieces.len()).rev()) {
            let (address, bytes, writes) = *piece;
            let next = if left > 0 { NEXT } else { 0 };
            let flags = next | if writes { WRITE } else { 0 };
            let at = u64::from(self.descriptors) * 16;
            self.put(at, address);
            self.put(at + 8, bytes);
            self.put(at + 12, flags);
            self.put(at + 14, self.descriptors + 1);
            self.descriptors += 1;
        }
        self.offer_head(head);
    }

    /// Makes the chain available that begins at this descriptor, whether there is one or not.
    pub(crate) fn offer_head(&mut self, head: u16) {
        self.put(0x1004 + u64::from(self.offered % self.size) * 2, head);
        self.offered += 1;
        // Pairs with the device's acquire load of the index.
        let index = GuestAddress(self.first + 0x1002);
        self.memory
            .store(self.offered, index, Ordering::Release)
            .unwrap();
    }

    /// How many chains the device has used.
    pub(crate) fn used(&self) -> u16 {
        let index = GuestAddress(self.first + 0x2002);
        self.memory.load(index, Ordering::Acquire).unwrap()
    }

    /// Waits until the device has used as many.
    pub(crate) fn wait(&self, used: u16) {
        until("buffers are used", || self.used() == used);
    }
}

/// Memory of two megabytes from 0 on.
pub(crate) fn memory() -> Arc<GuestMemoryMmap> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap())
}
