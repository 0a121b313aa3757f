//! Section H: network.

use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_hostile::exchange::{NET_HEADER, frame};
use vdpa_hostile::raw::Piece;
use vdpa_hostile::stage::{Expect, Setup, Stage, UNTOUCHED};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::table::Target;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(91).device_with(|_, _| OFFLOADING, unknown_type),
    code(92).device_with(|_, _| OFFLOADING, segments_of_nothing),
    code(93).device_with(|_, _| OFFLOADING, headers_too_long),
    code(94).device_with(|_, _| OFFLOADING, checksum_out_of_range),
    code(95).device_with(|_, _| Setup::PLAIN.size(16), header_in_pieces),
    code(96).device(buffer_too_small),
    code(97).device(number_of_buffers),
    code(98).device(commands),
    code(99).device(mac_table_overflows),
    code(100).device(pairs_out_of_range),
];

/// With what makes a header mean something.
const OFFLOADING: Setup = Setup::PLAIN.extra(
    Features::NONE
        .with(net::CSUM)
        .with(net::HOST_TSO4)
        .with(net::HOST_TSO6),
);

/// The header of a packet: flags, type, header length, segment size, start of the checksum, offset.
fn header(flags: u8, kind: u8, words: [u16; 4]) -> [u8; NET_HEADER] {
    let mut header = [0; NET_HEADER];
    header[..2].copy_from_slice(&[flags, kind]);
    for (to, word) in header[2..10].chunks_mut(2).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// Sends a packet with this header, whole and in pieces: it comes back and does not arrive, the next one does.
fn goes_nowhere(s: &mut Stage, header: [u8; NET_HEADER]) {
    for cut in [76, 7] {
        let at = s.buffer(60);
        s.put(at, &[&header[..], &frame(9, 64)].concat());
        let pieces = [
            Piece::read(at, cut),
            Piece::read(at + u64::from(cut), 76 - cut),
        ];
        s.send(if cut == 76 { &pieces[..1] } else { &pieces });
        assert_eq!(s.back().len, 0);
        // Its frame would come first, and is another one.
        s.still_works();
    }
}

/// The drops of the queue under attack for this reason, all of them from now on.
fn drops(s: &mut Stage, reason: &str, headers: &[[u8; NET_HEADER]]) {
    let before = s.counter(reason);
    for header in headers {
        goes_nowhere(s, *header);
    }
    assert_eq!(
        s.counter(reason) - before,
        2 * headers.len() as u64,
        "{reason}"
    );
}

fn unknown_type(s: &mut Stage) -> Expect {
    let kinds = [2, 6, 7, 8, 0x10, 0x7f, 0x81, 0xff];
    let all = kinds.map(|kind| header(1, kind, [54, 100, 34, 16]));
    for header in all {
        goes_nowhere(s, header);
    }
    Expect::Served
}

fn segments_of_nothing(s: &mut Stage) -> Expect {
    for kind in [1, 4, 0x81] {
        goes_nowhere(s, header(1, kind, [54, 0, 34, 16]));
    }
    Expect::Served
}

fn headers_too_long(s: &mut Stage) -> Expect {
    for kind in [1, 4] {
        for len in [65, 76, 77, 0xffff] {
            goes_nowhere(s, header(1, kind, [len, 4, 34, 16]));
        }
    }
    // A length that means nothing does no harm.
    let request = s.request();
    s.put(request.readable.0, &header(0, 0, [0xffff, 0, 0, 0]));
    s.send(&request.pieces());
    let back = s.back();
    s.verify(&request, back.len);
    Expect::Served
}

fn checksum_out_of_range(s: &mut Stage) -> Expect {
    // Of 64 bytes the last two begin at 62.
    let all = [
        [0, 0, 64, 0],
        [0, 0, 63, 0],
        [0, 0, 14, 49],
        [0, 0, 0xffff, 0],
        [0, 0, 14, 0xffff],
        [0, 0, 0xffff, 0xffff],
        // A sum that is small, cut to 16 bits.
        [0, 0, 0xfff0, 0x20],
    ];
    drops(
        s,
        "dropped.tx_bad_csum",
        &all.map(|words| header(1, 0, words)),
    );
    Expect::Served
}

fn header_in_pieces(s: &mut Stage) -> Expect {
    for table in [false, true] {
        let request = s.request();
        let pieces = request.cut(13);
        assert_eq!(pieces.len(), 13);
        match table {
            false => s.send(&pieces),
            true => s.send(&[s.table(50, &pieces)]),
        };
        let back = s.back();
        s.verify(&request, back.len);
    }
    Expect::Served
}

fn buffer_too_small(s: &mut Stage) -> Expect {
    for len in 0..NET_HEADER as u32 {
        let at = s.open_buffer(60, NET_HEADER);
        s.send(&[Piece::write(at, len)]);
        assert_eq!(s.back().len, 0, "{len} bytes");
        let parts = [Piece::write(at, len / 2), Piece::write(at, len - len / 2)];
        s.send(&parts);
        assert_eq!(s.back().len, 0, "{len} bytes in two parts");
        s.still_works();
    }
    Expect::Served
}

fn number_of_buffers(s: &mut Stage) -> Expect {
    for number in [0, 1, 2, 0x7fff, 0xffff_u16] {
        let request = s.request();
        if s.target == Target::Tx {
            // The sender's: virtio 1.4 §5.1.9.2 has it 0, and nobody is to see it.
            s.put(request.readable.0 + 10, &number.to_le_bytes());
            s.send(&request.pieces());
            assert_eq!(s.back().len, 0);
            assert_eq!(s.arrival()[10..NET_HEADER], [1, 0]);
            continue;
        }
        // What stands in a buffer already is no number of buffers.
        s.put(request.writable.0 + 10, &number.to_le_bytes());
        s.send(&request.pieces());
        let back = s.back();
        assert_eq!(s.get(request.writable.0 + 10, 2), [1, 0]);
        s.verify(&request, back.len);
    }
    Expect::Served
}

/// Sends a command; the acknowledgement and the used length.
fn command(s: &mut Stage, bytes: &[u8]) -> (u8, u32) {
    let (from, to) = (s.buffer(60), s.open_buffer(70, 1));
    s.put(from, bytes);
    s.put(to, &[UNTOUCHED]);
    let ack = Piece::write(to, 1);
    match bytes.len() {
        0 => s.send(&[ack]),
        len => s.send(&[Piece::read(from, len as u32), ack]),
    };
    let back = s.back();
    (s.get(to, 1)[0], back.len)
}

fn refused(s: &mut Stage, bytes: &[u8]) {
    assert_eq!(command(s, bytes), (1, 1), "{bytes:02x?}");
}

fn commands(s: &mut Stage) -> Expect {
    // Unknown classes and commands.
    for class in [9, 0x7f, 0xff] {
        refused(s, &[class, 0, 0, 0]);
    }
    for what in [0x7f, 0xff] {
        (0..9).for_each(|class| refused(s, &[class, what, 0, 0]));
    }
    // Short ones, down to nothing; long ones.
    for short in [
        &[][..],
        &[0],
        &[0, 0],
        &[1, 1, 2, 0, 0],
        &[2, 0, 1],
        &[4, 0, 2],
        &[1, 0, 1, 0],
    ] {
        refused(s, short);
    }
    for long in [
        &[0, 0, 1, 1][..],
        &[2, 0, 1, 0, 0],
        &[4, 0, 2, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 1, 1],
    ] {
        refused(s, long);
    }
    s.still_works();
    // Longer than any command: all of the buffers, and nearly 4 GiB that is not there.
    let to = s.open_buffer(70, 1);
    for (at, len) in [(s.buffer(0), 64 << 10), (s.buffer(0), u32::MAX - 1)] {
        s.put(to, &[UNTOUCHED]);
        s.send(&[Piece::read(at, len), Piece::write(to, 1)]);
        assert_eq!(s.back().len, 1);
        assert_eq!(s.get(to, 1), [1]);
    }
    // With nowhere to acknowledge it.
    let from = s.buffer(60);
    s.put(from, &[0, 0, 1]);
    s.put(to, &[UNTOUCHED]);
    s.send(&[Piece::read(from, 3), Piece::read(to, 1)]);
    assert_eq!(s.back().len, 0);
    assert_eq!(s.get(to, 1), [UNTOUCHED]);
    s.still_works();
    Expect::Served
}

fn mac_table_overflows(s: &mut Stage) -> Expect {
    let mac = [0x52, 0x54, 0, 0, 0, 1];
    // Times 6 these wrap 32 bits, to 2 and to 0; the others are more than there is.
    for count in [
        0x2aaa_aaab_u32,
        0x8000_0000,
        0x5555_5556,
        u32::MAX,
        2,
        3,
        1000,
    ] {
        let count = count.to_le_bytes();
        let first = [&[1, 0][..], &count, &mac, &[0; 4]].concat();
        refused(s, &first);
        let second = [&[1, 0][..], &[0; 4], &count, &mac].concat();
        refused(s, &second);
        refused(s, &[&[1, 0][..], &count].concat());
    }
    s.still_works();
    Expect::Served
}

fn pairs_out_of_range(s: &mut Stage) -> Expect {
    for pairs in [0, 3, 0x8000, 0xffff_u16] {
        let [low, high] = pairs.to_le_bytes();
        refused(s, &[4, 0, low, high]);
    }
    // The second pair is in use still: the siblings exchange through it.
    assert_eq!(command(s, &[4, 0, 2, 0]), (0, 1));
    Expect::Served
}
