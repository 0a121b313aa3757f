//! Our halves against `virtio-queue`'s, over `vm-memory`.
#![cfg(not(miri))]

use std::collections::HashMap;

use proptest::prelude::*;
use vdpa_mem::{Bytes, Fault, Iova, Region};
use vdpa_ring::{
    Areas, Batch, Completion, DeviceMem, DriverMem, RingFeatures, RingMem, Segment, SplitDevice,
    SplitDriver, Tables, Used,
};
use virtio_queue::{
    Queue, QueueT,
    desc::{RawDescriptor, split::Descriptor},
    mock::MockSplitQueue,
};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

const QUEUE: u64 = 0x1_0000;
const TABLES: u64 = 0x10_0000;
const TOP: usize = 0x40_0000;

/// Ring cells in a `vm-memory` guest memory.
#[derive(Clone, Copy)]
struct Guest<'m> {
    memory: &'m GuestMemoryMmap<()>,
    base: u64,
}

macro_rules! guest {
    ($load:ident, $store:ident, $int:ty) => {
        fn $load(&self, at: u32) -> $int {
            let at = GuestAddress(self.base + u64::from(at));
            self.memory
                .load(at, std::sync::atomic::Ordering::Relaxed)
                .unwrap()
        }
        fn $store(&self, at: u32, value: $int) {
            let at = GuestAddress(self.base + u64::from(at));
            self.memory
                .store(value, at, std::sync::atomic::Ordering::Relaxed)
                .unwrap();
        }
    };
}

impl RingMem for Guest<'_> {
    guest!(load_u16, store_u16, u16);
    guest!(load_u32, store_u32, u32);
    guest!(load_u64, store_u64, u64);
    fn acquire(&self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    }
    fn release(&self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }
    fn full(&self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

struct GuestSide<'m>(Areas<Guest<'m>>);

impl<'m> DeviceMem for GuestSide<'m> {
    type Ring = Guest<'m>;
    fn areas(&self) -> &Areas<Guest<'m>> {
        &self.0
    }
    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        for (entry, at) in to.iter_mut().zip((at.get()..).step_by(16)) {
            for (word, at) in entry.iter_mut().zip([at, at + 8]) {
                *word = self
                    .0
                    .descriptor
                    .memory
                    .read_obj(GuestAddress(at))
                    .map_err(|_| Fault::Denied)?;
            }
        }
        Ok(())
    }
}

fn guest() -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), TOP)]).unwrap()
}

fn areas<'m>(memory: &'m GuestMemoryMmap<()>, queue: &Queue) -> Areas<Guest<'m>> {
    let at = |base| Guest { memory, base };
    Areas {
        descriptor: at(queue.desc_table()),
        driver: at(queue.avail_ring()),
        device: at(queue.used_ring()),
    }
}

/// A chain by its lengths, readable and writable.
type Shape = (Vec<u32>, Vec<u32>);

fn shapes(max: usize) -> impl Strategy<Value = Vec<Shape>> {
    let part = || proptest::collection::vec(0..5000u32, 0..max);
    let shape = (part(), part()).prop_filter("not empty", |(r, w)| !(r.is_empty() && w.is_empty()));
    proptest::collection::vec(shape, 1..60)
}

fn segments(lens: &[u32], at: &mut u64) -> Vec<Segment> {
    let mut segment = |&len: &u32| {
        *at += 0x1000;
        Segment {
            addr: Iova::new(*at),
            len,
        }
    };
    lens.iter().map(&mut segment).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Our driver half, their device half.
    #[test]
    fn their_device_sees_what_our_driver_adds(
        shapes in shapes(4), event_idx in any::<bool>(), indirect in any::<bool>(), start in any::<bool>(),
    ) {
        let memory = guest();
        let size = 16u16;
        let mut theirs = Queue::new(size).unwrap();
        theirs.set_size(size);
        theirs.set_desc_table_address(Some(QUEUE as u32), None);
        theirs.set_avail_ring_address(Some(QUEUE as u32 + 0x1000), None);
        theirs.set_used_ring_address(Some(QUEUE as u32 + 0x2000), None);
        theirs.set_event_idx(event_idx);
        theirs.set_ready(true);
        let mut features = RingFeatures::empty();
        features.set(RingFeatures::EVENT_IDX, event_idx);
        features.set(RingFeatures::INDIRECT_DESC, indirect);
        // Not far below the wrap, or at 0.
        let start = if start { 0xfff0 } else { 0 };
        theirs.set_next_avail(start);
        theirs.set_next_used(start);
        let state = vdpa_ring::QueueState::Split { avail: start, used: None };
        let mut ours = SplitDriver::new(size, features, Some(state)).unwrap();
        let areas = areas(&memory, &theirs);
        areas.driver.store_u16(2, start);
        areas.device.store_u16(2, start);
        let mem = DriverMem {
            areas,
            tables: Some(Tables { memory: Guest { memory: &memory, base: TABLES }, base: Iova::new(TABLES), entries: 8 }),
        };
        let mut expected = HashMap::new();
        let mut at = 0x20_0000;
        for round in shapes.chunks(3) {
            // Their device asks for a kick before it sleeps.
            theirs.enable_notification(&memory).unwrap();
            let mut added = 0;
            for (readable, writable) in round {
                let (readable, writable) = (segments(readable, &mut at), segments(writable, &mut at));
                if let Ok(id) = ours.add(&mem, &readable, &writable) {
                    expected.insert(id, (readable, writable));
                    added += 1;
                }
            }
            prop_assert_eq!(ours.publish(&mem), added > 0);
            prop_assert!(!ours.arm(&mem));
            let mut seen = 0;
            let mut called = false;
            while let Some(chain) = theirs.pop_descriptor_chain(&memory) {
                let head = chain.head_index();
                let (mut readable, mut writable) = (Vec::new(), Vec::new());
                for d in chain {
                    let segment = Segment { addr: Iova::new(d.addr().0), len: d.len() };
                    if d.is_write_only() { writable.push(segment) } else { readable.push(segment) }
                }
                let found = (readable, writable);
                prop_assert_eq!(&found, &expected[&head]);
                let len: u32 = found.1.iter().map(|s| s.len).sum();
                theirs.add_used(&memory, head, len / 2).unwrap();
                called |= theirs.needs_notification(&memory).unwrap();
                seen += 1;
            }
            prop_assert_eq!(seen, added);
            prop_assert_eq!(called, added > 0);
            let mut out = [Completion::default(); 16];
            let n = ours.take_used(&mem, &mut out).unwrap();
            prop_assert_eq!(n, seen);
            for done in &out[..n] {
                let (_, writable) = expected.remove(&done.id).unwrap();
                prop_assert_eq!(done.len, writable.iter().map(|s| s.len).sum::<u32>() / 2);
            }
            prop_assert_eq!(ours.free(), size);
        }
    }

    /// Their mock driver, our device half.
    #[test]
    fn our_device_sees_what_their_driver_adds(shapes in shapes(3), event_idx in any::<bool>()) {
        let memory = guest();
        let mut features = RingFeatures::empty();
        features.set(RingFeatures::EVENT_IDX, event_idx);
        for round in shapes.chunks(3) {
            let vq = MockSplitQueue::create(&memory, GuestAddress(QUEUE), 32);
            let theirs: Queue = vq.create_queue().unwrap();
            let mut at = 0x20_0000;
            let mut expected = Vec::new();
            let mut descriptors = Vec::new();
            for (readable, writable) in round {
                let (readable, writable) = (segments(readable, &mut at), segments(writable, &mut at));
                let last = readable.len() + writable.len();
                let flagged = readable.iter().map(|s| (s, 0)).chain(writable.iter().map(|s| (s, 2)));
                for (i, (segment, flags)) in flagged.enumerate() {
                    let more = u16::from(i + 1 < last);
                    let next = descriptors.len() as u16 + 1;
                    let d = Descriptor::new(segment.addr.get(), segment.len, flags | more, next);
                    descriptors.push(RawDescriptor::from(d));
                }
                expected.push((readable, writable));
            }
            vq.add_desc_chains(&descriptors, 0).unwrap();
            // The mock makes every chain available that ends.
            let mem = GuestSide(areas(&memory, &theirs));
            mem.0.driver.store_u16(2, expected.len() as u16);
            let mut ours = SplitDevice::new(32, features, None).unwrap();
            let mut batch = Batch::new(32, 64);
            prop_assert!(ours.arm(&mem).unwrap());
            prop_assert_eq!(ours.take(&mem, &mut batch, 32), Ok(expected.len()));
            let mut used = Vec::new();
            for (chain, (readable, writable)) in batch.iter().zip(&expected) {
                prop_assert_eq!(chain.readable(), &readable[..]);
                prop_assert_eq!(chain.writable(), &writable[..]);
                used.push(Used { token: chain.token(), len: chain.writable_len() as u32 });
            }
            prop_assert!(ours.commit(&mem, &used).unwrap());
            prop_assert_eq!(vq.used().idx().load(), used.len() as u16);
            for (i, used) in used.iter().enumerate() {
                let element = vq.used().ring().ref_at(i).unwrap().load();
                prop_assert_eq!(element.id(), u32::from(used.token.id()));
                prop_assert_eq!(element.len(), used.len);
            }
        }
    }
}

/// The cells of `vdpa-mem` serve the rings as they are.
#[test]
fn bytes_are_ring_memory() {
    let region = Region::anonymous(0x4000).unwrap();
    let area = |at| region.bytes().slice(at, 0x1000).unwrap();
    let areas = Areas {
        descriptor: area(0),
        driver: area(0x1000),
        device: area(0x2000),
    };
    struct Direct<'r>(Areas<Bytes<'r>>);
    impl<'r> DeviceMem for Direct<'r> {
        type Ring = Bytes<'r>;
        fn areas(&self) -> &Areas<Bytes<'r>> {
            &self.0
        }
        fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
            Err(Fault::Denied)
        }
    }
    let mut driver = SplitDriver::new(16, RingFeatures::empty(), None).unwrap();
    let mut device = SplitDevice::new(16, RingFeatures::empty(), None).unwrap();
    let (driver_mem, device_mem) = (DriverMem::new(areas), Direct(areas));
    let mut batch = Batch::new(16, 16);
    let segment = Segment {
        addr: Iova::new(0x3000),
        len: 64,
    };
    for _ in 0..70_000 {
        let id = driver.add(&driver_mem, &[segment], &[]).unwrap();
        assert!(driver.publish(&driver_mem));
        assert_eq!(device.take(&device_mem, &mut batch, 16), Ok(1));
        let token = batch.chain(0).unwrap().token();
        assert!(
            device
                .commit(&device_mem, &[Used { token, len: 0 }])
                .unwrap()
        );
        let mut out = [Completion::default(); 2];
        assert_eq!(driver.take_used(&driver_mem, &mut out), Ok(1));
        assert_eq!(out[0], Completion { id, len: 0 });
    }
}
