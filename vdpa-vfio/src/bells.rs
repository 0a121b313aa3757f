//! Doorbells: the one thing that is written without a system call, and outlives what it rings.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use vdpa_core::{Doorbell, Result, Rung};
use vdpa_mem::Registers;
use vdpa_pci::Width;

use crate::region::Region;

/// The doorbells that were handed out since the last [`revoke`](Self::revoke).
#[derive(Default)]
pub(crate) struct Bells(Mutex<State>);

#[derive(Default)]
struct State {
    /// Pages that are mapped: by BAR, and where the page begins.
    pages: HashMap<(u8, u64), Arc<Registers>>,
    /// What doorbells without a page write through.
    gate: Option<Arc<Gate>>,
    /// None are made any more.
    closed: bool,
}

/// A way to the function's file that can be closed. Held for reading during a write.
struct Gate(RwLock<Option<Arc<File>>>);

/// A register that is rung.
pub(crate) struct Place {
    /// Its BAR.
    pub(crate) bar: u8,
    /// Its offset in bytes.
    pub(crate) at: u64,
    /// 16 or 32 bits.
    pub(crate) width: Width,
    /// What is written to the low 16 bits.
    pub(crate) name: u16,
    /// Where the page that it is in begins, if that can be mapped.
    pub(crate) page: Option<u64>,
}

impl Bells {
    /// A doorbell: a store to a mapped page, or where there is none, or the kernel does not map it after all, a system call.
    /// `None` once they are [closed](Self::close).
    ///
    /// * `page`: bytes of a page
    ///
    /// # Errors
    /// When a mapped page does not hold the register.
    pub(crate) fn doorbell(
        &self,
        device: &Arc<File>,
        region: &Region,
        place: &Place,
        page: u64,
    ) -> Result<Option<Doorbell>> {
        let mut state = self.lock();
        if state.closed {
            return Ok(None);
        }
        if let Some(first) = place.page {
            match state.page(device, region, place.bar, first, page) {
                Ok(registers) => return wired(registers, place, first).map(Some),
                Err(error) => tracing::warn!(
                    bar = place.bar,
                    at = place.at,
                    %error,
                    "cannot be mapped: each doorbell is a system call"
                ),
            }
        }
        let gate = state
            .gate
            .get_or_insert_with(|| Arc::new(Gate(RwLock::new(Some(Arc::clone(device))))));
        Ok(Some(called(Arc::clone(gate), region.clone(), place)))
    }

    /// Makes them all do nothing. A page that cannot be taken away for want of memory is tried again next time.
    pub(crate) fn revoke(&self) {
        self.lock().revoke();
    }

    /// Makes them all do nothing, and then does what they are in the way of, during which none are made.
    ///
    /// * `then`: makes no doorbell, nor revokes any
    pub(crate) fn revoke_for<T>(&self, then: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        state.revoke();
        then()
    }

    /// Makes them all do nothing, and makes none any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.revoke();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn revoke(&mut self) {
        self.pages
            .retain(|(bar, at), registers| match registers.revoke() {
                Ok(()) => false,
                Err(error) => {
                    tracing::error!(bar, at, %error, "a doorbell cannot be taken away");
                    true
                }
            });
        if let Some(gate) = self.gate.take() {
            // Waits for a write that is under way.
            let device = gate
                .0
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(device);
        }
    }

    fn page(
        &mut self,
        device: &File,
        region: &Region,
        bar: u8,
        first: u64,
        page: u64,
    ) -> std::io::Result<Arc<Registers>> {
        if let Some(registers) = self.pages.get(&(bar, first)) {
            return Ok(Arc::clone(registers));
        }
        let registers = region.map(device, first, page)?;
        self.pages.insert((bar, first), Arc::clone(&registers));
        Ok(registers)
    }
}

fn wired(registers: Arc<Registers>, place: &Place, first: u64) -> Result<Doorbell> {
    let rung = match place.width {
        Width::U32 => Rung::Data(place.name),
        Width::U16 | Width::U8 => Rung::Name(place.name),
    };
    Doorbell::from_registers(registers, place.at.saturating_sub(first), rung)
}

fn called(gate: Arc<Gate>, region: Region, place: &Place) -> Doorbell {
    let (at, width, name) = (place.at, place.width, u32::from(place.name));
    Doorbell::from_fn(move |data| {
        let device = gate.0.read().unwrap_or_else(PoisonError::into_inner);
        let value = match width {
            Width::U32 => (data & 0xffff_0000) | name,
            Width::U16 | Width::U8 => name,
        };
        // One that reaches nothing is a function that is gone, or is being reset: nobody is there to be told.
        if let Some(device) = &*device
            && let Err(error) = region.store(device, at, width, value)
        {
            tracing::debug!(at, %error, "a doorbell reached nothing");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn word(file: &File, at: u64) -> u32 {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// A file that stands for a function whose first region is two pages, the second of which cannot be mapped.
    fn device() -> (Arc<File>, Region) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * PAGE).unwrap();
        let mut reply = Vec::new();
        for word in [64u32, 7 | 8, 0, 32, 0x2000, 0, 0x1000, 0] {
            reply.extend(word.to_ne_bytes());
        }
        reply.extend(1u16.to_ne_bytes());
        reply.extend(1u16.to_ne_bytes());
        for word in [0u32, 1, 0, 0, 0, 0x1000, 0] {
            reply.extend(word.to_ne_bytes());
        }
        (Arc::new(file), Region::parse(&reply).unwrap())
    }

    fn place(region: &Region, at: u64, width: Width) -> Place {
        Place {
            bar: 0,
            at,
            width,
            name: 5,
            page: region.page(at, PAGE, None),
        }
    }

    #[test]
    fn a_doorbell_is_a_store_or_a_system_call_and_nothing_once_revoked() {
        let (file, region) = device();
        let bells = Bells::default();
        let ring = |at, width| {
            let place = place(&region, at, width);
            bells
                .doorbell(&file, &region, &place, PAGE)
                .unwrap()
                .unwrap()
        };
        let all = [
            (0x10, Width::U16, ring(0x10, Width::U16)),
            (0x20, Width::U32, ring(0x20, Width::U32)),
            (0x1010, Width::U16, ring(0x1010, Width::U16)),
            (0x1020, Width::U32, ring(0x1020, Width::U32)),
        ];
        assert_eq!(bells.lock().pages.len(), 1, "one page serves both");
        for (at, width, doorbell) in &all {
            doorbell.ring(0x8003_0001);
            let rung = if *width == Width::U32 { 0x8003_0005 } else { 5 };
            assert_eq!(word(&file, 0x1000 + at), rung, "at {at:#x}");
        }
        bells.revoke();
        assert_eq!(Arc::strong_count(&file), 1, "nothing keeps it open");
        for (at, _, doorbell) in &all {
            region.store(&file, *at, Width::U32, 0).unwrap();
            doorbell.ring(0x8003_0001);
            assert_eq!(word(&file, 0x1000 + at), 0, "at {at:#x}");
        }
        let again = ring(0x10, Width::U16);
        again.ring(0);
        assert_eq!(word(&file, 0x1010), 5, "a new start has new ones");
        all[0].2.ring(0);
        bells.revoke();
    }

    #[test]
    fn a_doorbell_made_while_they_are_taken_away_is_not_left_live() {
        let (file, region) = device();
        let bells = Bells::default();
        let made = |at| {
            let place = place(&region, at, Width::U16);
            bells.doorbell(&file, &region, &place, PAGE).unwrap()
        };
        assert!(made(0x10).is_some());
        let busy = bells.revoke_for(|| bells.0.try_lock().is_err());
        assert!(busy, "one could be made before what it is in the way of");
        assert!(made(0x10).is_some(), "a new start has new ones");
        bells.close();
        assert!(made(0x10).is_none() && made(0x1010).is_none());
        assert_eq!(Arc::strong_count(&file), 1, "nothing keeps it open");
        bells.revoke();
        assert!(made(0x10).is_none(), "closed is closed");
    }
}
