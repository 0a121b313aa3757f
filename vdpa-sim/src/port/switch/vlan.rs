//! VLANs at the ports of a switch (802.1Q): what is let in, who may have it, and with which tag.

pub use super::table::Station;
use crate::frames::{FrameBatch, HEADER_BYTES};
use crate::offload::Header;

/// The type that says that a tag follows.
const TAG: [u8; 2] = [0x81, 0x00];

/// Where a tag stands: behind the two addresses.
const TAG_AT: usize = 12;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 4;

/// The number that no VLAN has.
const RESERVED: u16 = 0xfff;

/// How a device is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// To all VLANs: frames have their tags, and those without one are of VLAN 0.
    Trunk,
    /// To this VLAN, 1 to 4094: frames have no tags. 0 is the VLAN of those that a trunk has without a tag.
    Access(u16),
}

/// A frame that may be passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// The VLAN that it is of; 0 for none.
    pub vlan: u16,
    /// Whether it has a tag.
    pub tagged: bool,
    /// Who sent it.
    pub from: Station,
    /// Whom it is for; `None`: a group.
    pub to: Option<Station>,
}

/// Why a frame is not passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is shorter than its headers.
    Short,
    /// It is of no VLAN of this port.
    Vlan,
    /// Its source cannot be a station.
    Source,
    /// It is for the switch, which does not pass it on: 802.1Q-2022 §8.6.3.
    Reserved,
}

/// What is done to a frame on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rewrite {
    /// Nothing.
    Keep,
    /// A tag of this VLAN is put in.
    Tag(u16),
    /// Its tag is taken out.
    Untag,
}

/// Takes in a frame that comes from a port.
///
/// # Errors
/// [`Refused`]: the frame is not passed on.
#[inline]
pub fn admit(frame: &[u8], at: Membership) -> Result<Admitted, Refused> {
    let addresses = frame.first_chunk::<TAG_AT>().ok_or(Refused::Short)?;
    let kind: [u8; 2] = *frame
        .get(TAG_AT..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(Refused::Short)?;
    let tagged = kind == TAG;
    let vlan = match at {
        Membership::Access(_) if tagged => return Err(Refused::Vlan),
        Membership::Access(vlan) => vlan,
        Membership::Trunk if !tagged => 0,
        Membership::Trunk => {
            let [.., a, b, _, _] = *frame
                .get(TAG_AT..)
                .and_then(<[u8]>::first_chunk::<6>)
                .ok_or(Refused::Short)?;
            match u16::from_be_bytes([a, b]) & 0xfff {
                RESERVED => return Err(Refused::Vlan),
                vlan => vlan,
            }
        }
    };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *addresses;
    let (to, from) = ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]);
    if from == [0; 6] || s0 & 1 != 0 {
        return Err(Refused::Source);
    }
    if [d0, d1, d2, d3, d4] == [0x01, 0x80, 0xc2, 0, 0] && d5 & 0xf0 == 0 {
        return Err(Refused::Reserved);
    }
    Ok(Admitted {
        vlan,
        tagged,
        from: Station::new(vlan, from),
        to: (d0 & 1 == 0).then(|| Station::new(vlan, to)),
    })
}

impl Admitted {
    /// How the frame goes out of a port; `None`: not at all.
    #[inline]
    pub fn leaves(&self, at: Membership) -> Option<Rewrite> {
        match at {
            Membership::Access(vlan) if vlan != self.vlan => None,
            Membership::Access(_) if self.tagged => Some(Rewrite::Untag),
            Membership::Access(_) => Some(Rewrite::Keep),
            // What has no tag and is of a VLAN comes from an access port.
            Membership::Trunk if !self.tagged && self.vlan != 0 => Some(Rewrite::Tag(self.vlan)),
            Membership::Trunk => Some(Rewrite::Keep),
        }
    }
}

/// Copies a packet to the end of a batch. Answers whether there was room.
#[inline]
pub fn copy(header: Header, frame: &[u8], rewrite: Rewrite, to: &mut FrameBatch) -> bool {
    let (tag, skip) = match rewrite {
        Rewrite::Keep => return to.push_packet(header, frame),
        Rewrite::Tag(vlan) => (Some(vlan), 0),
        Rewrite::Untag => (None, TAG_BYTES),
    };
    // Admitted: both are there.
    let addresses = frame.get(..TAG_AT).unwrap_or_default();
    let rest = frame.get(TAG_AT.saturating_add(skip)..).unwrap_or_default();
    let tag = tag.map(|vlan: u16| {
        let ([kind_a, kind_b], [a, b]) = (TAG, vlan.to_be_bytes());
        [kind_a, kind_b, a, b]
    });
    let tag = tag.as_ref().map_or(&[][..], |tag| tag);
    let pieces = [addresses, tag, rest];
    let len = pieces
        .iter()
        .map(|piece| piece.len())
        .fold(HEADER_BYTES, usize::saturating_add);
    let Some(mut room) = to.room(len) else {
        return false;
    };
    moved(header, rewrite).put(room);
    room = room.get_mut(HEADER_BYTES..).unwrap_or_default();
    for piece in pieces {
        let Some((place, behind)) = room.split_at_mut_checked(piece.len()) else {
            break;
        };
        place.copy_from_slice(piece);
        room = behind;
    }
    to.push(len);
    true
}

/// What is true of a frame that grew or shrank in front of its headers.
fn moved(header: Header, rewrite: Rewrite) -> Header {
    let by = match rewrite {
        Rewrite::Keep => 0,
        Rewrite::Tag(_) => 4,
        Rewrite::Untag => -4,
    };
    let mut moved = header;
    if header.needs_csum() {
        moved.csum_start = header.csum_start.saturating_add_signed(by);
    }
    if header.is_gso() {
        moved.hdr_len = header.hdr_len.saturating_add_signed(by);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(vlan: Option<u16>, len: usize) -> Vec<u8> {
        let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
        if let Some(vlan) = vlan {
            frame.extend(TAG);
            frame.extend((0x6000 | vlan).to_be_bytes());
        }
        frame.extend([0x08, 0x00]);
        frame.resize(len, 7);
        frame
    }

    #[test]
    fn a_frame_is_of_the_vlan_of_its_port_or_of_its_tag() {
        let vlan = |frame: &[u8], at| admit(frame, at).map(|admitted| admitted.vlan);
        let (access, trunk) = (Membership::Access(7), Membership::Trunk);
        assert_eq!(vlan(&frame(None, 60), access), Ok(7));
        assert_eq!(vlan(&frame(None, 60), trunk), Ok(0));
        assert_eq!(vlan(&frame(Some(0), 60), trunk), Ok(0));
        assert_eq!(vlan(&frame(Some(4094), 60), trunk), Ok(4094));
        assert_eq!(vlan(&frame(Some(4095), 60), trunk), Err(Refused::Vlan));
        assert_eq!(vlan(&frame(Some(7), 60), access), Err(Refused::Vlan));
    }

    #[test]
    fn what_is_shorter_than_its_headers_is_no_frame() {
        for len in 0..18 {
            let tagged = &frame(Some(7), 60)[..len];
            assert_eq!(admit(tagged, Membership::Trunk), Err(Refused::Short));
        }
        for len in 0..14 {
            let plain = &frame(None, 60)[..len];
            assert_eq!(admit(plain, Membership::Access(1)), Err(Refused::Short));
        }
        assert!(admit(&frame(None, 14), Membership::Access(1)).is_ok());
        assert!(admit(&frame(Some(7), 18), Membership::Trunk).is_ok());
    }

    #[test]
    fn sources_that_are_none_and_addresses_of_the_switch_itself_are_refused() {
        let mut of = frame(None, 60);
        of[6] |= 1;
        assert_eq!(admit(&of, Membership::Trunk), Err(Refused::Source));
        of[6..12].fill(0);
        assert_eq!(admit(&of, Membership::Trunk), Err(Refused::Source));
        let mut to = frame(None, 60);
        to[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0x0e]);
        assert_eq!(admit(&to, Membership::Trunk), Err(Refused::Reserved));
        to[5] = 0x10;
        assert_eq!(admit(&to, Membership::Trunk).unwrap().to, None);
    }

    #[test]
    fn tags_come_and_go_and_what_is_said_of_the_frame_moves_with_them() {
        let header = Header {
            flags: Header::NEEDS_CSUM,
            gso_type: Header::GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1000,
            csum_start: 34,
            csum_offset: 16,
        };
        let plain = frame(None, 60);
        let mut batch = FrameBatch::new(1514);
        assert!(copy(header, &plain, Rewrite::Tag(7), &mut batch));
        let (told, tagged) = batch.packets().next().unwrap();
        assert_eq!(
            (told.csum_start, told.hdr_len, told.gso_size),
            (38, 58, 1000)
        );
        assert_eq!(tagged[..16], [&plain[..12], &[0x81, 0, 0, 7][..]].concat());
        assert_eq!(tagged[16..], plain[12..]);
        let admitted = admit(tagged, Membership::Trunk).unwrap();
        let out = admitted.leaves(Membership::Access(7)).unwrap();
        assert_eq!(out, Rewrite::Untag);
        let mut back = FrameBatch::new(1514);
        assert!(copy(told, tagged, out, &mut back));
        assert_eq!(back.packets().next(), Some((header, plain.as_slice())));
        // What says nothing goes on saying nothing.
        assert_eq!(moved(Header::NONE, Rewrite::Untag), Header::NONE);
    }

    #[test]
    fn nobody_gets_a_frame_of_another_vlan() {
        let all = [None, Some(0), Some(1), Some(4094)];
        let ports = [
            Membership::Trunk,
            Membership::Access(1),
            Membership::Access(4094),
        ];
        for (tag, from) in all.iter().flat_map(|tag| ports.map(|port| (*tag, port))) {
            let Ok(admitted) = admit(&frame(tag, 60), from) else {
                continue;
            };
            for to in ports {
                let out = admitted.leaves(to);
                match to {
                    Membership::Access(vlan) => assert_eq!(out.is_some(), vlan == admitted.vlan),
                    Membership::Trunk => assert!(out.is_some()),
                }
            }
        }
    }
}
