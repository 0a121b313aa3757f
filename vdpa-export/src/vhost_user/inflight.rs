//! The region in which what is in flight outlives the back end: a [record](vdpa_core::InFlight) for each queue, one after
//! the other.

use std::os::fd::OwnedFd;

use vdpa_core::{Format, Window, record_bytes};
use vdpa_mem::{DmaMemory, Region};
use vdpa_vhost_user::payload::Inflight;

use super::error::MemoryError;

/// Bytes of the records of so many queues.
fn bytes_for(format: Format, asked: &Inflight) -> (u64, u64) {
    let each = u64::from(record_bytes(format, asked.queue_size));
    (each, each.saturating_mul(u64::from(asked.num_queues)))
}

/// Makes a region for the records of fresh queues, and says what it is like.
///
/// * `queues`: how many the device has
pub(super) fn make(
    format: Format,
    asked: &Inflight,
    queues: u16,
) -> Result<(Inflight, OwnedFd), MemoryError> {
    check(asked, queues)?;
    let (_, len) = bytes_for(format, asked);
    let region = Region::memfd(len)?;
    let file = DmaMemory::file(&region).map(|(fd, _)| fd.try_clone_to_owned());
    let fd = match file {
        Some(Ok(fd)) => fd,
        Some(Err(source)) => return Err(MemoryError::File { at: 0, source }),
        None => return Err(MemoryError::NoFile),
    };
    let made = Inflight {
        mmap_size: len,
        mmap_offset: 0,
        ..*asked
    };
    Ok((made, fd))
}

/// The records in a region, by queue.
pub(super) fn records(
    format: Format,
    given: &Inflight,
    fd: OwnedFd,
    queues: u16,
) -> Result<Vec<Window>, MemoryError> {
    check(given, queues)?;
    let (each, needed) = bytes_for(format, given);
    if given.mmap_size < needed {
        return Err(MemoryError::ShortRecords {
            len: given.mmap_size,
            needed,
            queues: given.num_queues,
            size: given.queue_size,
        });
    }
    let (memory, _) = Region::shared(fd, given.mmap_offset, given.mmap_size)?.into_shared();
    let record = |queue: u16| Window::new(memory.clone(), each.saturating_mul(queue.into()), each);
    let records = (0..given.num_queues).map(record);
    Ok(records.collect::<Result<_, _>>()?)
}

fn check(asked: &Inflight, queues: u16) -> Result<(), MemoryError> {
    let legal = (1..=queues).contains(&asked.num_queues) && (1..=32768).contains(&asked.queue_size);
    match legal {
        true => Ok(()),
        false => Err(MemoryError::Records {
            queues: asked.num_queues,
            size: asked.queue_size,
            most: queues,
        }),
    }
}
