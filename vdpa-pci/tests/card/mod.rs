//! A virtio function in memory, and a strict one: it panics where a driver does what it must not.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its part"
)]

mod registers;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use vdpa_core::{
    Call, CallKind, DmaLimits, Doorbell, Error, Event, EventSink, Features, Host, Relay, Result,
    bits,
};
use vdpa_mem::{AddressSpace, Iova, Mapping};
use vdpa_pci::{Clock, Interrupts, Options, PciAccess, VirtioPci, Width};

pub use registers::{Did, State, config_space};

/// The BAR that everything is in.
pub const BAR: u8 = 4;
pub const COMMON: u64 = 0x000;
pub const ISR: u64 = 0x0101;
pub const DEVICE: u64 = 0x200;
pub const NOTIFY: u64 = 0x1000;
/// Where the capabilities are.
pub const CAPS: u16 = 0x40;
/// Where the configuration access window is.
pub const WINDOW: u16 = 0xb0;

/// How a card is built.
#[derive(Clone)]
pub struct Shape {
    pub device: u16,
    pub features: Features,
    /// Looks at the lowest bit of a feature selector alone.
    pub one_bit_select: bool,
    pub queues: u16,
    pub admin: (u16, u16),
    pub most: u16,
    /// Vectors of the table.
    pub msix: u16,
    /// Vectors that the system grants.
    pub granted: u16,
    pub intx: bool,
    pub calls: CallKind,
    pub multiplier: u32,
    pub notify_off: fn(u16) -> u16,
    pub notify_data: fn(u16) -> u16,
    pub notify_len: u32,
    pub common_len: u32,
    /// Whether the BAR can be reached.
    pub mapped: bool,
    /// Vectors that the device does not take: for this queue, or for the configuration.
    pub refuses: fn(Option<u16>, u16) -> bool,
    pub config: Vec<u8>,
    /// Feature bits that it drops.
    pub forgets: Features,
    /// Status reads until a reset is complete.
    pub reset_reads: u32,
    /// Milliseconds of silence after a reset.
    pub reset_silence: u64,
    /// Whether there is a reset of the function, and it helps.
    pub whole_reset: bool,
}

impl Default for Shape {
    fn default() -> Self {
        let features = [
            bits::VERSION_1,
            bits::ACCESS_PLATFORM,
            bits::RING_RESET,
            bits::RING_PACKED,
            bits::net::MAC,
            bits::net::MTU,
        ];
        Self {
            device: 0x1041,
            features: Features::of(&features),
            one_bit_select: false,
            queues: 3,
            admin: (0, 0),
            most: 256,
            msix: 8,
            granted: 2048,
            intx: true,
            calls: CallKind::Any,
            multiplier: 4,
            notify_off: |q| q,
            notify_data: |q| q + 0x100,
            notify_len: 0x1000,
            common_len: 64,
            mapped: true,
            refuses: |_, _| false,
            config: (1..=28).collect(),
            forgets: Features::NONE,
            reset_reads: 2,
            reset_silence: 0,
            whole_reset: true,
        }
    }
}

/// A clock that goes on a millisecond whenever it is looked at, and at once when somebody sleeps.
#[derive(Default)]
pub struct Ticks(Mutex<Duration>);

impl Ticks {
    pub fn peek(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

impl Clock for Ticks {
    fn now(&self) -> Duration {
        let mut now = self.0.lock().unwrap();
        *now += Duration::from_millis(1);
        *now
    }

    fn sleep(&self, wait: Duration) {
        *self.0.lock().unwrap() += wait;
    }
}

/// What happens at an access beside it.
#[derive(Default)]
pub struct Hooks {
    /// How many more vectors cannot be set.
    pub fail_vectors: AtomicU32,
    /// How many more reads of the ISR fail.
    pub fail_isr: AtomicU32,
    /// How many more register reads nobody answers.
    pub unanswered: AtomicU32,
    /// The ISR never shows anything.
    pub hide_isr: AtomicBool,
    /// Runs before and after the next vector is set; those that it sets meanwhile have no such hook.
    pub around_set: Mutex<Option<Around>>,
}

/// What runs before something, and gives what runs after it.
pub type Around = Box<dyn FnOnce() -> Box<dyn FnOnce() + Send> + Send>;

/// Whether there was one more, which is taken.
fn one_of(count: &AtomicU32) -> bool {
    let less = |count: u32| count.checked_sub(1);
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

/// The card.
pub struct Card {
    pub shape: Shape,
    pub clock: Arc<Ticks>,
    state: Mutex<State>,
    pub hooks: Hooks,
    /// By vector, the line last: held while it makes its call, so that who replaces the call can wait for that.
    raising: Vec<RwLock<()>>,
}

impl Card {
    pub fn new(shape: Shape) -> Arc<Self> {
        let state = State::new(&shape);
        let raising = (0..=shape.msix).map(|_| RwLock::default()).collect();
        Arc::new(Self {
            shape,
            clock: Arc::default(),
            state: Mutex::new(state),
            hooks: Hooks::default(),
            raising,
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A card that panicked has failed its test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it with its own clock.
    pub fn open(self: &Arc<Self>) -> Result<VirtioPci> {
        let options = Options {
            clock: Arc::clone(&self.clock) as _,
            ..Options::default()
        };
        VirtioPci::open_with(Arc::clone(self) as _, options)
    }

    /// From the access with this number on, nobody answers.
    pub fn unplug_at(&self, access: u64) {
        self.state().unplugged_at = Some(access);
    }

    /// The device uses a buffer of a queue: interrupts as it was told to.
    pub fn interrupt(&self, queue: u16) {
        let vector = self.state().queues[usize::from(queue)].vector;
        self.raise(vector, |state| state.raise_isr(1, vector == 0xffff));
    }

    /// Interrupts by whatever makes a call, whatever the registers say: each vector that is on, or the line.
    pub fn interrupt_by_all(&self) {
        let vectors = u16::try_from(self.state().vectors.len()).unwrap();
        match vectors {
            0 => self.raise(0xffff, |state| state.isr |= 3),
            _ => (0..vectors).for_each(|vector| self.raise(vector, |_| {})),
        }
    }

    /// The configuration changes.
    pub fn change_config(&self) {
        let mut state = self.state();
        state.generation = state.generation.wrapping_add(1);
        let vector = state.config_vector;
        drop(state);
        self.raise(vector, |state| state.raise_isr(2, true));
    }

    /// What interrupts are made with by this vector, or by the line where there are none.
    fn raising(&self, vector: u16) -> &RwLock<()> {
        let line = self.raising.last().unwrap();
        self.raising.get(usize::from(vector)).unwrap_or(line)
    }

    fn raise(&self, vector: u16, first: impl FnOnce(&mut State)) {
        let vector = match self.state().vectors.is_empty() {
            true => 0xffff,
            false => vector,
        };
        let _raising = self.raising(vector).read();
        let mut state = self.state();
        first(&mut state);
        let call = state.call(vector);
        drop(state);
        call.raise();
    }

    fn silent(&self) -> bool {
        self.state().silent_until > self.clock.peek()
    }
}

impl PciAccess for Card {
    fn name(&self) -> &str {
        "0000:01:00.1"
    }

    fn config_len(&self) -> u16 {
        4096
    }

    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        let silent = self.silent();
        let mut state = self.state();
        if !state.access() {
            return Ok(width.all_ones());
        }
        Ok(state.read_config(&self.shape, at, width, silent))
    }

    fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()> {
        let mut state = self.state();
        if state.access() {
            state.write_config(&self.shape, at, width, value);
            let silence = std::mem::take(&mut state.silence);
            state.silent_until = state.silent_until.max(self.clock.peek() + silence);
        }
        drop(state);
        // Whoever else is at the window has its chance.
        std::thread::yield_now();
        Ok(())
    }

    fn bar_len(&self, bar: u8) -> u64 {
        match bar {
            BAR if self.shape.mapped => 0x4000,
            _ => 0,
        }
    }

    fn read(&self, bar: u8, at: u64, width: Width) -> Result<u32> {
        assert!(bar == BAR && self.shape.mapped);
        let silent = self.silent() || one_of(&self.hooks.unanswered);
        if at == ISR && one_of(&self.hooks.fail_isr) {
            return Err(Error::Busy { what: "the ISR" });
        }
        let mut state = self.state();
        if !state.access() {
            return Ok(width.all_ones());
        }
        let value = state.read(&self.shape, at, width, silent);
        match at == ISR && self.hooks.hide_isr.load(Ordering::SeqCst) {
            true => Ok(0),
            false => Ok(value),
        }
    }

    fn write(&self, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        assert!(bar == BAR && self.shape.mapped);
        let mut state = self.state();
        if state.access() {
            state.write(&self.shape, at, width, value);
            let silence = std::mem::take(&mut state.silence);
            state.silent_until = state.silent_until.max(self.clock.peek() + silence);
        }
        Ok(())
    }

    fn doorbell(&self, bar: u8, at: u64, width: Width, name: u16) -> Result<Doorbell> {
        assert!(bar == BAR && self.shape.mapped);
        assert!(at.is_multiple_of(u64::from(width.bytes())));
        let state = self.state();
        let (kicks, revoked) = (Arc::clone(&state.kicks), Arc::clone(&state.revoked));
        Ok(Doorbell::from_fn(move |data| {
            let data = match width {
                Width::U32 => data & 0xffff_0000 | u32::from(name),
                _ => u32::from(name),
            };
            if !revoked.load(Ordering::Relaxed) {
                kicks.lock().unwrap().push((at, width, data));
            }
        }))
    }

    fn rings_by_call(&self, _: u8, _: u64) -> bool {
        false
    }

    fn revoke_doorbells(&self) {
        let mut state = self.state();
        state.revoked.store(true, Ordering::Relaxed);
        state.revoked = Arc::new(AtomicBool::new(false));
    }

    fn interrupts(&self) -> Interrupts {
        Interrupts {
            msix: self.shape.msix,
            intx: self.shape.intx,
            calls: self.shape.calls,
        }
    }

    fn enable_vectors(&self, count: u16) -> Result<()> {
        assert!(count <= self.shape.msix);
        let mut state = self.state();
        state.vectors.clear();
        if count > self.shape.granted {
            return Err(Error::Busy { what: "vectors" });
        }
        state.vectors.resize(usize::from(count), Call::None);
        Ok(())
    }

    fn set_vector(&self, vector: u16, call: Call) -> Result<()> {
        self.check_call(&call);
        if one_of(&self.hooks.fail_vectors) {
            return Err(Error::Busy { what: "a vector" });
        }
        let around = self.hooks.around_set.lock().unwrap().take();
        let after = around.map(|before| before());
        let mut state = self.state();
        let slot = state.vectors.get_mut(usize::from(vector));
        let old = std::mem::replace(slot.expect("a vector that is enabled"), call);
        drop(state);
        drop(self.raising(vector).write());
        drop(old);
        if let Some(after) = after {
            after();
        }
        Ok(())
    }

    fn set_intx(&self, call: Call) -> Result<()> {
        self.check_call(&call);
        assert!(self.shape.intx, "there is no line");
        let mut state = self.state();
        assert!(state.vectors.is_empty(), "MSI-X is on");
        state.line_masked = false;
        let old = std::mem::replace(&mut state.line, call);
        drop(state);
        drop(self.raising(0xffff).write());
        drop(old);
        Ok(())
    }

    fn unmask_intx(&self) -> Result<()> {
        let mut state = self.state();
        state.line_masked = false;
        // The line is a level: what came meanwhile raises it again.
        let again = match state.isr {
            0 => Call::None,
            _ => state.call(0xffff),
        };
        drop(state);
        again.raise();
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        if !self.shape.whole_reset {
            return Err(Error::Busy { what: "no reset" });
        }
        let mut state = self.state();
        state.stuck = false;
        state.reset(&self.shape);
        Ok(())
    }

    fn dma_limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
            granule: 4096,
            max_entries: None,
            reach: vdpa_core::Reach::Platform,
        }
    }

    fn dma_map(&self, m: &Mapping) -> Result<()> {
        self.state().mapped.push(m.iova);
        Ok(())
    }

    fn dma_unmap(&self, m: &Mapping) -> Result<()> {
        self.state().mapped.retain(|&range| range != m.iova);
        Ok(())
    }

    fn watch(&self, events: Arc<dyn EventSink>) -> Result<()> {
        self.state().sink = Some(events);
        Ok(())
    }
}

impl Card {
    fn check_call(&self, call: &Call) {
        let closure = matches!(call, Call::Fn(_));
        assert!(
            !closure || self.shape.calls == CallKind::Any,
            "a closure for an access that makes eventfds"
        );
    }
}

/// What was reported.
#[derive(Default)]
pub struct Sink(Mutex<Vec<Event>>);

impl Sink {
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub fn count(&self, event: &Event) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|e| *e == event)
            .count()
    }
}

impl EventSink for Sink {
    fn raise(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A host with this sink.
pub fn host(sink: &Arc<Sink>) -> Host {
    Host {
        events: Arc::clone(sink) as _,
        spaces: Arc::from([AddressSpace::new()]),
        relay: Relay::new(),
    }
}

/// A call that counts.
pub fn counting() -> (Arc<std::sync::atomic::AtomicU32>, Call) {
    let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let call = Call::from_fn({
        let count = Arc::clone(&count);
        move || {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (count, call)
}
