//! Packets as frames on a cable, for whoever knows no offloads.

use std::ops::ControlFlow;

use super::checksum::complete;
use super::header::Header;
use super::segment::{Finish, Segments};
use crate::frames::FrameBatch;

/// Finishes packets: completes checksums, and segments what is to be segmented.
///
/// Holds the buffer in which a frame is finished, which is made with the first one and kept: nothing is allocated for a
/// packet but where it is longer than all before.
#[derive(Default, Debug)]
pub struct Plain {
    scratch: Vec<u8>,
}

impl Plain {
    /// Without a buffer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `each` with every frame of the packets that have not been taken out of `batch`, in order, until it breaks.
    pub fn batch(
        &mut self,
        batch: &FrameBatch,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        batch
            .packets()
            .try_for_each(|(header, frame)| self.packet(header, frame, &mut each))
    }

    /// Calls `each` with every frame of one packet, in order, until it breaks.
    ///
    /// * `header`: trusted. What it is not true of is left out.
    pub fn packet(
        &mut self,
        header: Header,
        frame: &[u8],
        each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if header.is_gso() {
            self.segments(header, frame, each)
        } else if header.needs_csum() {
            match self.room(frame.len()) {
                Some(room) => {
                    room.copy_from_slice(frame);
                    complete(room, header.csum_start, header.csum_offset);
                    each(room)
                }
                None => ControlFlow::Continue(()),
            }
        } else {
            each(frame)
        }
    }

    fn segments(
        &mut self,
        header: Header,
        frame: &[u8],
        each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(segments) = Segments::new(header, frame) else {
            return ControlFlow::Continue(());
        };
        let Some(room) = self.room(segments.longest()) else {
            return ControlFlow::Continue(());
        };
        (0..segments.count()).try_for_each(|index| {
            match segments.write(index, Finish::Complete, room) {
                Some(len) => each(room.get(..len).unwrap_or_default()),
                None => ControlFlow::Continue(()),
            }
        })
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        self.scratch.get_mut(..len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{Validity, verify};

    #[test]
    fn a_batch_is_finished_in_order_and_a_break_ends_it() {
        use crate::offload::sample::{TCP4, UDP4, payload};
        let large = TCP4.packet(&payload(1, 3000), 1000);
        let small = UDP4.partial(&payload(2, 100));
        let mut batch = FrameBatch::new(4000);
        assert!(batch.push_frame(&[7; 60]));
        assert!(batch.push_packet(Header::from_bytes(&large.header), &large.frame));
        assert!(batch.push_packet(Header::from_bytes(&small.header), &small.frame));
        let mut plain = Plain::new();
        let mut seen = Vec::new();
        let all = plain.batch(&batch, |frame| {
            seen.push((frame.len(), verify(frame)));
            ControlFlow::Continue(())
        });
        assert_eq!(all, ControlFlow::Continue(()));
        let valid = Validity::Valid;
        assert_eq!(
            seen,
            [
                (60, Validity::None),
                (1054, valid),
                (1054, valid),
                (1054, valid),
                (142, valid)
            ]
        );
        let mut count = 0;
        let ended = plain.batch(&batch, |_| {
            count += 1;
            if count == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!((ended, count), (ControlFlow::Break(()), 3));
    }

    #[test]
    fn a_packet_that_its_header_is_not_true_of_is_left_out_and_the_next_is_not() {
        use crate::offload::sample::{TCP4, payload};
        let large = TCP4.packet(&payload(1, 3000), 1000);
        let header = Header::from_bytes(&large.header);
        let mut plain = Plain::new();
        let mut count = 0;
        let mut each = |_: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        for len in [0, 13, 40] {
            let short = large.frame.get(..len).unwrap();
            let end = plain.packet(header, short, &mut each);
            assert_eq!(end, ControlFlow::Continue(()));
        }
        let end = plain.packet(header, &large.frame, &mut each);
        assert_eq!((end, count), (ControlFlow::Continue(()), 3));
    }
}
