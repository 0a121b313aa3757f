//! Memory that C lends to a device.
#![allow(
    unsafe_code,
    reason = "exports symbols by name, and vouches for memory that C promises to keep"
)]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use vdpa::Iova;
use vdpa::core::{Asid, Window};
use vdpa::mem::{Access, DirtyLog, DmaMemory, Gpa, IovaRange, VhostLog};

use crate::boundary::{Inside, done};
use crate::device::{Device, deadline};
use crate::failure::Failure;
use crate::pointer::given;

/// The device may read what is mapped: what goes from driver to device.
pub const VDPA_READS: u32 = 1 << 0;
/// The device may write what is mapped: what goes from device to driver.
pub const VDPA_WRITES: u32 = 1 << 1;
/// What the device writes there is logged, at `gpa` and on: see vdpa_device_set_dirty_log().
pub const VDPA_LOGGED: u32 = 1 << 2;

const FLAGS: u32 = VDPA_READS | VDPA_WRITES | VDPA_LOGGED;

/// Called once the library and the device have no access left to memory they were lent. It may run on any thread, one of
/// the device's included, inside of any call and after a device was closed; it must not call this library, nor wait.
// SAFETY: C's own code; who hands it over promises that it may be called once, on any thread, with its `opaque`.
pub type ReleaseCallback = Option<unsafe extern "C" fn(opaque: *mut c_void)>;

/// Memory to be mapped for a device.
#[repr(C)]
pub struct Mapping {
    /// Where the device sees it.
    pub iova: u64,
    /// How many bytes there are.
    pub len: u64,
    /// Where they are in this process. They stay mapped, readable and, with VDPA_WRITES, writable, until they are released.
    pub memory: *mut c_void,
    /// With VDPA_LOGGED, the guest-physical address of the first byte.
    pub gpa: u64,
    /// In which address space; 0 is the one in which all queues are at first.
    pub asid: u32,
    /// VDPA_READS and VDPA_WRITES, at least one, and VDPA_LOGGED.
    pub flags: u32,
    /// What is called once the memory is released, or NULL. Without it the memory is the caller's again only when
    /// vdpa_device_unmap() returned 0.
    pub release: ReleaseCallback,
    /// Handed to `release`, and valid until that ran: also once vdpa_device_unmap() returned 0.
    pub opaque: *mut c_void,
}

/// Memory of C's, until it is dropped.
struct Lent {
    at: NonNull<u8>,
    len: u64,
    writable: bool,
    release: ReleaseCallback,
    opaque: *mut c_void,
}

// SAFETY: the memory is only used through `vdpa_mem`, which shares it, and who lent it promised that `release` may run on
// any thread.
unsafe impl Send for Lent {}
// SAFETY: as above; nothing of it changes.
unsafe impl Sync for Lent {}

// SAFETY: who lent it promised to keep it mapped until `release` ran, which is not before this is dropped, or until it was
// unmapped, after which nobody looks; C has no references.
unsafe impl DmaMemory for Lent {
    fn hva(&self) -> NonNull<u8> {
        self.at
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Lent {
    /// `names`: of the arguments that say where it is and how long.
    fn new(
        at: *mut c_void,
        len: u64,
        writable: bool,
        (release, opaque): (ReleaseCallback, *mut c_void),
        names: [&'static str; 2],
    ) -> Result<Self, Failure> {
        let [memory, length] = names;
        let first = at as u64;
        let at = given(NonNull::new(at.cast::<u8>()), memory)?;
        let fits = first.checked_add(len).is_some() && isize::try_from(len).is_ok();
        if len == 0 || !fits {
            return Err(Failure::Value {
                argument: length,
                value: len,
                legal: "at least 1 is legal, and no more than there is from where it begins",
            });
        }
        Ok(Self {
            at,
            len,
            writable,
            release,
            opaque,
        })
    }

    /// Gives it back to who lent it, who is told by other means.
    fn give_back(mut self) {
        self.release = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(release) = self.release else {
            return;
        };
        let _inside = Inside::enter();
        // SAFETY: who lent it promised a function of this type, which takes `opaque`, and is called once.
        unsafe { release(self.opaque) };
    }
}

/// Runs a call that takes memory. If it fails, the memory is the caller's again, unless it is held all the same: `kept` says
/// by whom.
fn lend(
    lent: Lent,
    kept: &'static str,
    take: impl FnOnce(Arc<dyn DmaMemory>) -> vdpa::Result<()>,
) -> Result<(), Failure> {
    let lent = Arc::new(lent);
    match take(Arc::clone(&lent) as _) {
        Ok(()) => Ok(()),
        Err(source) => match Arc::try_unwrap(lent) {
            Ok(lent) => {
                lent.give_back();
                Err(source.into())
            }
            // Whoever holds it releases it, or keeps it for good.
            Err(_held) => Err(Failure::Kept { what: kept, source }),
        },
    }
}

/// Maps memory for the device. Legal at any time, beside any other call. It waits for the system, which may have to pin the
/// memory, and for another thread that unmaps or sets the log of the same address space, as long as that waits.
///
/// On 0 the memory is lent: it may be freed when vdpa_device_unmap() returned 0 for it, or once its release callback ran,
/// whichever is first, and not before. The callback runs once, also if vdpa_device_unmap() returned 0, and then perhaps later;
/// but never for memory that the device does not let go of, which is never the caller's again. If that shows before the device
/// is closed, VDPA_EVENT_BROKEN tells; if it shows in that, nothing does: no caller can count on the callback.
///
/// On an error the callback does not run, and the memory is the caller's; but for VDPA_ERR_KEPT and VDPA_ERR_PANIC, after
/// which it may be freed only once the callback ran.
///
/// mapping: it is not kept
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_map(device: Option<&Device>, mapping: Option<&Mapping>) -> c_int {
    done(|| {
        let (device, m) = (given(device, "device")?, given(mapping, "mapping")?);
        let flags = |legal| Failure::Value {
            argument: "mapping->flags",
            value: m.flags.into(),
            legal,
        };
        if m.flags & !FLAGS != 0 {
            return Err(flags(
                "VDPA_READS, VDPA_WRITES and VDPA_LOGGED are legal, and nothing else",
            ));
        }
        let access = match (m.flags & VDPA_READS != 0, m.flags & VDPA_WRITES != 0) {
            (true, true) => Access::Both,
            (true, false) => Access::DeviceReads,
            (false, true) => Access::DeviceWrites,
            (false, false) => return Err(flags("VDPA_READS or VDPA_WRITES is needed, or both")),
        };
        let names = ["mapping->memory", "mapping->len"];
        let writable = access.allows(Access::DeviceWrites);
        let dma = device.device.dma(Asid::new(m.asid))?;
        let iova = IovaRange::new(Iova::new(m.iova), m.len).map_err(vdpa::Error::from)?;
        let dirty = (m.flags & VDPA_LOGGED != 0).then(|| Gpa::new(m.gpa));
        // Last: from here on it is the device's to give back.
        let lent = Lent::new(m.memory, m.len, writable, (m.release, m.opaque), names)?;
        let kept = "the device does not let go of memory that could not be mapped";
        lend(lent, kept, |memory| {
            dma.map(vec![vdpa::Mapping {
                iova,
                memory,
                offset: 0,
                access,
                dirty,
            }])
        })
    })
}

/// Unmaps what is mapped in a range, which has to hold each mapping whole. On 0 the device does not touch it any more, and
/// the memory may be freed. Legal also once the device is gone, but not once it is broken.
///
/// On an error nothing may be freed but what is released by its callback. A device that does not let go in time is broken
/// from then on, and this answers VDPA_ERR_BROKEN: the same call does not succeed later. What it has in flight can be enough
/// with a timeout of 0.
///
/// len: of the range, in bytes
///
/// timeout_ms: for what the device has in flight. What the system takes to unmap comes on top, as does another map or unmap
/// of the address space that is at work
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_unmap(
    device: Option<&Device>,
    asid: u32,
    iova: u64,
    len: u64,
    timeout_ms: u32,
) -> c_int {
    done(|| {
        let device = given(device, "device")?;
        let range = IovaRange::new(Iova::new(iova), len).map_err(vdpa::Error::from)?;
        let dma = device.device.dma(Asid::new(asid))?;
        Ok(dma.unmap(range, deadline(timeout_ms))?)
    })
}

/// A log of what a device writes: a bit for each page of 4 KiB from guest-physical address 0 on, page n in bit n % 8 of byte
/// n / 8, set atomically. Who reads takes bits by exchanging what holds them for 0.
#[repr(C)]
pub struct DirtyBitmap {
    /// Where the bits are. They stay writable until they are released.
    pub bits: *mut c_void,
    /// How many bytes there are. Pages beyond are not logged.
    pub len: u64,
    /// As for a mapping: what is called once the log is released, or NULL.
    pub release: ReleaseCallback,
    /// Handed to `release`.
    pub opaque: *mut c_void,
}

/// Has what the device writes in an address space logged, where it is mapped with VDPA_LOGGED: on return every later write
/// is. The log of before is not written any more when this returned 0, and is then released.
///
/// A device that goes on with the log of before beyond the timeout is broken from then on, as by vdpa_device_unmap(): this
/// answers VDPA_ERR_KEPT, the new log counts and is lent, and neither may be freed before its callback ran; with NULL it
/// answers VDPA_ERR_BROKEN.
///
/// log: it is not kept, but for what it points to, which is lent as with vdpa_device_map(). NULL: nothing is logged any more
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_set_dirty_log(
    device: Option<&Device>,
    asid: u32,
    log: Option<&DirtyBitmap>,
    timeout_ms: u32,
) -> c_int {
    done(|| {
        let device = given(device, "device")?;
        let (dma, by) = (device.device.dma(Asid::new(asid))?, deadline(timeout_ms));
        let Some(log) = log else {
            return Ok(dma.set_dirty_log(None, by)?);
        };
        let callback = (log.release, log.opaque);
        let lent = Lent::new(log.bits, log.len, true, callback, ["log->bits", "log->len"])?;
        let len = lent.len;
        let kept =
            "the new log counts, but what the device began with the one before did not end in time";
        lend(lent, kept, |memory| {
            let log: Arc<dyn DirtyLog> = Arc::new(VhostLog::new(Window::new(memory, 0, len)?)?);
            dma.set_dirty_log(Some(log), by)
        })
    })
}
