//! The kernel's own vDPA bus, from both ends: a device that this program plays by VDUSE, and drives by vhost-vdpa. And
//! iommufd without a device.
#![allow(
    unsafe_code,
    reason = "memory that stays mapped until the device has let go of it"
)]

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Value, json};
use vdpa_uapi::iommufd::{
    IOMMU_IOAS_MAP, IOMMU_IOAS_MAP_FIXED_IOVA, IOMMU_IOAS_MAP_READABLE, IOMMU_OPTION_HUGE_PAGES,
    Iommufd, iommu_ioas_map,
};
use vdpa_uapi::vdpa::{Attribute, ManagementName, Netlink};
use vdpa_uapi::vduse::{Control, Device, QueueState, Request, Setup, What};
use vdpa_uapi::vhost::{
    Access, VHOST_BACKEND_F_IOTLB_BATCH, VHOST_BACKEND_F_IOTLB_MSG_V2, Vdpa, vhost_vring_addr,
};
use vm_memory::{FileOffset, MmapRegion};

use crate::Done;

const NAME: &str = "lab";
const BLOCK: u32 = 2;
/// `VIRTIO_F_VERSION_1` and `VIRTIO_F_ACCESS_PLATFORM`.
const FEATURES: u64 = 1 << 32 | 1 << 33;
/// ACKNOWLEDGE and DRIVER; FEATURES_OK; DRIVER_OK.
const STEPS: [u8; 3] = [0b11, 0b1011, 0b1111];
const IOVA: u64 = 0x10_0000;
const LEN: u64 = 0x1_0000;
const QUEUE_SIZE: u16 = 64;
/// Where the device says that its queue stands.
const BASE: u16 = 0x1234;

/// A device that answers what the kernel asks, on a thread of its own.
struct Played {
    device: Arc<Device>,
    asked: Arc<Mutex<Vec<Request>>>,
    stop: Arc<EventFd>,
    thread: thread::JoinHandle<Result<(), vdpa_uapi::Error>>,
}

impl Played {
    fn new(device: Device) -> Result<Self, Errno> {
        let (device, asked) = (Arc::new(device), Arc::new(Mutex::new(Vec::new())));
        let stop = Arc::new(EventFd::new()?);
        let thread = thread::spawn({
            let (device, asked, stop) =
                (Arc::clone(&device), Arc::clone(&asked), Arc::clone(&stop));
            move || answer(&device, &asked, &stop)
        });
        Ok(Self {
            device,
            asked,
            stop,
            thread,
        })
    }

    fn stop(self) -> Result<Vec<Request>, Box<dyn std::error::Error>> {
        self.stop.write(1)?;
        self.thread
            .join()
            .map_err(|_| "the device's thread has panicked")??;
        let asked = self
            .asked
            .lock()
            .map_err(|_| "the device's thread has panicked")?;
        Ok(asked.clone())
    }
}

fn answer(
    device: &Device,
    asked: &Mutex<Vec<Request>>,
    stop: &EventFd,
) -> Result<(), vdpa_uapi::Error> {
    loop {
        let mut ready = [device.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        while poll(&mut ready, PollTimeout::NONE) == Err(Errno::EINTR) {}
        if ready[1].any() == Some(true) {
            return Ok(());
        }
        let request = device.request()?;
        if let Ok(mut asked) = asked.lock() {
            asked.push(request);
        }
        let state =
            matches!(request.what, What::QueueState { .. }).then_some(QueueState::Split(BASE));
        device.answer(&request, true, state)?;
    }
}

/// Makes a disk that is nothing but its control path, and looks at it from the driver's side.
pub(crate) fn bus() -> Done {
    let control = Control::from_fd(again(&Control::open("/dev/vduse/control")?)?)?;
    let version = control.version()?;
    control.set_version(0)?;
    let capacity = 2048u64;
    let setup = Setup {
        name: NAME.into(),
        device_id: BLOCK,
        vendor_id: 0x1af4,
        features: FEATURES,
        queues: 1,
        align: 4096,
        groups: 0,
        address_spaces: 0,
        config: [&capacity.to_le_bytes()[..], &[0; 52]].concat(),
    };
    control.create(&setup)?;
    let taken = said(control.create(&setup));
    let device = Device::from_fd(again(&Device::open(format!("/dev/vduse/{NAME}"))?)?)?;
    device.set_up_queue(0, 128, 0)?;
    let played = Played::new(device)?;

    let mut netlink = Netlink::open()?;
    let makers = netlink.management_devices()?;
    let maker = ManagementName {
        bus: None,
        device: "vduse".into(),
    };
    netlink.add(NAME, &maker, &[])?;
    let twice = said(netlink.add(NAME, &maker, &[]));
    let devices = netlink.devices()?;
    let on_bus = json!({
        "version": version,
        "taken": taken,
        "makers": makers.iter().map(|m| json!({ "name": m.name.device, "classes": m.classes })).collect::<Vec<_>>(),
        "devices": devices.iter().map(|d| json!({
            "name": d.name, "maker": d.management.device, "type": d.device_id, "queues": d.max_queues, "size": d.max_queue_size,
        })).collect::<Vec<_>>(),
        "twice": twice,
        "counters": said(netlink.vendor_counters(NAME, 0)),
    });

    let vdpa = Vdpa::from_fd(again(&Vdpa::open("/dev/vhost-vdpa-0")?)?)?;
    let asked = asked(&vdpa)?;
    let driven = drive(&vdpa, &played.device)?;
    let config = netlink.config(NAME)?;
    let seen = config.iter().find_map(|a| match a {
        Attribute::Capacity(sectors) => Some(*sectors),
        _ => None,
    });
    // While it is open, its deletion would wait.
    drop(vdpa);
    netlink.delete(NAME)?;
    let left = netlink.devices()?.len();
    let busy = said(control.destroy(NAME));
    let requests = played.stop()?;
    control.destroy(NAME)?;
    let gone = said(control.destroy(NAME));
    let statuses = requests.iter().filter_map(|request| match request.what {
        What::Status { status } => Some(status),
        _ => None,
    });
    let mappings = requests.iter().filter_map(|request| match request.what {
        What::Iotlb { start, last, .. } => Some((start, last)),
        _ => None,
    });
    println!(
        "{}",
        json!({
            "bus": on_bus, "asked": asked, "driven": driven, "capacity": seen, "left": left, "busy": busy, "gone": gone,
            "statuses": statuses.collect::<Vec<_>>(), "mappings": mappings.collect::<Vec<_>>(),
        })
    );
    Ok(())
}

/// All that can be asked of a device before it is driven.
fn asked(vdpa: &Vdpa) -> Result<Value, Box<dyn std::error::Error>> {
    vdpa.set_owner()?;
    let mut capacity = [0; 8];
    vdpa.config(0, &mut capacity)?;
    Ok(json!({
        "owner twice": said(vdpa.set_owner()),
        "type": vdpa.device_id()?,
        "backend": vdpa.backend_features()?,
        "features": vdpa.features()?,
        "array": said(vdpa.features_array(&mut [0; 2])),
        "config size": vdpa.config_size()?,
        "capacity": u64::from_le_bytes(capacity),
        "config beyond": said(vdpa.config(1 << 20, &mut capacity)),
        "queues": vdpa.queues()?,
        "max size": vdpa.max_queue_size()?,
        "size": vdpa.queue_size(0)?,
        "no queue": said(vdpa.queue_base(9)),
        "groups": vdpa.groups()?,
        "address spaces": vdpa.address_spaces()?,
        "group": said(vdpa.queue_group(0)),
        "descriptor group": said(vdpa.descriptor_group(0)),
        "asid": said(vdpa.set_group_asid(0, 0)),
        "range": vdpa.iova_range()?,
    }))
}

/// Brings the device up, maps memory that the other end then has, and has each end tell the other something.
fn drive(vdpa: &Vdpa, device: &Device) -> Result<Value, Box<dyn std::error::Error>> {
    let bit = |number: u32| 1u64 << number;
    vdpa.set_backend_features(
        bit(VHOST_BACKEND_F_IOTLB_MSG_V2) | bit(VHOST_BACKEND_F_IOTLB_BATCH),
    )?;
    let [kick, kicked, call, changed] = [(); 4].map(|()| EventFd::new());
    let (kick, kicked, call, changed) = (kick?, kicked?, call?, changed?);
    vdpa.set_status(STEPS[0])?;
    vdpa.set_features(FEATURES)?;
    vdpa.set_status(STEPS[1])?;
    let features_ok = vdpa.status()?;
    vdpa.set_queue_size(0, QUEUE_SIZE.into())?;
    vdpa.set_queue_addresses(vhost_vring_addr {
        desc_user_addr: IOVA,
        avail_user_addr: IOVA + 0x1000,
        used_user_addr: IOVA + 0x2000,
        ..Default::default()
    })?;
    vdpa.set_queue_base(0, 5)?;
    vdpa.set_queue_kick(0, Some(kick.as_fd()))?;
    vdpa.set_queue_call(0, Some(call.as_fd()))?;
    vdpa.set_config_call(Some(changed.as_fd()))?;
    vdpa.set_queue_enabled(0, true)?;
    device.set_queue_kick(0, Some(kicked.as_fd()))?;

    let memory = File::from(memfd_create("lab", MFdFlags::MFD_CLOEXEC)?);
    memory.set_len(LEN)?;
    memory.write_all_at(b"of the driver's", 0x800)?;
    let here = MmapRegion::<()>::from_file(FileOffset::new(memory.try_clone()?, 0), LEN as usize)?;
    // To the end of the program if a call fails in between: the device has it until it is unmapped.
    let here = ManuallyDrop::new(here);
    // It is open already, and one at a time may have it.
    let busy = said(Vdpa::open("/dev/vhost-vdpa-0"));
    // SAFETY: nothing is mapped: the space is not looked at, for which the call is refused.
    let space = said(unsafe { vdpa.map(1, IOVA, LEN, here.as_ptr() as u64, Access::ReadWrite) });
    vdpa.begin_batch(0)?;
    // SAFETY: the region is there until the device has let go of it, which is when the second batch has ended.
    unsafe { vdpa.map(0, IOVA, LEN, here.as_ptr() as u64, Access::ReadWrite) }?;
    vdpa.end_batch(0)?;
    // SAFETY: the same; the address is taken, so that nothing is mapped.
    let taken = said(unsafe { vdpa.map(0, IOVA, LEN, here.as_ptr() as u64, Access::ReadWrite) });
    vdpa.set_status(STEPS[2])?;

    let suspend = said(vdpa.suspend());
    let resume = said(vdpa.resume());

    let queue = device.queue(0)?;
    let window = device.window(IOVA, IOVA + LEN - 1)?;
    let region = json!({ "start": window.start, "last": window.last, "access": window.access });
    let inherited = !FdFlag::from_bits_retain(fcntl(&window.file, FcntlArg::F_GETFD)?)
        .contains(FdFlag::FD_CLOEXEC);
    let there = File::from(window.file);
    let mut read = [0; 15];
    there.read_exact_at(&mut read, window.offset + 0x800)?;
    there.write_all_at(b"of the device's", window.offset + 0x900)?;
    let mut back = [0; 15];
    memory.read_exact_at(&mut back, 0x900)?;

    kick.write(1)?;
    let kicks = kicked.read()?;
    device.interrupt(0)?;
    let calls = call.read()?;
    device.set_config(0, &4096u64.to_le_bytes())?;
    device.interrupt_config()?;
    let changes = changed.read()?;
    let mut capacity = [0; 8];
    vdpa.config(0, &mut capacity)?;
    let base = vdpa.queue_base(0)?;

    vdpa.begin_batch(0)?;
    vdpa.unmap(0, IOVA, LEN)?;
    let in_batch = device.window(IOVA, IOVA + LEN - 1).map(drop);
    vdpa.end_batch(0)?;
    let unmapped = said(device.window(IOVA, IOVA + LEN - 1));
    vdpa.set_status(0)?;
    drop(ManuallyDrop::into_inner(here));
    drop::<OwnedFd>(there.into());
    Ok(json!({
        "features ok": features_ok, "accepted": device.features()?,
        "queue": { "size": queue.size, "descriptors": queue.descriptors, "driver": queue.driver, "device": queue.device, "ready": queue.ready,
            "avail": queue.state.last_avail_counter },
        "taken": taken, "region": region, "read": String::from_utf8_lossy(&read), "back": String::from_utf8_lossy(&back),
        "kicks": kicks, "calls": calls, "changes": changes, "capacity": u64::from_le_bytes(capacity), "base": base,
        "busy": busy, "space": space, "inherited": inherited, "in batch": said(in_batch), "unmapped": unmapped,
        "suspend": suspend, "resume": resume, "reset": vdpa.status()?,
    }))
}

/// Address spaces of iommufd, which need no device.
pub(crate) fn spaces() -> Done {
    let iommufd = Iommufd::from_fd(again(&Iommufd::open("/dev/iommu")?)?)?;
    let (one, two) = (iommufd.new_space()?, iommufd.new_space()?);
    let whole = iommufd.ranges(one)?;
    iommufd.allow(one, &[(IOVA, IOVA + LEN - 1), (4 * IOVA, 5 * IOVA - 1)])?;
    let huge = iommufd.option(IOMMU_OPTION_HUGE_PAGES, one)?;
    iommufd.set_option(IOMMU_OPTION_HUGE_PAGES, one, 0)?;
    let small = iommufd.option(IOMMU_OPTION_HUGE_PAGES, one)?;
    let vfio = [
        said(iommufd.vfio_space()),
        said(iommufd.set_vfio_space(Some(two))),
        said(iommufd.vfio_space()),
        said(iommufd.set_vfio_space(None)),
    ];
    let memory = File::from(memfd_create("lab", MFdFlags::MFD_CLOEXEC)?);
    memory.set_len(LEN)?;
    let here = MmapRegion::<()>::from_file(FileOffset::new(memory, 0), LEN as usize)?;
    let mut map = iommu_ioas_map {
        size: size_of::<iommu_ioas_map>() as u32,
        flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
        ioas_id: one,
        user_va: here.as_ptr() as u64,
        length: LEN,
        iova: IOVA,
        ..Default::default()
    };
    // SAFETY: this is iommufd; the region lives longer than the spaces, to which no device is attached.
    unsafe { IOMMU_IOAS_MAP.make(iommufd.as_fd(), &raw mut map) }?;
    // SAFETY: the same.
    let copied =
        unsafe { iommufd.copy(one, IOVA, LEN, two, Some(2 * IOVA), IOMMU_IOAS_MAP_READABLE) }?;
    // SAFETY: the same; half of it is not mapped, so that nothing is copied.
    let beyond =
        said(unsafe { iommufd.copy(one, IOVA + LEN / 2, LEN, two, None, IOMMU_IOAS_MAP_READABLE) });
    let (faults, queue) = iommufd.new_fault_queue()?;
    drop(queue);
    iommufd.destroy(faults)?;
    println!(
        "{}",
        json!({
            "ranges": whole.ranges, "granule": whole.granule, "huge": huge, "small": small, "vfio": vfio, "copied": copied, "beyond": beyond,
            "no table": [said(iommufd.track_dirty(one, true)), said(iommufd.dirty(99, 0, LEN, 4096, true))],
            "process": said(iommufd.change_process()),
            "destroyed": [said(iommufd.destroy(two)), said(iommufd.destroy(one)), said(iommufd.destroy(one))],
        })
    );
    Ok(())
}

/// A descriptor to hand over.
fn again(of: &impl AsFd) -> std::io::Result<OwnedFd> {
    of.as_fd().try_clone_to_owned()
}

/// What came of a call, in words: `fine`, or the call and the errno.
fn said<T>(result: Result<T, vdpa_uapi::Error>) -> String {
    match result {
        Ok(_) => "fine".into(),
        Err(error) => error.to_string(),
    }
}
