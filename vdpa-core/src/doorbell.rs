//! Doorbells: how the driver kicks a queue, without a lock and, but for what a layer put in between, without a virtual
//! call.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vdpa_mem::{Register, Registers};

use crate::{Bell, Result, fd};

/// The handle to kick one queue with. Clones ring the same queue; each keeps what it rings alive. After the device is gone
/// it does nothing.
///
/// One that outlives a stop or a reset of its queue alone may still be heard: a register is written whatever runs. Where the
/// queue was started again that is a kick too many, which finds nothing. A driver does not kick a queue that is not started,
/// so it drops the doorbell with the queue.
#[derive(Clone, Default)]
pub struct Doorbell(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    None,
    Bell(Arc<Bell>),
    EventFd(Arc<OwnedFd>),
    Fn(Arc<dyn Fn(u32) + Send + Sync>),
    Name(Wired<u16>),
    Data(Wired<u32>),
}

/// A register of a device, and what is written to it.
#[derive(Clone)]
struct Wired<W> {
    register: Register<W>,
    /// In the low 16 bits, which say for the device which queue it is.
    name: u16,
    /// Whether nothing else is in its page.
    alone: bool,
}

/// What a doorbell writes to its register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// 16 bits: the queue's index, or what the device asks for in its place (NOTIF_CONFIG_DATA), whatever the doorbell is
    /// rung with.
    Name(u16),
    /// 32 bits: what the doorbell is rung with, and this in the low 16 bits, where NOTIFICATION_DATA is negotiated.
    Data(u16),
}

impl Doorbell {
    /// A doorbell that rings nothing: for devices that poll.
    pub const NONE: Doorbell = Doorbell(Kind::None);

    /// A doorbell that runs `closure` with what it is rung with: for layers, which put it before the doorbell of the
    /// device that they wrap. It runs on the driver's thread; it must be short, and must neither wait nor panic.
    pub fn from_fn(closure: impl Fn(u32) + Send + Sync + 'static) -> Self {
        Self(Kind::Fn(Arc::new(closure)))
    }

    /// A doorbell that is a register of a device: one store, no call, no look at anything. The store comes after whatever
    /// the driver stored to the ring before, as the device sees it. Once the registers are [revoked](Registers::revoke) it
    /// does nothing.
    ///
    /// * `at`: offset in `registers` in bytes, aligned to what is written
    ///
    /// # Errors
    /// When there is no such register.
    ///
    /// # Spec
    /// virtio 1.4 §4.1.5.2.
    pub fn from_registers(registers: Arc<Registers>, at: u64, rung: Rung) -> Result<Self> {
        Ok(Self(match rung {
            Rung::Name(name) => Kind::Name(Wired {
                register: registers.register(at)?,
                name,
                alone: false,
            }),
            Rung::Data(name) => Kind::Data(Wired {
                register: registers.register(at)?,
                name,
                alone: false,
            }),
        }))
    }

    /// The same doorbell, known to be the only thing in its page, so that [`page`](Self::page) can be given to a guest.
    /// Only who knows the layout of the device can say so: other queues' doorbells in the page may be the same guest's, any
    /// other register may not. Nothing changes for a doorbell that is no register.
    #[must_use]
    pub fn alone_in_page(mut self) -> Self {
        match &mut self.0 {
            Kind::Name(Wired { alone, .. }) | Kind::Data(Wired { alone, .. }) => *alone = true,
            Kind::None | Kind::Bell(_) | Kind::EventFd(_) | Kind::Fn(_) => {}
        }
        self
    }

    /// Kicks the queue.
    ///
    /// * `data`: the queue index, or the notification data where NOTIFICATION_DATA is negotiated. Bells and eventfds
    ///   belong to one queue and carry none.
    ///
    /// # Spec
    /// virtio 1.4 §2.9.
    #[inline]
    pub fn ring(&self, data: u32) {
        match &self.0 {
            Kind::None => {}
            Kind::Bell(bell) => bell.ring(),
            Kind::EventFd(event) => fd::signal(event.as_fd()),
            Kind::Fn(closure) => closure(data),
            Kind::Name(wired) => wired.register.write(wired.name),
            Kind::Data(wired) => wired.register.write(data & !0xffff | u32::from(wired.name)),
        }
    }

    /// The page of the doorbell's own that a guest can be given, if it has one: a register [alone in its
    /// page](Self::alone_in_page). What is mapped from it is the device's, and stays so until it is unmapped, also where the
    /// doorbell itself was revoked meanwhile.
    pub fn page(&self) -> Option<Page<'_>> {
        match &self.0 {
            Kind::Name(wired) if wired.alone => Some(page(&wired.register)),
            Kind::Data(wired) if wired.alone => Some(page(&wired.register)),
            _ => None,
        }
    }

    /// The eventfd that kicks the queue when written, if that is what the doorbell is: for ioeventfd, VDUSE and vhost.
    /// For the others [`Relay::kick`](crate::Relay::kick) makes one.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::None | Kind::Bell(_) | Kind::Fn(_) | Kind::Name(_) | Kind::Data(_) => None,
            Kind::EventFd(event) => Some(event.as_fd()),
        }
    }
}

impl From<Arc<Bell>> for Doorbell {
    fn from(bell: Arc<Bell>) -> Self {
        Self(Kind::Bell(bell))
    }
}

impl From<Arc<OwnedFd>> for Doorbell {
    /// The eventfd has to be non-blocking, or a full counter stops whoever rings.
    fn from(event: Arc<OwnedFd>) -> Self {
        Self(Kind::EventFd(event))
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::None => f.write_str("Doorbell(none)"),
            Kind::Bell(_) => f.write_str("Doorbell(bell)"),
            Kind::EventFd(event) => write!(f, "Doorbell(eventfd {})", fd::number(event.as_fd())),
            Kind::Fn(_) => f.write_str("Doorbell(closure)"),
            Kind::Name(wired) => write!(f, "Doorbell(register {:#x})", wired.register.at()),
            Kind::Data(wired) => write!(f, "Doorbell(register {:#x})", wired.register.at()),
        }
    }
}

fn page<W>(register: &Register<W>) -> Page<'_> {
    let (file, _) = register.registers().file();
    let (offset, at) = register.page();
    Page { file, offset, at }
}

/// A page that holds one doorbell and nothing else.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Page<'a> {
    /// The file to map, shared and for writing.
    pub file: BorrowedFd<'a>,
    /// Where the page begins, in bytes.
    pub offset: u64,
    /// Where in the page the doorbell is, in bytes.
    pub at: u32,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_closure_is_run_with_what_it_is_rung_with_and_has_no_file() {
        let rung = Arc::new(AtomicU32::new(0));
        let doorbell = Doorbell::from_fn({
            let rung = rung.clone();
            move |data| {
                rung.fetch_add(data, Ordering::Relaxed);
            }
        });
        doorbell.clone().ring(3);
        doorbell.ring(4);
        assert_eq!(rung.load(Ordering::Relaxed), 7);
        assert!(doorbell.event_fd().is_none() && doorbell.page().is_none());
        assert_eq!(format!("{doorbell:?}"), "Doorbell(closure)");
        assert!(doorbell.alone_in_page().page().is_none());
    }

    /// A file in the part of a device, and its registers.
    fn registers() -> (File, Arc<Registers>) {
        let file = memfd_create("device", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(4 * 4096).unwrap();
        let registers = Registers::map(file.as_fd(), 4096, 3 * 4096).unwrap();
        (file, Arc::new(registers))
    }

    fn word(file: &File, at: u64) -> u32 {
        let mut word = [0; 4];
        file.read_exact_at(&mut word, at).unwrap();
        u32::from_le_bytes(word)
    }

    #[test]
    fn a_name_is_16_bits_and_data_is_32_with_the_name_in_the_low_half() {
        let (file, registers) = registers();
        let name = Doorbell::from_registers(registers.clone(), 2, Rung::Name(7)).unwrap();
        name.ring(0xffff_0001);
        assert_eq!(word(&file, 4096), 7 << 16, "and nothing beside it");
        let data = Doorbell::from_registers(registers.clone(), 8, Rung::Data(3)).unwrap();
        data.clone().ring(0x8001_0009);
        assert_eq!(word(&file, 4096 + 8), 0x8001_0003);
        assert!(name.event_fd().is_none() && data.event_fd().is_none());
        assert_eq!(format!("{data:?}"), "Doorbell(register 0x8)");
        assert!(Doorbell::from_registers(registers.clone(), 2, Rung::Data(3)).is_err());
        let beyond = Doorbell::from_registers(registers, 3 * 4096, Rung::Name(0));
        assert_eq!(beyond.unwrap_err().kind(), crate::ErrorKind::Misuse);
    }

    #[test]
    fn a_register_that_is_alone_has_a_page_that_rings_it_from_elsewhere() {
        let (file, registers) = registers();
        for rung in [Rung::Name(5), Rung::Data(5)] {
            let doorbell = Doorbell::from_registers(registers.clone(), 4096 + 12, rung).unwrap();
            assert!(doorbell.page().is_none(), "nobody said that it is alone");
            let doorbell = doorbell.alone_in_page();
            let page = doorbell.page().unwrap();
            assert_eq!((page.offset, page.at), (8192, 12));
            let guest = Arc::new(Registers::map(page.file, page.offset, 4096).unwrap());
            guest.write_u16(u64::from(page.at), 9).unwrap();
            assert_eq!(word(&file, 8192 + 12) & 0xffff, 9);
            doorbell.ring(0);
            assert_eq!(word(&file, 8192 + 12) & 0xffff, 5);
        }
    }

    #[test]
    fn a_doorbell_that_outlives_its_device_does_nothing() {
        let (file, registers) = registers();
        let doorbell = Doorbell::from_registers(registers.clone(), 0, Rung::Name(1)).unwrap();
        registers.revoke().unwrap();
        drop(registers);
        doorbell.ring(0);
        assert_eq!(word(&file, 4096), 0);
    }
}
