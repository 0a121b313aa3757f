//! Functions whose BARs cannot be had as usual: not at all, or not by a mapping.
//!
//! None of QEMU's virtio functions is such, so it is made of what is there: a BAR that is hidden leaves the window in
//! configuration space, which they have; a limit on the address space makes the kernel refuse a mapping.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::gettid;
use serde_json::json;
use vdpa::core::{Call, DeviceSpec, DmaLimits, Doorbell, EventSink, Relay, Result};
use vdpa::net::{NetDriver, Setup};
use vdpa::pci::layout::Reach;
use vdpa::pci::{Interrupts, PciAccess, VirtioPci, Width};
use vdpa::{Deadline, Device, Mapping, Parents};

use crate::{Done, pair};

/// What is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Obstacle {
    Nothing,
    /// No BAR is reached.
    Hidden,
    /// No page of a BAR is mapped.
    Unmapped,
}

/// A function with something in the way.
struct Shut {
    function: Arc<dyn PciAccess>,
    obstacle: Obstacle,
    /// Accesses to BARs.
    accesses: AtomicU64,
}

/// Frames between two cards: both open, which says what is usual, then one hidden and one that is not mapped.
pub(crate) fn drive(left: &str, right: &str, frames: u64) -> Done {
    let run = |first, second| run([open(left, first)?, open(right, second)?], frames);
    let usual = run(Obstacle::Nothing, Obstacle::Nothing)?;
    let shut = run(Obstacle::Hidden, Obstacle::Unmapped)?;
    println!("{}", json!({ "usual": usual, "shut": shut }));
    Ok(())
}

fn open(name: &str, obstacle: Obstacle) -> std::result::Result<Arc<Shut>, Box<dyn Error>> {
    let function = Parents::new().function(&DeviceSpec::parse(name)?);
    Ok(Arc::new(Shut {
        function: function.ok_or("its parent has no functions")??,
        obstacle,
        accesses: AtomicU64::new(0),
    }))
}

/// What the frames have taken: pages mapped of all functions, and for each whether registers are reached by the window
/// and how many accesses its BARs had.
fn run(
    functions: [Arc<Shut>; 2],
    frames: u64,
) -> std::result::Result<serde_json::Value, Box<dyn Error>> {
    let mut cards = Vec::new();
    let mut windows = Vec::new();
    for function in &functions {
        let parent = VirtioPci::open(function.clone())?;
        windows.push(parent.layout().notify.reach == Reach::Window);
        let device = Device::new(Arc::new(parent), Relay::new())?;
        cards.push(NetDriver::start(device, &Setup::default())?);
    }
    let mapped = mapped()?;
    let cards: [NetDriver; 2] = cards.try_into().map_err(|_| "two cards")?;
    let exchanged = pair::exchange(cards, frames)?;
    let accesses = functions.map(|function| function.accesses.load(Ordering::Relaxed));
    Ok(json!({ "frames": exchanged, "mapped": mapped, "windows": windows, "accesses": accesses }))
}

/// Pages of functions that this program has mapped.
fn mapped() -> std::io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.lines().filter(|line| line.contains("vfio")).count())
}

/// Waits until every other thread of this program waits for something.
fn others_sleep() {
    let here = gettid().to_string();
    let is_awake = |task: std::io::Result<fs::DirEntry>| {
        let Ok(task) = task else { return false };
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        task.file_name() != *here && state.is_some_and(|state| state != b'S')
    };
    let by = Deadline::after(pair::PATIENCE);
    while fs::read_dir("/proc/self/task").is_ok_and(|mut tasks| tasks.any(is_awake)) {
        assert!(!by.expired(), "a thread does not come to rest");
        std::thread::yield_now();
    }
}

impl Shut {
    fn count(&self) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
    }
}

impl PciAccess for Shut {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn config_len(&self) -> u16 {
        self.function.config_len()
    }

    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        self.function.read_config(at, width)
    }

    fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()> {
        self.function.write_config(at, width, value)
    }

    fn bar_len(&self, bar: u8) -> u64 {
        match self.obstacle {
            Obstacle::Hidden => 0,
            Obstacle::Nothing | Obstacle::Unmapped => self.function.bar_len(bar),
        }
    }

    fn rings_by_call(&self, bar: u8, at: u64) -> bool {
        self.function.rings_by_call(bar, at)
    }

    fn read(&self, bar: u8, at: u64, width: Width) -> Result<u32> {
        self.count();
        self.function.read(bar, at, width)
    }

    fn write(&self, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        self.count();
        self.function.write(bar, at, width, value)
    }

    fn doorbell(&self, bar: u8, at: u64, width: Width, name: u16) -> Result<Doorbell> {
        self.count();
        let made = || self.function.doorbell(bar, at, width, name);
        if self.obstacle != Obstacle::Unmapped {
            return made();
        }
        // What is mapped stays, and nothing comes to it: no thread may begin meanwhile, which needs a stack.
        others_sleep();
        let (soft, hard) = getrlimit(Resource::RLIMIT_AS).expect("a limit of any process");
        let limit =
            |soft| setrlimit(Resource::RLIMIT_AS, soft, hard).expect("a limit below the hard one");
        limit(0);
        let doorbell = made();
        limit(soft);
        doorbell
    }

    fn revoke_doorbells(&self) {
        self.function.revoke_doorbells();
    }

    fn interrupts(&self) -> Interrupts {
        self.function.interrupts()
    }

    fn enable_vectors(&self, count: u16) -> Result<()> {
        self.function.enable_vectors(count)
    }

    fn set_vector(&self, vector: u16, call: Call) -> Result<()> {
        self.function.set_vector(vector, call)
    }

    fn set_intx(&self, call: Call) -> Result<()> {
        self.function.set_intx(call)
    }

    fn unmask_intx(&self) -> Result<()> {
        self.function.unmask_intx()
    }

    fn reset(&self) -> Result<()> {
        self.function.reset()
    }

    fn dma_limits(&self) -> DmaLimits {
        self.function.dma_limits()
    }

    fn dma_map(&self, m: &Mapping) -> Result<()> {
        self.function.dma_map(m)
    }

    fn dma_unmap(&self, m: &Mapping) -> Result<()> {
        self.function.dma_unmap(m)
    }

    fn watch(&self, events: Arc<dyn EventSink>) -> Result<()> {
        self.function.watch(events)
    }
}
