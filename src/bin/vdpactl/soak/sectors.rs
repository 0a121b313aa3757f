//! What is on a disk: sectors that say which they are and which version, and what each may hold.
//!
//! ```text
//!   sector:  mark 8 │ sector 8 │ version 8 │ anything 484 │ check of the above 4
//! ```
//! A part of the disk is used, in stripes from its first sector to its last. Of the requests under way no two are about
//! the same sector, unless both read, so what a sector holds is known: one thing, or one of several where a request was
//! cut off. It is always all of one of them.

use std::ops::Range;

use super::dice::Dice;

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
const MARK: [u8; 8] = *b"vdpasoak";
const CHECK_AT: usize = SECTOR - 4;
/// Sectors of a stripe, and how many stripes there are, at most.
const STRIPE: u64 = 64;
const STRIPES: u64 = 64;

/// What a sector holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Nobody knows: it was not written yet, or given up.
    Anything,
    /// Zeroes.
    Zeroes,
    /// This version.
    Version(u64),
}

/// Why what was read is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// An older version, or what was there before: a write was lost.
    Old(String),
    /// Neither this version nor another.
    Altered(String),
}

/// The sectors in use, numbered by places.
pub(crate) struct Sectors {
    cells: Vec<Cell>,
    stripes: Vec<Stripe>,
    /// Requests begin and end at multiples of so many.
    unit: u64,
    pool: Vec<u8>,
}

struct Stripe {
    place: usize,
    count: usize,
}

#[derive(Clone)]
struct Cell {
    sector: u64,
    is: Content,
    /// What it may hold as well.
    or: Vec<Content>,
    readers: u32,
    written: bool,
}

impl Sectors {
    /// Of a disk of `capacity` sectors, at least one `unit`.
    pub(crate) fn new(capacity: u64, unit: u64, dice: &mut Dice) -> Self {
        let unit = unit.max(1);
        let stripe = STRIPE
            .next_multiple_of(unit)
            .min(capacity - capacity % unit);
        let count = (capacity / stripe.max(1)).clamp(1, STRIPES);
        let mut cells = Vec::new();
        let mut stripes = Vec::new();
        for number in 0..count {
            // From the first sector to the last one.
            let last = capacity.saturating_sub(stripe);
            let sector = u128::from(last) * u128::from(number) / u128::from((count - 1).max(1));
            let sector = sector as u64 / unit * unit;
            stripes.push(Stripe {
                place: cells.len(),
                count: stripe as usize,
            });
            cells.extend((sector..sector + stripe).map(|sector| Cell {
                sector,
                is: Content::Anything,
                or: Vec::new(),
                readers: 0,
                written: false,
            }));
        }
        let words = SECTOR / 4;
        Self {
            cells,
            stripes,
            unit,
            pool: (0..words).flat_map(|_| dice.next().to_le_bytes()).collect(),
        }
    }

    /// The stripes, as places.
    pub(crate) fn stripes(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let ranges = self.stripes.iter().map(|s| s.place..s.place + s.count);
        ranges.collect::<Vec<_>>().into_iter()
    }

    /// The sector of a place.
    pub(crate) fn sector(&self, place: usize) -> u64 {
        self.cells[place].sector
    }

    /// Some places of one stripe, at most `most`.
    pub(crate) fn pick(&self, dice: &mut Dice, most: usize) -> Range<usize> {
        let stripe = &self.stripes[dice.below(self.stripes.len() as u64) as usize];
        let unit = self.unit as usize;
        let units = (stripe.count / unit).max(1) as u64;
        let first = dice.below(units);
        let most = (most / unit).max(1) as u64;
        let len = dice.between(1, (units - first).min(most));
        let begin = stripe.place + first as usize * unit;
        begin..begin + len as usize * unit
    }

    /// Whether a request may be about these places now.
    pub(crate) fn is_free(&self, places: &Range<usize>, writes: bool) -> bool {
        let free = |cell: &Cell| !cell.written && (!writes || cell.readers == 0);
        self.cells[places.clone()].iter().all(free)
    }

    /// A request about these places is under way.
    pub(crate) fn begin(&mut self, places: &Range<usize>, writes: bool) {
        for cell in &mut self.cells[places.clone()] {
            match writes {
                true => cell.written = true,
                false => cell.readers += 1,
            }
        }
    }

    /// It is so no more.
    pub(crate) fn end(&mut self, places: &Range<usize>, writes: bool) {
        for cell in &mut self.cells[places.clone()] {
            match writes {
                true => cell.written = false,
                false => cell.readers = cell.readers.saturating_sub(1),
            }
        }
    }

    /// These places hold this now.
    pub(crate) fn hold(&mut self, places: &Range<usize>, content: Content) {
        for cell in &mut self.cells[places.clone()] {
            cell.is = content;
            cell.or.clear();
        }
    }

    /// Each of these places may hold this now.
    pub(crate) fn may_hold(&mut self, places: &Range<usize>, content: Content) {
        for cell in &mut self.cells[places.clone()] {
            cell.or.push(content);
        }
    }

    /// What one place holds, where that is known.
    pub(crate) fn content(&self, place: usize) -> Content {
        let cell = &self.cells[place];
        match cell.or.is_empty() {
            true => cell.is,
            false => Content::Anything,
        }
    }

    /// The bytes of a version of these places.
    pub(crate) fn write(&self, places: &Range<usize>, version: u64, to: &mut Vec<u8>) {
        for cell in &self.cells[places.clone()] {
            self.write_one(cell.sector, version, to);
        }
    }

    /// The bytes of one place as it is known to be; zeroes where nobody knows.
    pub(crate) fn write_known(&self, place: usize, to: &mut Vec<u8>) {
        match self.content(place) {
            Content::Version(version) => self.write_one(self.cells[place].sector, version, to),
            _ => to.resize(to.len() + SECTOR, 0),
        }
    }

    /// Whether these places may hold what was read; then that is what they hold.
    pub(crate) fn judge(&mut self, places: &Range<usize>, read: &[u8]) -> Result<(), Wrong> {
        let mut expected = Vec::with_capacity(SECTOR);
        for (place, bytes) in places.clone().zip(read.chunks(SECTOR)) {
            let cell = &self.cells[place];
            let mut found = None;
            for content in std::iter::once(&cell.is).chain(&cell.or) {
                let right = match content {
                    Content::Anything => true,
                    Content::Zeroes => bytes.iter().all(|byte| *byte == 0),
                    Content::Version(version) => {
                        expected.clear();
                        self.write_one(cell.sector, *version, &mut expected);
                        expected == bytes
                    }
                };
                if right {
                    found = Some(*content);
                    break;
                }
            }
            let Some(content) = found else {
                return Err(self.explain(cell, bytes));
            };
            let cell = &mut self.cells[place];
            if !cell.or.is_empty() {
                cell.is = content;
                cell.or.clear();
            }
        }
        if read.len() != places.len() * SECTOR {
            let (wanted, len) = (places.len() * SECTOR, read.len());
            return Err(Wrong::Altered(format!(
                "{len} bytes were read, not {wanted}"
            )));
        }
        Ok(())
    }

    fn write_one(&self, sector: u64, version: u64, to: &mut Vec<u8>) {
        let begin = to.len();
        to.extend_from_slice(&MARK);
        to.extend_from_slice(&sector.to_le_bytes());
        to.extend_from_slice(&version.to_le_bytes());
        let from = (sector.wrapping_mul(7) ^ version.wrapping_mul(31)) % SECTOR as u64;
        to.extend_from_slice(&self.pool[from as usize..][..CHECK_AT - 24]);
        let check = crc32fast::hash(&to[begin..]);
        to.extend_from_slice(&check.to_le_bytes());
    }

    fn explain(&self, cell: &Cell, bytes: &[u8]) -> Wrong {
        let sector = cell.sector;
        let mut may: Vec<String> = vec![name(cell.is)];
        may.extend(cell.or.iter().map(|content| name(*content)));
        let may = may.join(" or ");
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 8).unwrap_or(&[0; 8]);
            u64::from_le_bytes(bytes.try_into().unwrap_or_default())
        };
        let (theirs, version) = (word(8), word(16));
        let mut whole = Vec::new();
        self.write_one(theirs, version, &mut whole);
        if bytes.iter().all(|byte| *byte == 0) {
            return Wrong::Old(format!("sector {sector} holds zeroes, not {may}"));
        }
        if whole != bytes {
            return Wrong::Altered(format!("sector {sector} holds no version, not {may}"));
        }
        match theirs == sector {
            true => Wrong::Old(format!(
                "sector {sector} holds version {version}, not {may}"
            )),
            false => Wrong::Altered(format!(
                "sector {sector} holds version {version} of sector {theirs}, not {may}"
            )),
        }
    }
}

fn name(content: Content) -> String {
    match content {
        Content::Anything => "anything".to_owned(),
        Content::Zeroes => "zeroes".to_owned(),
        Content::Version(version) => format!("version {version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors() -> Sectors {
        Sectors::new(100_000, 1, &mut Dice::new(1, 0))
    }

    fn bytes(sectors: &Sectors, places: &Range<usize>, version: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        sectors.write(places, version, &mut bytes);
        bytes
    }

    #[test]
    fn stripes_are_on_the_disk_aligned_and_apart() {
        for (capacity, unit) in [
            (1, 1),
            (64, 1),
            (100, 8),
            (5000, 1),
            (131_072, 8),
            (1 << 40, 128),
        ] {
            let sectors = Sectors::new(capacity, unit, &mut Dice::new(1, 0));
            let all: Vec<u64> = sectors.cells.iter().map(|cell| cell.sector).collect();
            assert!(all.windows(2).all(|two| two[0] < two[1]), "{capacity}");
            assert!(all.last().is_some_and(|last| *last < capacity));
            assert_eq!(all.first(), Some(&0));
            let mut dice = Dice::new(2, 0);
            for _ in 0..200 {
                let places = sectors.pick(&mut dice, 16);
                assert!(!places.is_empty());
                assert_eq!(sectors.sector(places.start) % unit, 0);
                assert_eq!(places.len() as u64 % unit, 0);
            }
        }
    }

    #[test]
    fn a_sector_holds_what_was_written_and_nothing_else() {
        let mut sectors = sectors();
        let places = 3..5;
        sectors.hold(&places, Content::Version(7));
        let right = bytes(&sectors, &places, 7);
        assert_eq!(sectors.judge(&places, &right), Ok(()));
        let old = bytes(&sectors, &places, 6);
        assert!(matches!(sectors.judge(&places, &old), Err(Wrong::Old(_))));
        let zeroes = vec![0; 2 * SECTOR];
        assert!(matches!(
            sectors.judge(&places, &zeroes),
            Err(Wrong::Old(_))
        ));
        let other = bytes(&sectors, &(4..6), 7);
        let judged = sectors.judge(&places, &other);
        assert!(matches!(judged, Err(Wrong::Altered(_))), "{judged:?}");
        for bit in 0..SECTOR * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(sectors.judge(&places, &wrong).is_err(), "bit {bit}");
        }
        assert!(sectors.judge(&places, &right[..SECTOR]).is_err(), "short");
    }

    #[test]
    fn what_was_cut_off_is_done_or_not_but_never_half() {
        let mut sectors = sectors();
        let places = 0..2;
        sectors.hold(&places, Content::Version(1));
        sectors.may_hold(&places, Content::Version(2));
        let (old, new) = (bytes(&sectors, &places, 1), bytes(&sectors, &places, 2));
        let mixture = [&new[..256], &old[256..]].concat();
        assert!(sectors.judge(&places, &mixture).is_err());
        // One sector is new and the other old; then that is how it stays.
        let both = [&new[..SECTOR], &old[SECTOR..]].concat();
        assert_eq!(sectors.judge(&places, &both), Ok(()));
        assert_eq!(sectors.judge(&places, &both), Ok(()));
        assert!(sectors.judge(&places, &old).is_err());
        sectors.may_hold(&places, Content::Zeroes);
        assert_eq!(sectors.judge(&places, &vec![0; 2 * SECTOR]), Ok(()));
    }

    #[test]
    fn no_two_requests_are_about_one_sector_unless_both_read() {
        let mut sectors = sectors();
        sectors.begin(&(0..4), false);
        assert!(sectors.is_free(&(2..6), false) && !sectors.is_free(&(2..6), true));
        sectors.begin(&(4..6), true);
        assert!(!sectors.is_free(&(2..6), false) && sectors.is_free(&(0..4), false));
        sectors.end(&(0..4), false);
        sectors.end(&(4..6), true);
        assert!(sectors.is_free(&(0..6), true));
    }
}
