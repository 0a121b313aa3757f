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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(num_queues: u16, queue_size: u16) -> Inflight {
        Inflight {
            mmap_size: 0,
            mmap_offset: 0,
            num_queues,
            queue_size,
        }
    }

    #[test]
    fn each_queue_has_a_record_of_its_own_behind_the_one_before() {
        for format in [Format::Split, Format::Packed] {
            let (made, fd) = make(format, &asked(3, 128), 4).unwrap();
            let records = records(format, &made, fd, 4).unwrap();
            let each = usize::try_from(record_bytes(format, 128)).unwrap();
            assert_eq!(records.len(), 3);
            for pair in records.windows(2) {
                assert_eq!(pair[0].bytes().len(), each);
                let apart = pair[1].bytes().hva().get() - pair[0].bytes().hva().get();
                assert_eq!(apart, each as u64);
            }
        }
    }

    #[test]
    fn a_region_that_is_too_small_or_for_too_much_is_refused() {
        for (queues, size) in [(0, 128), (5, 128), (1, 0), (1, 32769)] {
            let refused = make(Format::Split, &asked(queues, size), 4);
            assert!(matches!(refused, Err(MemoryError::Records { .. })));
        }
        let (made, fd) = make(Format::Split, &asked(1, 128), 4).unwrap();
        let more = Inflight {
            num_queues: 2,
            ..made
        };
        let refused = records(Format::Split, &more, fd, 4).err().unwrap();
        assert!(matches!(refused, MemoryError::ShortRecords { .. }));
        // A file that is shorter than it is said to be.
        let (made, fd) = make(Format::Split, &asked(1, 128), 4).unwrap();
        let longer = Inflight {
            mmap_size: 1 << 20,
            ..made
        };
        let refused = records(Format::Split, &longer, fd, 4).err().unwrap();
        assert!(matches!(refused, MemoryError::Memory(_)), "{refused}");
    }
}
