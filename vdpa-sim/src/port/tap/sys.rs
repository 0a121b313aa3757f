//! The calls that make a queue of a tap interface out of a file of `/dev/net/tun` (`linux/if_tun.h`).
#![allow(
    unsafe_code,
    reason = "ioctls of /dev/net/tun, each with an argument of the kind that its number says"
)]

use std::fs::{File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_short, ifreq};
use nix::{ioctl_write_int, ioctl_write_ptr, ioctl_write_ptr_bad, request_code_write};

/// The file of which each open one becomes a queue.
pub(super) const CONTROL: &str = "/dev/net/tun";

/// The longest name of an interface in bytes: `IFNAMSIZ` without the zero.
pub(super) const NAME_BYTES: usize = libc::IFNAMSIZ.saturating_sub(1);

const TUN: u8 = b'T';

ioctl_write_ptr_bad!(
    /// `TUNSETIFF`, whose number says `int` where an `ifreq` is meant.
    tun_set_iff,
    request_code_write!(TUN, 202, size_of::<c_int>()),
    ifreq
);
ioctl_write_int!(
    /// `TUNSETOFFLOAD`.
    tun_set_offload,
    TUN,
    208
);
ioctl_write_ptr!(
    /// `TUNSETVNETHDRSZ`.
    tun_set_vnet_hdr_sz,
    TUN,
    216,
    c_int
);
ioctl_write_ptr_bad!(
    /// `TUNSETQUEUE`, as `TUNSETIFF`.
    tun_set_queue,
    request_code_write!(TUN, 217, size_of::<c_int>()),
    ifreq
);
ioctl_write_ptr!(
    /// `TUNSETVNETLE`.
    tun_set_vnet_le,
    TUN,
    220,
    c_int
);
ioctl_write_ptr!(
    /// `TUNSETCARRIER`, from Linux 5.0 on.
    tun_set_carrier,
    TUN,
    226,
    c_int
);

/// How many queues an interface is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Queues {
    /// One, and it can have no more.
    Single,
    /// One of several.
    Multi,
}

/// Opens the control file; reads and writes of it do not block.
pub(super) fn open() -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(CONTROL)
}

/// An `ifreq` with these flags; the name is cut to what it may be.
fn request(name: &str, flags: c_int) -> ifreq {
    let mut chars = [0; libc::IFNAMSIZ];
    for (to, from) in chars.iter_mut().zip(name.bytes().take(NAME_BYTES)) {
        *to = from as c_char;
    }
    ifreq {
        ifr_name: chars,
        // The kernel reads the flags as 16 bits; all of them are below.
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as c_short,
        },
    }
}

/// Makes `file` a queue of the tap interface `name`, which is made if there is none. Its packets have a virtio-net
/// header, and nothing else before the frame.
pub(super) fn attach(file: &File, name: &str, queues: Queues) -> Result<(), Errno> {
    let multi = match queues {
        Queues::Single => 0,
        Queues::Multi => libc::IFF_MULTI_QUEUE,
    };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | multi;
    let request = request(name, flags);
    // SAFETY: the file is open, and the request a whole `ifreq` that outlives the call.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }.map(drop)
}

/// Headers are little-endian, and have `bytes` bytes.
pub(super) fn set_header(file: BorrowedFd<'_>, bytes: usize) -> Result<(), Errno> {
    let bytes = c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the file is open, and the integer outlives the call.
    unsafe { tun_set_vnet_hdr_sz(file.as_raw_fd(), &raw const bytes) }?;
    let yes: c_int = 1;
    // SAFETY: as above.
    unsafe { tun_set_vnet_le(file.as_raw_fd(), &raw const yes) }.map(drop)
}

/// What the reader of the queue takes of the kernel without its being finished, a set of `TUN_F_*`.
pub(super) fn set_offload(file: BorrowedFd<'_>, offload: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the file is open, and the argument is a number.
    unsafe { tun_set_offload(file.as_raw_fd(), offload.into()) }.map(drop)
}

/// The interface has a carrier, or none.
pub(super) fn set_carrier(file: BorrowedFd<'_>, up: bool) -> Result<(), Errno> {
    let up = c_int::from(up);
    // SAFETY: the file is open, and the integer outlives the call.
    unsafe { tun_set_carrier(file.as_raw_fd(), &raw const up) }.map(drop)
}

/// Puts the queue into use, or takes it out, with what waits in it. For interfaces with several queues.
pub(super) fn set_queue(file: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    let flags = if on {
        libc::IFF_ATTACH_QUEUE
    } else {
        libc::IFF_DETACH_QUEUE
    };
    let request = request("", flags);
    // SAFETY: as in `attach`.
    unsafe { tun_set_queue(file.as_raw_fd(), &raw const request) }.map(drop)
}
