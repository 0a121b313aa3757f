//! A device that is served over a socket, and front ends that may do anything.
//!
//! ```text
//!   attack: a caller connects ─▶ sets all up, or nothing ─▶ does what the row does ─▶ is cut off, leaves, or is served
//!           the next one connects ─▶ sets all up ─▶ exchanges ─▶ leaves                      after each
//!   meanwhile a well-behaved front end exchanges with another device, on the same worker, of another server
//! ```
//! Looked at here and not in the row: who was cut off was told why, once, and sees the connection end; the next front end
//! is served with a device that is reset; no thread panics, the sibling goes on, and nothing is left behind.

mod caller;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tempfile::TempDir;
use vdpa_core::Registry;
use vdpa_export::vhost_user::{EndedBy, Notice, Options, Server, Stop};
use vdpa_ring::Format;
use vdpa_sim::SimMgmt;

use crate::background::{Background, Sibling};
use crate::table::Target;
use crate::until;
use crate::watch::{self, Watch};

pub use caller::{Caller, GUEST, MEMORY, SPARE, SPARE_BYTES, USER, event, file};

/// Exchanges with the sibling that have to follow the attack.
const ROUNDS: u64 = 3;

/// How far a front end has come when it attacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It has connected.
    Fresh,
    /// Protocol features are negotiated, and nothing else.
    Negotiated,
    /// Its queues run.
    Running,
}

/// What has to come of an attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Come {
    /// The front end is cut off, and this is in the reason.
    CutOff(&'static str),
    /// It was served as if nothing were wrong, and leaves.
    Left,
    /// Either of the two.
    Either,
}

/// A server of a device, in a thread.
struct House {
    path: PathBuf,
    said: Arc<Mutex<Vec<String>>>,
    stop: Stop,
    thread: JoinHandle<Option<EndedBy>>,
}

impl House {
    fn new(registry: &Registry, spec: &str, path: PathBuf) -> Self {
        let device = registry
            .open(spec)
            .unwrap_or_else(|why| panic!("{spec}: {why}"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let options = {
            let said = Arc::clone(&said);
            Options::default().observe(move |notice| {
                if matches!(notice, Notice::CutOff { .. } | Notice::Disconnected) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push(notice.to_string());
                }
            })
        };
        let stop = Stop::new().expect("an eventfd");
        let serving = Server::new(device, options)
            .bind(&path)
            .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let thread = {
            let (stop, said) = (stop.clone(), Arc::clone(&said));
            let server = std::thread::Builder::new().name("server".into());
            server.spawn(move || match serving.run(&stop) {
                Ok(ended) => Some(ended.by),
                Err(why) => {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push(format!("the server ended: {why}"));
                    None
                }
            })
        };
        Self {
            path,
            said,
            stop,
            thread: thread.expect("a thread"),
        }
    }

    /// How front ends have ended, so far.
    fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    fn close(self) {
        self.stop.set();
        // A panic of it was counted.
        let ended = self.thread.join().ok().flatten();
        assert_eq!(ended, Some(EndedBy::Stop), "{:?}", self.said);
    }
}

/// A device that is served, and what stands beside it.
pub struct Socket {
    /// The class of the device.
    pub target: Target,
    /// The ring format that front ends choose.
    pub format: Format,
    house: House,
    /// How many front ends have come.
    came: Cell<usize>,
    background: Background,
    sibling: House,
    _sibling_caller: Caller,
    _folder: TempDir,
}

impl Socket {
    /// Everything served, with the exchanges of the sibling under way.
    pub fn new(target: Target, format: Format) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut registry = Registry::new();
        registry.add(Arc::new(SimMgmt::new()));
        let spec = match target.is_net() {
            true => "sim:net,queue_pairs=2,crew=both",
            false => "sim:blk,size=1M,queues=2,crew=both",
        };
        let open = |name: &str| House::new(&registry, spec, folder.path().join(name));
        let (house, sibling) = (open("attacked"), open("sibling"));
        let mut caller = Caller::connect(&sibling.path, target, format);
        let exchange = caller.set_up();
        Self {
            target,
            format,
            house,
            came: Cell::new(0),
            background: Background::start(None, exchange),
            sibling,
            _sibling_caller: caller,
            _folder: folder,
        }
    }

    /// Where the device is served.
    pub fn path(&self) -> &Path {
        &self.house.path
    }

    /// One more front end, which comes to its turn once those before it have left.
    pub fn caller(&self) -> Caller {
        self.came.set(self.came.get() + 1);
        Caller::connect(&self.house.path, self.target, self.format)
    }

    /// A front end that comes so far, and does so.
    ///
    /// # Panics
    /// When something else comes of it.
    pub fn attack(&mut self, stage: Stage, come: Come, act: impl FnOnce(&mut Caller)) {
        self.wait_for_all();
        let mut caller = self.caller();
        match stage {
            Stage::Fresh => {}
            Stage::Negotiated => caller.negotiate(),
            Stage::Running => {
                let mut exchange = caller.set_up();
                or_fail(exchange.once());
            }
        }
        act(&mut caller);
        if let Come::CutOff(_) = come {
            caller.wait_for_the_end();
        }
        drop(caller);
        self.settle(come);
        self.next_is_served();
    }

    /// A front end that connects, does so, and leaves. Nobody looks whether the next one is served.
    ///
    /// # Panics
    /// When something else comes of it.
    pub fn parts(&mut self, come: Come, act: impl FnOnce(&mut Caller)) {
        self.wait_for_all();
        let mut caller = self.caller();
        act(&mut caller);
        caller.wait_for_the_end();
        drop(caller);
        self.settle(come);
    }

    /// Waits until the server has told of every front end that came how it ended.
    fn wait_for_all(&self) -> Vec<String> {
        let mut said = Vec::new();
        let came = self.came.get();
        until("the end of every front end", || {
            said = self.house.said();
            said.len() >= came
        });
        assert_eq!(said.len(), came, "each ends once: {said:?}");
        said
    }

    /// Waits until the last front end has ended, and compares.
    fn settle(&self, come: Come) {
        let said = self.wait_for_all();
        let last = said.last().map_or("", String::as_str);
        let right = match come {
            Come::CutOff(reason) => {
                last.starts_with("front end cut off: ") && last.contains(reason)
            }
            Come::Left => last == "front end left",
            Come::Either => last.starts_with("front end cut off: ") || last == "front end left",
        };
        assert!(right, "{come:?} was to come, and {last:?} did");
    }

    /// A well-behaved front end comes, is served, and leaves.
    pub fn next_is_served(&mut self) {
        self.wait_for_all();
        let mut caller = self.caller();
        let mut exchange = caller.set_up();
        or_fail(exchange.once());
        or_fail(caller.check_memory());
        drop((exchange, caller));
        self.settle(Come::Left);
    }

    fn finish(&mut self) {
        or_fail(self.background.progress(ROUNDS));
        assert!(self.background.done(Sibling::Device) >= ROUNDS);
        self.background.stop();
        or_fail(self.background.check());
    }

    fn close(self) {
        let Self {
            house,
            background,
            sibling,
            _sibling_caller,
            _folder,
            ..
        } = self;
        drop((background, _sibling_caller));
        house.close();
        sibling.close();
    }
}

/// Runs a row against a device that is served.
///
/// # Panics
/// With what is wrong.
pub fn judge(target: Target, format: Format, row: fn(&mut Socket)) {
    let watch = Watch::begin();
    let mut socket = Socket::new(target, format);
    socket.next_is_served();
    row(&mut socket);
    socket.finish();
    or_fail(watch.check_panics());
    or_fail(watch::rest());
    socket.close();
    or_fail(watch.check());
}

fn or_fail(found: Result<(), String>) {
    if let Err(why) = found {
        panic!("{why}");
    }
}
