//! Tries everything that VFIO gives on a real function, below any driver: `probe 0000:01:00.0 [group|cdev]`.
//!
//! The function has to be a virtio device that nobody needs, bound to `vfio-pci`. It runs as root, and leaves the function
//! reset. What is not as it must be ends it with a panic.

use std::error::Error;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setuid};
use vdpa_core::{Call, Event, EventSink, Relay, Result as Done};
use vdpa_mem::{Access, Iova, IovaRange, Mapping, Region};
use vdpa_pci::{BARS, Layout, PciAccess, Width};
use vdpa_vfio::{Function, Via};

const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const PAGE: u64 = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("which function?")?.parse()?;
    let via = match arguments.next().as_deref() {
        None => None,
        Some("group") => Some(Via::Group),
        Some("cdev") => Some(Via::Cdev),
        Some(other) => return Err(format!("{other} is no way to open a function").into()),
    };
    let relay = Relay::new();
    let open = || Function::open(Path::new("/"), address, via, relay.clone());
    let function = open()?;
    told("a second time", open().map(drop));
    registers(&function)?;
    doorbells(&function)?;
    interrupts(&function)?;
    function.watch(Arc::new(Silent))?;
    mappings(&function)?;
    drop(function);
    println!("closed, and opened again");
    memlock(&open()?)?;
    println!("all well");
    Ok(())
}

/// Nothing is reported of a function that nobody disturbs.
struct Silent;

impl EventSink for Silent {
    fn raise(&self, event: Event) {
        panic!("{event:?} was reported");
    }
}

/// Prints an error that there has to be.
fn told<E: Display>(what: &str, refused: Result<(), E>) {
    match refused {
        Err(error) => println!("{what}: {error}"),
        Ok(()) => panic!("{what}: nothing was refused"),
    }
}

fn registers(function: &Function) -> Done<()> {
    println!(
        "{}, {} bytes of configuration space",
        function.name(),
        function.config_len()
    );
    for bar in (0..BARS).filter(|bar| function.bar_len(*bar) != 0) {
        println!("BAR {bar}: {:#x} bytes", function.bar_len(bar));
    }
    let command = function.read_config(COMMAND, Width::U16)?;
    function.write_config(COMMAND, Width::U16, command | MEMORY)?;
    let layout = Layout::read(function)?;
    println!(
        "{}, queues notified by {}",
        layout.device_type, layout.notify_multiplier
    );
    let common = &layout.common;
    let queues = function.read(common.bar, common.offset + 18, Width::U16)?;
    assert!((1..0xffff).contains(&queues), "{queues} queues");
    println!("{queues} queues");

    told(
        "past the end",
        function
            .read(common.bar, function.bar_len(common.bar), Width::U8)
            .map(drop),
    );
    told(
        "not aligned",
        function
            .read(common.bar, common.offset + 1, Width::U16)
            .map(drop),
    );
    function.write_config(COMMAND, Width::U16, command & !MEMORY)?;
    told(
        "without decoding",
        function
            .read(common.bar, common.offset, Width::U32)
            .map(drop),
    );
    function.write_config(COMMAND, Width::U16, command | MEMORY)?;
    assert_eq!(
        function.read(common.bar, common.offset + 18, Width::U16)?,
        queues
    );
    Ok(())
}

/// Rings where a store to the page would kill this process.
fn doorbells(function: &Function) -> Done<()> {
    let notify = Layout::read(function)?.notify;
    let doorbell = || function.doorbell(notify.bar, notify.offset, Width::U16, 0);
    let command = function.read_config(COMMAND, Width::U16)?;
    let (first, clone) = (doorbell()?, doorbell()?.clone());
    println!("{first:?}");
    first.ring(0);
    function.write_config(COMMAND, Width::U16, command & !MEMORY)?;
    first.ring(0);
    clone.ring(0);
    function.write_config(COMMAND, Width::U16, command)?;
    first.ring(0);
    let second = doorbell()?;
    second.ring(0);
    function.reset()?;
    first.ring(0);
    second.ring(0);
    let third = doorbell()?;
    third.ring(0);
    function.revoke_doorbells();
    third.ring(0);
    println!("no doorbell outlived what it rings");
    Ok(())
}

fn interrupts(function: &Function) -> Result<(), Box<dyn Error>> {
    let there = function.interrupts();
    println!("{there:?}");
    let event = || {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok::<_, nix::Error>(Call::EventFd(Arc::new(OwnedFd::from(event))))
    };
    if let Some(more) = there.msix.checked_add(1) {
        told("a vector too many", function.enable_vectors(more));
    }
    for count in [there.msix, 1.min(there.msix), there.msix] {
        function.enable_vectors(count)?;
        told("a vector past them", function.set_vector(count, event()?));
        for vector in (0..count).rev() {
            function.set_vector(vector, event()?)?;
            function.set_vector(vector, event()?)?;
            function.set_vector(vector, Call::None)?;
        }
    }
    told("a closure", function.set_vector(0, Call::from_fn(|| ())));
    told("the line beside them", function.set_intx(event()?));
    function.enable_vectors(0)?;
    told("a line that is off", function.unmask_intx());
    if there.intx {
        function.set_intx(event()?)?;
        function.unmask_intx()?;
        function.set_intx(event()?)?;
        function.enable_vectors(there.msix)?;
        told("a line that gave way", function.unmask_intx());
        function.enable_vectors(0)?;
    }
    Ok(())
}

fn mapping(
    memory: &Arc<dyn vdpa_mem::DmaMemory>,
    iova: u64,
    len: u64,
    offset: u64,
) -> Done<Mapping> {
    Ok(Mapping {
        iova: IovaRange::new(Iova::new(iova), len)?,
        memory: Arc::clone(memory),
        offset,
        access: Access::DeviceReads,
        dirty: None,
    })
}

fn mappings(function: &Function) -> Done<()> {
    let limits = function.dma_limits();
    println!("{limits:x?}");
    let (memory, _) = Region::anonymous(64 * PAGE)?.into_shared();
    let make = |iova, len, offset| mapping(&memory, iova, len, offset);
    let m = make(0x10_0000, 4 * PAGE, PAGE)?;
    function.dma_map(&m)?;
    told("over another", function.dma_map(&make(0x10_1000, PAGE, 0)?));
    told(
        "half a page",
        function.dma_map(&make(0x20_0000, PAGE / 2, 0)?),
    );
    told(
        "out of range",
        function.dma_map(&make(u64::MAX - PAGE + 1, PAGE, 0)?),
    );
    told(
        "half of it back",
        function.dma_unmap(&make(0x10_0000, PAGE, PAGE)?),
    );
    assert_eq!(
        Arc::strong_count(&memory),
        3,
        "held for the kernel, and by the mapping here"
    );
    function.dma_unmap(&m)?;
    told("twice back", function.dma_unmap(&m));
    if let Some(most) = limits.max_entries.filter(|most| *most < 64) {
        let page = |at: u32| {
            make(
                u64::from(at) * 2 * PAGE + 0x100_0000,
                PAGE,
                u64::from(at) * PAGE,
            )
        };
        for at in 0..most {
            function.dma_map(&page(at)?)?;
        }
        told("an entry too many", function.dma_map(&page(most)?));
    }
    Ok(())
}

/// Maps more than a user may lock. For good: this process is nobody's afterwards.
fn memlock(function: &Function) -> Result<(), Box<dyn Error>> {
    setrlimit(Resource::RLIMIT_MEMLOCK, 64 * 1024, 64 * 1024)?;
    setuid(Uid::from_raw(65534))?;
    let (memory, _) = Region::anonymous(64 * PAGE)?.into_shared();
    function.dma_map(&mapping(&memory, 0x10_0000, 8 * PAGE, 0)?)?;
    told(
        "more than may be locked",
        function.dma_map(&mapping(&memory, 0x20_0000, 64 * PAGE, 0)?),
    );
    Ok(())
}
