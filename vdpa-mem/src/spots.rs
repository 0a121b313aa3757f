//! Places that are looked at again and again: translated once for each publication of the table.
#![allow(
    unsafe_code,
    reason = "spans outlast their section here, and are given out only where they hold again"
)]

use std::mem::MaybeUninit;

use crate::table::Hint;
use crate::{Access, Bytes, Fault, Iova, Section};

/// `N` spans at addresses that stay the same, such as the areas of a ring: while the address space is unchanged,
/// [`find`](Self::find) costs one comparison and a copy of the spans, which it keeps from section to section.
pub struct Spots<const N: usize> {
    places: [(Iova, u32, Access); N],
    near: Hint,
    /// The table that the spans are of: its number, or 0 before there is one.
    table: u64,
    /// Initialised if `table` is not 0; valid while that table is.
    spans: [MaybeUninit<Bytes<'static>>; N],
}

// SAFETY: the spans are given out only inside a section, to the thread that is in it.
unsafe impl<const N: usize> Send for Spots<N> {}
// SAFETY: as above; a shared reference gives out nothing.
unsafe impl<const N: usize> Sync for Spots<N> {}

/// Why a spot cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unfit {
    /// Which one, counted as they were given.
    pub spot: usize,
    /// What is wrong with its address; `None`: it is mapped, but not in one piece of this process's memory.
    pub fault: Option<Fault>,
}

impl<const N: usize> Spots<N> {
    /// Spots at these addresses, of these lengths in bytes, for this access.
    pub const fn new(places: [(Iova, u32, Access); N]) -> Self {
        Self {
            places,
            near: Hint::NONE,
            table: 0,
            spans: [MaybeUninit::uninit(); N],
        }
    }

    /// The spans, each as long as its spot.
    ///
    /// # Errors
    /// [`Unfit`] with the first that is not mapped so, or not in one piece.
    #[inline]
    pub fn find<'s>(&mut self, section: &'s Section<'_>) -> Result<[Bytes<'s>; N], Unfit> {
        if self.table != section.table().number() {
            self.look(section)?;
        }
        // SAFETY: initialised from the very table of this section (no two have the same number), which keeps what it
        // translates alive as long as `'s`.
        Ok(self.spans.map(|span| unsafe { span.assume_init() }))
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, section: &Section<'_>) -> Result<(), Unfit> {
        // Half of them may be new when one is unfit.
        self.table = 0;
        for (spot, ((at, len, want), span)) in self.places.iter().zip(&mut self.spans).enumerate() {
            let unfit = |fault| Unfit { spot, fault };
            let found = section.translate(*at, *len, *want, &mut self.near);
            let found = found.map_err(|fault| unfit(Some(fault)))?;
            if found.len() != *len as usize {
                return Err(unfit(None));
            }
            // SAFETY: the lifetime alone differs, and `find` puts it right again.
            span.write(unsafe { std::mem::transmute::<Bytes<'_>, Bytes<'static>>(found) });
        }
        self.table = section.table().number();
        Ok(())
    }
}

impl<const N: usize> std::fmt::Debug for Spots<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.places).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::{AddressSpace, Deadline, DmaMemory, IovaRange, Mapping, Region};

    fn region() -> Arc<dyn DmaMemory> {
        Arc::new(Region::anonymous(0x2000).unwrap())
    }

    fn at(iova: u64, memory: &Arc<dyn DmaMemory>) -> Vec<Mapping> {
        vec![Mapping {
            iova: IovaRange::new(Iova::new(iova), 0x2000).unwrap(),
            memory: Arc::clone(memory),
            offset: 0,
            access: Access::Both,
            dirty: None,
        }]
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    fn spots() -> Spots<2> {
        Spots::new([
            (Iova::new(0x1000), 64, Access::DeviceReads),
            (Iova::new(0x2000), 16, Access::Both),
        ])
    }

    fn find(spots: &mut Spots<2>, space: &AddressSpace) -> Result<[u64; 2], Unfit> {
        let mut reader = space.reader();
        let section = reader.enter();
        let spans = spots.find(&section)?;
        assert_eq!(spans.map(|span| span.len()), [64, 16]);
        assert_eq!(spans.map(|span| span.is_writable()), [false, true]);
        // The memory is there: Miri looks.
        spans[1].write(0, &[7; 16]);
        Ok(spans.map(|span| span.hva().get()))
    }

    fn hva(memory: &Arc<dyn DmaMemory>) -> u64 {
        memory.hva().as_ptr() as u64
    }

    #[test]
    fn spots_follow_the_table() {
        let space = AddressSpace::new();
        let mut spots = spots();
        let missing = |spot| Unfit {
            spot,
            fault: Some(Fault::Miss),
        };
        assert_eq!(find(&mut spots, &space), Err(missing(0)));
        let (old, new) = (region(), region());
        space.map(at(0x1000, &old)).unwrap();
        for _ in 0..3 {
            let found = find(&mut spots, &space);
            assert_eq!(found, Ok([hva(&old), hva(&old) + 0x1000]));
        }
        space.replace(at(0x1000, &new), soon()).unwrap();
        drop(old);
        assert_eq!(
            find(&mut spots, &space),
            Ok([hva(&new), hva(&new) + 0x1000])
        );
        // The first goes, then both.
        space.replace(at(0x2000, &new), soon()).unwrap();
        assert_eq!(find(&mut spots, &space), Err(missing(0)));
        space.replace(at(0, &new), soon()).unwrap();
        assert_eq!(find(&mut spots, &space), Err(missing(1)));
        // Eight bytes of the second are left.
        space.replace(at(0x8, &new), soon()).unwrap();
        let cut = Unfit {
            spot: 1,
            fault: None,
        };
        assert_eq!(find(&mut spots, &space), Err(cut));
    }

    #[test]
    fn spots_of_one_space_are_not_anothers() {
        let mut spots = spots();
        let mut gone = Vec::new();
        // A table may be where one was before that is gone: its number is another all the same.
        for _ in 0..20 {
            let memory = region();
            let space = AddressSpace::new();
            space.map(at(0x1000, &memory)).unwrap();
            assert_eq!(
                find(&mut spots, &space),
                Ok([hva(&memory), hva(&memory) + 0x1000])
            );
            gone.push(memory);
        }
        assert_eq!(
            find(&mut spots, &AddressSpace::new()).map_err(|e| e.spot),
            Err(0)
        );
    }

    #[test]
    fn spots_are_printed_as_the_places_they_are() {
        let spots = Spots::new([(Iova::new(0x1000), 8, Access::Both)]);
        let shown = format!("{spots:?}");
        assert_eq!(shown, "[(Iova(0x1000), 8, Both)]");
    }
}
