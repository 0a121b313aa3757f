//! The `virtio-driver` crate: its `Virtqueue`, split and packed, in one region, device address equal to process
//! address.
//!
//! Its trait for translating addresses answers with a type that it does not export, so nobody else can implement it.
//! The one that answers with the process address belongs to its vhost-user transport: we take it from there, after a
//! handshake with a back end that knows four requests.
#![allow(
    unsafe_code,
    reason = "the peer's queue wants memory shared with a device as a mutable slice"
)]

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixListener;

use vdpa_mem::{DmaMemory as _, Region};
use vdpa_ring::Format;
use virtio_driver::virtqueue::Virtqueue;
use virtio_driver::{
    IovaTranslator, VhostUser, VirtioBlkConfig, VirtioFeatureFlags, VirtioTransport, iovec,
};

use crate::rig::queue::{Place, SLOTS};
use crate::rig::wrong;
use crate::{DATA, Driver, HEADER, REQUESTS, status};

/// What the peer keeps beside its queue for each request.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Request {
    header: [u8; HEADER],
    answer: u8,
}

type Translator = Box<dyn IovaTranslator>;

/// Translators from addresses of this process to themselves, as many as are asked for.
pub(crate) fn translators() -> io::Result<impl Iterator<Item = Translator>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("vhost-user");
    let listener = UnixListener::bind(&path)?;
    let backend = std::thread::spawn(move || greet(&listener));
    let path = path.to_string_lossy();
    let transport = VhostUser::<VirtioBlkConfig, Request>::new(&path, 0)?;
    let greeted = backend
        .join()
        .unwrap_or_else(|_| wrong("the back end panicked"));
    greeted?;
    Ok(std::iter::repeat_with(move || transport.iova_translator()))
}

/// Answers a front end's first questions.
fn greet(listener: &UnixListener) -> io::Result<()> {
    const GET_FEATURES: u32 = 1;
    const GET_PROTOCOL_FEATURES: u32 = 15;
    const GET_MAX_MEM_SLOTS: u32 = 36;

    let (mut socket, _) = listener.accept()?;
    loop {
        let mut header = [0; 12];
        socket.read_exact(&mut header)?;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let mut payload = vec![0; word(8) as usize];
        socket.read_exact(&mut payload)?;
        let request = word(0);
        let answer: u64 = match request {
            // PROTOCOL_FEATURES.
            GET_FEATURES => 1 << 30,
            // REPLY_ACK, CONFIG, CONFIGURE_MEM_SLOTS.
            GET_PROTOCOL_FEATURES => 1 << 3 | 1 << 9 | 1 << 15,
            GET_MAX_MEM_SLOTS => 8,
            _ => continue,
        };
        // Version 1, a reply, eight bytes.
        let mut reply = [request, 1 | 1 << 2, 8].map(u32::to_le_bytes).concat();
        reply.extend(answer.to_le_bytes());
        socket.write_all(&reply)?;
        if request == GET_MAX_MEM_SLOTS {
            return Ok(());
        }
    }
}

/// The peer.
pub(crate) struct Peer {
    queue: Virtqueue<'static, Request>,
    place: Place,
    /// Offset of the data of the requests in the region.
    data: usize,
    region: Region,
}

impl Peer {
    /// A queue with EVENT_IDX, as ours.
    pub(crate) fn new(format: Format, translator: Translator) -> Self {
        let (mut flags, sizes) = (VirtioFeatureFlags::VERSION_1, u32::from(SLOTS));
        flags |= VirtioFeatureFlags::RING_EVENT_IDX;
        let (driver, device) = match format {
            Format::Split => (sizes * 2 + 6, sizes * 8 + 6),
            Format::Packed => (4, 4),
        };
        if format == Format::Packed {
            flags |= VirtioFeatureFlags::RING_PACKED;
        }
        let data = 1 << 20;
        let region = Region::anonymous((data + REQUESTS * DATA) as u64);
        let region = region.unwrap_or_else(|e| wrong(&e.to_string()));
        // SAFETY: the first part of a region that lives as long as the queue, zeroed; the device reaches it in turn
        // with the peer, on this thread, never while the peer runs.
        let memory = unsafe { std::slice::from_raw_parts_mut(region.hva().as_ptr(), data) };
        let queue = Virtqueue::new(translator, memory, SLOTS, flags);
        let queue = queue.unwrap_or_else(|e| wrong(&e.to_string()));
        let place = Place {
            descriptor: (queue.desc_table_ptr() as u64, sizes * 16),
            driver: (queue.driver_area_ptr() as u64, driver),
            device: (queue.device_area_ptr() as u64, device),
        };
        Self {
            queue,
            place,
            data,
            region,
        }
    }
}

impl Driver for Peer {
    fn submit(&mut self, first: u64) {
        for i in 0..REQUESTS {
            // SAFETY: inside the region, behind the queue.
            let data = unsafe { self.region.hva().add(self.data + i * DATA) };
            let added = self.queue.add_request(|request, add| {
                request.header[..8].copy_from_slice(&(first + i as u64).to_le_bytes());
                let part = |base: *const u8, len| iovec {
                    iov_base: base.cast_mut().cast(),
                    iov_len: len,
                };
                add(part(request.header.as_ptr(), HEADER), false)?;
                add(part(data.as_ptr(), DATA), false)?;
                add(part(&raw const request.answer, 1), true)
            });
            added.unwrap_or_else(|e| wrong(&e.to_string()));
        }
        std::hint::black_box(self.queue.avail_notif_needed());
    }

    fn complete(&mut self, first: u64) {
        let mut number = first;
        for done in self.queue.completions() {
            if done.req.answer != status(number) {
                wrong(&format!(
                    "request {number} was answered {}",
                    done.req.answer
                ));
            }
            number += 1;
        }
        if number != first + REQUESTS as u64 {
            wrong(&format!("request {number} did not come back"));
        }
    }

    fn place(&self) -> Place {
        self.place
    }

    fn memory(&self) -> &Region {
        &self.region
    }
}
