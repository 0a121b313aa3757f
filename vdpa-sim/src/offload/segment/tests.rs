use super::*;
use crate::offload::sample::{
    Dissected, ID, Packet, SEQUENCE, Shape, TCP4, UDP4, dissect, payload,
};
use crate::offload::{TRANSMIT, Validity, check, complete, verify};
use proptest::prelude::*;

fn segments(packet: &Packet) -> Segments<'_> {
    let header = Header::from_bytes(&packet.header);
    let header = check(header, &packet.frame, TRANSMIT).unwrap();
    Segments::new(header, &packet.frame).unwrap()
}

fn all(packet: &Packet, finish: Finish) -> Vec<Vec<u8>> {
    let segments = segments(packet);
    let mut to = vec![0xaa; segments.longest()];
    (0..segments.count())
        .map(|index| {
            let len = segments.write(index, finish, &mut to).unwrap();
            to[..len].to_vec()
        })
        .collect()
}

fn shapes() -> impl Strategy<Value = Shape> {
    (any::<[bool; 7]>(), 0..=2_usize).prop_map(|([v6, udp, a, b, c, d, e], tags)| Shape {
        v6,
        udp,
        tags,
        options: a,
        tcp_options: b,
        cwr: c,
        fin: d,
        psh: e,
    })
}

proptest! {
    /// By etherparse: every length and every checksum of every segment is right, and the payload is all there.
    #[test]
    fn segments_make_up_the_payload_and_every_header_is_right(
        shape in shapes(),
        len in 2..20_000_usize,
        size in 1..3000_u16,
        seed: usize,
    ) {
        let data = payload(seed % 1000, len);
        // No more segments than there may be, and more than one.
        let size = size.max(len.div_ceil(8192) as u16).min((len - 1) as u16);
        let packet = shape.packet(&data, size);
        let parts = all(&packet, Finish::Complete);
        let whole = dissect(&shape.frame(&data));
        prop_assert_eq!(parts.len(), len.div_ceil(size.into()));
        let mut got = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let seen = dissect(part);
            prop_assert_eq!(verify(part), if shape.v6 && shape.options { Validity::None } else { Validity::Valid });
            let (first, last) = (i == 0, i + 1 == parts.len());
            if !shape.udp {
                let sequence = SEQUENCE.wrapping_add(got.len() as u32);
                prop_assert_eq!(seen.sequence, sequence);
                let mut flags = whole.flags;
                if !first { flags &= !0x80; }
                if !last { flags &= !0x09; }
                prop_assert_eq!(seen.flags, flags);
            }
            if !shape.v6 {
                prop_assert_eq!(seen.id, Some(ID.wrapping_add(i as u16)));
            }
            prop_assert!(last || seen.payload.len() == usize::from(size));
            got.extend(seen.payload);
            // What does not differ is as it was.
            prop_assert_eq!(&part[..14 + 4 * shape.tags], &packet.frame[..14 + 4 * shape.tags]);
        }
        prop_assert_eq!(got, data);
    }

    /// A partial checksum, completed as its header says, is the complete one.
    #[test]
    fn partial_segments_complete_to_the_same(
        shape in shapes(),
        len in 2..5_000_usize,
        size in 1..1500_u16,
    ) {
        let size = size.min((len - 1) as u16);
        let packet = shape.packet(&payload(len, len), size);
        let header = segments(&packet).partial();
        let complete_ones = all(&packet, Finish::Complete);
        // One checksum of 65536 is the same before and after.
        let mut unfinished = 0;
        for (mut part, complete_one) in all(&packet, Finish::Partial).into_iter().zip(complete_ones) {
            unfinished += usize::from(part != complete_one);
            prop_assert!(complete(&mut part, header.csum_start, header.csum_offset));
            prop_assert_eq!(part, complete_one);
        }
        prop_assert!(unfinished > 0);
    }

    /// One that is not segmented either.
    #[test]
    fn a_completed_checksum_is_that_of_etherparse(shape in shapes(), len in 0..2_000_usize) {
        let data = payload(len, len);
        let mut packet = shape.partial(&data);
        let header = Header::from_bytes(&packet.header);
        prop_assert!(complete(&mut packet.frame, header.csum_start, header.csum_offset));
        prop_assert_eq!(&packet.frame, &shape.frame(&data));
        let Dissected { payload, .. } = dissect(&packet.frame);
        prop_assert_eq!(payload, data);
    }
}

#[test]
fn the_longest_packets_are_segmented() {
    for (shape, len) in [
        (TCP4, 65_535 - 40),
        (UDP4, 65_535 - 28),
        (
            Shape {
                v6: true,
                tags: 2,
                ..TCP4
            },
            65_535 - 20,
        ),
    ] {
        let data = payload(3, len);
        let packet = shape.packet(&data, 1448);
        assert!(packet.frame.len() <= crate::offload::LONGEST + 8);
        let parts = all(&packet, Finish::Complete);
        let got: Vec<u8> = parts
            .iter()
            .flat_map(|part| dissect(part).payload)
            .collect();
        assert!(got == data);
    }
}

#[test]
fn a_header_that_does_not_describe_the_frame_gives_no_segments() {
    let packet = TCP4.packet(&payload(0, 3000), 1000);
    let good = Header::from_bytes(&packet.header);
    assert!(Segments::new(good, &packet.frame).is_some());
    for bad in [
        Header::NONE,
        Header {
            gso_size: 0,
            ..good
        },
    ] {
        assert!(Segments::new(bad, &packet.frame).is_none());
    }
    for len in 0..packet.frame.len() {
        assert!(Segments::new(good, &packet.frame[..len]).is_none());
    }
    let segments = segments(&packet);
    let mut short = vec![0; segments.longest() - 1];
    assert_eq!(segments.write(0, Finish::Complete, &mut short), None);
    let mut room = vec![0; segments.longest()];
    for index in [3, 4, u32::MAX] {
        assert_eq!(segments.write(index, Finish::Complete, &mut room), None);
    }
}

#[test]
fn what_the_driver_got_wrong_in_the_partial_checksum_stays_wrong() {
    let mut packet = TCP4.packet(&payload(0, 3000), 1000);
    packet.frame[34 + 16] ^= 1;
    for part in all(&packet, Finish::Complete) {
        assert_eq!(verify(&part), Validity::Wrong);
    }
}
