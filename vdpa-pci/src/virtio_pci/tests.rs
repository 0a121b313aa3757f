//! Accesses that fail: what no function shows, so that a mock has to.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::{CallKind, DmaLimits, Doorbell, Error, ErrorKind, Event, EventSink, Host, Relay};
use vdpa_mem::{AddressSpace, Iova};

use super::*;
use crate::access::{Interrupts, MockPciAccess};

const BAR: u8 = 0;

/// What fails: which access, counted from 0, and how.
#[derive(Clone, Copy)]
enum Fails {
    Never,
    Register(u32, fn() -> Error),
    Config(u32, fn() -> Error),
}

fn io_error() -> Error {
    Error::Io {
        what: "access the function",
        source: io::Error::other("on purpose"),
    }
}

fn gone() -> Error {
    Error::Gone
}

/// A mock over plain memory: registers keep what is written, and the features are there.
fn mock(fails: Fails) -> MockPciAccess {
    let mut access = MockPciAccess::new();
    access.expect_name().return_const("mock".to_owned());
    access.expect_config_len().return_const(256_u16);
    let space = space();
    let configs = AtomicU32::new(0);
    access.expect_read_config().returning(move |at, width| {
        let number = configs.fetch_add(1, Ordering::Relaxed);
        match fails {
            Fails::Config(at, error) if number >= at => return Err(error()),
            _ => {}
        }
        let mut bytes = [0; 4];
        let len = usize::from(width.bytes());
        bytes[..len].copy_from_slice(&space[usize::from(at)..usize::from(at) + len]);
        Ok(u32::from_le_bytes(bytes))
    });
    let lengths = |bar| if bar == BAR { 0x1000 } else { 0 };
    access.expect_bar_len().returning(lengths);

    let memory = Arc::new(Mutex::new(vec![0_u8; 0x1000]));
    memory.lock().unwrap()[18] = 2;
    let count = Arc::new(AtomicU32::new(0));
    let fail = move |count: &AtomicU32| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        match fails {
            Fails::Register(at, error) if number >= at => Err(error()),
            _ => Ok(()),
        }
    };
    let (reads, counted) = (Arc::clone(&memory), Arc::clone(&count));
    access.expect_read().returning(move |_, at, width| {
        fail(&counted)?;
        let memory = reads.lock().unwrap();
        let at = usize::try_from(at).unwrap();
        Ok(match at {
            // VERSION_1 is bit 0 of window 1.
            4 => u32::from(memory[0] == 1),
            24 => 64,
            _ => {
                let mut bytes = [0; 4];
                let len = usize::from(width.bytes());
                bytes[..len].copy_from_slice(&memory[at..at + len]);
                u32::from_le_bytes(bytes)
            }
        })
    });
    access.expect_write().returning(move |_, at, width, value| {
        fail(&count)?;
        let at = usize::try_from(at).unwrap();
        let len = usize::from(width.bytes());
        memory.lock().unwrap()[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(())
    });
    access.expect_interrupts().return_const(Interrupts {
        msix: 4,
        intx: false,
        calls: CallKind::Any,
    });
    access.expect_rings_by_call().return_const(true);
    access.expect_revoke_doorbells().return_const(());
    access.expect_dma_limits().returning(|| DmaLimits {
        ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
        granule: 4096,
        max_entries: None,
        reach: vdpa_core::Reach::Platform,
    });
    access.expect_reset().returning(|| Err(io_error()));
    access
}

/// The configuration space of a network device with its structures in BAR 0.
fn space() -> Vec<u8> {
    let mut space = vec![0; 256];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xf4, 0x1a, 0x41, 0x10, 6, 0, 0x10, 0]);
    put(0x34, &[0x40]);
    put(
        0x40,
        &[9, 0x60, 16, 1, BAR, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0],
    );
    put(0x60, &[9, 0, 20, 2, BAR, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0]);
    space
}

/// Fine in all but what a test takes away.
fn fine(access: &mut MockPciAccess) {
    access.expect_watch().returning(|_| Ok(()));
    access.expect_enable_vectors().returning(|_| Ok(()));
    access.expect_set_vector().returning(|_, _| Ok(()));
    access
        .expect_doorbell()
        .returning(|_, _, _, _| Ok(Doorbell::NONE));
}

#[derive(Default)]
struct Sink(Mutex<Vec<Event>>);

impl EventSink for Sink {
    fn raise(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

fn host(sink: &Arc<Sink>) -> Host {
    Host {
        events: Arc::clone(sink) as _,
        spaces: Arc::from([AddressSpace::new()]),
        relay: Relay::new(),
    }
}

/// Everything up to two queues that run.
fn run(access: MockPciAccess, sink: &Arc<Sink>) -> Result<VirtioPci> {
    let device = VirtioPci::open(Arc::new(access))?;
    device.attach(host(sink))?;
    device.begin_reset()?;
    device.status()?;
    device.accept(bits::VERSION_1.mask())?;
    device.add_status(Status::DRIVER | Status::FEATURES_OK)?;
    for number in 0..2 {
        start(&device, number)?;
    }
    device.add_status(Status::DRIVER_OK)?;
    Ok(device)
}

fn start(device: &VirtioPci, number: u16) -> Result<Doorbell> {
    let at = Iova::new(0x1000);
    let config = QueueConfig::new(16, at, at, at);
    device.start_queue(QueueIndex::new(number), &config, Kick::Taken, Call::None)
}

/// Runs with a failure at each access in turn, until there is none. How many there were.
fn each(make: impl Fn(u32) -> Fails, check: impl Fn(&Error, &[Event])) -> u32 {
    for n in 0.. {
        let mut access = mock(make(n));
        fine(&mut access);
        let sink = Arc::new(Sink::default());
        match run(access, &sink) {
            Ok(_) => return n,
            Err(e) => check(&e, &sink.0.lock().unwrap()),
        }
    }
    0
}

#[test]
fn an_access_that_fails_says_so_itself_and_the_function_is_not_gone() {
    let check = |error: &Error, events: &[Event]| {
        assert!(
            matches!(
                error,
                Error::Io {
                    what: "access the function",
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(events, []);
    };
    let registers = each(|n| Fails::Register(n, io_error), check);
    let config = each(|n| Fails::Config(n, io_error), check);
    assert!(registers > 50 && config > 10, "{registers} and {config}");
}

#[test]
fn an_access_that_knows_that_the_function_is_gone_is_believed() {
    let check = |error: &Error, events: &[Event]| {
        assert!(matches!(error, Error::Gone), "{error}");
        // Before it is attached nobody can be told.
        assert!(events.is_empty() || events == [Event::Gone], "{events:?}");
    };
    each(|n| Fails::Register(n, gone), check);
    let mut access = mock(Fails::Register(40, gone));
    fine(&mut access);
    let sink = Arc::new(Sink::default());
    assert!(run(access, &sink).is_err());
    assert_eq!(*sink.0.lock().unwrap(), [Event::Gone]);
}

#[test]
fn a_function_that_cannot_be_watched_is_not_attached() {
    let mut access = mock(Fails::Never);
    access.expect_watch().returning(|_| Err(io_error()));
    let device = VirtioPci::open(Arc::new(access)).unwrap();
    let refused = device.attach(host(&Arc::default())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
}

#[test]
fn a_vector_that_cannot_be_set_fails_the_start_before_the_queue_is_enabled() {
    let mut access = mock(Fails::Never);
    access.expect_watch().returning(|_| Ok(()));
    access.expect_enable_vectors().returning(|_| Ok(()));
    access
        .expect_doorbell()
        .returning(|_, _, _, _| Ok(Doorbell::NONE));
    access
        .expect_set_vector()
        .returning(|vector, _| match vector {
            1 => Err(io_error()),
            _ => Ok(()),
        });
    let sink = Arc::default();
    let device = VirtioPci::open(Arc::new(access)).unwrap();
    device.attach(host(&sink)).unwrap();
    device.accept(bits::VERSION_1.mask()).unwrap();
    assert!(matches!(start(&device, 0), Err(Error::Io { .. })));
    let enabled = device.registers.common(common::QUEUE_ENABLE).unwrap();
    assert_eq!(enabled, 0);
    // A reset goes on, though the vector cannot be cleared either.
    device.begin_reset().unwrap();
    assert!(device.status().unwrap().is_empty());
    start(&device, 1).unwrap();
}

#[test]
fn a_function_whose_doorbells_are_system_calls_says_so() {
    let device = VirtioPci::open(Arc::new(mock(Fails::Never))).unwrap();
    assert_eq!(device.info().kicks, KickKind::Called);
}

#[test]
fn a_doorbell_that_cannot_be_had_fails_the_start() {
    let mut access = mock(Fails::Never);
    access.expect_watch().returning(|_| Ok(()));
    access.expect_enable_vectors().returning(|_| Ok(()));
    access.expect_set_vector().returning(|_, _| Ok(()));
    access
        .expect_doorbell()
        .returning(|_, _, _, _| Err(io_error()));
    let device = VirtioPci::open(Arc::new(access)).unwrap();
    device.attach(host(&Arc::default())).unwrap();
    assert!(matches!(start(&device, 0), Err(Error::Io { .. })));
}
