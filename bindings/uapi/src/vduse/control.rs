//! Where devices are made: `/dev/vduse/control`.
#![allow(
    unsafe_code,
    reason = "ioctls on a descriptor that was asked whether it is such a device"
)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::numbers::*;
use crate::table::Plain;
use crate::{Call, Error, device};

const WHAT: &str = "VDUSE control device";

/// Makes and destroys devices.
///
/// # Spec
/// `linux/vduse.h`.
#[derive(Debug)]
pub struct Control {
    file: File,
}

/// What a device is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Its name, and that of its file: up to 255 bytes.
    pub name: String,
    /// The virtio device type.
    pub device_id: u32,
    /// The virtio vendor.
    pub vendor_id: u32,
    /// Features that are offered; `VIRTIO_F_ACCESS_PLATFORM` has to be.
    pub features: u64,
    /// How many queues there are.
    pub queues: u32,
    /// What the rings are aligned to, in bytes.
    pub align: u32,
    /// How many groups of queues there are: of version 1 of the interface, which Linux 7.0 has by itself, at least 1; of
    /// version 0 none may be named: 0. Programs that do not look at [`Control::version`] choose with
    /// [`Control::set_version`].
    pub groups: u32,
    /// How many address spaces there are: as for [`groups`](Self::groups).
    pub address_spaces: u32,
    /// The configuration space.
    pub config: Vec<u8>,
}

impl Control {
    /// Opens `/dev/vduse/control`, or another file.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Foreign`] if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_fd(device::open(path.as_ref(), "`modprobe vduse`")?)
    }

    /// Takes over the file that somebody else has opened.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is something else, which is found out by asking for its version.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let file = device::character_device(fd, WHAT)?;
        let control = Self { file };
        device::known(&control.file, WHAT, control.version())?;
        Ok(control)
    }

    /// The version of the interface: the newest one that the kernel has, or what was set.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn version(&self) -> Result<u64, Error> {
        self.ask(VDUSE_GET_API_VERSION, 0)
    }

    /// Chooses a version, for the devices that are made from now on.
    ///
    /// # Errors
    /// [`Error::Call`]: `EINVAL` for one that the kernel has not.
    pub fn set_version(&self, version: u64) -> Result<(), Error> {
        self.ask(VDUSE_SET_API_VERSION, version).map(drop)
    }

    /// Makes a device, `/dev/vduse/NAME`. It is there until it is destroyed.
    ///
    /// # Errors
    /// [`Error::Name`]; [`Error::TooLong`]; [`Error::Call`]: `EEXIST` for a name that is taken, `EINVAL` for a type or
    /// features that the kernel does not let through, or counts that are not of the version that was chosen.
    pub fn create(&self, setup: &Setup) -> Result<(), Error> {
        let config_size = u32::try_from(setup.config.len()).map_err(|_| Error::TooLong {
            call: VDUSE_CREATE_DEV.name(),
            len: setup.config.len(),
            most: u32::MAX as usize,
        })?;
        let head = vduse_dev_config {
            name: name(VDUSE_CREATE_DEV, &setup.name)?,
            vendor_id: setup.vendor_id,
            device_id: setup.device_id,
            features: setup.features,
            vq_num: setup.queues,
            vq_align: setup.align,
            ngroups: setup.groups,
            nas: setup.address_spaces,
            reserved: Plain::ZERO,
            config_size,
        };
        let mut whole = encode(&head);
        whole.extend_from_slice(&setup.config);
        // SAFETY: this is VDUSE's control device, by `from_fd`; the configuration space follows, as long as it says.
        unsafe { VDUSE_CREATE_DEV.make(self.file.as_fd(), whole.as_mut_ptr().cast()) }.map(drop)
    }

    /// Destroys a device.
    ///
    /// # Errors
    /// [`Error::Name`]; [`Error::TooLong`]; [`Error::Call`]: `EBUSY` while it is open or on the bus, `EINVAL` if there is
    /// none.
    pub fn destroy(&self, device: &str) -> Result<(), Error> {
        let bytes = name(VDUSE_DESTROY_DEV, device)?;
        self.ask(VDUSE_DESTROY_DEV, bytes).map(drop)
    }

    /// Makes a call whose argument is as long as its type says, and points nowhere.
    fn ask<T>(&self, call: Call<T>, mut argument: T) -> Result<T, Error> {
        // SAFETY: this is VDUSE's control device, by `from_fd`, and the argument is of the type that the number was derived
        // from; none of those that come here points anywhere.
        unsafe { call.make(self.file.as_fd(), &raw mut argument) }?;
        Ok(argument)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// With the NUL that the kernel looks for.
fn name<T>(call: Call<T>, name: &str) -> Result<[u8; VDUSE_NAME_MAX], Error> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::Name { name: name.into() });
    }
    if name.len() >= VDUSE_NAME_MAX {
        return Err(Error::TooLong {
            call: call.name(),
            len: name.len(),
            most: VDUSE_NAME_MAX.saturating_sub(1),
        });
    }
    let mut bytes = [0; VDUSE_NAME_MAX];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    Ok(bytes)
}

/// The bytes up to where the configuration space begins. There is no padding in between.
fn encode(head: &vduse_dev_config) -> Vec<u8> {
    let mut bytes = head.name.to_vec();
    for word in [head.vendor_id, head.device_id] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(head.features.to_ne_bytes());
    let words = [head.vq_num, head.vq_align, head.ngroups, head.nas];
    let rest = words
        .into_iter()
        .chain(head.reserved)
        .chain([head.config_size]);
    bytes.extend(rest.flat_map(u32::to_ne_bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn head_of_a_new_device_has_every_field_where_the_kernel_looks() {
        let head = vduse_dev_config {
            name: name(VDUSE_CREATE_DEV, "card").unwrap(),
            vendor_id: 1,
            device_id: 2,
            features: 3,
            vq_num: 4,
            vq_align: 5,
            ngroups: 6,
            nas: 7,
            reserved: [0; 11],
            config_size: 8,
        };
        let bytes = encode(&head);
        assert_eq!(bytes.len(), size_of::<vduse_dev_config>());
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(&bytes[..5], b"card\0");
        let at = [
            offset_of!(vduse_dev_config, vendor_id),
            offset_of!(vduse_dev_config, device_id),
            offset_of!(vduse_dev_config, features),
            offset_of!(vduse_dev_config, vq_num),
            offset_of!(vduse_dev_config, vq_align),
            offset_of!(vduse_dev_config, ngroups),
            offset_of!(vduse_dev_config, nas),
            offset_of!(vduse_dev_config, config_size),
        ];
        assert_eq!(at.map(word), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn names_that_the_kernel_would_cut_are_refused() {
        for wrong in ["", "a\0b"] {
            assert!(
                matches!(name(VDUSE_DESTROY_DEV, wrong), Err(Error::Name { .. })),
                "{wrong:?}"
            );
        }
        name(VDUSE_DESTROY_DEV, &"x".repeat(255)).unwrap();
        let error = name(VDUSE_DESTROY_DEV, &"x".repeat(256)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "VDUSE_DESTROY_DEV: 256 bytes are more than the 255 that it takes"
        );
    }
}
