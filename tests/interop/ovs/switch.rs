//! Open vSwitch with DPDK, in a home of its own: a database, a daemon, and one bridge in user space.
//!
//! It belongs to the network namespace that it was started in: the bridge's own port is an interface there. Without huge
//! pages its memory is one memfd, as that of testpmd.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::process::Process;

/// The daemon with DPDK in it, where Debian has it beside the one without.
const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const HOW: &str = "Debian: apt-get install openvswitch-switch-dpdk";

const BRIDGE: &str = "br0";

/// What DPDK in it is told. It would not go without huge pages by itself.
const DPDK: &str =
    "--no-huge --legacy-mem --no-pci -m 512 --iova-mode=va --no-telemetry --file-prefix=ovs";

/// Whether it is installed; prints the skip of the test `name` if not.
pub(crate) fn is_installed(name: &str) -> bool {
    let missing = [DAEMON, SCHEMA]
        .into_iter()
        .find(|path| !Path::new(path).is_file());
    if let Some(path) = missing {
        println!("SKIP {name}: not installed: {path} ({HOW})");
    }
    missing.is_none()
}

/// A bridge, and the processes that make it.
pub(crate) struct Switch {
    home: PathBuf,
    daemon: Process,
    _database: Process,
}

impl Switch {
    /// Starts it without any port.
    #[track_caller]
    pub(crate) fn start(home: &Path) -> Self {
        let database = home.join("conf.db");
        let mut create = program(home, "ovsdb-tool");
        let created = create
            .arg("create")
            .arg(&database)
            .arg(SCHEMA)
            .status()
            .unwrap();
        assert!(created.success(), "{created}");
        let socket = home.join("db.sock");
        let mut serve = program(home, "ovsdb-server");
        serve
            .arg(&database)
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", home.join("db.ctl").display()));
        let served = Process::start(&mut serve);
        // It tries again until the database is there.
        let extra = format!("other_config:dpdk-extra={DPDK}");
        let options = [
            "other_config:dpdk-init=true",
            "other_config:pmd-cpu-mask=0x3",
            &extra,
        ];
        // Nobody is there yet who could do it.
        let words = [
            "--no-wait",
            "--retry",
            "init",
            "--",
            "set",
            "Open_vSwitch",
            ".",
        ];
        configure(home, words.into_iter().chain(options));
        let switch = Self {
            home: home.to_owned(),
            daemon: daemon(home),
            _database: served,
        };
        switch.does(&format!(
            "add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev"
        ));
        switch
    }

    /// Adds a port of this type, with one option, and waits until it is there.
    #[track_caller]
    pub(crate) fn add(&self, port: &str, kind: &str, option: &str) {
        let set = format!("set Interface {port} type={kind} options:{option}");
        self.does(&format!("add-port {BRIDGE} {port} -- {set}"));
        let error = self.does(&format!("get Interface {port} error"));
        assert_eq!(error.trim(), "[]", "{port}: {}", self.daemon.errors());
    }

    /// Kills the daemon as a crash would, and starts it anew: it makes the same ports, as the database has them.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.daemon.signal(Signal::SIGKILL);
        let old = std::mem::replace(&mut self.daemon, daemon(&self.home));
        old.end();
    }

    /// Has the daemon changed, and waits until it is.
    #[track_caller]
    fn does(&self, words: &str) -> String {
        configure(&self.home, words.split(' '))
    }
}

#[track_caller]
fn configure<'a>(home: &Path, words: impl IntoIterator<Item = &'a str>) -> String {
    let database = format!("--db=unix:{}", home.join("db.sock").display());
    let mut command = program(home, "ovs-vsctl");
    let ran = command
        .args(["--timeout=100", &database])
        .args(words)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "{command:?}: {said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    said
}

#[track_caller]
fn daemon(home: &Path) -> Process {
    let control = home.join("daemon.ctl");
    let mut command = program(home, DAEMON);
    command
        .arg(format!("unix:{}", home.join("db.sock").display()))
        .arg(format!("--unixctl={}", control.display()));
    Process::start(&mut command)
}

/// A program of it that leaves the system's own alone.
fn program(home: &Path, name: &str) -> Command {
    let mut command = Command::new(name);
    for place in [
        "OVS_RUNDIR",
        "OVS_LOGDIR",
        "OVS_DBDIR",
        "OVS_SYSCONFDIR",
        "RUNTIME_DIRECTORY",
    ] {
        command.env(place, home);
    }
    command
}
