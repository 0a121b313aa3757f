//! What a function interrupts by: the MSI-X table, the pending bits, the interrupt line, and the ISR.
//!
//! ```text
//!   queue q ──▶ queue_msix_vector ─┐                          ┌─ masked, or not enabled: the pending bit
//!                                  ├─▶ MSI-X on: vector v ──▶ ┤
//!   configuration ──▶ config_..────┘                          └─ the vector's call
//!                 │
//!                 └─ MSI-X off: a bit of the ISR, and the line for as long as one is set
//! ```
//!
//! Raised by the device's workers, without the lock of the registers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use vdpa_core::Call;

use crate::pci::config_space::little_endian;
use crate::pci::line::{Line, Once};
use crate::shared::lock;

/// No vector, virtio 1.4 §4.1.5.1.2.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The bits of the ISR, virtio 1.4 §4.1.4.5.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Bytes of an entry of the MSI-X table, and where in it the mask is.
const ENTRY: u32 = 16;
const CONTROL: u32 = 12;

pub(super) struct Interrupts {
    vectors: Box<[Vector]>,
    /// By queue.
    queues: Box<[AtomicU16]>,
    config: AtomicU16,
    isr: AtomicU8,
    line: Line,
    msix: AtomicBool,
    all_masked: AtomicBool,
    bus_master: AtomicBool,
    line_off: AtomicBool,
    /// The function's owner has stopped it: whatever comes waits.
    held: AtomicBool,
}

struct Vector {
    line: Line,
    /// Address and data: what a host puts here is not looked at.
    message: Mutex<[u8; 12]>,
}

/// What MSI-X is switched to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Msix {
    pub(super) on: bool,
    pub(super) all_masked: bool,
}

impl Interrupts {
    pub(super) fn new(vectors: u16, queues: u16) -> Self {
        let vector = |_| Vector {
            line: Line::masked(),
            message: Mutex::default(),
        };
        Self {
            vectors: (0..vectors).map(vector).collect(),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            config: AtomicU16::new(NO_VECTOR),
            isr: AtomicU8::new(0),
            line: Line::default(),
            msix: AtomicBool::new(false),
            all_masked: AtomicBool::new(false),
            bus_master: AtomicBool::new(false),
            line_off: AtomicBool::new(false),
            held: AtomicBool::new(false),
        }
    }

    /// How many vectors there are.
    pub(super) fn vectors(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(u16::MAX)
    }

    /// A queue has something for the driver.
    pub(super) fn queue(&self, q: u16) {
        let vector = self.queues.get(usize::from(q));
        self.raise(vector, ISR_QUEUE);
    }

    /// The configuration changed, or the device needs a reset.
    ///
    /// # Spec
    /// virtio 1.4 §4.1.4.5.1: the bit is set before the driver is notified, with MSI-X too.
    pub(super) fn config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        // The bit is not set again: it may have been read meanwhile.
        self.raise(Some(&self.config), 0);
    }

    fn raise(&self, vector: Option<&AtomicU16>, bit: u8) {
        if self.msix.load(Ordering::Acquire) {
            let vector = vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire));
            if let Some(vector) = self.vectors.get(usize::from(vector)) {
                vector.line.raise(Once::Message, || self.is_open());
            }
            return;
        }
        self.isr.fetch_or(bit, Ordering::AcqRel);
        self.line.raise(Once::Level, || self.line_is_open());
    }

    fn is_open(&self) -> bool {
        // A message is a write to memory.
        self.msix.load(Ordering::Acquire)
            && !self.all_masked.load(Ordering::Acquire)
            && self.bus_master.load(Ordering::Acquire)
            && !self.held.load(Ordering::Acquire)
    }

    fn line_is_open(&self) -> bool {
        self.is_asserted()
            && !self.line_off.load(Ordering::Acquire)
            && !self.held.load(Ordering::Acquire)
    }

    /// Whether the line is held, switched off or not.
    pub(super) fn is_asserted(&self) -> bool {
        !self.msix.load(Ordering::Acquire) && self.isr.load(Ordering::Acquire) != 0
    }

    /// The ISR, which reading clears.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// Makes every interrupt that waited for a switch. Closures run in it: no lock of the function is held.
    pub(super) fn deliver(&self) {
        for vector in &self.vectors {
            vector.line.deliver(Once::Message, || self.is_open());
        }
        self.deliver_line();
    }

    fn deliver_line(&self) {
        if self.is_asserted() {
            self.line.raise(Once::Level, || self.line_is_open());
        }
    }

    /// Switches MSI-X; [`deliver`](Self::deliver) is due.
    pub(super) fn set_msix(&self, to: Msix) {
        self.msix.store(to.on, Ordering::Release);
        self.all_masked.store(to.all_masked, Ordering::Release);
    }

    /// As the command register says; [`deliver`](Self::deliver) is due.
    pub(super) fn set_command(&self, bus_master: bool, line_off: bool) {
        self.bus_master.store(bus_master, Ordering::Release);
        self.line_off.store(line_off, Ordering::Release);
    }

    /// Whatever interrupts waits, or does not any more; [`deliver`](Self::deliver) is due then.
    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    /// The vector of a queue, or of the configuration.
    pub(super) fn vector(&self, q: Option<u16>) -> u16 {
        self.register(q)
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// Has a queue, or the configuration, interrupt by a vector.
    ///
    /// # Spec
    /// virtio 1.4 §4.1.5.1.2.1: one that there is not reads back as none.
    pub(super) fn set_vector(&self, q: Option<u16>, vector: u16) {
        let vector = if vector < self.vectors() {
            vector
        } else {
            NO_VECTOR
        };
        if let Some(register) = self.register(q) {
            register.store(vector, Ordering::Release);
        }
    }

    fn register(&self, q: Option<u16>) -> Option<&AtomicU16> {
        match q {
            None => Some(&self.config),
            Some(q) => self.queues.get(usize::from(q)),
        }
    }

    /// What a reset of the device does: nothing interrupts by any vector.
    pub(super) fn reset(&self) {
        self.config.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queues {
            vector.store(NO_VECTOR, Ordering::Release);
        }
        self.forget();
    }

    /// Forgets what waits to interrupt.
    pub(super) fn forget(&self) {
        self.isr.store(0, Ordering::Release);
        self.line.forget();
        for vector in &self.vectors {
            vector.line.forget();
        }
    }

    /// What a reset of the function does beside: MSI-X is off, every vector masked.
    pub(super) fn reset_table(&self) {
        let off = Msix {
            on: false,
            all_masked: false,
        };
        self.set_msix(off);
        for vector in &self.vectors {
            vector.line.mask();
            *lock(&vector.message) = [0; 12];
        }
    }

    /// Has a vector make a call, in place of another.
    pub(super) fn set_call(&self, vector: u16, call: Call) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.line.set(call);
        }
    }

    /// Has no vector call anybody. On return no call is made any more: no lock of the function is held.
    pub(super) fn silence(&self) {
        for vector in &self.vectors {
            vector.line.set(Call::None);
        }
    }

    /// Has only the first `count` vectors call.
    pub(super) fn open_vectors(&self, count: u16) {
        for (vector, number) in self.vectors.iter().zip(0_u16..) {
            vector.line.forget();
            if number < count {
                vector.line.unmask();
            } else {
                vector.line.mask();
            }
        }
    }

    pub(super) fn set_line(&self, call: Call) {
        self.line.set(call);
        self.unmask_line();
    }

    pub(super) fn unmask_line(&self) {
        self.line.unmask();
        self.deliver_line();
    }

    /// A word of the MSI-X table.
    pub(super) fn read_table(&self, at: u32) -> u32 {
        let Some((vector, at)) = self.entry(at) else {
            return 0;
        };
        if at == CONTROL {
            return u32::from(vector.line.is_masked());
        }
        let message = lock(&vector.message);
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        little_endian(message.get(from..).unwrap_or_default())
    }

    /// Writes a word of the MSI-X table.
    pub(super) fn write_table(&self, at: u32, value: u32) {
        let Some((vector, at)) = self.entry(at) else {
            return;
        };
        if at == CONTROL {
            if value & 1 != 0 {
                vector.line.mask();
            } else {
                vector.line.unmask();
                vector.line.deliver(Once::Message, || self.is_open());
            }
            return;
        }
        let mut message = lock(&vector.message);
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        for (to, from) in message.iter_mut().skip(from).zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn entry(&self, at: u32) -> Option<(&Vector, u32)> {
        let number = usize::try_from(at.checked_div(ENTRY)?).ok()?;
        Some((self.vectors.get(number)?, at.checked_rem(ENTRY)?))
    }

    /// A word of the pending bits.
    pub(super) fn read_pending(&self, at: u32) -> u32 {
        let first = usize::try_from(at.saturating_mul(8)).unwrap_or(usize::MAX);
        let word = self.vectors.iter().skip(first).take(32).zip(0_u32..);
        word.filter(|(vector, _)| vector.line.is_pending())
            .fold(0, |word, (_, bit)| {
                word | 1_u32.checked_shl(bit).unwrap_or(0)
            })
    }
}
