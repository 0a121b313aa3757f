//! The kernel's messages on devices, as they come.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};

use crate::uevent::MOST;
use crate::{MdevError, Uevent};

/// The group that the kernel sends to; udev sends to another.
///
/// # Spec
/// Linux, `lib/kobject_uevent.c`: `netlink_broadcast` to group 1.
const KERNEL: u32 = 1;

/// The kernel, among those who send.
const KERNEL_PORT: u32 = 0;

/// Hears what the kernel tells of devices from now on, in this network namespace. Whoever else sends is not heard, but for
/// who may have the kernel send it: since Linux 4.18 that is root of the network namespace. An event is a hint to look, and
/// no proof.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// This.
    Event(Uevent),
    /// That there was more than could be kept for this process, or something that cannot be read: it has to look for itself
    /// what there is.
    Lost,
    /// Nothing, for now.
    Nothing,
}

impl Uevents {
    /// Begins to listen. Whatever happens afterwards is kept until it is heard, so that who begins, and then looks, misses
    /// nothing.
    ///
    /// # Errors
    /// [`MdevError::Watch`].
    pub fn open() -> Result<Self, MdevError> {
        let failed = |what| move |errno: Errno| watch(what, errno);
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        );
        let socket = socket.map_err(failed("make a netlink socket"))?;
        // Port 0: the kernel chooses one.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL)).map_err(failed("join the group"))?;
        Ok(Self(socket))
    }

    /// The next event; never waits. [`AsFd`] is for whoever does.
    ///
    /// # Errors
    /// [`MdevError::Watch`].
    pub fn next(&self) -> Result<Heard, MdevError> {
        loop {
            // One byte more than there can be: what fills it is cut short, and none of the kernel's.
            let mut bytes = [0; MOST + 1];
            let (len, from) = match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut bytes) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(Heard::Nothing),
                Err(Errno::ENOBUFS) => return Ok(Heard::Lost),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(watch("receive", errno)),
            };
            let port = from.map(|from| from.pid());
            match heard(&bytes, len, port) {
                Some(heard) => return Ok(heard),
                None => continue,
            }
        }
    }
}

/// What a message says; `None`: nothing that is believed.
///
/// * `len`: bytes that it had, of which no more than `bytes` are there
/// * `port`: who sent it
fn heard(bytes: &[u8], len: usize, port: Option<u32>) -> Option<Heard> {
    if port != Some(KERNEL_PORT) {
        return None;
    }
    let whole = bytes.get(..len).filter(|whole| whole.len() <= MOST);
    match whole.map(Uevent::parse) {
        Some(Ok(event)) => Some(Heard::Event(event)),
        // Something happened, and nobody knows what.
        Some(Err(error)) => {
            tracing::debug!(%error, "an event is lost");
            Some(Heard::Lost)
        }
        None => Some(Heard::Lost),
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn watch(what: &'static str, errno: Errno) -> MdevError {
    MdevError::Watch {
        what,
        source: io::Error::from(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_of_the_kernels_is_lost_and_of_others_nothing() {
        let good = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=mdev\0";
        let long = [b'a'; MOST + 1];
        let kernel = Some(KERNEL_PORT);
        let event = Uevent::parse(good).unwrap();
        assert_eq!(heard(good, good.len(), kernel), Some(Heard::Event(event)));
        let cut = good.len() - 1;
        assert_eq!(heard(good, cut, kernel), Some(Heard::Lost));
        assert_eq!(heard(&long, long.len(), kernel), Some(Heard::Lost));
        assert_eq!(heard(&long, long.len() + 1, kernel), Some(Heard::Lost));
        assert_eq!(heard(good, good.len(), Some(4711)), None);
        assert_eq!(heard(&long, long.len(), Some(4711)), None);
        assert_eq!(heard(good, good.len(), None), None);
    }
}
