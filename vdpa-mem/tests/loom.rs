//! Section entry against unmap, and holds against unmap, in every interleaving: after `unmap` returned, nobody is at the
//! memory.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vdpa-mem --release --test loom`. Preemptions are bounded to three a thread.
#![cfg(loom)]
#![allow(unsafe_code, reason = "implements memory that notices its own end")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use vdpa_mem::model::{Guard, remove};
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

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A page, mapped.
fn mapped() -> (AddressSpace, IovaRange) {
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
    (space, range)
}

fn entry_against_unmap() {
    explore(|| {
        let (space, range) = mapped();
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

/// A worker holds memory beyond its section, and writes to it while the owner takes it back.
fn hold_against_unmap() {
    explore(|| {
        let (space, range) = mapped();
        // Stands for the memory: the model checker reports two that are at it at once.
        let memory = loom::sync::Arc::new(UnsafeCell::new(0));
        let mut reader = space.reader();
        let worker = loom::thread::spawn({
            let memory = loom::sync::Arc::clone(&memory);
            move || {
                let held = reader.enter().hold(Iova::new(0), 1, Access::Both);
                if let Ok(held) = held {
                    memory.with_mut(|_| ());
                    drop(held);
                }
            }
        });
        let by = Deadline::after(Duration::from_secs(3600));
        space.unmap(range, by).unwrap();
        memory.with_mut(|_| ());
        worker.join().unwrap();
    });
}

fn fails_without(guard: Guard, model: fn()) {
    remove(Some(guard));
    let outcome = catch_unwind(AssertUnwindSafe(model));
    remove(None);
    assert!(outcome.is_err(), "the model passes without {guard:?}");
}

#[test]
fn unmap_excludes_sections() {
    entry_against_unmap();
}

#[test]
fn a_section_outlasts_unmap_without_the_fence_of_the_reader() {
    fails_without(Guard::Enter, entry_against_unmap);
}

#[test]
fn a_section_outlasts_unmap_without_the_fence_of_the_writer() {
    fails_without(Guard::Publish, entry_against_unmap);
}

#[test]
fn unmap_excludes_holds() {
    hold_against_unmap();
}

#[test]
fn a_hold_outlasts_unmap_without_the_fence_of_the_reader() {
    fails_without(Guard::Enter, hold_against_unmap);
}

#[test]
fn a_hold_outlasts_unmap_without_the_fence_of_the_writer() {
    fails_without(Guard::Publish, hold_against_unmap);
}

#[test]
fn a_hold_outlasts_unmap_that_does_not_wait_for_it() {
    fails_without(Guard::Wait, hold_against_unmap);
}

#[test]
fn what_was_written_by_a_hold_comes_late_without_its_release() {
    fails_without(Guard::Release, hold_against_unmap);
}
