//! A simulated device behind a socket, served by the project's own end, and what drives it from in front.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vdpa_core::{Attr, Device, Registry};
use vdpa_export::vhost_user::{Ended, Listen, Options, Server, ServerError, Stop};
use vdpa_mem::Deadline;
use vdpa_sim::SimMgmt;
use vdpa_vhost::VhostUserMgmt;

/// Anything ends by then.
pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// A device of the simulator's, served on a thread of its own until dropped.
pub struct Back {
    path: PathBuf,
    sim: Registry,
    name: String,
    stop: Stop,
    thread: Option<JoinHandle<Result<Ended, ServerError>>>,
    _home: tempfile::TempDir,
}

impl Back {
    /// It listens, and front ends come to it.
    pub fn new(spec: &str) -> Self {
        Self::with(spec, Listen::bind, Options::default())
    }

    /// It goes to a front end that listens.
    pub fn client(spec: &str) -> Self {
        Self::with(spec, Listen::connect, Options::default())
    }

    pub fn with(spec: &str, listen: impl Fn(PathBuf) -> Listen, options: Options) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("back.sock");
        let mut sim = Registry::new();
        sim.add(Arc::new(SimMgmt::new()));
        let device = sim.open(spec).unwrap();
        let name = device.info().name.clone();
        let serving = Server::new(device, options).listen(listen(path.clone()));
        let serving = serving.unwrap();
        let stop = Stop::new().unwrap();
        let set = stop.clone();
        Self {
            path,
            sim,
            name,
            stop,
            thread: Some(std::thread::spawn(move || serving.run(&set))),
            _home: home,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A device string for it; `rest` begins with `type=`.
    pub fn spec(&self, rest: &str) -> String {
        format!("vhost-user:{},{rest}", self.path.display())
    }

    /// The device in front.
    pub fn open(&self, rest: &str) -> Device {
        mirror().open(&self.spec(rest)).unwrap()
    }

    /// Changes the device behind.
    pub fn set(&self, attr: Attr) {
        self.sim.dev_set("sim", &self.name, attr).unwrap();
    }

    /// Changes the device behind, for who keeps that longer.
    pub fn setter(&self) -> impl Fn(Attr) -> vdpa_core::Result<()> + Send + Sync + 'static {
        let (sim, name) = (self.sim.clone(), self.name.clone());
        move |attr| sim.dev_set("sim", &name, attr)
    }

    /// Ends it, and with it every connection.
    pub fn end(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join().expect("the server does not panic");
            drop(ended.expect("the server ends well"));
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What opens devices behind sockets, and nothing else.
pub fn mirror() -> Registry {
    let mut registry = Registry::new();
    registry.add(Arc::new(VhostUserMgmt::new()));
    registry
}
