//! An image behind a gate: requests wait until it is opened, come back in another order, and are recorded.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use vdpa_core::{Attr, Bell, Device, Relay};
use vdpa_mem::Window;
use vdpa_sim::blk::{Action, Backend, Blk, Engine, Image, Lane, Open, Parcel, Queued, Settings};
use vdpa_sim::{Crew, Options, SimDevice};

/// What came through the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A job went to the image; whether its effect has to be durable when it is done.
    Sent(Action, bool),
    /// A job is done, and this is where its status is to be, if that is watched.
    Done(Action, Option<u8>),
}

/// The gate, from outside.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    /// How many are waited for, to come back in reverse.
    reverse: AtomicUsize,
    notes: Mutex<Vec<Note>>,
    bells: Mutex<Vec<Arc<Bell>>>,
    status: Mutex<Option<(Window, u64)>>,
    waiting: AtomicUsize,
    device: OnceLock<Weak<SimDevice>>,
}

impl Gate {
    /// Makes the disk smaller.
    pub fn shrink(&self, sectors: u64) {
        let device = self.device.get().and_then(Weak::upgrade).unwrap();
        device.set(Attr::Capacity(sectors)).unwrap();
    }

    /// Takes the device away from its user.
    pub fn remove(&self) {
        let device = self.device.get().and_then(Weak::upgrade).unwrap();
        device.remove();
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        for bell in self.bells.lock().unwrap().iter() {
            bell.ring();
        }
    }

    /// The next `count` come back in reverse, once all of them are done.
    pub fn reverse(&self, count: usize) {
        self.reverse.store(count, Ordering::SeqCst);
    }

    /// Watches a status byte.
    pub fn watch(&self, window: Window, at: u64) {
        *self.status.lock().unwrap() = Some((window, at));
    }

    pub fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }

    /// How many jobs wait before it.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn note(&self, note: Note) {
        self.notes.lock().unwrap().push(note);
    }

    fn status(&self) -> Option<u8> {
        let watched = self.status.lock().unwrap();
        let (window, at) = watched.as_ref()?;
        let mut status = [0];
        window.bytes().read(*at as usize, &mut status);
        Some(status[0])
    }
}

struct Gated(Image, Arc<Gate>);

impl Backend for Gated {
    fn lane(&self, depth: usize, bell: &Arc<Bell>) -> Lane {
        self.1.bells.lock().unwrap().push(bell.clone());
        match self.0.lane(depth, bell) {
            Lane::Queued(inner) => Lane::Queued(Box::new(GateLane {
                inner,
                gate: self.1.clone(),
                waiting: Vec::new(),
                arrived: Vec::new(),
            })),
            Lane::Inline(_) => panic!("a file is never served on a worker"),
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.0.resize(bytes)
    }
}

struct GateLane {
    inner: Box<dyn Queued>,
    gate: Arc<Gate>,
    waiting: Vec<Parcel>,
    arrived: Vec<Parcel>,
}

impl GateLane {
    fn pass(&mut self) {
        if self.gate.closed.load(Ordering::SeqCst) {
            return;
        }
        for job in self.waiting.drain(..) {
            self.gate.waiting.fetch_sub(1, Ordering::SeqCst);
            self.gate.note(Note::Sent(job.action(), job.is_stable()));
            self.inner.submit(job);
        }
    }
}

impl Queued for GateLane {
    fn submit(&mut self, job: Parcel) {
        self.gate.waiting.fetch_add(1, Ordering::SeqCst);
        self.waiting.push(job);
    }

    fn begin(&mut self) {
        self.pass();
        self.inner.begin();
    }

    fn poll(&mut self, done: &mut Vec<Parcel>, room: usize) {
        self.pass();
        self.inner.poll(&mut self.arrived, room);
        let count = self.gate.reverse.load(Ordering::SeqCst);
        if self.arrived.len() < count {
            return;
        }
        if count != 0 {
            self.arrived.reverse();
            self.gate.reverse.store(0, Ordering::SeqCst);
        }
        for job in self.arrived.drain(..) {
            self.gate.note(Note::Done(job.action(), self.gate.status()));
            done.push(job);
        }
    }

    fn is_waiting(&mut self) -> bool {
        self.inner.is_waiting()
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.inner.sources()
    }
}

/// A device on the image at `path`, behind a gate that is open.
pub fn open(path: &Path, engine: Engine) -> (Device, Arc<Gate>) {
    open_in(path, engine, &Crew::new("gated", 2))
}

/// The same, served by a crew.
pub fn open_in(path: &Path, engine: Engine, crew: &Arc<Crew>) -> (Device, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let image = Image::open(
        path,
        Open {
            read_only: false,
            lock: true,
            unit: 512,
            engine,
            threads: 2,
        },
    )
    .unwrap();
    let settings = Settings {
        capacity: image.bytes() >> 9,
        queues: 2,
        queue_size: 256,
        blk_size: 512,
        id: [0; 20],
        features: Settings::possible(false),
    };
    let blk = Blk::new(settings, Box::new(Gated(image, gate.clone())));
    let options = Options::default();
    let device = SimDevice::in_crew("gated", Box::new(blk), options, crew.clone());
    let device = Arc::new(device);
    let _first = gate.device.set(Arc::downgrade(&device));
    (Device::new(device, Relay::default()).unwrap(), gate)
}
