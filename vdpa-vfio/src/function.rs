//! A function that VFIO gives access to.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::{SysconfVar, sysconf};
use vdpa_core::{Call, CallKind, DmaLimits, Doorbell, Event, EventSink, Relay, Relayed, Result};
use vdpa_mem::Mapping;
use vdpa_pci::{BARS, Interrupts, PciAccess, Width};
use vfio_bindings::bindings::vfio;

use crate::bells::{Bells, Place};
use crate::config::{COMMAND, MASTER, MEMORY, Marks};
use crate::dma::{Mappings, Translator};
use crate::irq::{self, Irqs, Notice};
use crate::keeper::Keeper;
use crate::region::Region;
use crate::{VfioError, ioctl};

/// A PCI function, through VFIO.
///
/// Registers are read and written by system calls, so that an access says whether it reached anything. Doorbells are
/// stores to mapped pages, where the BAR can be mapped; elsewhere each is a system call too, some hundred times slower.
///
/// When it is dropped the function is silent: its interrupts are off, it is off the bus, and what was mapped for it is
/// unmapped, in this order. What [another has mapped](DmaOwner::Elsewhere) it goes on reaching.
pub struct Function {
    name: String,
    config: Region,
    bars: [Region; BARS as usize],
    marks: Marks,
    resets: bool,
    gone: AtomicBool,
    irqs: Irqs,
    bells: Bells,
    page: u64,
    watching: Mutex<Option<Watching>>,
    relay: Relay,
    /// Dropped before the files that it calls.
    dma: Mappings,
    device: Arc<File>,
    /// Dropped after the device, since groups are given back only once their functions are closed. `None`: who handed the
    /// file in has the rest.
    _keeper: Option<Keeper>,
    /// Dropped last: whoever has the other end knows that all is closed.
    _lease: Option<Arc<Lease>>,
}

/// Held from before a function is opened until it is closed.
pub(crate) struct Lease;

/// Who is told what happens to the function.
struct Watching {
    events: Arc<dyn EventSink>,
    /// Kept until nothing is watched any more.
    relayed: Vec<Watched>,
}

/// What the kernel writes an eventfd for, that, and who reads it.
type Watched = (Notice, Arc<OwnedFd>, Relayed);

/// What a function is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    /// The function's file.
    pub(crate) device: File,
    pub(crate) translator: Translator,
    pub(crate) keeper: Option<Keeper>,
    /// Runs what interrupts of the kernel's own call.
    pub(crate) relay: Relay,
}

/// Who maps memory for a function whose file was [handed in](Function::from_fd).
#[derive(Debug)]
#[non_exhaustive]
pub enum DmaOwner {
    /// This function does, in a container of the second version of type 1 that its group is in.
    Container(OwnedFd),
    /// This function does, in a space of an iommufd that it is attached to.
    #[cfg(feature = "iommufd")]
    Space {
        /// The iommufd.
        iommufd: OwnedFd,
        /// The number of the space.
        ioas: u32,
    },
    /// Whoever handed the file in has mapped, and maps, everything that the function is told to reach, at the same
    /// addresses. Mapping calls then do nothing, and the function reaches all of that until the owner stops it.
    Elsewhere,
}

impl Function {
    /// A function whose file another part of the program opened, or another program: a VMM, which has its container.
    ///
    /// * `name`: of the function, for messages: `0000:01:00.1`
    /// * `device`: its file, from `VFIO_GROUP_GET_DEVICE_FD`, or of `/dev/vfio/devices` and bound
    /// * `dma`: who maps memory
    /// * `relay`: runs what the kernel reports
    ///
    /// Memory decoding and bus mastering are switched on. Interrupts have no other user meanwhile. When this value is dropped,
    /// bus mastering is switched off, and then what it mapped is unmapped. With [`DmaOwner::Elsewhere`] bus mastering is left
    /// on, and the device as it is, as its memory is: have its driver reset it before.
    ///
    /// # Errors
    /// When it is no PCI function's file, or does not answer.
    pub fn from_fd(name: &str, device: OwnedFd, dma: DmaOwner, relay: Relay) -> Result<Self> {
        let translator = match dma {
            DmaOwner::Container(container) => Translator::Container(container.into()),
            #[cfg(feature = "iommufd")]
            DmaOwner::Space { iommufd, ioas } => Translator::Space {
                iommufd: iommufd.into(),
                ioas,
            },
            DmaOwner::Elsewhere => Translator::Owner,
        };
        Ok(Self::new(Parts {
            name: name.to_owned(),
            device: device.into(),
            translator,
            keeper: None,
            relay,
        })?)
    }

    pub(crate) fn new(parts: Parts) -> Result<Self, VfioError> {
        // The keeper first, so that an error drops it last.
        let Parts {
            keeper,
            name,
            device,
            translator,
            relay,
        } = parts;
        let asked = |what| {
            let name = name.clone();
            move |source| VfioError::System { name, what, source }
        };
        let flags = ioctl::device_flags(&device).map_err(asked("ask what it is"))?;
        if flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(VfioError::NotPci { name });
        }
        let region = |index| Region::read(&device, index).map_err(asked("ask for its registers"));
        let config = region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)?;
        let read = |at: u16, width| {
            let read = config.load(&device, at.into(), width);
            read.map_err(asked("read its configuration space"))
        };
        let mut bars = [const { None }; BARS as usize];
        for (index, bar) in (0u32..).zip(&mut bars) {
            // I/O ports have this bit. What is behind them is reached through memory too, as far as it matters here.
            let at = (index as u16).saturating_mul(4).saturating_add(0x10);
            let ports = read(at, Width::U32)? & 1 != 0;
            *bar = Some(if ports {
                Region::default()
            } else {
                region(index)?
            });
        }
        // VFIO hands functions over that reach no memory. What this one can reach is what is mapped from here on.
        let command = read(COMMAND, Width::U16)? | MEMORY | MASTER;
        config
            .store(&device, COMMAND.into(), Width::U16, command)
            .map_err(asked("switch it on"))?;
        let irqs = Irqs::new(&name, &device).map_err(asked("ask for its interrupts"))?;
        Ok(Self {
            marks: Marks::read(read)?,
            bars: bars.map(Option::unwrap_or_default),
            resets: flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
            gone: AtomicBool::new(false),
            irqs,
            bells: Bells::default(),
            page: page_bytes(),
            watching: Mutex::default(),
            relay,
            dma: Mappings::new(&name, translator)?,
            config,
            device: Arc::new(device),
            _keeper: keeper,
            _lease: None,
            name,
        })
    }

    /// Keeps this until the function is closed.
    pub(crate) fn hold(&mut self, lease: Arc<Lease>) {
        self._lease = Some(lease);
    }

    /// Takes the function from whoever uses it, who is told so. It is closed once it is dropped.
    pub(crate) fn remove(&self) {
        self.gone.store(true, Ordering::Release);
        self.bells.close();
        let watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let events = watching
            .as_ref()
            .map(|watching| Arc::clone(&watching.events));
        drop(watching);
        // Outside the lock: who is told may call anything.
        if let Some(events) = events {
            events.raise(Event::Gone);
        }
    }

    fn check(&self) -> Result<(), VfioError> {
        match self.gone.load(Ordering::Acquire) {
            true => Err(VfioError::Gone {
                name: self.name.clone(),
            }),
            false => Ok(()),
        }
    }

    /// The region of a register, if it is there.
    fn region(&self, which: Which, at: u64, width: Width) -> Result<&Region, VfioError> {
        self.check()?;
        let region = match which {
            Which::Config => Some(&self.config),
            Which::Bar(bar) => self.bars.get(usize::from(bar)),
        };
        let len = region.map_or(0, Region::len);
        let bounds = || VfioError::Bounds {
            name: self.name.clone(),
            region: which.to_string(),
            at,
            bytes: width.bytes(),
            len,
        };
        region
            .filter(|region| region.holds(at, width))
            .ok_or_else(bounds)
    }

    /// Where the page of a register begins, if it can be mapped.
    fn mappable(&self, region: &Region, bar: u8, at: u64) -> Option<u64> {
        let table = self.marks.table.filter(|(table, ..)| *table == bar);
        let table = table.map(|(_, first, bytes)| (first, bytes));
        region.page(at, self.page, table)
    }

    fn load(&self, which: Which, at: u64, width: Width) -> Result<u32, VfioError> {
        let region = self.region(which, at, width)?;
        let read = region.load(&self.device, at, width);
        read.map_err(|source| self.unreached(which, at, source))
    }

    fn store(&self, which: Which, at: u64, width: Width, value: u32) -> Result<(), VfioError> {
        let region = self.region(which, at, width)?;
        let written = region.store(&self.device, at, width, value);
        written.map_err(|source| self.unreached(which, at, source))
    }

    fn unreached(&self, which: Which, at: u64, source: std::io::Error) -> VfioError {
        let name = self.name.clone();
        match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => VfioError::Gone { name },
            _ => VfioError::Register {
                name,
                region: which.to_string(),
                at,
                source,
            },
        }
    }
}

/// Which region.
#[derive(Clone, Copy)]
enum Which {
    Config,
    Bar(u8),
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config => f.write_str("configuration space"),
            Self::Bar(bar) => write!(f, "BAR {bar}"),
        }
    }
}

impl PciAccess for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn config_len(&self) -> u16 {
        u16::try_from(self.config.len()).unwrap_or(u16::MAX)
    }

    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        Ok(self.load(Which::Config, at.into(), width)?)
    }

    fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()> {
        let store = || self.store(Which::Config, at.into(), width, value);
        let stored = match self.marks.takes_registers_away(at, width, value) {
            true => self.bells.revoke_for(store),
            false => store(),
        };
        Ok(stored?)
    }

    fn bar_len(&self, bar: u8) -> u64 {
        self.bars.get(usize::from(bar)).map_or(0, Region::len)
    }

    fn read(&self, bar: u8, at: u64, width: Width) -> Result<u32> {
        Ok(self.load(Which::Bar(bar), at, width)?)
    }

    fn write(&self, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        Ok(self.store(Which::Bar(bar), at, width, value)?)
    }

    fn doorbell(&self, bar: u8, at: u64, width: Width, name: u16) -> Result<Doorbell> {
        let region = self.region(Which::Bar(bar), at, width)?;
        let place = Place {
            bar,
            at,
            width,
            name,
            page: self.mappable(region, bar, at),
        };
        let made = self
            .bells
            .doorbell(&self.device, region, &place, self.page)?;
        Ok(made.ok_or_else(|| VfioError::Gone {
            name: self.name.clone(),
        })?)
    }

    fn rings_by_call(&self, bar: u8, at: u64) -> bool {
        let region = self.bars.get(usize::from(bar));
        region.is_none_or(|region| self.mappable(region, bar, at).is_none())
    }

    fn revoke_doorbells(&self) {
        self.bells.revoke();
    }

    fn interrupts(&self) -> Interrupts {
        Interrupts {
            msix: self.irqs.vectors(),
            intx: self.irqs.has_line(),
            calls: CallKind::EventFd,
        }
    }

    fn enable_vectors(&self, count: u16) -> Result<()> {
        Ok(self.irqs.enable(&self.device, count)?)
    }

    fn set_vector(&self, vector: u16, call: Call) -> Result<()> {
        Ok(self.irqs.set(&self.device, vector, &call)?)
    }

    fn set_intx(&self, call: Call) -> Result<()> {
        Ok(self.irqs.set_line(&self.device, &call)?)
    }

    fn unmask_intx(&self) -> Result<()> {
        Ok(self.irqs.unmask_line(&self.device)?)
    }

    fn reset(&self) -> Result<()> {
        self.check()?;
        let name = || self.name.clone();
        if !self.resets {
            return Err(VfioError::NoReset { name: name() }.into());
        }
        let reset = self.bells.revoke_for(|| ioctl::reset(&self.device));
        Ok(reset.map_err(|source| VfioError::System {
            name: name(),
            what: "reset it",
            source,
        })?)
    }

    fn dma_limits(&self) -> DmaLimits {
        self.dma.limits().clone()
    }

    fn dma_map(&self, m: &Mapping) -> Result<()> {
        self.check()?;
        Ok(self.dma.map(m)?)
    }

    fn dma_unmap(&self, m: &Mapping) -> Result<()> {
        Ok(self.dma.unmap(m)?)
    }

    fn watch(&self, events: Arc<dyn EventSink>) -> Result<()> {
        let mut relayed = Vec::new();
        for notice in Notice::ALL {
            let call = Call::from_fn({
                let (events, name) = (Arc::clone(&events), self.name.clone());
                move || events.raise(notice.event(&name))
            });
            let (event, relay) = self.relay.call_fd(call)?;
            relayed.push((notice, event, relay));
        }
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let old: &[Watched] = watching.as_ref().map_or(&[], |watching| &watching.relayed);
        let there = irq::point_all(
            relayed
                .iter()
                .map(|(notice, event, _)| (*notice, event.as_fd())),
            |notice| {
                let mut old = old.iter();
                let (_, event, _) = old.find(|(other, ..)| *other == notice)?;
                Some(event.as_fd())
            },
            |notice, event| notice.point(&self.device, event),
        );
        let there = there.map_err(|source| VfioError::System {
            name: self.name.clone(),
            what: "watch it",
            source,
        })?;
        relayed.retain(|(notice, ..)| there.contains(notice));
        let old = watching.replace(Watching { events, relayed });
        drop(watching);
        // Outside the lock: it waits for one that is under way.
        drop(old);
        Ok(())
    }
}

impl Notice {
    fn event(self, name: &str) -> Event {
        match self {
            Self::Request => Event::RemoveRequested,
            Self::Error => Event::Broken {
                why: format!("{name}: the bus reports an error that was not corrected"),
            },
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if let Some(watching) = self
            .watching
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            for notice in Notice::ALL {
                notice.forget(&self.device);
            }
            drop(watching);
        }
        self.bells.revoke();
        self.irqs.close(&self.device);
        if self.dma.is_own() {
            // Off the bus before its memory goes, or the IOMMU's log has what it still tries. One that is gone does not.
            let quiet = self
                .config
                .load(&self.device, COMMAND.into(), Width::U16)
                .and_then(|now| {
                    self.config
                        .store(&self.device, COMMAND.into(), Width::U16, now & !MASTER)
                });
            if let Err(error) = quiet {
                tracing::debug!(function = self.name, %error, "cannot be taken off the bus");
            }
        }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Bytes in a page of this system.
fn page_bytes() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| u64::try_from(page).ok())
        .filter(|page| page.is_power_of_two())
        .unwrap_or(4096)
}

#[cfg(test)]
pub(crate) mod tests;
