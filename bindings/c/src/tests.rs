//! What a program in C cannot bring about: a parent that panics, and one that does not let go of memory. And what the types
//! are in memory, for who counts on it.
#![allow(unsafe_code, reason = "stands in for C")]

mod caps;
mod lent;

use std::ffi::{CStr, c_int, c_void};
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use vdpa::core::{
    Asid, Call, CallKind, Caps, DeviceInfo, Dma, DmaLimits, DmaMap, Doorbell, Event, EventSink,
    Features, GroupIndex, Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, Relay, Stats,
    Status, VdpaDevice, bits,
};
use vdpa::mem::Access;
use vdpa::{AddressSpace, DeviceType, Error, Iova, Mapping, Result};

use crate::boundary::vdpa_last_error;
use crate::device::{self, Device, *};
use crate::failure::VDPA_ERR_PANIC;
use crate::memory::{self, VDPA_READS, vdpa_device_map};
use crate::{doorbell, event, queue};

/// What is wrong with a parent, beside that it panics when it is told to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Oddity {
    /// It refuses what it is to map, and holds it.
    Refuses,
    /// It does not let go of what is mapped.
    Keeps,
    /// It panics in the reset that is begun while it is let go of.
    PanicsAtTheEnd,
    /// Nothing; it reads its address space itself.
    Software,
}

/// A parent with bugs.
struct Odd {
    oddity: Oddity,
    info: DeviceInfo,
    panics: AtomicBool,
    resets: AtomicU32,
    held: Mutex<Vec<Mapping>>,
    space: Mutex<Option<AddressSpace>>,
    events: Mutex<Option<Arc<dyn EventSink>>>,
}

impl Odd {
    fn opened(oddity: Oddity) -> (Arc<Self>, Handle) {
        let odd = Arc::new(Self {
            oddity,
            info: DeviceInfo {
                name: "odd0".into(),
                device_type: DeviceType::Entropy,
                vendor: 0,
                queues: 1,
                groups: 1,
                asids: 1,
                config_size: 8,
                kicks: KickKind::Taken,
                calls: CallKind::Any,
            },
            panics: AtomicBool::new(false),
            resets: AtomicU32::new(0),
            held: Mutex::default(),
            space: Mutex::default(),
            events: Mutex::default(),
        });
        let device = vdpa::Device::new(odd.clone(), Relay::new()).unwrap();
        let device = Device::new(device).unwrap_or_else(|e| panic!("{e}"));
        (odd, Handle(Box::into_raw(Box::new(device))))
    }

    fn step<T>(&self, value: T) -> T {
        assert!(!self.panics.load(Ordering::Relaxed), "on purpose");
        value
    }
}

/// A handle as C has it, which is not freed by itself.
#[derive(Clone, Copy)]
struct Handle(*mut Device);

impl Handle {
    /// To use it, while it is not closed.
    fn get<'d>(self) -> Option<&'d Device> {
        // SAFETY: who has it closes it once, and last.
        Some(unsafe { &*self.0 })
    }

    fn close(self) -> c_int {
        vdpa_device_close(self.0, 0)
    }
}

impl VdpaDevice for Odd {
    fn info(&self) -> &DeviceInfo {
        self.step(&self.info)
    }
    fn attach(&self, host: Host) -> Result<()> {
        *self.events.lock().unwrap() = Some(host.events);
        // It would hold what is mapped there.
        if self.oddity == Oddity::Software {
            *self.space.lock().unwrap() = host.spaces.first().cloned();
        }
        Ok(())
    }
    fn caps(&self) -> Caps<'_> {
        self.step(Caps {
            dma: match self.oddity {
                Oddity::Software => Dma::Software { misses: false },
                _ => Dma::Map(self),
            },
            stats: Some(self),
            ..Caps::NONE
        })
    }
    fn offered(&self) -> Features {
        self.step(bits::VERSION_1.mask().with(bits::ACCESS_PLATFORM))
    }
    fn accept(&self, _: Features) -> Result<()> {
        Ok(())
    }
    fn status(&self) -> Result<Status> {
        Ok(self.step(Status::empty()))
    }
    fn add_status(&self, _: Status) -> Result<()> {
        Ok(())
    }
    fn begin_reset(&self) -> Result<()> {
        let before = self.resets.fetch_add(1, Ordering::Relaxed);
        let last = self.oddity == Oddity::PanicsAtTheEnd && before > 0;
        assert!(!last, "on purpose");
        self.step(Ok(()))
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        self.step(Ok(None))
    }
    fn read_config(&self, _: u32, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
        self.step(Ok(QueueLimits {
            max_size: 64,
            group: GroupIndex::new(0),
        }))
    }
    fn start_queue(&self, _: QueueIndex, _: &QueueConfig, _: Kick, _: Call) -> Result<Doorbell> {
        Ok(Doorbell::NONE)
    }
    fn replace_call(&self, _: QueueIndex, _: Call) -> Result<()> {
        Ok(())
    }
}

impl DmaMap for Odd {
    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
            granule: 1,
            max_entries: None,
            reach: vdpa::core::Reach::Platform,
        }
    }
    fn map(&self, _: Asid, mapping: &Mapping) -> Result<()> {
        self.step(());
        if self.oddity != Oddity::Refuses {
            return Ok(());
        }
        self.held.lock().unwrap().push(mapping.clone());
        Err(Error::Busy { what: "the oddity" })
    }
    fn unmap(&self, _: Asid, _: &Mapping) -> Result<()> {
        match self.oddity {
            Oddity::Keeps => Err(Error::Busy { what: "the oddity" }),
            _ => Ok(()),
        }
    }
}

impl Stats for Odd {
    fn read(&self, _: &mut dyn FnMut(&str, u64)) -> Result<()> {
        self.step(Ok(()))
    }
}

fn message() -> String {
    // SAFETY: a string that stays until the next call of this thread fails.
    let message = unsafe { CStr::from_ptr(vdpa_last_error()) };
    message.to_str().unwrap().to_owned()
}

// SAFETY: does nothing.
unsafe extern "C" fn never(_: *mut c_void, _: *const std::ffi::c_char, _: u64) {}

#[test]
fn a_panic_beneath_any_call_is_a_code_and_leaves_a_device_that_can_be_closed() {
    let (odd, device) = Odd::opened(Oddity::Refuses);
    let d = device.get();
    let mut byte = MaybeUninit::new(7_u8);
    let mut number = MaybeUninit::uninit();
    let mut words = MaybeUninit::uninit();
    let chosen = FeatureWords { words: [0, 0] };
    let mapping = lent(&AtomicU32::new(0));
    odd.panics.store(true, Ordering::Relaxed);
    let mut bytes = [0_u8; 8];
    let to: *mut c_void = bytes.as_mut_ptr().cast();
    let mut limits = MaybeUninit::uninit();
    let mut info = MaybeUninit::uninit();
    let calls: [(&str, c_int); 14] = [
        ("info", vdpa_device_info(d, Some(&mut info))),
        ("offered", vdpa_device_offered(d, Some(&mut words))),
        ("accept", vdpa_device_accept(d, Some(&chosen), None)),
        ("status", vdpa_device_status(d, Some(&mut byte))),
        ("write_status", vdpa_device_write_status(d, 1)),
        ("reset", vdpa_device_reset(d, 0)),
        ("read_config", vdpa_device_read_config(d, 0, to, 8)),
        ("write_config", vdpa_device_write_config(d, 0, to, 8)),
        (
            "config_generation",
            vdpa_device_config_generation(d, Some(&mut number)),
        ),
        ("suspend", vdpa_device_suspend(d, 0)),
        ("resume", vdpa_device_resume(d)),
        ("stats", vdpa_device_stats(d, Some(never), ptr::null_mut())),
        ("map", vdpa_device_map(d, Some(&mapping))),
        (
            "queue_limits",
            queue::vdpa_device_queue_limits(d, 0, Some(&mut limits)),
        ),
    ];
    for (call, code) in calls {
        assert_eq!(code, VDPA_ERR_PANIC, "{call}: {}", message());
    }
    assert_eq!(message(), "a bug of libvdpa: on purpose");
    // SAFETY: it was made with a value.
    assert_eq!(unsafe { byte.assume_init() }, 7, "nothing is written");
    // The handle stays where a close panics.
    assert_eq!(device.close(), VDPA_ERR_PANIC);
    odd.panics.store(false, Ordering::Relaxed);
    assert_eq!(device.close(), 0, "{}", message());
    assert_eq!(Arc::strong_count(&odd), 1);
}

/// An error would have C close it again, which is then no more.
#[test]
fn a_device_that_panics_while_it_is_let_go_of_is_gone_and_its_memory_released() {
    type End = fn(Handle) -> c_int;
    let ends: [(u32, End); 2] = [
        (0, Handle::close),
        (1, |device| vdpa_device_abandon(device.0)),
    ];
    for (resets, end) in ends {
        let released = AtomicU32::new(0);
        let (odd, device) = Odd::opened(Oddity::PanicsAtTheEnd);
        odd.resets.store(resets, Ordering::Relaxed);
        let mapping = lent(&released);
        assert_eq!(vdpa_device_map(device.get(), Some(&mapping)), 0);
        assert_eq!(end(device), 0, "{}", message());
        assert_eq!(odd.resets.load(Ordering::Relaxed), 2, "it did panic");
        assert_eq!(released.load(Ordering::Relaxed), 1, "and was told to unmap");
        assert_eq!(Arc::strong_count(&odd), 1, "let go of, all the same");
    }
}

// SAFETY: `opaque` is the counter of `lent`.
unsafe extern "C" fn count(opaque: *mut c_void) {
    // SAFETY: it points to the counter that the mapping was made with, which outlives it.
    let count = unsafe { &*opaque.cast::<AtomicU32>() };
    count.fetch_add(1, Ordering::Relaxed);
}

fn lent(released: &AtomicU32) -> memory::Mapping {
    static BYTES: [u8; 4096] = [0; 4096];
    memory::Mapping {
        iova: 0,
        len: 4096,
        memory: BYTES.as_ptr().cast_mut().cast(),
        gpa: 0,
        asid: 0,
        flags: VDPA_READS,
        release: Some(count),
        opaque: ptr::from_ref(released).cast_mut().cast(),
    }
}

/// A miss that is lost without a word is a queue that waits for good.
#[test]
fn events_that_find_no_room_are_counted() {
    let (odd, device) = Odd::opened(Oddity::Keeps);
    let events = odd.events.lock().unwrap().take().unwrap();
    for page in 0..600 {
        events.raise(Event::Fault {
            asid: Asid::new(0),
            at: Iova::new(page * 4096),
            want: Access::Both,
        });
    }
    let mut told = 0;
    let mut event = MaybeUninit::uninit();
    while event::vdpa_device_next_event(device.get(), Some(&mut event)) == 1 {
        told += 1;
    }
    let mut dropped = MaybeUninit::new(0);
    let count = event::vdpa_device_events_dropped(device.get(), Some(&mut dropped));
    assert_eq!(count, 0, "{}", message());
    // SAFETY: it was made with a value.
    assert_eq!((told, unsafe { dropped.assume_init() }), (512, 88));
    assert_eq!(device.close(), 0, "{}", message());
}

/// A line for each field of a type, which says where it is, and one for its size and alignment.
macro_rules! layout {
    ($to:ident, $name:literal, $type:ty, $($field:ident)*) => {
        let (size, align) = (size_of::<$type>(), align_of::<$type>());
        $to.push(format!("struct {} {size} {align}", $name));
        $({
            let at = std::mem::offset_of!($type, $field);
            $to.push(format!("field {}.{} {at}", $name, stringify!($field)));
        })*
    };
}

/// `abi.txt` names every struct with its fields, as a program that was compiled against the header has them. Its other lines,
/// the symbols, are held against the library where that is built to be installed.
#[test]
fn structs_are_laid_out_as_abi_txt_says() {
    let mut is = Vec::new();
    layout!(is, "vdpa_device_info", device::DeviceInfo, device_type vendor config_size queues groups address_spaces caps);
    layout!(is, "vdpa_features", FeatureWords, words);
    layout!(is, "vdpa_event", event::Event, kind queue asid access at why);
    layout!(is, "vdpa_mapping", memory::Mapping, iova len memory gpa asid flags release opaque);
    layout!(is, "vdpa_dirty_log", memory::DirtyBitmap, bits len release opaque);
    layout!(is, "vdpa_queue_limits", queue::QueueLimits, max_size group);
    layout!(is, "vdpa_queue_setup", queue::QueueSetup, descriptor driver device size flags);
    layout!(is, "vdpa_queue_state", queue::RingState, kind avail used avail_wrap used_wrap);
    layout!(is, "vdpa_doorbell_page", doorbell::DoorbellPage, offset fd at);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi.txt");
    let listed = fs::read_to_string(path).unwrap();
    let layouts = |line: &&str| line.starts_with("struct ") || line.starts_with("field ");
    let listed: Vec<&str> = listed.lines().filter(layouts).collect();
    assert_eq!(
        is, listed,
        "a program that was built before would read the wrong bytes"
    );
}
