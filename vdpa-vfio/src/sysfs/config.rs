//! A function's configuration space, as sysfs shows it: to be read, while any driver has the function.

use std::sync::Arc;

use vdpa_core::{
    Call, CallKind, DmaLimits, Doorbell, ErrorKind, EventSink, ParentError, Reach, Result,
};
use vdpa_mem::{Iova, Mapping};
use vdpa_pci::{Interrupts, PciAccess, Width};

use super::function::DEVICES;
use super::tree::Tree;
use super::{Bar, Fact, Function, SysfsError};

/// Bytes of configuration space with its extended part.
const EXTENDED: usize = 4096;

/// Bytes of the header, which everybody may read.
const HEADER: usize = 64;

/// A function of which only configuration space can be reached, and that only read.
pub(super) struct Shown {
    name: String,
    bytes: Vec<u8>,
    bars: Vec<Bar>,
}

impl Shown {
    /// # Errors
    /// When configuration space cannot be read beyond its header.
    pub(super) fn read(tree: &Tree, function: &Function) -> Result<Self, SysfsError> {
        let address = function.address;
        let unreadable = |why: &str| SysfsError::Unreadable {
            address,
            what: "configuration space",
            why: why.to_owned(),
        };
        let path = format!("{DEVICES}/{address}/config");
        let mut bytes = match tree.bytes(path, EXTENDED) {
            Fact::Is(bytes) => bytes,
            Fact::Absent => return Err(unreadable("there is no such file")),
            Fact::Unknown(why) => return Err(unreadable(&why)),
        };
        match bytes.len() {
            0..HEADER => return Err(unreadable("it ends before its header does")),
            HEADER..256 => {
                return Err(unreadable("only its header may be read: try as root"));
            }
            256..EXTENDED => bytes.truncate(256),
            _ => {}
        }
        let bars = function.bars.known().cloned().unwrap_or_default();
        if function.physical != Fact::Absent {
            complete(&mut bytes, function, &bars);
        }
        Ok(Self {
            name: address.to_string(),
            bytes,
            bars,
        })
    }
}

/// The header of a virtual function does not say who it is and where its BARs are: that is written in its physical
/// function's.
///
/// # Spec
/// PCI Express 6.0 §9.3.4.1.
fn complete(bytes: &mut [u8], function: &Function, bars: &[Bar]) {
    let mut put = |at: usize, from: &[u8]| {
        let to = bytes.iter_mut().skip(at);
        to.zip(from).for_each(|(to, from)| *to = *from);
    };
    for (at, number) in [(0, &function.vendor), (2, &function.device)] {
        if let Some(number) = number.known() {
            put(at, &number.to_le_bytes());
        }
    }
    for bar in bars {
        let kind = match (bar.memory, bar.wide) {
            (false, _) => 1,
            (true, false) => 0,
            (true, true) => 4,
        };
        let at = usize::from(bar.index)
            .saturating_mul(4)
            .saturating_add(0x10);
        let register = bar.start | kind;
        let len = if bar.wide { 8 } else { 4 };
        put(at, register.to_le_bytes().get(..len).unwrap_or_default());
    }
}

/// Something that cannot be done from outside.
#[derive(Debug, thiserror::Error)]
#[error("{name} is only looked at from outside: {what} needs VFIO (`vdpactl vfio bind {name}`)")]
struct Outside {
    name: String,
    what: &'static str,
}

impl ParentError for Outside {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unsupported
    }
}

impl Shown {
    fn outside<T>(&self, what: &'static str) -> Result<T> {
        let name = self.name.clone();
        Err(Outside { name, what }.into())
    }
}

impl PciAccess for Shown {
    fn name(&self) -> &str {
        &self.name
    }

    fn config_len(&self) -> u16 {
        u16::try_from(self.bytes.len()).unwrap_or(u16::MAX)
    }

    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        let at = usize::from(at);
        let end = at.saturating_add(usize::from(width.bytes()));
        let Some(bytes) = self.bytes.get(at..end) else {
            return self.outside("configuration space beyond its end");
        };
        let fold = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        Ok(bytes.iter().rev().fold(0, fold))
    }

    fn write_config(&self, _: u16, _: Width, _: u32) -> Result<()> {
        self.outside("writing configuration space")
    }

    fn bar_len(&self, bar: u8) -> u64 {
        let here = |region: &&Bar| region.index == bar && region.memory;
        self.bars.iter().find(here).map_or(0, |region| region.len)
    }

    fn read(&self, _: u8, _: u64, _: Width) -> Result<u32> {
        self.outside("reading registers")
    }

    fn write(&self, _: u8, _: u64, _: Width, _: u32) -> Result<()> {
        self.outside("writing registers")
    }

    fn doorbell(&self, _: u8, _: u64, _: Width, _: u16) -> Result<Doorbell> {
        self.outside("a doorbell")
    }

    fn rings_by_call(&self, _: u8, _: u64) -> bool {
        false
    }

    fn revoke_doorbells(&self) {}

    fn interrupts(&self) -> Interrupts {
        Interrupts {
            msix: 0,
            intx: false,
            calls: CallKind::EventFd,
        }
    }

    fn enable_vectors(&self, count: u16) -> Result<()> {
        match count {
            0 => Ok(()),
            _ => self.outside("an interrupt"),
        }
    }

    fn set_vector(&self, _: u16, _: Call) -> Result<()> {
        self.outside("an interrupt")
    }

    fn set_intx(&self, _: Call) -> Result<()> {
        self.outside("an interrupt")
    }

    fn unmask_intx(&self) -> Result<()> {
        self.outside("an interrupt")
    }

    fn reset(&self) -> Result<()> {
        self.outside("a reset")
    }

    fn dma_limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
            granule: 4096,
            max_entries: Some(0),
            reach: Reach::Platform,
        }
    }

    fn dma_map(&self, _: &Mapping) -> Result<()> {
        self.outside("DMA")
    }

    fn dma_unmap(&self, _: &Mapping) -> Result<()> {
        self.outside("DMA")
    }

    fn watch(&self, _: Arc<dyn EventSink>) -> Result<()> {
        self.outside("watching it")
    }
}
