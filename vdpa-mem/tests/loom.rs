//! Section entry against unmap, in every interleaving: after `unmap` returned, no section is at the memory.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vdpa-mem --release --test loom`. Preemptions are bounded to three a thread.
#![cfg(loom)]
#![allow(unsafe_code, reason = "implements memory that notices its own end")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use vdpa_mem::model::{Fence, remove};
use vdpa_mem::{Access, AddressSpace, Deadline, DmaMemory, Hint, Iova, IovaRange, Mapping, Region};

struct Plain(Region);

// SAFETY: as the region's own promise.
unsafe impl DmaMemory for Plain {
    fn hva(&self) -> NonNull<u8> {
        self.0.hva()
    }
    fn len(&self) -> u64 {
        DmaMemory::len(&self.0)
    }
}

fn entry_against_unmap() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let range = IovaRange::new(Iova::new(0), 4096).unwrap();
        let space = AddressSpace::new();
        space
            .map(vec![Mapping {
                iova: range,
                memory: Arc::new(Plain(Region::anonymous(4096).unwrap())),
                offset: 0,
                access: Access::Both,
                dirty: None,
            }])
            .unwrap();
        // Whether the owner took the memory back, which it does once unmap has returned.
        let taken = loom::sync::Arc::new(AtomicBool::new(false));
        let mut reader = space.reader();
        let worker = loom::thread::spawn({
            let taken = loom::sync::Arc::clone(&taken);
            move || {
                let section = reader.enter();
                let at = Iova::new(0);
                let bytes = section.translate(at, 1, Access::Both, &mut Hint::default());
                if bytes.is_ok() {
                    assert!(!taken.load(Ordering::SeqCst), "access after unmap returned");
                }
            }
        });
        let by = Deadline::after(Duration::from_secs(3600));
        space.unmap(range, by).unwrap();
        taken.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
}

/// One test, since the fences are switched for the whole process.
#[test]
fn unmap_excludes_sections_and_needs_both_fences() {
    remove(None);
    entry_against_unmap();
    for fence in [Fence::Enter, Fence::Publish] {
        remove(Some(fence));
        let outcome = catch_unwind(AssertUnwindSafe(entry_against_unmap));
        assert!(
            outcome.is_err(),
            "the model does not notice that {fence:?} is gone"
        );
    }
    remove(None);
}
