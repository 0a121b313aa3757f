//! A simulated device, served to a front end of the test's.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

pub mod guest;
pub mod less;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdpa_core::{Device, Registry};
use vdpa_export::vhost_user::{Ended, Listen, Options, Server, ServerError, Stop};
use vdpa_sim::SimMgmt;
use vdpa_vhost_user::payload::{MemoryRegion, VringAddr, VringFd, VringFlags, VringState};
use vdpa_vhost_user::{Front, FrontMessage};

use guest::{GPA, Guest, LEN, USER};

/// Anything ends within this.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `done`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// A device of the simulator's.
pub fn open(spec: &str) -> (Device, Arc<SimMgmt>) {
    let (mut devices, sim) = open_all(&[spec]);
    (devices.pop().unwrap(), sim)
}

/// Devices of one simulator, which may share threads.
pub fn open_all(specs: &[&str]) -> (Vec<Device>, Arc<SimMgmt>) {
    let sim = Arc::new(SimMgmt::new());
    let mut registry = Registry::new();
    registry.add(sim.clone());
    let devices = specs.iter().map(|spec| registry.open(spec).unwrap());
    (devices.collect(), sim)
}

/// Says all of a disk's queue; it runs by that.
pub fn set_up(front: &mut Front, guest: &Guest, file: OwnedFd) {
    let region = MemoryRegion {
        guest: GPA,
        size: LEN,
        user: USER,
        offset: 0,
    };
    let state = |num| VringState { index: 0, num };
    let none = || VringFd { index: 0, fd: None };
    let ring = guest.ring();
    for message in [
        FrontMessage::SetFeatures(1 << 32),
        FrontMessage::SetMemTable(vec![(region, file)]),
        FrontMessage::SetVringNum(state(guest::SIZE.into())),
        FrontMessage::SetVringAddr(VringAddr {
            index: 0,
            flags: VringFlags::empty(),
            descriptor: ring.desc_table_addr,
            used: ring.used_ring_addr,
            available: ring.avail_ring_addr,
            log: 0,
        }),
        // It polls, and is polled.
        FrontMessage::SetVringCall(none()),
        FrontMessage::SetVringKick(none()),
    ] {
        front.ask(&message).unwrap();
    }
}

/// A server on a thread of its own.
pub struct Served {
    pub path: PathBuf,
    pub sim: Arc<SimMgmt>,
    pub stop: Stop,
    notices: Mutex<Receiver<String>>,
    thread: Option<JoinHandle<Result<Ended, ServerError>>>,
    _home: tempfile::TempDir,
}

impl Served {
    pub fn new(spec: &str) -> Self {
        Self::with(spec, Options::default())
    }

    pub fn with(spec: &str, options: Options) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("vdpa.sock");
        Self::at(spec, options, Listen::bind(&path), path, home)
    }

    /// * `path`: where front ends find it
    pub fn at(
        spec: &str,
        options: Options,
        listen: Listen,
        path: PathBuf,
        home: tempfile::TempDir,
    ) -> Self {
        let (device, sim) = open(spec);
        Self::of(device, sim, options, listen, path, home)
    }

    /// A device that is there.
    pub fn of(
        device: Device,
        sim: Arc<SimMgmt>,
        options: Options,
        listen: Listen,
        path: PathBuf,
        home: tempfile::TempDir,
    ) -> Self {
        let (tell, notices) = channel();
        let tell = Mutex::new(tell);
        let options = options.observe(move |notice| {
            // Whoever does not listen any more does not care.
            let _gone = tell.lock().unwrap().send(notice.to_string());
        });
        let serving = Server::new(device, options).listen(listen).unwrap();
        let stop = Stop::new().unwrap();
        let set = stop.clone();
        let thread = std::thread::spawn(move || serving.run(&set));
        Self {
            path,
            sim,
            stop,
            notices: Mutex::new(notices),
            thread: Some(thread),
            _home: home,
        }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Waits for the next notice.
    pub fn next(&self) -> String {
        let notices = self.notices.lock().unwrap();
        notices.recv_timeout(SOON).unwrap()
    }

    /// Waits for a notice that says `what`, and gives it.
    pub fn hears(&self, what: &str) -> String {
        let notices = self.notices.lock().unwrap();
        let mut others = Vec::new();
        loop {
            match notices.recv_timeout(SOON) {
                Ok(notice) if notice.contains(what) => return notice,
                Ok(notice) => others.push(notice),
                Err(_) => panic!("no notice says {what:?}; there were {others:?}"),
            }
        }
    }

    /// Ends the server, and says how it ended.
    pub fn end(mut self) -> Result<Ended, ServerError> {
        self.stop.set();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().map(drop).unwrap();
            }
        }
    }
}
