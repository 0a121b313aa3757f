//! A vDPA device of the kernel's: `/dev/vhost-vdpa-N`.
#![allow(
    unsafe_code,
    reason = "ioctls on a descriptor that was asked whether it is such a device"
)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::iotlb::{Access, Kind, Message};
use super::numbers::*;
use crate::table::Plain;
use crate::{Call, Error, device};

const WHAT: &str = "vhost-vdpa device";

/// A vDPA device, which the kernel drives and this process does the control path of.
///
/// Calls go to the kernel as they are: their order is that of the virtio specification, and what the kernel makes of
/// another one is its answer. Most need [`set_owner`](Self::set_owner) before.
///
/// # Spec
/// `linux/vhost.h`.
#[derive(Debug)]
pub struct Vdpa {
    file: File,
    /// What was accepted here of what vhost can do. It is held while a message goes that means something else without it.
    accepted: RwLock<u64>,
}

impl Vdpa {
    /// Opens the device file, `/dev/vhost-vdpa-0` say.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Foreign`] if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_fd(device::open(
            path.as_ref(),
            "`modprobe vhost-vdpa`, for each device on the vDPA bus,",
        )?)
    }

    /// Takes over a device that somebody else has opened.
    ///
    /// What was accepted of [`backend_features`](Self::backend_features) cannot be asked for: it counts from
    /// [`set_backend_features`](Self::set_backend_features) on. Nobody else is to change it by a copy of the descriptor.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is something else, which is found out by asking for its device type.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let file = device::character_device(fd, WHAT)?;
        let vdpa = Self {
            file,
            accepted: RwLock::new(0),
        };
        device::known(&vdpa.file, WHAT, vdpa.device_id())?;
        Ok(vdpa)
    }

    /// Makes this process the owner, whose memory mappings are of. Once.
    ///
    /// # Errors
    /// [`Error::Call`]: `EBUSY` if there is one. All below fail with [`Error::Call`] too.
    pub fn set_owner(&self) -> Result<(), Error> {
        self.ask(VHOST_SET_OWNER, ()).map(drop)
    }

    /// The virtio device type.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn device_id(&self) -> Result<u32, Error> {
        self.ask(VHOST_VDPA_GET_DEVICE_ID, 0)
    }

    /// The device status.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn status(&self) -> Result<u8, Error> {
        self.ask(VHOST_VDPA_GET_STATUS, 0)
    }

    /// Sets the device status; 0 resets the device.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` where a bit would be taken away.
    pub fn set_status(&self, status: u8) -> Result<(), Error> {
        self.ask(VHOST_VDPA_SET_STATUS, status).map(drop)
    }

    /// Features 0 to 63 that the device offers.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn features(&self) -> Result<u64, Error> {
        self.ask(VHOST_GET_FEATURES, 0)
    }

    /// Accepts features 0 to 63.
    ///
    /// # Errors
    /// What the kernel says: `EBUSY` after FEATURES_OK.
    pub fn set_features(&self, features: u64) -> Result<(), Error> {
        self.ask(VHOST_SET_FEATURES, features).map(drop)
    }

    /// As many words of features as `words` has, lowest first. Linux 6.17, of devices that have more than 64.
    ///
    /// # Errors
    /// What the kernel says: `ENOBUFS` or `ENOTTY` of one that is older, or has it for other devices only.
    pub fn features_array(&self, words: &mut [u64]) -> Result<(), Error> {
        let mut whole = vec![0; words.len().saturating_add(1)];
        if let Some(count) = whole.first_mut() {
            *count = words.len() as u64;
        }
        self.with_tail(VHOST_GET_FEATURES_ARRAY, &mut whole)?;
        for (to, from) in words.iter_mut().zip(whole.into_iter().skip(1)) {
            *to = from;
        }
        Ok(())
    }

    /// Accepts features, lowest word first. Linux 6.17.
    ///
    /// # Errors
    /// As for [`features_array`](Self::features_array).
    pub fn set_features_array(&self, words: &[u64]) -> Result<(), Error> {
        let mut whole = vec![words.len() as u64];
        whole.extend_from_slice(words);
        self.with_tail(VHOST_SET_FEATURES_ARRAY, &mut whole)
    }

    /// What vhost itself can do: a set of bits `VHOST_BACKEND_F_*`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn backend_features(&self) -> Result<u64, Error> {
        self.ask(VHOST_GET_BACKEND_FEATURES, 0)
    }

    /// Accepts some of it, and nothing else of it any more. Without `VHOST_BACKEND_F_IOTLB_ASID` there is no address space
    /// but 0 in what maps memory.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` for what was not offered.
    pub fn set_backend_features(&self, features: u64) -> Result<(), Error> {
        let mut accepted = self
            .accepted
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.ask(VHOST_SET_BACKEND_FEATURES, features)?;
        *accepted = features;
        Ok(())
    }

    /// How long the configuration space is, in bytes. Linux 5.18.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn config_size(&self) -> Result<u32, Error> {
        self.ask(VHOST_VDPA_GET_CONFIG_SIZE, 0)
    }

    /// Reads the configuration space from `offset` on, in bytes. `bytes` is untouched on an error.
    ///
    /// # Errors
    /// What the kernel says: `E2BIG` or `EINVAL` beyond its end. [`Error::TooLong`] for more than 4 GiB.
    pub fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let mut whole = config(VHOST_VDPA_GET_CONFIG, offset, bytes)?;
        self.with_tail(VHOST_VDPA_GET_CONFIG, &mut whole)?;
        let read = whole.into_iter().skip(size_of::<vhost_vdpa_config>());
        for (to, from) in bytes.iter_mut().zip(read) {
            *to = from;
        }
        Ok(())
    }

    /// Writes the configuration space from `offset` on, in bytes.
    ///
    /// # Errors
    /// As for [`config`](Self::config).
    pub fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let mut whole = config(VHOST_VDPA_SET_CONFIG, offset, bytes)?;
        self.with_tail(VHOST_VDPA_SET_CONFIG, &mut whole)
    }

    /// Has an eventfd written to when the configuration changes; `None`: none. Linux 5.8.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_config_call(&self, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.ask(VHOST_VDPA_SET_CONFIG_CALL, number(fd)).map(drop)
    }

    /// How many queues there are. Linux 5.18.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn queues(&self) -> Result<u32, Error> {
        self.ask(VHOST_VDPA_GET_VQS_COUNT, 0)
    }

    /// The largest size of a queue.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn max_queue_size(&self) -> Result<u16, Error> {
        self.ask(VHOST_VDPA_GET_VRING_NUM, 0)
    }

    /// The size of one queue. Linux 6.9.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` where the device's driver does not tell.
    pub fn queue_size(&self, queue: u32) -> Result<u32, Error> {
        self.of_queue(VHOST_VDPA_GET_VRING_SIZE, queue)
    }

    /// Sets the size of a queue.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_size(&self, queue: u32, size: u32) -> Result<(), Error> {
        self.to_queue(VHOST_SET_VRING_NUM, queue, size)
    }

    /// Sets where a queue is, as the device sees it.
    ///
    /// * `log_guest_addr`, `flags`: 0, where nothing is logged
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_addresses(&self, addresses: vhost_vring_addr) -> Result<(), Error> {
        self.ask(VHOST_SET_VRING_ADDR, addresses).map(drop)
    }

    /// Where a queue stands: split, the next available index; packed, that of the available ring in the lower 16 bits and
    /// of the used ring in the upper, with their wrap counters on top.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn queue_base(&self, queue: u32) -> Result<u32, Error> {
        self.of_queue(VHOST_GET_VRING_BASE, queue)
    }

    /// Sets where a queue goes on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_base(&self, queue: u32, base: u32) -> Result<(), Error> {
        self.to_queue(VHOST_SET_VRING_BASE, queue, base)
    }

    /// Enables a queue, or disables it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_enabled(&self, queue: u32, enabled: bool) -> Result<(), Error> {
        self.to_queue(VHOST_VDPA_SET_VRING_ENABLE, queue, enabled.into())
    }

    /// Has the device look at a queue when this eventfd is written to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_kick(&self, queue: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.to_file(VHOST_SET_VRING_KICK, queue, fd)
    }

    /// Has this eventfd written to when the device has used buffers.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_call(&self, queue: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.to_file(VHOST_SET_VRING_CALL, queue, fd)
    }

    /// Has this eventfd written to when a queue has failed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_error(&self, queue: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.to_file(VHOST_SET_VRING_ERR, queue, fd)
    }

    /// How many groups of queues there are. Linux 5.19.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn groups(&self) -> Result<u32, Error> {
        self.ask(VHOST_VDPA_GET_GROUP_NUM, 0)
    }

    /// How many address spaces there are. Linux 5.19.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address_spaces(&self) -> Result<u32, Error> {
        self.ask(VHOST_VDPA_GET_AS_NUM, 0)
    }

    /// The group that a queue is of. Linux 5.19.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` where the device has no groups.
    pub fn queue_group(&self, queue: u32) -> Result<u32, Error> {
        self.of_queue(VHOST_VDPA_GET_VRING_GROUP, queue)
    }

    /// The group that a queue's rings are of, where it is another one than its buffers'. Linux 6.7.
    ///
    /// # Errors
    /// As for [`queue_group`](Self::queue_group).
    pub fn descriptor_group(&self, queue: u32) -> Result<u32, Error> {
        self.of_queue(VHOST_VDPA_GET_VRING_DESC_GROUP, queue)
    }

    /// Gives a group another address space. Linux 5.19.
    ///
    /// # Errors
    /// As for [`queue_group`](Self::queue_group).
    pub fn set_group_asid(&self, group: u32, asid: u32) -> Result<(), Error> {
        self.to_queue(VHOST_VDPA_SET_GROUP_ASID, group, asid)
    }

    /// First and last address that can be mapped. Linux 5.10.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn iova_range(&self) -> Result<(u64, u64), Error> {
        let range = self.ask(VHOST_VDPA_GET_IOVA_RANGE, Plain::ZERO)?;
        Ok((range.first, range.last))
    }

    /// Stops the device, with all that it knows; nothing before DRIVER_OK. Linux 6.0.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` where `VHOST_BACKEND_F_SUSPEND` is not offered.
    pub fn suspend(&self) -> Result<(), Error> {
        self.ask(VHOST_VDPA_SUSPEND, ()).map(drop)
    }

    /// Has it go on; nothing before DRIVER_OK. Linux 6.3.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` where `VHOST_BACKEND_F_RESUME` is not offered.
    pub fn resume(&self) -> Result<(), Error> {
        self.ask(VHOST_VDPA_RESUME, ()).map(drop)
    }

    /// Maps memory of this process for the device.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` for a size of 0 and for a batch of another address space, `EFAULT` for most else: no
    /// owner, or an address that is taken, for two. [`Error::NoSpace`] for an address space other than 0, unless
    /// `VHOST_BACKEND_F_IOTLB_ASID` was accepted by [`set_backend_features`](Self::set_backend_features): the kernel would
    /// take 0.
    ///
    /// # Safety
    /// `size` bytes from `uaddr` on are memory of this process, which the device may access in this way at any time from now
    /// until the device has let go of it: when [`unmap`](Self::unmap) of all of it has returned `Ok` outside of a batch; or,
    /// in one, when [`end_batch`](Self::end_batch) after it has; or when the device is closed for good. A batch is one of the
    /// device, whoever has begun it. Where a mapping fails inside of one, the same holds.
    pub unsafe fn map(
        &self,
        asid: u32,
        iova: u64,
        size: u64,
        uaddr: u64,
        access: Access,
    ) -> Result<(), Error> {
        self.send(&Message {
            kind: Kind::Update,
            asid,
            iova,
            size,
            uaddr,
            access: Some(access),
        })
    }

    /// Takes a mapping away.
    ///
    /// Inside of a batch the device may access the memory until [`end_batch`](Self::end_batch) has returned `Ok`: `Ok` from
    /// here says no more than that the kernel has noted it. What the device's driver answers where it takes changes whole,
    /// as VDUSE and mlx5 do, the kernel does not pass on: a driver that fails there has to be trusted to have let go.
    ///
    /// # Errors
    /// As for [`map`](Self::map). The device may have the memory still.
    pub fn unmap(&self, asid: u32, iova: u64, size: u64) -> Result<(), Error> {
        self.send(&Message {
            iova,
            size,
            ..Message::of(Kind::Invalidate, asid)
        })
    }

    /// Begins changes of an address space that the device may take in one go: at [`end_batch`](Self::end_batch), and none
    /// of them before. What is unmapped meanwhile is the device's until then. Linux 5.9.
    ///
    /// # Errors
    /// As for [`map`](Self::map): `VHOST_BACKEND_F_IOTLB_BATCH` has to be accepted.
    pub fn begin_batch(&self, asid: u32) -> Result<(), Error> {
        self.send(&Message::of(Kind::BatchBegin, asid))
    }

    /// Ends them.
    ///
    /// # Errors
    /// As for [`begin_batch`](Self::begin_batch).
    pub fn end_batch(&self, asid: u32) -> Result<(), Error> {
        self.send(&Message::of(Kind::BatchEnd, asid))
    }

    fn send(&self, message: &Message) -> Result<(), Error> {
        let bytes = message.encode();
        let call = match message.kind {
            Kind::Update => "VHOST_IOTLB_UPDATE",
            Kind::Invalidate => "VHOST_IOTLB_INVALIDATE",
            Kind::BatchBegin => "VHOST_IOTLB_BATCH_BEGIN",
            _ => "VHOST_IOTLB_BATCH_END",
        };
        // To the end of the write: the kernel skips the number of the space if the bit is taken back before it looks.
        let _looks = match message.asid {
            // The one that it takes without looking.
            0 => None,
            asid => Some(self.looks_at(asid, call)?),
        };
        device::transfer(call, bytes.len(), (&self.file).write(&bytes))
    }

    /// Makes sure that the kernel looks at the number of an address space, for as long as the answer is held.
    fn looks_at(&self, asid: u32, call: &'static str) -> Result<RwLockReadGuard<'_, u64>, Error> {
        let accepted = self.accepted.read().unwrap_or_else(PoisonError::into_inner);
        if *accepted & (1 << VHOST_BACKEND_F_IOTLB_ASID) == 0 {
            return Err(Error::NoSpace { call, asid });
        }
        Ok(accepted)
    }

    /// Makes a call whose argument is as long as its type says, and points nowhere.
    fn ask<T>(&self, call: Call<T>, mut argument: T) -> Result<T, Error> {
        // SAFETY: this is a vhost-vdpa device, by `from_fd`, and the argument is of the type that the number was derived
        // from; none of those that come here points anywhere or goes on behind.
        unsafe { call.make(self.file.as_fd(), &raw mut argument) }?;
        Ok(argument)
    }

    /// Makes a call whose argument goes on: `whole` has all of it, as many items as it says itself.
    fn with_tail<T, U>(&self, call: Call<T>, whole: &mut [U]) -> Result<(), Error> {
        // SAFETY: this is a vhost-vdpa device, by `from_fd`; `whole` begins with how much follows, and has that.
        unsafe { call.make(self.file.as_fd(), whole.as_mut_ptr().cast()) }.map(drop)
    }

    fn of_queue(&self, call: Call<vhost_vring_state>, index: u32) -> Result<u32, Error> {
        self.ask(call, vhost_vring_state { index, num: 0 })
            .map(|state| state.num)
    }

    fn to_queue(&self, call: Call<vhost_vring_state>, index: u32, num: u32) -> Result<(), Error> {
        self.ask(call, vhost_vring_state { index, num }).map(drop)
    }

    fn to_file(
        &self,
        call: Call<vhost_vring_file>,
        index: u32,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        self.ask(
            call,
            vhost_vring_file {
                index,
                fd: number(fd),
            },
        )
        .map(drop)
    }
}

impl AsFd for Vdpa {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn number(fd: Option<BorrowedFd<'_>>) -> i32 {
    fd.map_or(VHOST_FILE_UNBIND, |fd| fd.as_raw_fd())
}

/// A `vhost_vdpa_config` with its bytes.
fn config(call: Call<vhost_vdpa_config>, off: u32, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let len = u32::try_from(bytes.len()).map_err(|_| Error::TooLong {
        call: call.name(),
        len: bytes.len(),
        most: u32::MAX as usize,
    })?;
    let mut whole = off.to_ne_bytes().to_vec();
    whole.extend(len.to_ne_bytes());
    whole.extend_from_slice(bytes);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes every message, as `/dev/null` takes every write.
    fn device(accepted: u64) -> Vdpa {
        let file = File::options().write(true).open("/dev/null").unwrap();
        Vdpa {
            file,
            accepted: RwLock::new(accepted),
        }
    }

    fn changes(device: &Vdpa, asid: u32) -> [Result<(), Error>; 4] {
        [
            // SAFETY: nothing maps it: this is no device.
            unsafe { device.map(asid, 0, 4096, 0, Access::Read) },
            device.unmap(asid, 0, 4096),
            device.begin_batch(asid),
            device.end_batch(asid),
        ]
    }

    #[test]
    fn memory_of_another_space_never_goes_to_the_first() {
        let others = !(1 << VHOST_BACKEND_F_IOTLB_ASID);
        for (accepted, asid, goes) in [
            (0, 0, true),
            (0, 1, false),
            (others, 0, true),
            (others, 1, false),
            (others, u32::MAX, false),
            (!others, 1, true),
            (u64::MAX, 1, true),
        ] {
            for change in changes(&device(accepted), asid) {
                match change {
                    Ok(()) => assert!(goes, "{accepted:#x} {asid}"),
                    Err(Error::NoSpace { asid: named, .. }) => {
                        assert!(!goes && named == asid, "{accepted:#x} {asid}");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn features_that_the_kernel_refuses_do_not_count() {
        let device = device(0);
        device.set_backend_features(u64::MAX).unwrap_err();
        assert!(changes(&device, 1).iter().all(Result::is_err));
    }
}
