//! Two devices behind two sockets, joined so that what one is sent the other's driver receives.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::testpmd::{Setup, Testpmd};
use crate::harness::process::Process;

/// Which side makes the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Makes {
    /// The devices' side.
    BackEnd,
    /// The drivers' side.
    FrontEnd,
}

/// The sockets' names in a directory.
pub(crate) fn sockets(home: &Path) -> [PathBuf; 2] {
    ["a", "b"].map(|name| home.join(name))
}

/// Ours: two cards on a wire, served by one process.
pub(crate) struct Served {
    process: Process,
    sockets: Vec<PathBuf>,
}

impl Served {
    /// Two cards on a wire.
    #[track_caller]
    pub(crate) fn wired(home: &Path, pairs: u16, makes: Makes) -> Self {
        let spec = format!("sim:net,queue_pairs={pairs},port=wire:between");
        let specs = sockets(home).map(|path| (spec.clone(), path));
        Self::start(&specs, makes)
    }

    /// Serves devices, each at its socket, and waits until they can be met there.
    #[track_caller]
    pub(crate) fn start(specs: &[(String, PathBuf)], makes: Makes) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdpactl"));
        command.args(["serve", "--json"]);
        command.args(specs.iter().map(|(spec, _)| spec));
        for (_, path) in specs {
            command.arg("--vhost-user").arg(path);
        }
        if makes == Makes::FrontEnd {
            command.arg("--client");
        }
        let mut new = Self {
            process: Process::start(&mut command),
            sockets: specs.iter().map(|(_, path)| path.clone()).collect(),
        };
        if makes == Makes::BackEnd {
            for _ in specs {
                new.event("listening");
            }
        }
        new
    }

    /// Reads on until it tells an event of this name.
    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let is = |line: &str| object(line)["event"] == name;
        object(&self.process.wait_for(is))
    }

    /// Waits until the driver of each device has so many pairs switched on. It switches on those behind the first without
    /// waiting for an answer, and what it sends on one that is not on yet is discarded.
    #[track_caller]
    pub(crate) fn has_on(&mut self, pairs: u16) {
        let mut left = self.sockets.clone();
        while !left.is_empty() {
            let running = self.event("running");
            if running["queues"] == 2 * pairs {
                let path = running["path"].as_str().map(Path::new);
                left.retain(|socket| Some(socket.as_path()) != path);
            }
        }
    }

    /// Kills it as a crash would.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end();
    }

    /// Ends it as a service manager would: it ends well.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.process.signal(Signal::SIGTERM);
        let (status, said) = self.process.end();
        assert!(status.success(), "{status}: {said:#?}");
    }
}

#[track_caller]
fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// DPDK's own: two ports of another testpmd, which passes frames between them.
#[track_caller]
pub(crate) fn net_vhost(home: &Path, pairs: u16) -> Testpmd {
    let sockets = sockets(home);
    let device = |port: usize| {
        let path = sockets[port].display();
        format!("net_vhost{port},iface={path},queues={pairs}")
    };
    let mut testpmd = Testpmd::start(&Setup {
        cores: 2 * usize::from(pairs),
        devices: vec![device(0), device(1)],
        pairs,
        words: Vec::new(),
    });
    testpmd.forward("io");
    testpmd
}
