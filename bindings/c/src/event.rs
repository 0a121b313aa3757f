//! What a device tells its owner.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::PoisonError;

use vdpa::core::{Asid, Event as Told};
use vdpa::mem::{Access, Iova};

use crate::boundary::{call, done};
use crate::device::Device;
use crate::memory::{VDPA_READS, VDPA_WRITES};
use crate::pointer::given;

/// Configuration space changed.
pub const VDPA_EVENT_CONFIG: u32 = 1;
/// The device set DEVICE_NEEDS_RESET: it goes on only after a reset. `queue` is the queue it lost, or -1; `why` says what
/// was wrong. One that is read while the status byte does not have the bit is of before a reset that is complete.
pub const VDPA_EVENT_NEEDS_RESET: u32 = 2;
/// The device waits for memory at `at` of `asid`, for `access`, which is not mapped.
pub const VDPA_EVENT_MISS: u32 = 3;
/// The device used memory at `at` of `asid`, for `access`, which it may not.
pub const VDPA_EVENT_FAULT: u32 = 4;
/// The parent asks to let go of the device.
pub const VDPA_EVENT_REMOVE_REQUESTED: u32 = 5;
/// The device does not answer as it must, or did not let go of memory in time, as `why` says. Nothing but closing it helps.
pub const VDPA_EVENT_BROKEN: u32 = 6;
/// The device is gone. Nothing but closing it helps.
pub const VDPA_EVENT_GONE: u32 = 7;
/// Something that this header has no name for; `why` has its words.
pub const VDPA_EVENT_OTHER: u32 = 8;

/// Something that happened to a device.
#[repr(C)]
pub struct Event {
    /// VDPA_EVENT_*: what happened. The other fields are 0, -1 or "" where they say nothing.
    pub kind: u32,
    /// The queue that it is about, or -1.
    pub queue: i32,
    /// The address space.
    pub asid: u32,
    /// VDPA_READS or VDPA_WRITES, or both: what the device wanted.
    pub access: u32,
    /// The device address.
    pub at: u64,
    /// What was wrong. Valid until the next call of vdpa_device_next_event() with this device, or its end.
    pub why: *const c_char,
}

impl Event {
    const fn of(kind: u32) -> Self {
        Self {
            kind,
            queue: -1,
            asid: 0,
            access: 0,
            at: 0,
            why: ptr::null(),
        }
    }

    fn memory(kind: u32, asid: Asid, at: Iova, want: Access) -> Self {
        Self {
            asid: asid.get(),
            access: match want {
                Access::DeviceReads => VDPA_READS,
                Access::DeviceWrites => VDPA_WRITES,
                Access::Both => VDPA_READS | VDPA_WRITES,
            },
            at: at.get(),
            ..Self::of(kind)
        }
    }
}

/// The event, but for its words, and these.
fn tell(event: Told) -> (Event, String) {
    let silent = |event| (event, String::new());
    match event {
        Told::Config => silent(Event::of(VDPA_EVENT_CONFIG)),
        Told::NeedsReset { queue, why } => {
            let queue = queue.map_or(-1, |queue| queue.get().into());
            let event = Event::of(VDPA_EVENT_NEEDS_RESET);
            (Event { queue, ..event }, why)
        }
        Told::Miss { asid, at, want } => silent(Event::memory(VDPA_EVENT_MISS, asid, at, want)),
        Told::Fault { asid, at, want } => silent(Event::memory(VDPA_EVENT_FAULT, asid, at, want)),
        Told::RemoveRequested => silent(Event::of(VDPA_EVENT_REMOVE_REQUESTED)),
        Told::Broken { why } => (Event::of(VDPA_EVENT_BROKEN), why),
        Told::Gone => silent(Event::of(VDPA_EVENT_GONE)),
        other => (Event::of(VDPA_EVENT_OTHER), format!("{other:?}")),
    }
}

/// The descriptor that is readable (POLLIN) while events wait. It is the device's: valid until that is closed, to be polled
/// and nothing else.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_events_fd(
    device: Option<&Device>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(fd, "fd")?);
        to.write(device.events.as_fd().as_raw_fd());
        Ok(())
    })
}

/// Takes the next event: returns 1, or 0 if none waits. Events that say the same are told once until they are read, and of
/// VDPA_EVENT_MISS and VDPA_EVENT_FAULT 512 each wait at most: vdpa_device_events_dropped() counts the rest. One thread reads
/// the events of a device, since the next one takes the words of the last.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_next_event(
    device: Option<&Device>,
    event: Option<&mut MaybeUninit<Event>>,
) -> c_int {
    call(|| {
        let (device, to) = (given(device, "device")?, given(event, "event")?);
        let Some(told) = device.events.try_next() else {
            return Ok(0);
        };
        let (event, words) = tell(told);
        let words = CString::new(words.replace('\0', "?")).unwrap_or_default();
        let mut why = device.why.lock().unwrap_or_else(PoisonError::into_inner);
        *why = words;
        to.write(Event {
            why: why.as_ptr(),
            ..event
        });
        Ok(1)
    })
}

/// How many misses and faults found no room since the device was opened: a count that only grows.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_events_dropped(
    device: Option<&Device>,
    count: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(count, "count")?);
        to.write(device.events.dropped());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdpa::core::QueueIndex;

    #[test]
    fn every_event_has_its_kind_and_all_its_facts() {
        let (asid, at) = (Asid::new(1), Iova::new(0x1000));
        let (event, why) = tell(Told::NeedsReset {
            queue: Some(QueueIndex::new(3)),
            why: "lost".into(),
        });
        assert_eq!((event.kind, event.queue), (VDPA_EVENT_NEEDS_RESET, 3));
        assert_eq!(why, "lost");
        let want = Access::Both;
        let (event, _) = tell(Told::Miss { asid, at, want });
        let facts = (event.kind, event.queue, event.asid, event.at, event.access);
        let both = VDPA_READS | VDPA_WRITES;
        assert_eq!(facts, (VDPA_EVENT_MISS, -1, 1, 0x1000, both));
        let want = Access::DeviceWrites;
        let (event, _) = tell(Told::Fault { asid, at, want });
        assert_eq!((event.kind, event.access), (VDPA_EVENT_FAULT, VDPA_WRITES));
        let (event, why) = tell(Told::Broken { why: "torn".into() });
        assert_eq!((event.kind, why.as_str()), (VDPA_EVENT_BROKEN, "torn"));
        let plain = [
            (Told::Config, VDPA_EVENT_CONFIG),
            (Told::RemoveRequested, VDPA_EVENT_REMOVE_REQUESTED),
            (Told::Gone, VDPA_EVENT_GONE),
        ];
        for (told, kind) in plain {
            assert_eq!(tell(told).0.kind, kind);
        }
    }
}
