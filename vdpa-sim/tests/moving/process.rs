//! Processes that serve a device, and what they are told.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use vdpa_core::*;
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping, Region, Window};
use vdpa_ring::record_bytes;

use super::{MEMORY, RECORDS, SERVE, format};
use crate::rig::{BASE, Lab, soon};

pub fn send(to: &mut UnixStream, kind: u8, bytes: &[u8]) {
    to.write_all(&[kind]).unwrap();
    to.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
    to.write_all(bytes).unwrap();
}

pub fn receive(from: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).ok()?;
    let [kind, len @ ..] = head;
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    from.read_exact(&mut bytes).ok()?;
    Some((kind, bytes))
}

/// Takes over a descriptor that this process was started with.
pub fn inherited(number: &str) -> OwnedFd {
    let number = number.parse().unwrap();
    // SAFETY: the process that started this one says which descriptors it left open for it, each once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Serves a device, in a process that was started for it.
pub fn serve() {
    let Ok(given) = std::env::var(SERVE) else {
        return;
    };
    let mut given = given.split(' ');
    let memory = inherited(given.next().unwrap());
    let events: Vec<_> = given.map(inherited).map(Arc::new).collect();
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut socket = UnixStream::from(stdin);

    let memory: Arc<dyn DmaMemory> = Arc::new(Region::shared(memory, 0, MEMORY).unwrap());
    let (_, spec) = receive(&mut socket).unwrap();
    let lab = Lab::new();
    let device = lab.registry.open(str::from_utf8(&spec).unwrap()).unwrap();
    let mapping = Mapping {
        iova: IovaRange::new(Iova::new(BASE), MEMORY).unwrap(),
        memory: memory.clone(),
        offset: 0,
        access: Access::Both,
        dirty: None,
    };
    let dma = device.dma(Asid::new(0)).unwrap();
    dma.map(vec![mapping]).unwrap();
    // A kick and a call each.
    let wire = |q: QueueIndex| {
        let place = usize::from(q.get()) * 2;
        let (kick, call) = (events[place].clone(), events[place + 1].clone());
        (Kick::Given(kick), Call::EventFd(call))
    };
    while let Some((kind, bytes)) = receive(&mut socket) {
        let answer = match kind {
            // A fresh device; with records of what is in flight, one that goes on by them.
            b'f' | b't' => {
                let ready = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
                let (features, queues) = bytes.split_first_chunk::<16>().unwrap();
                let features = Features::from_u128(u128::from_le_bytes(*features));
                device.accept(features).unwrap();
                device.write_status(ready.bits()).unwrap();
                for (of, number) in queues.chunks(26).zip(0_u16..) {
                    let at =
                        |i: usize| u64::from_le_bytes(of[2 + i * 8..][..8].try_into().unwrap());
                    let size = u16::from_le_bytes([of[0], of[1]]);
                    let areas = [at(0), at(1), at(2)].map(Iova::new);
                    let config = QueueConfig::new(size, areas[0], areas[1], areas[2]);
                    let q = QueueIndex::new(number);
                    if kind == b't' {
                        let format = format(features);
                        let len = u64::from(record_bytes(format, size));
                        let record = RECORDS + u64::from(number) * 0x2_0000;
                        let record = Window::new(memory.clone(), record, len).unwrap();
                        device.track_in_flight(q, record).unwrap();
                    }
                    let (kick, call) = wire(q);
                    device.start_queue(q, config, kick, call).unwrap();
                }
                device
                    .write_status((ready | Status::DRIVER_OK).bits())
                    .unwrap();
                Vec::new()
            }
            b'r' => {
                let image = DeviceImage::parse(&bytes).unwrap();
                device.restore(&image, wire).unwrap();
                assert!(device.status().unwrap().contains(Status::DRIVER_OK));
                device.resume().unwrap();
                Vec::new()
            }
            b's' => {
                device.suspend(soon()).unwrap();
                device.save().unwrap().to_bytes()
            }
            other => panic!("{other}"),
        };
        send(&mut socket, b'y', &answer);
    }
    device.close(soon()).map_err(|(_, e)| e).unwrap();
}

/// A process that serves a device.
pub struct Server {
    child: Child,
    socket: UnixStream,
}

impl Server {
    pub fn start(memory: &Region, events: &[EventFd], spec: &str) -> Self {
        // Copies that are not closed when the other process begins.
        let memory = nix::unistd::dup(memory.file().unwrap().0).unwrap();
        let events: Vec<_> = events
            .iter()
            .map(|event| nix::unistd::dup(event.as_fd()).unwrap())
            .collect();
        let numbers: Vec<String> = std::iter::once(&memory)
            .chain(&events)
            .map(|fd| fd.as_raw_fd().to_string())
            .collect();
        let (socket, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--nocapture", "--test-threads=1"])
            .env(SERVE, numbers.join(" "))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, socket };
        send(&mut server.socket, b'o', spec.as_bytes());
        server
    }

    pub fn ask(&mut self, kind: u8, bytes: &[u8]) -> Vec<u8> {
        send(&mut self.socket, kind, bytes);
        let (answer, bytes) = receive(&mut self.socket).expect("the server lives");
        assert_eq!(answer, b'y');
        bytes
    }

    /// Ends it in peace.
    pub fn end(self) {
        let Self { mut child, socket } = self;
        drop(socket);
        assert!(child.wait().unwrap().success());
    }

    /// Ends it wherever it is.
    pub fn kill(self) {
        let Self { mut child, socket } = self;
        child.kill().unwrap();
        child.wait().unwrap();
        drop(socket);
    }
}
