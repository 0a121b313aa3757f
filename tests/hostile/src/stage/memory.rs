//! What the device sees, by its addresses, and tables in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::Stage;
use crate::guard::Arena;
use crate::raw::Piece;
use crate::watched::write_table;

impl Stage {
    /// The region that an address is in, and the offset in it.
    pub fn arena(&self, at: u64) -> Option<(&Arc<Arena>, usize)> {
        let [low, high] = &self.halves;
        [
            &self.buffers,
            low,
            high,
            &self.rom,
            &self.spare,
            &self.rings,
            &self.house,
        ]
        .into_iter()
        .find_map(|arena| Some((arena, arena.offset(at)?)))
    }

    /// For each piece of these bytes that is in one region.
    fn each(&self, mut at: u64, mut len: usize, mut act: impl FnMut(&Arena, usize, usize)) {
        while len != 0 {
            let Some((arena, offset)) = self.arena(at) else {
                panic!("{at:#x} is in no region of the stage")
            };
            let here = len.min((arena.end() - at) as usize);
            act(arena, offset, here);
            at += here as u64;
            len -= here;
        }
    }

    /// Writes bytes at the device's address.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        self.each(at, bytes.len(), |arena, offset, len| {
            let (now, later) = rest.split_at(len);
            arena.put(offset, now);
            rest = later;
        });
    }

    /// Reads bytes at the device's address.
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.each(at, len, |arena, offset, len| {
            bytes.extend(arena.get(offset, len))
        });
        bytes
    }

    /// From now on these bytes may change.
    pub fn open_at(&self, at: u64, len: usize) {
        self.each(at, len, |arena, offset, len| arena.open(offset, len));
    }

    /// Writes a table into buffer `i`, in the ring's format, and answers with the descriptor that points to it.
    pub fn table(&self, i: usize, pieces: &[Piece]) -> Piece {
        self.table_at(self.buffer(i), pieces)
    }

    /// The same at the device's address.
    pub fn table_at(&self, at: u64, pieces: &[Piece]) -> Piece {
        self.put(at, &write_table(&self.q, pieces));
        Piece::table(at, 16 * pieces.len() as u32)
    }

    /// A thread that writes one of these values after the other to each of the device's addresses, until it is dropped.
    /// The places are opened, and left with the first of them.
    pub fn flip<const N: usize>(&self, places: &[u64], values: &'static [[u8; N]]) -> Flip {
        let place = |at: &u64| {
            self.open_at(*at, N);
            let Some((arena, offset)) = self.arena(*at) else {
                panic!("{at:#x} is in no region of the stage")
            };
            (arena.window(), offset)
        };
        let places: Vec<_> = places.iter().map(place).collect();
        let write = move |value: &[u8; N]| {
            for (window, offset) in &places {
                window.bytes().write(*offset, value);
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("flip".into());
        let thread = thread.spawn(move || {
            while !seen.load(Ordering::SeqCst) {
                values.iter().for_each(&write);
                // Others want the core too.
                std::thread::yield_now();
            }
            values.first().into_iter().for_each(write);
        });
        Flip {
            stop,
            thread: Some(thread.expect("a thread")),
        }
    }
}

/// A thread that changes memory all the time, while it lives.
#[derive(Debug)]
pub struct Flip {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flip {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic of it was counted.
            let _panicked = thread.join();
        }
    }
}
