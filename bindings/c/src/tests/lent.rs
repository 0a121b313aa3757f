//! Memory of a device that does not let go of it, or not in time.

use super::*;
use crate::event::{VDPA_EVENT_BROKEN, vdpa_device_next_event};
use crate::failure::{VDPA_ERR_BROKEN, VDPA_ERR_BUSY, VDPA_ERR_KEPT};
use crate::memory::{DirtyBitmap, vdpa_device_set_dirty_log, vdpa_device_unmap};

fn next_event(device: Handle) -> u32 {
    let mut event = MaybeUninit::uninit();
    let there = vdpa_device_next_event(device.get(), Some(&mut event));
    assert_eq!(there, 1, "an event waits");
    // SAFETY: the call says that it was written.
    unsafe { event.assume_init() }.kind
}

fn unmap(device: Handle) -> c_int {
    vdpa_device_unmap(device.get(), 0, 0, 4096, 0)
}

#[test]
fn memory_that_was_refused_and_is_held_all_the_same_is_not_given_back_before_it_is_released() {
    let released = AtomicU32::new(0);
    let (odd, device) = Odd::opened(Oddity::Refuses);
    let mapping = lent(&released);
    assert_eq!(vdpa_device_map(device.get(), Some(&mapping)), VDPA_ERR_KEPT);
    assert!(
        message().ends_with("the oddity is under way"),
        "{}",
        message()
    );
    assert_eq!(released.load(Ordering::Relaxed), 0);
    odd.held.lock().unwrap().clear();
    assert_eq!(released.load(Ordering::Relaxed), 1, "once");
    assert_eq!(device.close(), 0, "{}", message());
    assert_eq!(released.load(Ordering::Relaxed), 1);
}

#[test]
fn memory_that_the_device_does_not_let_go_of_is_never_released_and_its_event_says_so() {
    let released = AtomicU32::new(0);
    let (odd, device) = Odd::opened(Oddity::Keeps);
    let mapping = lent(&released);
    assert_eq!(vdpa_device_map(device.get(), Some(&mapping)), 0);
    assert_eq!(unmap(device), VDPA_ERR_BUSY, "what the parent said");
    assert_eq!(next_event(device), VDPA_EVENT_BROKEN);
    assert_eq!(unmap(device), VDPA_ERR_BROKEN, "{}", message());
    assert_eq!(device.close(), 0, "{}", message());
    drop(odd);
    assert_eq!(released.load(Ordering::Relaxed), 0);
}

/// "Busy" would have C try again, for good.
#[test]
fn an_unmap_that_is_not_given_the_time_breaks_the_device_and_says_so() {
    let released = AtomicU32::new(0);
    let (odd, device) = Odd::opened(Oddity::Software);
    let mapping = lent(&released);
    assert_eq!(vdpa_device_map(device.get(), Some(&mapping)), 0);
    let space = odd.space.lock().unwrap().take().unwrap();
    let mut reader = space.reader();
    let batch = reader.enter();
    assert_eq!(unmap(device), VDPA_ERR_BROKEN, "{}", message());
    assert_eq!(next_event(device), VDPA_EVENT_BROKEN);
    drop(batch);
    assert_eq!(unmap(device), VDPA_ERR_BROKEN, "also when it would be free");
    assert_eq!(released.load(Ordering::Relaxed), 0);
    assert_eq!(device.close(), 0, "{}", message());
    drop((reader, space));
    assert_eq!(released.load(Ordering::Relaxed), 1, "once all is let go of");
}

#[test]
fn a_log_that_is_not_switched_in_time_counts_and_is_kept_with_the_one_before() {
    let counts = [AtomicU32::new(0), AtomicU32::new(0)];
    let (odd, device) = Odd::opened(Oddity::Software);
    let bits = [0_u64; 2];
    let [first, second] = std::array::from_fn(|i| DirtyBitmap {
        bits: ptr::from_ref(&bits[i]).cast_mut().cast(),
        len: 8,
        release: Some(count),
        opaque: ptr::from_ref(&counts[i]).cast_mut().cast(),
    });
    let set = |log| vdpa_device_set_dirty_log(device.get(), 0, Some(log), 0);
    let released = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(set(&first), 0, "{}", message());
    let space = odd.space.lock().unwrap().take().unwrap();
    let mut reader = space.reader();
    let batch = reader.enter();
    assert_eq!(set(&second), VDPA_ERR_KEPT);
    assert!(message().starts_with("the new log counts"), "{}", message());
    drop(batch);
    assert_eq!(next_event(device), VDPA_EVENT_BROKEN);
    assert_eq!(set(&first), VDPA_ERR_BROKEN, "{}", message());
    assert_eq!(released(), [0, 0]);
    assert_eq!(device.close(), 0, "{}", message());
    drop((reader, space));
    assert_eq!(released(), [1, 1]);
}
