//! Runs `vdpactl serve` and reads its events; and a front end that nobody here wrote, which drives a disk by it.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    unsafe_code,
    reason = "the stranger takes addresses of buffers, and shares them with another process"
)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkQueue, VirtioBlkReqBuf, VirtioBlkTransport,
    VirtioFeatureFlags,
};
use vm_memory::{FileOffset, MmapRegion};

use crate::vdpactl::command;

/// How long anything may take that is to happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, as a script has it.
pub(crate) struct Served {
    child: Child,
    lines: Receiver<String>,
}

impl Served {
    /// `vdpactl serve --json` and these.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = command(["serve", "--json"]);
        command.args(args);
        Self::of(command)
    }

    /// A command line that leads to it.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut all = out.lines().map_while(Result::ok);
            all.all(|line| sender.send(line).is_ok());
        });
        Self { child, lines }
    }

    /// The next line, which is to be this event.
    #[track_caller]
    pub(crate) fn expect(&self, event: &str) -> Map<String, Value> {
        let object = self.next(event);
        assert_eq!(object["event"], event, "{object:?}");
        object
    }

    /// The next line, which is to be one of these; and whether it is the second.
    #[track_caller]
    pub(crate) fn either(&self, one: &str, other: &str) -> (Map<String, Value>, bool) {
        let object = self.next(one);
        let is_other = object["event"] == other;
        assert!(is_other || object["event"] == one, "{object:?}");
        (object, is_other)
    }

    #[track_caller]
    fn next(&self, event: &str) -> Map<String, Value> {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|e| panic!("{event} is not told: {e}"));
        let mut object: Map<String, Value> = serde_json::from_str(&line).unwrap();
        assert_eq!(object.remove("schema"), Some(Value::from(1)), "{line}");
        object
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Its exit code, after all lines. `None`: a signal ended it.
    pub(crate) fn ended(mut self) -> Option<i32> {
        // There is nothing more to be told.
        if let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            panic!("one event more: {line}");
        }
        self.child.wait().unwrap().code()
    }

    /// Ends it well, with one last event for each of `devices` devices.
    pub(crate) fn stop(self, devices: usize) {
        self.signal(Signal::SIGTERM);
        for _ in 0..devices {
            let stopped = self.expect("stopped");
            assert_eq!(
                (&stopped["by"], &stopped["why"]),
                (&"signal".into(), &Value::Null)
            );
        }
        assert_eq!(self.ended(), Some(0));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After a failure; else it has ended.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A file of memory that another process may map, and what is mapped of it here.
pub(crate) struct Shared {
    pub(crate) file: File,
    pub(crate) region: MmapRegion,
}

impl Shared {
    pub(crate) fn new(bytes: usize) -> Self {
        let file: File = memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap().into();
        file.set_len(bytes as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let region = MmapRegion::from_file(offset, bytes).unwrap();
        Self { file, region }
    }

    pub(crate) fn address(&self) -> u64 {
        self.region.as_ptr() as u64
    }
}

/// A disk behind a socket, driven by the `virtio-driver` crate.
pub(crate) struct Disk {
    queue: VirtioBlkQueue<'static, ()>,
    transport: Box<VirtioBlkTransport>,
    buffer: Shared,
}

const SECTOR: usize = 512;

impl Disk {
    /// Connects, and sets one queue up.
    pub(crate) fn attach(path: &Path, packed: bool) -> Self {
        let mut features = VirtioFeatureFlags::VERSION_1;
        features.set(VirtioFeatureFlags::RING_PACKED, packed);
        let driver = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(
            path.to_str().unwrap(),
            features.bits(),
        );
        let mut transport: Box<VirtioBlkTransport> = Box::new(driver.unwrap());
        let queues = VirtioBlkQueue::setup_queues(&mut *transport, 1, 64);
        let queue = queues.unwrap().remove(0);
        let buffer = Shared::new(4096);
        let (at, len) = (buffer.address() as usize, buffer.region.size());
        transport
            .map_mem_region(at, len, buffer.file.as_raw_fd(), 0)
            .unwrap();
        Self {
            queue,
            transport,
            buffer,
        }
    }

    /// Sectors of 512 bytes that the disk has.
    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.transport.get_config().unwrap().capacity)
    }

    pub(crate) fn write(&mut self, sector: u64, bytes: &[u8; SECTOR]) {
        let at = self.buffer.region.as_ptr();
        // SAFETY: the buffer is 4096 bytes long and nobody's until it is given to the device.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), SECTOR) };
        let first = sector * SECTOR as u64;
        // SAFETY: the buffer lives as long as the queue, and is left alone until the request is complete.
        unsafe { self.queue.write_raw(first, at, SECTOR, ()) }.unwrap();
        self.complete();
    }

    pub(crate) fn read(&mut self, sector: u64) -> [u8; SECTOR] {
        let at = self.buffer.region.as_ptr();
        let first = sector * SECTOR as u64;
        // SAFETY: as above.
        unsafe { self.queue.read_raw(first, at, SECTOR, ()) }.unwrap();
        self.complete();
        let mut bytes = [0; SECTOR];
        // SAFETY: the request is complete, so the buffer is nobody's again.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(at, SECTOR) };
        bytes
    }

    /// Asks for a sector into a buffer whose file is cut short meanwhile. Nobody waits for it.
    pub(crate) fn read_into_nothing(&mut self) {
        self.buffer.file.set_len(0).unwrap();
        let at = self.buffer.region.as_ptr();
        // SAFETY: as above, but that there is nothing at the address any more, which nobody here looks at.
        unsafe { self.queue.read_raw(0, at, SECTOR, ()) }.unwrap();
        self.kick();
    }

    fn kick(&self) {
        self.transport.get_submission_notifier(0).notify().unwrap();
    }

    /// Kicks, and waits for the call.
    fn complete(&mut self) {
        self.kick();
        let call = self.transport.get_completion_fd(0);
        loop {
            if let Some(done) = self.queue.completions().next() {
                assert_eq!(done.ret, 0);
                return;
            }
            let mut called = [PollFd::new(call.as_fd(), PollFlags::POLLIN)];
            let patience = u16::try_from(PATIENCE.as_millis()).unwrap();
            assert_eq!(poll(&mut called, patience), Ok(1), "no call");
            call.read().unwrap();
        }
    }
}
