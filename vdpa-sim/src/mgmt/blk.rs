//! `sim:blk`: a disk from a device string.

use std::path::PathBuf;

use vdpa_core::spec::{Keys, Value};
use vdpa_core::{DeviceType, Key, MgmtClass, Result};

use super::{CREW, PAGE_REQUESTS, POLL_US, SimMgmt, key, pci, pf};
use crate::blk::{
    Backend, Blk, Engine, ID_BYTES, Image, MAX_BYTES, MAX_QUEUES, Memory, Open, POSSIBLE, Settings,
};
use crate::class::Class;
use crate::error::SimError;

/// What is made here.
pub(super) const CLASS: MgmtClass = MgmtClass {
    what: "blk",
    device_type: DeviceType::Block,
    features: POSSIBLE,
    max_queues: MAX_QUEUES,
    keys: KEYS,
};

/// A thread for each queue.
pub(super) const MAX_WORKERS: u16 = MAX_QUEUES;

const KEYS: &[Key] = &[
    key(
        "size",
        "512 to 16T",
        "bytes of a disk in memory, a multiple of blk_size; default 64M",
    ),
    key("file", "PATH", "the image that is the disk; default memory"),
    key("ro", "on or off", "only for reading; default off"),
    key(
        "lock",
        "on or off",
        "off: another device may have the image at the same time; default on",
    ),
    key("queues", "1 to 128", "request queues; default 1"),
    key(
        "queue_size",
        "1 to 32768",
        "largest queue size; default 256",
    ),
    key(
        "blk_size",
        "512 to 65536",
        "block size in bytes, a power of two; default 512",
    ),
    key(
        "serial",
        "1 to 20 characters",
        "what GET_ID answers; default one of the device's own",
    ),
    key(
        "features",
        "A+B or +A-B",
        "what is offered; default everything that fits ro",
    ),
    key(
        "io",
        "auto, uring, threads",
        "how requests get to the file; default auto",
    ),
    key(
        "io_threads",
        "1 to 64",
        "threads for the file where there is no io_uring; default 4",
    ),
    key("workers", "1 to 128", "threads; default 1"),
    POLL_US,
    PAGE_REQUESTS,
    pci::AS,
    pci::LAYOUT,
    pci::VECTORS,
    pci::MULTIPLIER,
    pci::NOTIFY_DATA,
    pci::DMA_ENTRIES,
    pf::VFS,
    pf::OF,
    pf::NUMBER,
    CREW,
];

const ENGINES: &[(&str, Engine)] = &[
    ("auto", Engine::Auto),
    ("uring", Engine::Uring),
    ("threads", Engine::Threads),
];

/// Makes the disk that the keys describe; `number` is nobody else's.
pub(super) fn make(_: &SimMgmt, mut keys: Keys<'_>, number: u32) -> Result<Box<dyn Class>> {
    let read_only = keys.take::<bool>("ro")?.unwrap_or(false);
    let possible = Settings::possible(read_only);
    let blk_size = keys.take_with("blk_size", |value| {
        let size = value.integer(512..=65536_u32)?;
        let legal = size.is_power_of_two().then_some(size);
        legal.ok_or_else(|| value.malformed("a power of two from 512 to 65536"))
    })?;
    let blk_size = blk_size.unwrap_or(512);
    let file = keys.take::<PathBuf>("file")?;
    let settings = Settings {
        capacity: 0,
        queues: keys.take_in("queues", 1..=MAX_QUEUES)?.unwrap_or(1),
        queue_size: keys.take_in("queue_size", 1..=32768_u16)?.unwrap_or(256),
        blk_size,
        id: keys
            .take_with("serial", serial)?
            .unwrap_or_else(|| own_serial(number)),
        features: keys
            .take_features("features", DeviceType::Block, possible, possible)?
            .unwrap_or(possible),
    };
    let Some(path) = file else {
        let size = keys.take_with("size", |value| {
            let size = value.size(blk_size.into()..=MAX_BYTES)?;
            let legal = size.is_multiple_of(blk_size.into()).then_some(size);
            legal.ok_or_else(|| value.malformed(format!("a multiple of {blk_size}")))
        })?;
        super::finish(keys, KEYS)?;
        let bytes = size.unwrap_or(64 << 20);
        let memory = Memory::new(bytes).map_err(|source| SimError::Disk { bytes, source })?;
        return Ok(disk(settings, bytes, Box::new(memory)));
    };
    let open = Open {
        read_only,
        lock: keys.take("lock")?.unwrap_or(true),
        unit: blk_size,
        engine: keys.take_one_of("io", ENGINES)?.unwrap_or_default(),
        threads: keys.take_in("io_threads", 1..=64_usize)?.unwrap_or(4),
    };
    // All that can be wrong with the string, before a file is opened.
    super::finish(keys, KEYS)?;
    let image = Image::open(&path, open).map_err(SimError::from)?;
    let bytes = image.bytes();
    Ok(disk(settings, bytes, Box::new(image)))
}

fn disk(settings: Settings, bytes: u64, backend: Box<dyn Backend>) -> Box<dyn Class> {
    let settings = Settings {
        capacity: bytes >> 9,
        ..settings
    };
    Box::new(Blk::new(settings, backend))
}

/// Reads an identity.
fn serial(value: &Value<'_>) -> Result<[u8; ID_BYTES], vdpa_core::SpecError> {
    let text = value.text().as_bytes();
    let printable = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    padded(text)
        .filter(|_| printable)
        .ok_or_else(|| value.malformed(format!("1 to {ID_BYTES} printable characters")))
}

/// An identity for a disk that was given none.
fn own_serial(number: u32) -> [u8; ID_BYTES] {
    padded(format!("sim-blk-{number}").as_bytes()).unwrap_or_default()
}

/// Fills up with zeroes, if it fits.
fn padded(text: &[u8]) -> Option<[u8; ID_BYTES]> {
    let mut id = [0; ID_BYTES];
    id.get_mut(..text.len())?.copy_from_slice(text);
    Some(id)
}
