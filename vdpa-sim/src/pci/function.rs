//! The function, as an access reaches it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use vdpa_core::{
    Asid, Call, CallKind, Device, DmaLimits, Doorbell, Error, Event, EventSink, Relayed, Result,
    bits,
};
use vdpa_mem::Mapping;
use vdpa_pci::{BARS, Interrupts as Offered, PciAccess, Width};

use crate::pci::assemble::{self, MSIX_ON};
use crate::pci::config_space::CONFIG_BYTES;
use crate::pci::core::{Config, Core};
use crate::pci::error::{PciError, Space};
use crate::pci::interrupts::Interrupts;
use crate::pci::iommu::{DmaFault, FaultLog, Iommu};
use crate::pci::layout::{Layout, MAX_VECTORS};
use crate::pci::life::{Ears, Life};
use crate::pci::mirror::Mirror;
use crate::pci::notify::{Handed, Notify};
use crate::pci::region::{Regions, Sizes, Structure};
use crate::pci::setup::Setup;
use crate::pci::shared_memory::SharedMemory;
use crate::pci::transport::Transport;
use crate::pf::command::Refusal;
use crate::pf::part::Part;
use crate::pf::{Member, Mode};
use crate::shared::lock;

/// A simulated device as a virtio-pci function, driven through [`PciAccess`].
///
/// Made over any [`Device`], which is its own from there on. What a driver writes is not trusted: any access in any order
/// and width is legal, and what means nothing is ignored and [counted](Self::ignored). A register that is read in another
/// width than its own reads all ones; where a BAR has no register, it reads 0.
///
/// A call of an interrupt must not replace itself: [`set_vector`](PciAccess::set_vector) waits for it to end.
pub struct Function {
    name: String,
    /// Before the device: it hears what that reports.
    _ears: Relayed,
    core: Arc<Core>,
}

/// What the regions of a function depend on.
fn sizes(layout: &Layout, queues: u16, config: u32) -> Sizes {
    let wanted = layout.vectors.unwrap_or(queues.saturating_add(1));
    let vectors = match wanted.min(MAX_VECTORS) {
        vectors if layout.has_msix(vectors) => vectors,
        _ => 0,
    };
    Sizes {
        queues,
        config,
        vectors,
    }
}

/// How long the BARs of a function are, of a device with so many queues and bytes of configuration; 0 for none.
pub(crate) fn bar_lengths(layout: &Layout, queues: u16, config: u32) -> [u64; BARS as usize] {
    let regions = Regions::place(layout, sizes(layout, queues, config));
    let mut lengths = [0; BARS as usize];
    for (len, bar) in lengths.iter_mut().zip(0..) {
        *len = regions.bar_len(bar);
    }
    lengths
}

impl Function {
    /// Shows a device as a function.
    ///
    /// * `device`: in reset, with its events not taken
    /// * `setup`: how
    ///
    /// # Errors
    /// When the device's events were taken, or cannot be relayed.
    pub fn new(device: Device, setup: Setup) -> Result<Self> {
        let layout = setup.layout;
        let info = device.info().clone();
        let sizes = sizes(&layout, info.queues, info.config_size);
        let vectors = sizes.vectors;
        let regions = Regions::place(&layout, sizes);
        let (mut space, places) = assemble::space(&layout, info.device_type, &regions, vectors);
        if let Some(extension) = &setup.extension {
            extension.install(&mut space);
        }
        let ears = Ears {
            interrupts: Arc::new(Interrupts::new(vectors, info.queues)),
            notify: Arc::new(Notify::new(&layout, info.queues)),
            faults: Arc::new(FaultLog::default()),
            life: Arc::new(Life::default()),
            mirror: Arc::new(Mirror::default()),
            extension: setup.extension.clone(),
        };
        let life = Arc::clone(&ears.life);
        let dma = device.dma(Asid::new(0))?;
        let events = device.events()?;
        let mut transport = Transport::new(device, &ears);
        transport.admin = setup.admin;
        transport.own = setup.offered;
        if setup.config_data {
            transport.own.insert(bits::NOTIF_CONFIG_DATA);
        }
        if !layout.multiplier.is_multiple_of(4) {
            // virtio 1.4 §4.1.4.4.1: its kicks have 32 bits.
            transport.withheld = bits::NOTIFICATION_DATA.mask();
        }
        Ok(Self {
            name: info.name,
            _ears: ears.listen(events)?,
            core: Arc::new(Core {
                layout,
                shared: SharedMemory::new(&regions),
                regions,
                config: Mutex::new(Config {
                    pristine: space.clone(),
                    space,
                    places,
                }),
                transport,
                iommu: Iommu::new(dma, setup.limits),
                life,
                decoding: AtomicBool::new(false),
                vectors: AtomicU16::new(0),
                handed: Mutex::new(Handed::new(AtomicBool::new(true))),
                extension: setup.extension,
            }),
        })
    }

    /// The device behind the registers.
    pub fn device(&self) -> &Device {
        &self.core.transport.device
    }

    /// The accesses to memory that the IOMMU refused since this was asked last, the oldest 64 of them.
    pub fn faults(&self) -> Vec<DmaFault> {
        self.core.transport.faults.take()
    }

    /// How many accesses to memory the IOMMU refused so far.
    pub fn fault_count(&self) -> u64 {
        self.core.transport.faults.count()
    }

    /// How many accesses to registers meant nothing so far: of a width that is not the field's, to what is read-only, at a
    /// time at which it is not legal.
    pub fn ignored(&self) -> u64 {
        let transport = &self.core.transport;
        transport
            .ignored()
            .saturating_add(transport.notify.strays())
    }

    /// Asks whoever uses the function to let go of it.
    pub fn request_removal(&self) {
        self.core.life.tell(&Event::RemoveRequested);
    }

    /// Takes the function away: reads are all ones from here on, and nothing interrupts or reaches memory.
    pub fn remove(&self) {
        let core = &self.core;
        let first = core.life.end();
        self.revoke_doorbells();
        core.transport.notify.set_live(false);
        core.transport.interrupts.set_command(false, true);
        core.transport.reset();
        if let Some(extension) = &core.extension {
            extension.gone();
        }
        // Last: whoever is told finds it so.
        if first {
            core.life.tell(&Event::Gone);
        }
    }

    /// The MSI-X vectors that there are.
    fn table(&self) -> u16 {
        self.core.transport.interrupts.vectors()
    }

    fn check_register(&self, bar: u8, at: u64, width: Width) -> Result<(), PciError> {
        let len = self.bar_len(bar);
        let bytes = u64::from(width.bytes());
        let inside = at.checked_add(bytes).is_some_and(|end| end <= len);
        if inside && at.is_multiple_of(bytes) {
            return Ok(());
        }
        Err(PciError::NoRegister {
            space: Space::Bar(bar),
            at,
            width: width.bytes(),
            len,
        })
    }

    fn check_config(at: u16, width: Width) -> Result<(), PciError> {
        if assemble::is_register(at, width) {
            return Ok(());
        }
        Err(PciError::NoRegister {
            space: Space::Config,
            at: at.into(),
            width: width.bytes(),
            len: CONFIG_BYTES.into(),
        })
    }

    /// Whether a BAR answers.
    fn answers(&self) -> bool {
        !self.core.life.is_gone() && self.core.decoding.load(Ordering::Acquire)
    }
}

impl PciAccess for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn config_len(&self) -> u16 {
        CONFIG_BYTES
    }

    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        Self::check_config(at, width)?;
        if self.core.life.is_gone() {
            return Ok(width.all_ones());
        }
        Ok(self.core.read_config(at, width))
    }

    fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()> {
        Self::check_config(at, width)?;
        if self.core.life.is_gone() {
            return Ok(());
        }
        self.core.write_config(at, width, value)
    }

    fn bar_len(&self, bar: u8) -> u64 {
        match self.core.layout.reachable {
            true => self.core.regions.bar_len(bar),
            false => 0,
        }
    }

    fn read(&self, bar: u8, at: u64, width: Width) -> Result<u32> {
        self.check_register(bar, at, width)?;
        if !self.answers() {
            return Ok(width.all_ones());
        }
        Ok(self.core.read(bar, at, width))
    }

    fn write(&self, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        self.check_register(bar, at, width)?;
        if self.answers() {
            self.core.write(bar, at, width, value & width.all_ones());
        }
        Ok(())
    }

    fn doorbell(&self, bar: u8, at: u64, width: Width, name: u16) -> Result<Doorbell> {
        self.check_register(bar, at, width)?;
        if width == Width::U8 {
            let width = width.bytes();
            return Err(PciError::DoorbellWidth { width }.into());
        }
        let handed = Arc::clone(&lock(&self.core.handed));
        let notify = &self.core.transport.notify;
        Ok(match self.core.regions.find(bar, at, width.bytes()) {
            Some((Structure::Notify, at)) => notify.doorbell(at, width, name, handed),
            // Whatever else is there is no doorbell, but can be written.
            _ => {
                let core = Arc::downgrade(&self.core);
                Doorbell::from_fn(move |data| {
                    let core = core.upgrade().filter(|_| handed.load(Ordering::Acquire));
                    let value = (data & 0xffff_0000) | u32::from(name);
                    if let Some(core) = core
                        && core.decoding.load(Ordering::Acquire)
                        && !core.life.is_gone()
                    {
                        core.write(bar, at, width, value & width.all_ones());
                    }
                })
            }
        })
    }

    fn rings_by_call(&self, _: u8, _: u64) -> bool {
        false
    }

    fn revoke_doorbells(&self) {
        let next = Handed::new(AtomicBool::new(true));
        let old = std::mem::replace(&mut *lock(&self.core.handed), next);
        old.store(false, Ordering::Release);
    }

    fn interrupts(&self) -> Offered {
        Offered {
            msix: self.table(),
            intx: self.core.layout.line,
            calls: CallKind::Any,
        }
    }

    fn enable_vectors(&self, count: u16) -> Result<()> {
        let core = &self.core;
        let has = self.table();
        let wanted = if count > has { 0 } else { count };
        core.vectors.store(0, Ordering::Release);
        // Without the lock of configuration space: this waits for calls, and they may read it.
        core.transport.interrupts.silence();
        let mut config = lock(&core.config);
        core.transport.interrupts.open_vectors(wanted);
        core.vectors.store(wanted, Ordering::Release);
        if let Some(msix) = config.places.msix {
            let at = msix.saturating_add(2);
            let control = config.space.read(at, Width::U16);
            let control = match wanted {
                0 => control & !MSIX_ON,
                _ => control | MSIX_ON,
            };
            config.space.write(at, Width::U16, control);
        }
        core.apply_msix(&config);
        drop(config);
        core.transport.interrupts.deliver();
        match count > has {
            true => Err(PciError::Vectors { asked: count, has }.into()),
            false => Ok(()),
        }
    }

    fn set_vector(&self, vector: u16, call: Call) -> Result<()> {
        let enabled = self.core.vectors.load(Ordering::Acquire);
        if vector >= enabled {
            return Err(PciError::VectorNotEnabled { vector, enabled }.into());
        }
        self.core.transport.interrupts.set_call(vector, call);
        Ok(())
    }

    fn set_intx(&self, call: Call) -> Result<()> {
        self.check_line()?;
        self.core.transport.interrupts.set_line(call);
        Ok(())
    }

    fn unmask_intx(&self) -> Result<()> {
        self.check_line()?;
        self.core.transport.interrupts.unmask_line();
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        if self.core.life.is_gone() {
            return Err(Error::Gone);
        }
        // As a host does it: configuration space is restored afterwards, and interrupts stay set up.
        self.core.transport.reset();
        if let Some(extension) = &self.core.extension {
            let after = extension.reset(&mut lock(&self.core.config).space);
            if let Some(after) = after {
                after();
            }
        }
        Ok(())
    }

    fn dma_limits(&self) -> DmaLimits {
        self.core.iommu.limits()
    }

    fn dma_map(&self, m: &Mapping) -> Result<()> {
        self.core.iommu.map(m)
    }

    fn dma_unmap(&self, m: &Mapping) -> Result<()> {
        self.core.iommu.unmap(m.iova)
    }

    fn watch(&self, events: Arc<dyn EventSink>) -> Result<()> {
        self.core.life.watch(events);
        Ok(())
    }
}

impl Function {
    fn check_line(&self) -> Result<(), PciError> {
        let why = match self.core.vectors.load(Ordering::Acquire) {
            _ if !self.core.layout.line => "the function has none",
            0 => return Ok(()),
            _ => "MSI-X is on; switch it off first",
        };
        Err(PciError::Line { why })
    }
}

/// How long it is until a stop that was taken back is looked at again.
const PAUSE: Duration = Duration::from_millis(1);

impl Function {
    /// Has the device go on once a stop is complete that was taken back: what it has in flight ends first, and then nobody
    /// asks.
    #[cold]
    fn go_on_later(&self) {
        let core = Arc::downgrade(&self.core);
        let over = move || {
            let core = core.upgrade();
            core.is_none_or(|core| core.life.is_gone() || core.transport.go_on_again())
        };
        let name = "vdpa-sim-resume".to_owned();
        let begun = std::thread::Builder::new().name(name).spawn(move || {
            while !over() {
                std::thread::sleep(PAUSE);
            }
        });
        if let Err(e) = begun {
            tracing::warn!("{}: not resumed: {e}", self.name);
        }
    }
}

/// As its owner controls it, virtio 1.4 §2.12.1.4.4.
impl Member for Function {
    fn set_mode(&self, mode: Mode) -> Poll<std::result::Result<(), Refusal>> {
        self.core.transport.set_mode(mode)
    }

    fn abandon(&self) {
        if self.core.transport.abandon() {
            self.go_on_later();
        }
    }

    fn mode(&self) -> Mode {
        self.core.transport.mode()
    }

    fn parts(&self) -> Poll<std::result::Result<Vec<Part>, Refusal>> {
        self.core.transport.parts()
    }

    fn set_parts(&self, parts: &[Part]) -> Poll<std::result::Result<(), Refusal>> {
        self.core.transport.set_parts(parts)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("layout", &self.core.layout.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use vdpa_core::{DeviceSpec, MgmtDevice, Relay};

    use super::*;
    use crate::pci::assemble::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY};

    /// The interrupt line's number: it switches nothing.
    const LINE_NUMBER: u16 = 0x3c;

    #[test]
    fn a_write_that_switches_nothing_makes_no_interrupt_that_another_thread_is_about_to_make() {
        let spec = DeviceSpec::parse("sim:rng").unwrap();
        let parent = crate::SimMgmt::new().dev_add(&spec).unwrap();
        let device = Device::new(parent, Relay::new()).unwrap();
        let function = Function::new(device, Setup::new(Layout::QEMU)).unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let own = count.clone();
        function.enable_vectors(1).unwrap();
        let call = Call::from_fn(move || {
            own.fetch_add(1, Ordering::Relaxed);
        });
        function.set_vector(0, call).unwrap();
        let interrupts = &function.core.transport.interrupts;
        interrupts.set_vector(None, 0);
        // Somebody has raised it, and did not come to make it yet.
        interrupts.set_command(false, false);
        interrupts.config();
        interrupts.set_command(true, false);
        function.write_config(LINE_NUMBER, Width::U8, 7).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 0, "it is not this thread's");
        let on = COMMAND_MEMORY | COMMAND_MASTER;
        function.write_config(COMMAND, Width::U16, on).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1, "it was let through");
    }
}
