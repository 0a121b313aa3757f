//! Packets, as senders make them, with something wrong now and then.

use vdpa_sim::offload::{Header, Sum, Validity};

use crate::Input;

/// What payloads are cut from.
const PAYLOAD: [u8; 2048] = {
    let mut bytes = [0; 2048];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = (i * 31 + i / 256) as u8;
        i += 1;
    }
    bytes
};

/// A packet, and what its sender says of it.
pub struct Packet {
    /// What is said.
    pub header: Header,
    /// The frame.
    pub frame: Vec<u8>,
    /// It is as it has to be, its partial checksum too.
    pub clean: bool,
    /// What its checksums are worth when it is finished, if it is clean.
    pub worth: Validity,
}

/// The next packet.
pub fn packet(input: &mut Input<'_>) -> Packet {
    let (shape, more) = (input.u8(), input.u8());
    let [v6, udp, long] = [1, 2, 4].map(|bit| shape & bit != 0);
    let tags = [0, 0, 1, 2][usize::from(shape >> 3 & 3)];
    let payload = match (long, input.u8()) {
        (false, len) => usize::from(len),
        (true, len) => usize::from(len) * 5,
    };
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
    for tag in 0..tags {
        let kind: u16 = if shape & 0x20 == 0 { 0x8100 } else { 0x88a8 };
        frame.extend(kind.to_be_bytes());
        frame.extend([0, 5 + tag]);
    }
    frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    let options = if udp { 0 } else { 4 * usize::from(more & 3) };
    let transport = if udp { 8 } else { 20 + options };
    let number = if udp { 17 } else { 6 };
    let network = frame.len();
    let mut pseudo = Sum::default();
    if v6 {
        let extension = if more & 4 != 0 { 8 } else { 0 };
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(((extension + transport + payload) as u16).to_be_bytes());
        frame.extend([if extension != 0 { 60 } else { number }, 64]);
        frame.extend((0..32).map(|i| i as u8));
        if extension != 0 {
            frame.extend([number, 0, 1, 4, 0, 0, 0, 0]);
        }
        pseudo = pseudo.and(Sum::of(&frame[network + 8..network + 40]));
    } else {
        let extension = if more & 4 != 0 { 4 } else { 0 };
        let total = 20 + extension + transport + payload;
        frame.extend([0x45 + (extension / 4) as u8, 0]);
        frame.extend((total as u16).to_be_bytes());
        frame.extend([0, more, 0x40, 0, 64, number, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(std::iter::repeat_n(1, extension));
        let sum = Sum::of(&frame[network..]).checksum();
        frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        pseudo = pseudo.and(Sum::of(&frame[network + 12..network + 20]));
    }
    let start = frame.len();
    let length = (transport + payload) as u16;
    let partial = pseudo.and_word(number.into()).and_word(length).fold();
    frame.extend([0x10, 0, 0x20, 0]);
    if udp {
        frame.extend(length.to_be_bytes());
        frame.extend(partial.to_be_bytes());
    } else {
        frame.extend([0xff, 0xff, 0xff, more, 0, 0, 0, 1]);
        // FIN, PSH, CWR among the flags.
        let flags = 0x10 | more >> 4 & 9 | more & 0x80;
        frame.extend([((5 + options / 4) << 4) as u8, flags, 1, 0]);
        frame.extend(partial.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(std::iter::repeat_n(1, options));
    }
    let seed = usize::from(input.u8());
    frame.extend_from_slice(&PAYLOAD[seed..seed + payload]);

    let kind = match (udp, v6) {
        (true, _) => Header::GSO_UDP_L4,
        (false, false) => Header::GSO_TCPV4,
        (false, true) => Header::GSO_TCPV6,
    };
    let size = input.u8();
    let mut header = Header {
        flags: Header::NEEDS_CSUM,
        gso_type: if size == 0 { Header::GSO_NONE } else { kind },
        hdr_len: (start + transport) as u16,
        gso_size: u16::from(size) * if long { 5 } else { 1 },
        csum_start: start as u16,
        csum_offset: if udp { 6 } else { 16 },
    };
    let bends = input.u8();
    let mut clean = bends == 0;
    if bends & 1 != 0 {
        header.flags = input.u8();
    }
    if bends & 2 != 0 {
        header.gso_type = input.u8();
    }
    if bends & 4 != 0 {
        header.gso_size = input.u16();
        header.hdr_len = input.u16();
    }
    if bends & 8 != 0 {
        header.csum_start = input.u16() & 0x7ff;
        header.csum_offset = input.u16() & 0x7f;
    }
    if bends & 16 != 0 {
        header = Header::from_bytes(&std::array::from_fn(|_| input.u8()));
    }
    for _ in 0..bends >> 5 & 3 {
        // Within the headers more often than not.
        let at = usize::from(input.u8()) % frame.len();
        frame[at] ^= input.u8();
        clean = false;
    }
    if bends & 128 != 0 {
        let cut = usize::from(input.u8());
        frame.truncate(frame.len().saturating_sub(cut));
    }
    clean &= header.gso_size != 0 || header.gso_type == Header::GSO_NONE;
    Packet {
        header,
        frame,
        clean,
        // Behind an extension header no destination is certain.
        worth: match v6 && more & 4 != 0 {
            true => Validity::None,
            false => Validity::Valid,
        },
    }
}
