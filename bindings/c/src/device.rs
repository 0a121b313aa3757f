//! A device: what it is, features, status, configuration, and its end.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::time::Duration;

use vdpa::core::Events;
use vdpa::{Deadline, Error, Features};

use crate::boundary::{Inside, call, done};
use crate::failure::Failure;
use crate::pointer::{Bytes, GivenUp, Room, given};

/// It is software, and reads what is mapped itself.
pub const VDPA_CAP_DMA_SOFTWARE: u32 = 1 << 0;
/// It waits for memory that is not mapped: VDPA_EVENT_MISS.
pub const VDPA_CAP_PAGE_REQUESTS: u32 = 1 << 1;
/// An IOMMU translates for it: what is mapped has to fit its pages.
pub const VDPA_CAP_DMA_MAP: u32 = 1 << 2;
/// vdpa_device_assign_group().
pub const VDPA_CAP_GROUP_SPACES: u32 = 1 << 3;
/// vdpa_device_reset_queue(), where VIRTIO_F_RING_RESET is negotiated.
pub const VDPA_CAP_QUEUE_RESET: u32 = 1 << 4;
/// vdpa_device_stop_queue().
pub const VDPA_CAP_QUEUE_PAUSE: u32 = 1 << 5;
/// vdpa_device_enable_queue(), and VDPA_QUEUE_DISABLED.
pub const VDPA_CAP_QUEUE_ENABLE: u32 = 1 << 6;
/// vdpa_device_suspend(), vdpa_device_resume() and vdpa_device_queue_state().
pub const VDPA_CAP_SUSPEND: u32 = 1 << 7;
/// vdpa_device_stats().
pub const VDPA_CAP_STATS: u32 = 1 << 8;

/// The capabilities that this interface has calls for, by the names that the library has for them.
pub(crate) const CAPS: [(&str, u32); 9] = [
    ("dma-software", VDPA_CAP_DMA_SOFTWARE),
    ("page-requests", VDPA_CAP_PAGE_REQUESTS),
    ("dma-map", VDPA_CAP_DMA_MAP),
    ("group-spaces", VDPA_CAP_GROUP_SPACES),
    ("queue-reset", VDPA_CAP_QUEUE_RESET),
    ("queue-pause", VDPA_CAP_QUEUE_PAUSE),
    ("queue-enable", VDPA_CAP_QUEUE_ENABLE),
    ("suspend", VDPA_CAP_SUSPEND),
    ("stats", VDPA_CAP_STATS),
];

/// A device that is open. All calls that take a pointer to const may be made by several threads at the same time.
pub struct Device {
    pub(crate) device: vdpa::Device,
    pub(crate) events: Events,
    /// What the last event said.
    pub(crate) why: Mutex<CString>,
    name: CString,
}

impl Device {
    pub(crate) fn new(device: vdpa::Device) -> Result<Self, Failure> {
        let name = device.info().name.replace('\0', "?");
        Ok(Self {
            events: device.events()?,
            why: Mutex::default(),
            name: CString::new(name).unwrap_or_default(),
            device,
        })
    }

    /// Whether `len` bytes can be a part of configuration space at all, before there is room made for them.
    fn check_config(&self, at: u32, len: usize) -> Result<(), Failure> {
        let size = self.device.info().config_size;
        match u32::try_from(len) {
            Ok(less) if less <= size => Ok(()),
            _ => Err(Error::ConfigBounds { at, len, size }.into()),
        }
    }
}

/// The time at which a call that waits gives up. With 0 it looks once.
pub(crate) fn deadline(timeout_ms: u32) -> Deadline {
    Deadline::after(Duration::from_millis(timeout_ms.into()))
}

/// What a device is, constant while it is open.
#[repr(C)]
pub struct DeviceInfo {
    /// The virtio device type: VIRTIO_ID_* of linux/virtio_ids.h.
    pub device_type: u32,
    /// The PCI vendor id of its maker, or what stands for one.
    pub vendor: u32,
    /// Bytes of configuration space.
    pub config_size: u32,
    /// How many queues it has at most, with any features.
    pub queues: u32,
    /// How many queue groups; at least 1.
    pub groups: u32,
    /// How many address spaces; at least 1.
    pub address_spaces: u32,
    /// What it can do beyond what every device can: VDPA_CAP_*. There may be bits that this header does not name.
    pub caps: u32,
}

/// 128 feature bits: bit n is bit n % 64 of words[n / 64].
#[repr(C)]
pub struct FeatureWords {
    /// Bits 0 to 63, and 64 to 127.
    pub words: [u64; 2],
}

impl FeatureWords {
    fn features(&self) -> Features {
        let [low, high] = self.words;
        Features::from_u128(u128::from(low) | u128::from(high) << 64)
    }

    fn new(features: Features) -> Self {
        let low = features.low_u64();
        let high = u64::try_from(features.to_u128() >> 64).unwrap_or(0);
        Self { words: [low, high] }
    }
}

/// What the device is.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_info(
    device: Option<&Device>,
    info: Option<&mut MaybeUninit<DeviceInfo>>,
) -> c_int {
    done(|| {
        let (device, to) = (&given(device, "device")?.device, given(info, "info")?);
        let info = device.info();
        let names = device.cap_names();
        let has = CAPS.iter().filter(|(name, _)| names.contains(name));
        to.write(DeviceInfo {
            device_type: info.device_type.id(),
            vendor: info.vendor,
            config_size: info.config_size,
            queues: info.queues.into(),
            groups: info.groups,
            address_spaces: info.asids,
            caps: has.fold(0, |caps, (_, cap)| caps | cap),
        });
        Ok(())
    })
}

/// The name of the device within its parent.
///
/// name: where the string is written, which is the device's and valid until that is closed
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_name(
    device: Option<&Device>,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(name, "name")?);
        to.write(device.name.as_ptr());
        Ok(())
    })
}

/// The features that the device offers.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_offered(
    device: Option<&Device>,
    features: Option<&mut MaybeUninit<FeatureWords>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(features, "features")?);
        to.write(FeatureWords::new(device.device.offered()));
        Ok(())
    })
}

/// The features that hold since FEATURES_OK; none before.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_negotiated(
    device: Option<&Device>,
    features: Option<&mut MaybeUninit<FeatureWords>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(features, "features")?);
        to.write(FeatureWords::new(device.device.negotiated()));
        Ok(())
    })
}

/// Takes the features that the driver chose. Comes before FEATURES_OK, perhaps several times; the last one counts, also
/// when it is refused.
///
/// handled: features that the caller handles itself, which the device does not see, and with which `features` have to go
/// together: a VMM that keeps the control queue to itself accepts MQ, and CTRL_VQ here. NULL: none
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_accept(
    device: Option<&Device>,
    features: Option<&FeatureWords>,
    handled: Option<&FeatureWords>,
) -> c_int {
    done(|| {
        let (device, features) = (given(device, "device")?, given(features, "features")?);
        let handled = handled.map_or(Features::NONE, FeatureWords::features);
        Ok(device.device.accept_beside(features.features(), handled)?)
    })
}

/// The status byte, as the driver reads it: VIRTIO_CONFIG_S_* of linux/virtio_config.h. 0 once a reset is complete.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_status(
    device: Option<&Device>,
    status: Option<&mut MaybeUninit<u8>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(status, "status")?);
        to.write(device.device.status()?.bits());
        Ok(())
    })
}

/// Writes the status byte, as a driver does: any byte, in any order. Never waits, so that a guest's processor may be behind
/// it: a reset or a suspend that it begins is complete when vdpa_device_status() says so. What is refused a driver sees in
/// the bits that are not set.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_write_status(device: Option<&Device>, status: u8) -> c_int {
    done(|| Ok(given(device, "device")?.device.write_status(status)?))
}

/// Resets the device and waits until that is complete. Legal at any time, also while another thread waits for something
/// else, which that is then told. Mappings stay.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_reset(device: Option<&Device>, timeout_ms: u32) -> c_int {
    done(|| {
        Ok(given(device, "device")?
            .device
            .reset(deadline(timeout_ms))?)
    })
}

/// Reads configuration space, as it stood at one moment. What it holds is little-endian.
///
/// at: offset in bytes
///
/// to: room for len bytes; filled completely, or not at all
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_read_config(
    device: Option<&Device>,
    at: u32,
    to: *mut c_void,
    len: usize,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, Room::new(to, "to")?);
        device.check_config(at, len)?;
        let mut bytes = vec![0; len];
        device.device.read_config(at, &mut bytes)?;
        to.write(&bytes);
        Ok(())
    })
}

/// Writes configuration space.
///
/// at: offset in bytes
///
/// from: len bytes
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_write_config(
    device: Option<&Device>,
    at: u32,
    from: *const c_void,
    len: usize,
) -> c_int {
    done(|| {
        let (device, from) = (given(device, "device")?, Bytes::new(from, "from")?);
        device.check_config(at, len)?;
        Ok(device.device.write_config(at, &from.read(len))?)
    })
}

/// A number that changes with the configuration. A device without one answers VDPA_ERR_UNSUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_config_generation(
    device: Option<&Device>,
    generation: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    done(|| {
        let (device, to) = (
            &given(device, "device")?.device,
            given(generation, "generation")?,
        );
        let generation = device.config_generation()?;
        to.write(generation.ok_or_else(|| Error::Unsupported {
            device: device.info().name.clone(),
            what: "generation of its configuration",
        })?);
        Ok(())
    })
}

/// Stops the device as a whole, without its driver seeing it: on return it touches nothing, and keeps everything. If it is
/// not stopped in time, that goes on, and the same call waits for it again.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_suspend(device: Option<&Device>, timeout_ms: u32) -> c_int {
    done(|| {
        Ok(given(device, "device")?
            .device
            .suspend(deadline(timeout_ms))?)
    })
}

/// Lets a device go on that vdpa_device_suspend() stopped. Kicks that came meanwhile are not lost.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_resume(device: Option<&Device>) -> c_int {
    done(|| Ok(given(device, "device")?.device.resume()?))
}

/// Called with each counter of a device: its name, which is valid during the call, and its value. It runs in the thread of
/// vdpa_device_stats(), and must not call this library.
// SAFETY: C's own code; who hands it over promises that it may be called during the call, with its `opaque`.
pub type StatCallback =
    Option<unsafe extern "C" fn(opaque: *mut c_void, name: *const c_char, value: u64)>;

/// Reports every counter of the device, and returns how many there are.
///
/// opaque: handed to the callback
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_stats(
    device: Option<&Device>,
    each: StatCallback,
    opaque: *mut c_void,
) -> c_int {
    call(|| {
        let (device, each) = (given(device, "device")?, given(each, "each")?);
        // First all, then the caller's code: no lock of the device's is held over it.
        let mut all = Vec::new();
        device.device.stats(&mut |name, value| {
            all.push((CString::new(name).unwrap_or_default(), value));
        })?;
        let _inside = Inside::enter();
        for (name, value) in &all {
            // SAFETY: who calls promises a function of this type, which takes `opaque`.
            unsafe { each(opaque, name.as_ptr(), *value) };
        }
        Ok(c_int::try_from(all.len()).unwrap_or(c_int::MAX))
    })
}

/// Resets the device, waits for that, and lets go of it. Once it returned 0 the handle is no more; before, no other call
/// with it may be under way. If it fails, whatever the code, the handle stays, and can be closed again, or abandoned. A
/// device that is broken or gone is let go of. A bug that shows in the letting go is told of on standard error, and is no
/// reason to fail.
///
/// What is still mapped is released, by the callbacks it was mapped with. They may run a moment later, on another thread;
/// those of memory that the device does not let go of never do.
///
/// timeout_ms: of the reset. What the system takes to unmap comes on top, and for a simulated device with I/O that does not
/// end, up to half a minute for that
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_close(device: *mut Device, timeout_ms: u32) -> c_int {
    done(|| {
        let device = GivenUp::new(device, "device")?;
        match device.get().device.reset(deadline(timeout_ms)) {
            Ok(()) | Err(Error::Broken | Error::Gone) => {}
            Err(e) => return Err(e.into()),
        }
        device.free();
        Ok(())
    })
}

/// Lets go of a device without waiting for its reset, which is begun: for a device that cannot be closed in time. The handle
/// is no more once it returned 0; it fails only where it is not legal, with NULL or from inside of a callback. What is mapped
/// is released as by vdpa_device_close(), and what comes on top of its timeout comes here too.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_abandon(device: *mut Device) -> c_int {
    done(|| {
        GivenUp::new(device, "device")?.free();
        Ok(())
    })
}
