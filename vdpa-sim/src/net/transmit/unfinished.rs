//! Packets that the driver leaves unfinished: with a partial checksum, to be segmented.

use super::Sending;
use crate::frames::HEADER_BYTES;
use crate::net::count::Tx;
use crate::offload::{Header, Refused, check};

impl Sending<'_> {
    /// Compares the header at the front of a packet with the packet, and leaves there what is true of it.
    ///
    /// The MTU holds for frames, and for the segments that a packet becomes, not for that packet: virtio 1.4 §5.1.4.1.
    ///
    /// # Errors
    /// The packet is to be dropped.
    #[inline(never)]
    pub(super) fn settle(&self, packet: &mut [u8]) -> Result<(), Tx> {
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        let header = check(Header::of(packet), frame, self.features)?;
        let longest = if header.is_gso() {
            usize::from(header.hdr_len).saturating_add(header.gso_size.into())
        } else {
            frame.len()
        };
        if longest > self.settings.plain() && !self.settings.fits_cut(frame, longest) {
            return Err(Tx::OverMtu);
        }
        if header.needs_csum() {
            self.counters.add(Tx::Partial as usize, 1);
        }
        if header.is_gso() {
            self.counters.add(Tx::Gso as usize, 1);
            self.counters.add(Tx::GsoBytes as usize, frame.len() as u64);
        }
        header.put(packet);
        Ok(())
    }
}

impl From<Refused> for Tx {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Checksum => Self::Checksum,
            Refused::Type => Self::GsoType,
            Refused::NoChecksum => Self::GsoChecksum,
            Refused::Size => Self::GsoSize,
            Refused::Frame => Self::GsoFrame,
        }
    }
}
