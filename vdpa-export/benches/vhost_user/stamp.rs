//! What goes over the rings, and how whoever gets it knows that it is right.
//!
//! testpmd's `txonly` sends one UDP packet over and over, but for the third byte of its source address, which counts, and
//! the checksum of its IPv4 header, which goes with it. So the first packet that comes says what all others look like, and
//! that byte which they are: each must be the last one plus one.
//!
//! What we send is such a packet with a number of 64 bits in its payload.

use std::borrow::Cow;

use vdpa::net::Frame;

/// What a packet is compared by, always: its first cache line.
const HEAD: usize = 64;

/// Every so many packets the rest is compared as well.
const SAMPLE: u64 = 16;

/// Where testpmd counts: the source address's third byte, behind an Ethernet header.
const COUNT: usize = 14 + 12 + 2;

/// Where the checksum of the IPv4 header is.
const CHECKSUM: usize = 14 + 10;

/// Where our numbers are: behind Ethernet, IPv4 and UDP headers, aligned.
pub(crate) const NUMBER: std::ops::Range<usize> = 48..56;

/// What has been seen of packets.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    /// All of them.
    pub(crate) packets: u64,
    /// Those that were not what was sent.
    pub(crate) bad: u64,
    /// How many are missing between them.
    pub(crate) missing: u64,
}

/// A frame that is looked at, wherever it is.
pub(crate) trait Looked {
    /// Its length in bytes.
    fn bytes(&self) -> usize;

    /// Its first bytes.
    fn head(&self) -> Option<[u8; HEAD]>;

    /// All of it.
    fn whole(&self) -> Cow<'_, [u8]>;
}

impl Looked for [u8] {
    #[inline]
    fn bytes(&self) -> usize {
        self.len()
    }

    #[inline]
    fn head(&self) -> Option<[u8; HEAD]> {
        self.first_chunk().copied()
    }

    #[inline]
    fn whole(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

impl Looked for Frame<'_> {
    #[inline]
    fn bytes(&self) -> usize {
        self.len()
    }

    #[inline]
    fn head(&self) -> Option<[u8; HEAD]> {
        let mut head = [0; HEAD];
        (self.read(0, &mut head) == HEAD).then_some(head)
    }

    fn whole(&self) -> Cow<'_, [u8]> {
        let mut whole = Vec::new();
        self.copy_to(&mut whole);
        Cow::Owned(whole)
    }
}

/// Looks at what testpmd sends.
#[derive(Default)]
pub(crate) struct Judge {
    model: Vec<u8>,
    head: [u64; HEAD / 8],
    sum: u32,
    last: u8,
    seen: Seen,
}

impl Judge {
    /// Looks at a frame.
    #[inline]
    pub(crate) fn look(&mut self, frame: &(impl Looked + ?Sized)) {
        let Some(head) = &frame.head() else {
            self.seen.packets += 1;
            self.seen.bad += 1;
            return;
        };
        let count = head[COUNT];
        if frame.bytes() != self.model.len() {
            self.begin(&frame.whole(), count);
        }
        let mut differs = 0;
        for ((word, model), at) in head.chunks_exact(8).zip(&self.head).zip(0..) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            differs |= (word ^ model) & mask(at);
        }
        differs |= u64::from(sum(head) != self.sum);
        if self.seen.packets.is_multiple_of(SAMPLE) {
            differs |= u64::from(frame.whole().get(HEAD..) != self.model.get(HEAD..));
        }
        self.seen.packets += 1;
        self.seen.bad += u64::from(differs != 0);
        let missing = count.wrapping_sub(self.last).wrapping_sub(1);
        self.seen.missing += u64::from(missing);
        self.last = count;
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    /// The first of its kind. It has to be such a packet at all.
    #[cold]
    fn begin(&mut self, frame: &[u8], count: u8) {
        let is_udp = frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(23) == Some(&17);
        self.seen.bad += u64::from(!is_udp || !self.model.is_empty());
        self.model = frame.to_vec();
        for (word, model) in frame.chunks_exact(8).zip(&mut self.head) {
            *model = u64::from_le_bytes(word.try_into().unwrap_or_default());
        }
        self.sum = frame.first_chunk().map_or(0, sum);
        self.last = count.wrapping_sub(1);
    }
}

/// All of a word but the byte that counts and the checksum.
const fn mask(word: usize) -> u64 {
    if word == COUNT / 8 {
        !(0xff << (COUNT % 8 * 8) | 0xffff << (CHECKSUM % 8 * 8))
    } else {
        u64::MAX
    }
}

/// What the checksum and the word that counts come to together: the same for all packets whose checksum is right.
#[inline]
fn sum(head: &[u8; HEAD]) -> u32 {
    let word = |at: usize| u32::from(u16::from_be_bytes([head[at], head[at + 1]]));
    (word(CHECKSUM) + word(COUNT)) % 0xffff
}

/// A frame of `len` bytes as testpmd could have made it, with number 0.
pub(crate) fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; len];
    let ip_len = (len as u16).saturating_sub(14).to_be_bytes();
    let udp_len = (len as u16).saturating_sub(34).to_be_bytes();
    let headers = [
        &[0x02, 0, 0, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 1, 8, 0, 0x45, 0][..],
        &ip_len,
        &[0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1],
        &[0, 9, 0, 9],
        &udp_len,
        &[0, 0],
    ];
    for (to, from) in frame.iter_mut().zip(headers.concat()) {
        *to = from;
    }
    stamp(&mut frame, 0);
    frame
}

/// Writes a number into a frame.
#[inline]
pub(crate) fn stamp(frame: &mut [u8], number: u64) {
    if let Some(place) = frame.get_mut(NUMBER) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// Looks at what comes back of our own frames.
#[derive(Default)]
pub(crate) struct EchoJudge {
    model: Vec<u8>,
    next: u64,
    seen: Seen,
}

impl EchoJudge {
    /// For frames of `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            model: frame(len),
            ..Self::default()
        }
    }

    /// Looks at every byte of a frame.
    pub(crate) fn look(&mut self, frame: &(impl Looked + ?Sized)) {
        let frame = &*frame.whole();
        self.seen.packets += 1;
        let number = frame
            .get(NUMBER)
            .and_then(|number| Some(u64::from_le_bytes(number.try_into().ok()?)));
        let right = frame.len() == self.model.len()
            && frame.get(..NUMBER.start) == self.model.get(..NUMBER.start)
            && frame.get(NUMBER.end..) == self.model.get(NUMBER.end..);
        match number.filter(|number| right && *number >= self.next) {
            Some(number) => {
                self.seen.missing += number - self.next;
                self.next = number + 1;
            }
            None => self.seen.bad += 1,
        }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }
}
