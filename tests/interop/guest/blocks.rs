//! A disk of the kernel's, written and read past its cache: `talker blocks WHAT DISK ...`.
//!
//! Each block holds which sectors it is and how often it was written, so that whoever reads it can tell a write that was
//! lost, that came twice, or that went elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use serde_json::{Value, json};

use crate::Done;
use crate::content;

/// Bytes of a block: what each write, read and zeroing here is a multiple of.
const BLOCK: usize = 4096;
/// Blocks of one request, at most.
const MOST: u64 = 32;
/// Blocks that one worker of a storm writes again and again.
const STRIPE: u64 = 128;
/// After so many requests a storm tells how many there were.
const TOLD: u64 = 100;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Does what the words say.
pub(crate) fn run(words: &[&str]) -> Done {
    match told(words) {
        Ok(told) => {
            println!("{told}");
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

fn told(words: &[&str]) -> Result<Value, Failure> {
    match *words {
        ["fill", disk, version, range] => each(disk, range, version.parse()?, true),
        ["hold", disk, version, range] => each(disk, range, version.parse()?, false),
        ["late", disk, version, range] => late(disk, range, version.parse()?),
        ["zero", disk, range, how] => zero(disk, range, how),
        ["storm", disk, workers, seed] => storm(disk, workers.parse()?, seed.parse()?),
        _ => Err("blocks fill|hold|late DISK VERSION RANGE | zero DISK RANGE keep|unmap | storm DISK WORKERS SEED".into()),
    }
}

/// A disk, open past the cache.
struct Disk(File);

impl Disk {
    fn open(path: &str) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_DIRECT.bits());
        Ok(Self(
            options
                .open(Path::new(path))
                .map_err(|e| format!("{path}: {e}"))?,
        ))
    }

    fn blocks(&self) -> Result<u64, Failure> {
        Ok((&self.0).seek(SeekFrom::End(0))? / BLOCK as u64)
    }

    fn write(&self, blocks: &Range<u64>, version: u64, room: &mut Room) -> Result<(), Failure> {
        let bytes = room.bytes(blocks);
        content::fill(bytes, sector(blocks.start), version);
        self.0
            .write_all_at(bytes, at(blocks.start))
            .map_err(|e| failed("write", blocks, &e))
    }

    fn read<'r>(&self, blocks: &Range<u64>, room: &'r mut Room) -> Result<&'r [u8], Failure> {
        let bytes = room.bytes(blocks);
        bytes.fill(0xee);
        self.0
            .read_exact_at(bytes, at(blocks.start))
            .map_err(|e| failed("read", blocks, &e))?;
        Ok(bytes)
    }

    fn flush(&self) -> Result<(), Failure> {
        Ok(self.0.sync_data().map_err(|e| format!("flush: {e}"))?)
    }

    /// WRITE_ZEROES: what is punched out may be unmapped, what is zeroed stays.
    fn zero(&self, blocks: &Range<u64>, unmap: bool) -> Result<(), Failure> {
        let how = match unmap {
            true => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            false => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        };
        let (from, len) = (at(blocks.start), at(blocks.end - blocks.start));
        let done = fallocate(&self.0, how, from.cast_signed(), len.cast_signed());
        done.map_err(|e| failed("zero", blocks, &e.into()))
    }
}

/// Bytes for a request, aligned as O_DIRECT asks.
struct Room(Vec<u8>);

impl Room {
    fn new() -> Self {
        Self(vec![0; (MOST as usize + 1) * BLOCK])
    }

    fn bytes(&mut self, blocks: &Range<u64>) -> &mut [u8] {
        let from = self.0.as_ptr().align_offset(BLOCK);
        &mut self.0[from..][..(blocks.end - blocks.start) as usize * BLOCK]
    }
}

/// Writes, or reads and compares, one version of a range of blocks.
fn each(disk: &str, range: &str, version: u64, write: bool) -> Result<Value, Failure> {
    let disk = Disk::open(disk)?;
    let (range, mut room) = (parse(range)?, Room::new());
    for first in range.clone().step_by(MOST as usize) {
        let blocks = first..(first + MOST).min(range.end);
        match write {
            true => disk.write(&blocks, version, &mut room)?,
            false => content::judge(disk.read(&blocks, &mut room)?, sector(first), version)?,
        }
    }
    disk.flush()?;
    Ok(json!({ "blocks": range.end - range.start, "version": version, "of": disk.blocks()? }))
}

/// Reads one version of a range of blocks at the first line on standard input, and compares at the second. Before the first
/// the memory for it is written, and nothing but the disk writes there after that. What was another one is told, not an error.
fn late(disk: &str, range: &str, version: u64) -> Result<Value, Failure> {
    let disk = Disk::open(disk)?;
    let range = parse(range)?;
    let parts = range.clone().step_by(MOST as usize);
    let mut parts: Vec<_> = parts
        .map(|first| (first..(first + MOST).min(range.end), Room::new()))
        .collect();
    for (blocks, room) in &mut parts {
        room.bytes(blocks).fill(0xee);
    }
    let next = |now: &str| {
        println!("{}", json!({ "waits": now }));
        std::io::stdin().read_line(&mut String::new())
    };
    next("to read")?;
    for (blocks, room) in &mut parts {
        let bytes = room.bytes(blocks);
        disk.0
            .read_exact_at(bytes, at(blocks.start))
            .map_err(|e| failed("read", blocks, &e))?;
    }
    next("to compare")?;
    let others = parts.iter_mut().filter_map(|(blocks, room)| {
        let bytes = room.bytes(blocks);
        content::judge(bytes, sector(blocks.start), version).err()
    });
    let others: Vec<_> = others.collect();
    Ok(json!({ "altered": others.len(), "of": parts.len(), "first": others.first() }))
}

fn zero(disk: &str, range: &str, how: &str) -> Result<Value, Failure> {
    let (disk, blocks) = (Disk::open(disk)?, parse(range)?);
    disk.zero(&blocks, how == "unmap")?;
    disk.flush()?;
    Ok(json!({ "zeroed": blocks.end - blocks.start }))
}

/// What all workers of a storm have done.
#[derive(Default)]
struct Count {
    requests: AtomicU64,
    /// Writes, reads, flushes, zeroings.
    kinds: [AtomicU64; 4],
}

/// Workers that write and read blocks of their own until a line comes on standard input; each knows what its blocks hold,
/// and compares. What all of them hold in the end is said block by block.
fn storm(disk: &str, workers: u64, seed: u64) -> Result<Value, Failure> {
    let disk = Disk::open(disk)?;
    let blocks = disk.blocks()?;
    if workers * STRIPE > blocks {
        return Err(format!(
            "{workers} workers need {} blocks, of {blocks}",
            workers * STRIPE
        )
        .into());
    }
    let enough = Arc::new(AtomicBool::new(false));
    let (count, line) = (Count::default(), Mutex::new(()));
    let said = Arc::clone(&enough);
    // Not one of the scope: nobody may ever say anything.
    thread::spawn(move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) && byte != *b"\n" {}
        said.store(true, Ordering::Relaxed);
    });
    let held = thread::scope(|scope| {
        let works = |number| {
            let mut worker = Worker::new(&disk, number, seed);
            let (enough, count, line) = (&enough, &count, &line);
            scope.spawn(move || {
                let done = worker.work(enough, count, line);
                // The others are not to go on without it.
                enough.store(true, Ordering::Relaxed);
                done.map(|()| worker.held)
            })
        };
        let workers: Vec<_> = (0..workers).map(works).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        let mut held = Vec::new();
        for worker in ended.collect::<Vec<_>>() {
            held.extend(worker.map_err(|_| "a worker panicked")??);
        }
        Ok::<_, Failure>(held)
    })?;
    let [writes, reads, flushes, zeroings] = count.kinds.map(AtomicU64::into_inner);
    Ok(json!({
        "writes": writes, "reads": reads, "flushes": flushes, "zeroings": zeroings, "versions": held,
    }))
}

/// One writer, and what its blocks hold.
struct Worker<'d> {
    disk: &'d Disk,
    first: u64,
    held: Vec<u64>,
    version: u64,
    dice: u64,
    room: Room,
}

impl<'d> Worker<'d> {
    fn new(disk: &'d Disk, number: u64, seed: u64) -> Self {
        Self {
            disk,
            first: number * STRIPE,
            held: vec![0; STRIPE as usize],
            version: 0,
            dice: seed ^ number.rotate_left(40),
            room: Room::new(),
        }
    }

    fn work(
        &mut self,
        enough: &AtomicBool,
        count: &Count,
        line: &Mutex<()>,
    ) -> Result<(), Failure> {
        let all = self.first..self.first + STRIPE;
        // So that nothing is there that nobody knows.
        self.disk.zero(&all, false)?;
        while !enough.load(Ordering::Relaxed) {
            let kind = self.request()?;
            count.kinds[kind].fetch_add(1, Ordering::Relaxed);
            let done = count.requests.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(TOLD) {
                let _whole = line.lock();
                println!("{}", json!({ "done": done }));
            }
        }
        self.disk.flush()?;
        for first in all.clone().step_by(MOST as usize) {
            self.compare(&(first..(first + MOST).min(all.end)))?;
        }
        Ok(())
    }

    fn request(&mut self) -> Result<usize, Failure> {
        let first = self.first + self.below(STRIPE);
        let most = MOST.min(self.first + STRIPE - first);
        let blocks = first..first + 1 + self.below(most);
        match self.below(16) {
            0..9 => {
                self.version += 1;
                self.disk.write(&blocks, self.version, &mut self.room)?;
                self.hold(&blocks, self.version);
                Ok(0)
            }
            9..13 => self.compare(&blocks).map(|()| 1),
            13..15 => self.disk.flush().map(|()| 2),
            _ => {
                let unmap = self.below(2) == 0;
                self.disk.zero(&blocks, unmap)?;
                self.hold(&blocks, 0);
                Ok(3)
            }
        }
    }

    fn hold(&mut self, blocks: &Range<u64>, version: u64) {
        for block in blocks.clone() {
            self.held[(block - self.first) as usize] = version;
        }
    }

    fn compare(&mut self, blocks: &Range<u64>) -> Result<(), Failure> {
        let bytes = self.disk.read(blocks, &mut self.room)?;
        for (bytes, block) in bytes.chunks_exact(BLOCK).zip(blocks.clone()) {
            let version = self.held[(block - self.first) as usize];
            content::judge(bytes, sector(block), version)?;
        }
        Ok(())
    }

    fn below(&mut self, end: u64) -> u64 {
        content::mixed(&mut self.dice) % end
    }
}

/// `FIRST+COUNT`, in blocks.
fn parse(range: &str) -> Result<Range<u64>, Failure> {
    let (first, count) = range
        .split_once('+')
        .ok_or("a range is FIRST+COUNT, in blocks")?;
    let first: u64 = first.parse()?;
    Ok(first..first + count.parse::<u64>()?)
}

fn sector(block: u64) -> u64 {
    block * (BLOCK / content::SECTOR) as u64
}

fn at(block: u64) -> u64 {
    block * BLOCK as u64
}

fn failed(what: &str, blocks: &Range<u64>, error: &std::io::Error) -> Failure {
    format!("{what} of blocks {blocks:?}: {error}").into()
}
