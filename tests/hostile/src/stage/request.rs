//! A request that is known to be good, and what has to come of it.

use super::Stage;
use super::opening::READ_SECTOR;
use crate::exchange::{self, NET_HEADER, SECTOR, block_header, frame, pattern};
use crate::raw::Piece;
use crate::table::Target;

/// What a writable part holds before the device writes it.
pub const UNTOUCHED: u8 = 0xee;

/// A known-good request, to be cut and bent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the readable part is, and how long.
    pub readable: (u64, u32),
    /// Where the writable part is, and how long.
    pub writable: (u64, u32),
}

impl Request {
    /// In one piece of each kind that it has.
    pub fn pieces(&self) -> Vec<Piece> {
        self.cut(0)
    }

    /// In `count` pieces, or as few as there can be: the readable part is cut if there is one, else the writable.
    pub fn cut(&self, count: usize) -> Vec<Piece> {
        let (read, write) = (self.readable, self.writable);
        let mut all = Vec::new();
        let parts = |(at, len): (u64, u32), count: usize| -> Vec<(u64, u32)> {
            // All of one byte, but for the last.
            let count = count.clamp(1, len.max(1) as usize) as u32;
            (0..count)
                .map(|i| (at + u64::from(i), if i + 1 == count { len - i } else { 1 }))
                .collect()
        };
        if read.1 != 0 {
            let others = usize::from(write.1 != 0);
            let parts = parts(read, count.saturating_sub(others));
            all.extend(parts.iter().map(|&(at, len)| Piece::read(at, len)));
        }
        if write.1 != 0 {
            let left = count.saturating_sub(all.len());
            let parts = parts(write, left);
            all.extend(parts.iter().map(|&(at, len)| Piece::write(at, len)));
        }
        all
    }
}

impl Stage {
    /// A request that is known to be good: read from buffer 0, written to buffer 2.
    pub fn request(&self) -> Request {
        self.request_at(0, 2)
    }

    /// The same, read from buffer `from` and written to buffer `to`.
    pub fn request_at(&self, from: usize, to: usize) -> Request {
        self.request_between(self.buffer(from), self.buffer(to))
    }

    /// The same, read from one of the device's addresses and written to another.
    pub fn request_between(&self, from: u64, to: u64) -> Request {
        let (readable, writable) = self.known_good();
        self.put(from, &readable);
        self.open_at(to, writable);
        // Whatever is found there later was written by this request.
        self.put(to, &vec![UNTOUCHED; writable]);
        Request {
            readable: (from, readable.len() as u32),
            writable: (to, writable as u32),
        }
    }

    /// What a known-good request has the device read, and how much it may write.
    pub fn known_good(&self) -> (Vec<u8>, usize) {
        match self.target {
            Target::Tx => ([&[0; NET_HEADER], frame(7, 64).as_slice()].concat(), 0),
            // Just large enough: every byte is used.
            Target::Rx => (Vec::new(), NET_HEADER + 64),
            // The MAC table: one unicast address, no multicast ones.
            Target::Ctrl => {
                let table = [1, 0, 1, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0];
                (table.to_vec(), 1)
            }
            Target::Blk => (block_header(exchange::IN, READ_SECTOR).to_vec(), SECTOR + 1),
        }
    }

    /// What a request that is known to be good came to, with its used length.
    pub fn verify(&mut self, request: &Request, len: u32) {
        let (_, writable) = self.known_good();
        let said = self.get(request.writable.0, writable);
        match self.target {
            Target::Tx => {
                assert_eq!(len, 0, "nothing is written to what is sent");
                let came = self.arrival();
                assert_eq!(came[NET_HEADER..], frame(7, 64), "the frame that arrived");
            }
            Target::Rx => {
                assert_eq!(len as usize, NET_HEADER + 64);
                assert_eq!(said[NET_HEADER..NET_HEADER + 64], frame(7, 64));
            }
            Target::Ctrl => assert_eq!((len, said.as_slice()), (1, &[0][..])),
            Target::Blk => {
                assert_eq!((len as usize, said[SECTOR]), (SECTOR + 1, 0));
                assert_eq!(said[..SECTOR], pattern(1, SECTOR), "the sector");
            }
        }
    }
}
