//! A back end that nobody here wrote, under the judge: the disk of qemu-storage-daemon.

mod back;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use back::{mirror, soon};
use vdpa_conformance::{Effort, Selection, Target, run};
use vdpa_core::{Event, Session, bits};

/// What it does not keep, each with the reason.
const EXCEPT: &[(u16, &str)] = &[
    (4, "it ends the connection at a broken ring"),
    (5, "it ends the connection at a broken ring"),
    (8, "it ends the connection at a broken ring"),
    (71, "it ends the connection at a broken ring"),
    (72, "it ends the connection at a broken ring"),
    (
        79,
        "it does not return a chain whose last descriptor is indirect",
    ),
    (
        88,
        "it makes one call whenever it is given an eventfd for calls",
    ),
    (187, "it starts with its cache on, whatever was negotiated"),
    (
        199,
        "it ends its identity after the first zero, and leaves the rest of the 20 bytes as they were",
    ),
];

/// The daemon, until dropped.
struct Daemon {
    child: Child,
    home: tempfile::TempDir,
}

impl Daemon {
    /// `None`: it is not installed, which is printed.
    fn start(test: &str) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let (disk, socket) = (home.path().join("disk"), home.path().join("disk.sock"));
        File::create(&disk).unwrap().set_len(16 << 20).unwrap();
        let child = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=disk,filename={}", disk.display()))
            .arg("--export")
            .arg(format!(
                "type=vhost-user-blk,id=export,addr.type=unix,addr.path={},node-name=disk,writable=on,num-queues=2",
                socket.display()
            ))
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!(
                "SKIP {test}: not installed: qemu-storage-daemon (apt-get install qemu-system-common qemu-utils)"
            );
            return None;
        };
        let daemon = Self { child, home };
        let begun = Instant::now();
        while !daemon.socket().exists() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "it does not listen"
            );
            std::thread::yield_now();
        }
        Some(daemon)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.home.path().join("disk.sock")
    }

    fn end(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

fn spec(socket: &Path) -> String {
    format!("vhost-user:{},type=blk", socket.display())
}

#[test]
fn its_disk_keeps_what_a_disk_keeps_but_for_what_is_known() {
    let Some(daemon) = Daemon::start("its_disk_keeps_what_a_disk_keeps_but_for_what_is_known")
    else {
        return;
    };
    let mut target = Target::named(&mirror(), &spec(&daemon.socket())).unwrap();
    for (id, reason) in EXCEPT {
        target = target.except(*id, *reason);
    }
    let report = run(&target, &Selection::all(Effort::Full));
    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn its_death_is_seen_by_who_drives_its_disk() {
    let Some(mut daemon) = Daemon::start("its_death_is_seen_by_who_drives_its_disk") else {
        return;
    };
    let device = mirror().open(&spec(&daemon.socket())).unwrap();
    let events = device.events().unwrap();
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let mut session = session
        .negotiate(bits::VERSION_1.mask())
        .map_err(|(_, e)| e)
        .unwrap();
    let first = vdpa_core::QueueIndex::new(0);
    session.queue(first, Default::default()).unwrap();
    let session = session.run().map_err(|(_, e)| e).unwrap();
    daemon.end();
    assert_eq!(events.wait(soon()).unwrap(), Some(Event::Gone));
    session.close(soon()).map_err(|(_, e)| e).unwrap();
}
