//! A function whose files another opened, as a VMM does: it has the container, and sends what a driver of ours needs.
#![allow(
    unsafe_code,
    reason = "`vfio-ioctls` leaves it to its caller that memory stays while a device reaches it"
)]

use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vdpa::core::{Asid, Relay};
use vdpa::mem::DmaMemory;
use vdpa::net::Ring;
use vdpa::pci::VirtioPci;
use vdpa::vfio::{DmaOwner, Function};
use vdpa::{Device, Region};
use vfio_ioctls::{VfioContainer, VfioDevice};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::dma::{self, Hand, PAGE, RING, TARGET};
use crate::{Done, disk};

/// `VFIO_PCI_CONFIG_REGION_INDEX` of `linux/vfio.h`: configuration space.
const CONFIG: u32 = 7;
/// The command register there, and its bit that has a function reach memory.
const COMMAND: u64 = 4;
const MASTER: u8 = 1 << 2;

/// Who opened a function, and keeps its container.
struct Owner {
    name: String,
    container: Arc<VfioContainer>,
    /// Closed last of what refers to the function.
    device: VfioDevice,
}

/// Drives a disk that was handed in: with memory that is mapped here, in its owner's container, and then with memory that
/// its owner has mapped.
pub(crate) fn hand_over(device: &str) -> Done {
    let owner = Owner::open(device)?;
    let function = owner.hand_over(DmaOwner::Container(owner.sent(&*owner.container)?.into()))?;
    let contents = disk::compare(driven(function)?, Ring::Split)?;
    let quiet = !owner.is_master();

    let (ring, ring_window) = Region::memfd(4 * PAGE)?.into_shared();
    let (target, window) = Region::memfd(PAGE)?.into_shared();
    owner.map(RING, &ring)?;
    owner.map(TARGET, &target)?;
    let device = driven(owner.hand_over(DmaOwner::Elsewhere)?)?;
    // Told to the device alone: the kernel, asked again, would refuse it.
    let mappings = vec![dma::mapping(RING, &ring)?, dma::mapping(TARGET, &target)?];
    device.dma(Asid::new(0))?.map(mappings)?;
    let mut hand = Hand::new(device, ring_window)?;
    hand.start()?;
    dma::fill(window.bytes());
    let answered = hand.read_into(TARGET)?;
    let untouched = dma::is_untouched(window.bytes());
    drop(hand);
    println!(
        "{}",
        json!({
            "contents": contents,
            "quiet": quiet,
            "elsewhere": { "answered": answered, "untouched": untouched, "master": owner.is_master() },
        })
    );
    Ok(())
}

/// The device in a function.
fn driven(function: Function) -> Result<Device, Box<dyn Error>> {
    let parent = VirtioPci::open(Arc::new(function))?;
    Ok(Device::new(Arc::new(parent), Relay::new())?)
}

impl Owner {
    fn open(device: &str) -> Result<Self, Box<dyn Error>> {
        let name = device.trim_start_matches("vfio:").to_owned();
        let container = Arc::new(VfioContainer::new(None)?);
        let path = Path::new("/sys/bus/pci/devices").join(&name);
        let device = VfioDevice::new(&path, container.clone(), true)?;
        Ok(Self {
            name,
            container,
            device,
        })
    }

    /// A file as whoever it is sent to has it.
    fn sent(&self, file: &impl AsRawFd) -> Result<File, Box<dyn Error>> {
        let (here, there) = UnixStream::pair()?;
        here.send_with_fd(&b"file"[..], file.as_raw_fd())?;
        let (_, file) = there.recv_with_fd(&mut [0; 4])?;
        file.ok_or_else(|| "no file has come".into())
    }

    fn hand_over(&self, dma: DmaOwner) -> Result<Function, Box<dyn Error>> {
        let device = self.sent(&self.device)?;
        Ok(Function::from_fd(
            &self.name,
            device.into(),
            dma,
            Relay::new(),
        )?)
    }

    /// Maps all of a memory.
    fn map(&self, at: u64, memory: &Arc<dyn DmaMemory>) -> Done {
        // Never given back: the container is closed with this program.
        let memory = std::mem::ManuallyDrop::new(Arc::clone(memory));
        // SAFETY: the memory is mapped for as long as this program runs, and nothing has a reference into it.
        unsafe {
            self.container
                .vfio_dma_map(at, memory.len() as usize, memory.hva().as_ptr())
        }?;
        Ok(())
    }

    /// Whether the function may reach memory.
    fn is_master(&self) -> bool {
        let mut command = [0; 2];
        self.device.region_read(CONFIG, &mut command, COMMAND);
        command[0] & MASTER != 0
    }
}
